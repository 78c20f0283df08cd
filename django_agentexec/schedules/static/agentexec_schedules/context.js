// Beside the editor of a schedule's context: what the chosen task takes. An editor that nothing was written into
// gets the task's example to start from.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const data = document.getElementById("agentexec-contexts");
  const help = document.querySelector(".agentexec-context-help");
  const task = document.getElementById("id_task");
  if (!data || !help || !task) {
    return;
  }
  const contexts = JSON.parse(data.textContent);
  const editor = document.getElementById(help.dataset.for);
  const untouched = new Set(["", "{}", ...Object.values(contexts).map((context) => context.example)]);

  task.addEventListener("change", () => {
    const context = contexts[task.value];
    help.hidden = !context;
    if (!context) {
      return;
    }
    help.querySelector(".agentexec-example").textContent = context.example;
    help.querySelector(".agentexec-schema").textContent = context.schema;
    if (untouched.has(editor.value.trim())) {
      editor.value = context.example;
    }
  });
});
