// Shows the JSON schema and an example of the selected task beside the editor of a schedule's context. Inserts the
// example into an editor that was not edited yet.
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
