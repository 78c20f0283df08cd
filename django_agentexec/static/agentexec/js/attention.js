/**
 * Whether the page is in use: the tab is visible, and updates are not paused.
 * @module attention
 */

/**
 * Call `changed` with true when updates are wanted and with false when not; once at the start.
 * @param {?HTMLButtonElement} button toggles the pause; its `aria-pressed` is the state
 * @param {function(boolean): void} changed
 */
export function whileWatched(button, changed) {
  let isPaused = false;
  let last = null;
  const notify = () => {
    const wanted = !document.hidden && !isPaused;
    if (wanted !== last) changed((last = wanted));
  };
  document.addEventListener("visibilitychange", notify);
  button?.addEventListener("click", () => {
    isPaused = !isPaused;
    button.setAttribute("aria-pressed", String(isPaused));
    notify();
  });
  notify();
}
