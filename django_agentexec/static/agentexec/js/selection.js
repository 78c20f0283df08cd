/**
 * The selected rows of the list, and the bar of actions below it: each button counts the rows that it would change.
 * @module selection
 */

import { setText } from "./dom.js";
import { count } from "./format.js";
import { text } from "./text.js";

const POSSIBLE = {
  cancel: (row) => ["queued", "running"].includes(row.dataset.status),
  retry: (row) => "isRetryable" in row.dataset,
  delete: (row) => !["queued", "running"].includes(row.dataset.status),
};

/** Keeps the bar up to date. */
export class Selection {
  #root;
  #bar;
  #across;
  #labels = new Map();

  /**
   * @param {HTMLElement} root
   */
  constructor(root) {
    this.#root = root;
    this.#bar = root.querySelector("[data-bulk]");
    this.#across = root.querySelector("input[name=select_across]");
    if (!this.#bar) return;
    for (const button of this.#buttons()) this.#labels.set(button, button.textContent);
    root.addEventListener("change", (event) => this.#changed(event.target));
    this.#bar.querySelector("[data-select-across]")?.addEventListener("click", () => this.#toggleAcross());
    this.update();
  }

  /** Count again. */
  update() {
    if (!this.#bar) return;
    const rows = [...this.#root.querySelectorAll("tr[data-id]")].filter((row) => row.querySelector(".action-select:checked"));
    const isAcross = this.#across.value === "1";
    this.#bar.hidden = !rows.length;
    setText(this.#bar.querySelector("[data-selected]"), text("selected", { count: count(rows.length) }));
    const across = this.#bar.querySelector("[data-select-across]");
    if (across) {
      across.hidden = !rows.length;
      across.setAttribute("aria-pressed", String(isAcross));
    }
    for (const button of this.#buttons()) this.#writeButton(button, rows, isAcross);
  }

  #writeButton(button, rows, isAcross) {
    const kind = button.dataset.bulkAction;
    const possible = POSSIBLE[kind] ? rows.filter(POSSIBLE[kind]).length : rows.length;
    button.disabled = !isAcross && !possible;
    const label = POSSIBLE[kind] && !isAcross && possible ? text(`${kind}_count`, { count: count(possible) }) : this.#labels.get(button);
    setText(button, label);
  }

  #changed(target) {
    if (target.matches("[data-toggle-all]")) {
      for (const box of this.#root.querySelectorAll(".action-select")) box.checked = target.checked;
    }
    if (target.matches("[data-toggle-all], .action-select")) {
      this.#across.value = "0";
      this.update();
    }
  }

  #toggleAcross() {
    this.#across.value = this.#across.value === "1" ? "0" : "1";
    this.update();
  }

  #buttons() {
    return [...this.#bar.querySelectorAll("button[name=action]")];
  }
}
