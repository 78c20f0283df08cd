// The list of runs: keeps each row up to date, and adds new rows at the top.

import { Live, connectionShower, showProgress, showStatus } from "./live.js";

const list = document.getElementById("runs");
const isFirstPage = list.dataset.isFirstPage === "true";
const FINISHED = ["complete", "error", "canceled"];
let newest = [...list.children].map((row) => row.id).sort().at(-1) ?? "";
const show = connectionShower(document.getElementById("connection"));

new Live({
  path: list.dataset.socket,
  pollUrl: list.dataset.poll,
  onState: show,
  onMessage(message) {
    const activities = message.activities ?? message.body?.items ?? (message.activity ? [message.activity] : []);
    // The oldest first, since each new row goes to the top.
    for (const activity of [...activities].sort((a, b) => (a.agent_id < b.agent_id ? -1 : 1))) update(activity);
  },
});

function update(activity) {
  const row = document.getElementById(`run-${activity.agent_id}`) ?? added(activity);
  // Rows that had ended at page load show the headline of their result, which lists do not send.
  if (!row || (row.className === activity.status && FINISHED.includes(activity.status))) return;
  row.className = activity.status;
  showStatus(row.querySelector("[data-status]"), activity.status);
  showProgress(row.querySelector(".bar"), activity.percentage);
  row.querySelector("[data-percent]").textContent = `${activity.percentage}%`;
  row.querySelector(".latest").textContent = activity.error || activity.latest_log_message || "";
}

function added(activity) {
  // Ids are time-ordered. An activity that is older than all rows belongs to another page.
  if (!isFirstPage || `run-${activity.agent_id}` < newest) return null;
  newest = `run-${activity.agent_id}`;
  const row = document.getElementById("run-row").content.firstElementChild.cloneNode(true);
  row.id = `run-${activity.agent_id}`;
  const link = row.querySelector("a");
  link.href = list.dataset.run.replace("00000000-0000-0000-0000-000000000000", activity.agent_id);
  link.textContent = activity.metadata.title ?? activity.agent_type;
  row.querySelector("[data-task]").textContent = activity.agent_type;
  row.querySelector(".bar").setAttribute("aria-label", `Progress of ${link.textContent}`);
  list.prepend(row);
  document.getElementById("nothing")?.remove();
  return row;
}

// Either a document is picked or a file is uploaded: each choice clears the other.
const upload = document.getElementById("id_upload");
const kind = document.getElementById("kind");
for (const choice of document.querySelectorAll('input[name="document"]')) {
  choice.addEventListener("change", () => {
    upload.value = "";
    kind.hidden = choice.dataset.kind !== "";
  });
}
upload?.addEventListener("change", () => {
  for (const choice of document.querySelectorAll('input[name="document"]')) choice.checked = false;
  kind.hidden = false;
});
