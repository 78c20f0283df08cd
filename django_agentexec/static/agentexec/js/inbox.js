/**
 * The inbox of approvals: the bar of the selected calls appears with the first, and only calls of one tool go together.
 * @module inbox
 */

const root = document.getElementById("ae-inbox");
const bar = root.querySelector("[data-bulk]");
const boxes = [...root.querySelectorAll("input[name=selected]")];

function update() {
  const chosen = boxes.filter((box) => box.checked);
  const tool = chosen[0]?.dataset.tool;
  for (const box of boxes) box.disabled = tool !== undefined && box.dataset.tool !== tool;
  bar.hidden = !chosen.length;
  bar.querySelector("[data-selected]").textContent = tool === undefined ? "" : `${chosen.length} × ${tool}`;
}

if (bar) {
  root.addEventListener("change", update);
  update();
}
