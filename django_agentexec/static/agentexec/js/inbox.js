/**
 * The inbox of approvals: the bar of the selected calls appears with the first, and only calls of one tool go together.
 *
 * While it is open, new requests wait for a click, so that no button moves below the pointer, and requests that others
 * have decided are marked.
 * @module inbox
 */

import { Announcer } from "./connection.js";
import { element, setText } from "./dom.js";
import { count } from "./format.js";
import { LivePage } from "./live_page.js";
import { text } from "./text.js";

const root = document.getElementById("ae-inbox");
const find = (selector) => root.querySelector(selector);
const cards = (place = root) => [...place.querySelectorAll("[data-approval]")];
const DECISIONS = ["approval", "answer"];

let fresh = null;

function update() {
  const bar = find("[data-bulk]");
  if (!bar) return;
  const boxes = [...root.querySelectorAll("input[name=selected]")].filter((box) => !box.closest("[inert]"));
  const chosen = boxes.filter((box) => box.checked);
  const tool = chosen[0]?.dataset.tool;
  for (const box of boxes) box.disabled = tool !== undefined && box.dataset.tool !== tool;
  bar.hidden = !chosen.length;
  setText(bar.querySelector("[data-selected]"), tool === undefined ? "" : `${chosen.length} × ${tool}`);
}

/** Take the fresh page: its numbers at once, decided requests as marks, and new requests after a click. */
function apply(page) {
  const next = page.getElementById("ae-inbox");
  if (!next) return;
  for (const selector of [".ae-tabs", "#ae-inbox .ae-seg"]) {
    const [old, now] = [document.querySelector(selector), page.querySelector(selector)];
    if (old && now && !old.contains(document.activeElement)) old.replaceWith(document.adoptNode(now));
  }
  const waiting = new Map(cards(next).map((card) => [card.dataset.approval, card]));
  const present = new Set(cards().map((card) => card.dataset.approval));
  cards().filter((card) => !waiting.has(card.dataset.approval) && !card.inert).forEach(markGone);
  const added = [...waiting.keys()].filter((id) => !present.has(id)).length;
  fresh = added ? next : null;
  const button = find("[data-show-new]");
  button.hidden = !added;
  if (!added) return update();
  if (!present.size) return showFresh(); // nothing that could move
  setText(button, text("show_new", { count: count(added) }));
  announcer.announce(text("new_requests", { count: count(added) }));
  update();
}

function markGone(card) {
  const hadFocus = card.contains(document.activeElement);
  card.inert = true;
  card.dataset.gone = "";
  card.querySelector(".ae-decision").prepend(element("p", { class: "ae-gone" }, element("b", {}, text("no_longer_waiting"))));
  for (const box of card.querySelectorAll("input[name=selected]")) box.checked = false;
  if (hadFocus) announcer.announce(text("no_longer_waiting"));
}

/** Show the fresh list. Cards that the page has keep what was typed into them. */
function showFresh() {
  const known = new Map(cards().filter((card) => !card.inert).map((card) => [card.dataset.approval, card]));
  const next = fresh;
  fresh = null;
  for (const card of cards(next)) known.has(card.dataset.approval) && card.replaceWith(known.get(card.dataset.approval));
  find("[data-list]").replaceWith(document.adoptNode(next.querySelector("[data-list]")));
  find("[data-show-new]").hidden = true;
  update();
}

const announcer = new Announcer(find("[data-announce]"));
root.addEventListener("change", update);
update();
if ("isLive" in root.dataset) {
  find("[data-show-new]").addEventListener("click", showFresh);
  new LivePage({
    socket: root.dataset.socket,
    connection: find("[data-connection]"),
    concerns: (activity) => DECISIONS.includes(activity.waiting_for) || cards().some((card) => card.dataset.activity === activity.agent_id),
    apply,
  });
}
