// The page of one run: moves the bar, appends the log, shows the permitted actions, and fetches the result at the end.

import { Live, connectionShower, showProgress, showStatus } from "./live.js";

const page = document.getElementById("run");
const part = (name) => page.querySelector(`[data-part="${name}"]`);
const ACTIVE = ["queued", "running"];
const MAX_STREAMED = 4000; // characters of streamed text that are kept on the page

let lastLogId = Number(page.dataset.lastLogId);
let lastStreamId = "";
let fence = null; // of the shown text; under another fence the text starts again
let pieces = []; // of the shown text: each with its label
let state = { status: page.dataset.status, started_at: page.dataset.startedAt, finished_at: page.dataset.finishedAt };
let attempt = Number(page.dataset.attempt);

const live = new Live({
  path: page.dataset.socket,
  pollUrl: page.dataset.poll,
  resume: () => `after=${lastLogId}${lastStreamId && `&stream_after=${encodeURIComponent(lastStreamId)}`}`,
  onState: connectionShower(part("connection")),
  onMessage(message) {
    if (message.type === "approval") return;
    if (["delta", "gap", "text", "retract", "rewind"].includes(message.type)) return stream(message);
    const activity = message.type === "poll" ? message.body : message.activity;
    if (!activity || activity.agent_id !== page.dataset.id) return;
    if ((activity.waiting_for ?? "") !== page.dataset.waitingFor) return location.reload(); // shows or removes the decision
    append(message.logs ?? activity.logs ?? []);
    show(activity);
  },
});

function show(activity) {
  const before = state;
  state = activity;
  page.dataset.status = activity.status;
  part("state").className = activity.status;
  showStatus(part("status"), activity.status);
  showProgress(part("bar"), activity.percentage);
  part("percent").textContent = `${activity.percentage}%`;
  part("now").textContent = activity.error || activity.latest_log_message || "";
  part("attempt").textContent = activity.attempt;
  const tokens = activity.usage?.total_tokens;
  part("tokens").textContent = tokens ? tokens.toLocaleString("en") : "–";
  if (activity.attempt !== attempt) stream(null);
  attempt = activity.attempt;
  offer(activity.status);
  tick();
  document.title = `${ACTIVE.includes(activity.status) ? `${activity.percentage}% ` : ""}${page.dataset.title}`;
  if (activity.status !== before.status) ended(activity.status);
}

function append(logs) {
  for (const log of logs) {
    if (log.id <= lastLogId) continue;
    lastLogId = log.id;
    const line = document.getElementById("log-line").content.firstElementChild.cloneNode(true);
    const time = line.querySelector("time");
    time.dateTime = log.created_at;
    time.textContent = new Date(log.created_at).toISOString().slice(11, 19);
    line.querySelector("[data-message]").textContent = log.truncated ? `${log.message}…` : log.message;
    line.querySelector(".number").textContent = `${log.percentage}%`;
    part("log").append(line);
  }
}

/** Show the streamed text of the model; null clears it. */
function stream(message) {
  const text = part("stream");
  if (message) {
    lastStreamId = message.stream_id ?? lastStreamId; // only the last part of a long piece has one
    if (!ACTIVE.includes(state.status)) return; // a replay of text that is in the result
    pieces = streamed(message);
    text.textContent = withHeadings(pieces).slice(-MAX_STREAMED);
    text.scrollTop = text.scrollHeight;
  } else {
    pieces = [];
    text.textContent = "";
  }
  part("streaming").hidden = !text.textContent;
}

/** Return the pieces of text to show after `message`. */
function streamed(message) {
  if (message.type === "retract") return [];
  if (message.type === "gap") return added("", " [\u2026] ");
  if (message.type === "text") return [{ label: "", text: (message.offset ? withHeadings(pieces) : "") + message.text }];
  if (fence !== null && message.fence !== fence) pieces = [];
  fence = message.fence;
  return message.type === "rewind" ? rewound(message.label ?? "", message.position) : added(message.label ?? "", message.text);
}

function added(label, text) {
  const last = pieces.at(-1);
  if (last && (last.label === label || !label)) return [...pieces.slice(0, -1), { ...last, text: last.text + text }];
  return [...pieces, { label, text }];
}

/** Remove the text with this label after so many characters (of Unicode, not of UTF-16). */
function rewound(label, position) {
  let left = position;
  return pieces.map((piece) => {
    if (piece.label !== label) return piece;
    const kept = [...piece.text].slice(0, left);
    left -= kept.length;
    return { label, text: kept.join("") };
  });
}

function withHeadings(shown) {
  const written = shown.filter((piece) => piece.text);
  return written.map(({ label, text }, place) => (place && label ? `\n\n${label}:\n${text}` : text)).join("");
}

function offer(status) {
  const cancel = part("cancel");
  const retry = part("retry");
  if (cancel) cancel.hidden = !ACTIVE.includes(status);
  if (retry) retry.hidden = !["error", "canceled"].includes(status);
  for (const button of page.querySelectorAll("form[data-verb] button")) button.disabled = false;
}

async function ended(status) {
  const result = part("result");
  if (ACTIVE.includes(status)) {
    result.replaceChildren();
    return;
  }
  stream(null);
  const response = await fetch(page.dataset.result, { headers: { "X-Requested-With": "fetch" } });
  if (response.ok && !response.redirected && state.status === status) result.innerHTML = await response.text();
}

for (const form of page.querySelectorAll("form[data-verb]")) {
  form.addEventListener("submit", async (event) => {
    if (!live.isOpen) return; // the form is submitted, and redirects to this page
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    part("trouble").hidden = true;
    try {
      await live.ask({ [form.dataset.verb]: page.dataset.id });
    } catch (error) {
      part("trouble").textContent = error.message;
      part("trouble").hidden = false;
      button.disabled = false;
    }
  });
}

function tick() {
  const start = Date.parse(state.started_at);
  if (!start) {
    part("took").textContent = "–";
    return;
  }
  const end = Date.parse(state.finished_at) || Date.now();
  const seconds = Math.max(0, Math.round((end - start) / 1000));
  part("took").textContent = seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

tick();
setInterval(() => ACTIVE.includes(state.status) && !document.hidden && tick(), 1000);
