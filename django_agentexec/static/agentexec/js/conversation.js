/**
 * The page of a conversation: follows its turns, shows the text of a running turn, and sends messages.
 * @module conversation
 */

import { Announcer } from "./connection.js";
import { element, setText } from "./dom.js";
import { Feed } from "./feed.js";
import { LivePage } from "./live_page.js";
import { text } from "./text.js";

const MAX_STREAM = 20_000; // characters of streaming text

const root = document.getElementById("ae-conversation-page");
const find = (selector) => root.querySelector(selector);
const turns = (place = root) => [...place.querySelectorAll("[data-turn]")];
const announcer = new Announcer(find("[data-announce]"));
const streams = new Map();
let streaming = "";
let isPostponed = false;
const feed = new Feed(() => streaming && `${root.dataset.socket}${streaming}/`, { message: receive, open() {}, closed() {} });

/** Take the fresh page: later while somebody types into a turn, and with what was typed into it before. */
function apply(page) {
  const next = page.getElementById("ae-conversation-page");
  if (!next) return;
  const focused = find("[data-turns]").contains(document.activeElement) ? document.activeElement : null;
  isPostponed = focused?.matches("input[type=text], textarea") ?? false;
  if (isPostponed) return;
  const focus = focused && positionOf(focused);
  const [before, after] = [turns().length, turns(next).length];
  const open = new Set([...root.querySelectorAll("[data-turns] details[open]")].map(placeOf));
  const edited = turns().find(isEdited);
  const same = edited && turns(next).find((turn) => turn.dataset.turn === edited.dataset.turn && isSame(turn, edited));
  if (edited && same) same.replaceWith(edited);
  find("[data-turns]").replaceWith(document.adoptNode(next.querySelector("[data-turns]")));
  for (const details of root.querySelectorAll("[data-turns] details")) if (open.has(placeOf(details))) details.open = true;
  find("[data-facts]").replaceWith(document.adoptNode(next.querySelector("[data-facts]")));
  if (focus) controlsOf(focus.turn)[focus.index]?.focus();
  if (after > before) announcer.announce(text("new_turn"));
  follow();
}

/** The position of a control, to find it in fresh content. */
function positionOf(control) {
  const turn = control.closest("[data-turn]")?.dataset.turn;
  return { turn, index: controlsOf(turn).indexOf(control) };
}

function controlsOf(key) {
  const turn = turns().find((each) => each.dataset.turn === key);
  return turn ? [...turn.querySelectorAll("a, button, summary, input, textarea, [tabindex]")] : [];
}

/** Whether a turn waits for the same decisions in both pages, so that what was typed still has its place. */
function isSame(one, other) {
  const ids = (turn) => [...turn.querySelectorAll("[data-approval]")].map((card) => card.dataset.approval).join();
  return ids(one) === ids(other);
}

function isEdited(turn) {
  return [...turn.querySelectorAll("input[type=text], textarea")].some((field) => field.value !== field.defaultValue);
}

function placeOf(details) {
  const turn = details.closest("[data-turn]");
  return turn ? `${turn.dataset.turn} ${[...turn.querySelectorAll("details")].indexOf(details)}` : "";
}

/** Follow the text of the turn that runs. */
function follow() {
  const active = find("[data-turn][data-is-active]")?.dataset.activity ?? "";
  if (active !== streaming) {
    feed.stop();
    streams.clear();
    streaming = active;
  }
  if (root.dataset.socket && streaming && !document.hidden) feed.start();
  show();
}

function receive(message) {
  const label = message.label ?? "";
  if (message.type === "delta") streams.set(label, ((streams.get(label) ?? "") + message.text).slice(-MAX_STREAM));
  else if (message.type === "rewind" && message.position) streams.set(label, (streams.get(label) ?? "").slice(0, message.position));
  else if (message.type === "rewind" || message.type === "retract") streams.clear();
  else return;
  show();
}

function show() {
  const turn = streaming && find(`[data-turn][data-activity="${CSS.escape(streaming)}"][data-is-active]`);
  const written = [...streams.values()].join("\n\n");
  if (!turn || !written) return;
  const place = turn.querySelector(".ae-stream") ?? element("p", { class: "ae-stream", "aria-live": "off" });
  if (!place.isConnected) turn.querySelector("footer").before(place);
  setText(place, written);
}

root.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || !event.target.matches("[data-compose] textarea")) return;
  event.preventDefault();
  event.target.form.requestSubmit();
});
root.addEventListener("submit", (event) => {
  // A second click would send the message again.
  if (event.target.matches("[data-compose]")) for (const button of event.target.querySelectorAll("button")) button.disabled = true;
});

if ("isLive" in root.dataset) {
  const loaded = Date.parse(root.dataset.loadedAt);
  const live = new LivePage({
    socket: root.dataset.socket,
    connection: find("[data-connection]"),
    concerns: (activity) => Date.parse(activity.created_at) > loaded || turns().some((turn) => turn.dataset.activity === activity.agent_id),
    apply,
  });
  follow();
  document.addEventListener("visibilitychange", follow);
  root.addEventListener("focusout", () => isPostponed && live.refreshSoon());
}
