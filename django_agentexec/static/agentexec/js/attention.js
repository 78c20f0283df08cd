/**
 * Whether anybody is looking: the tab is in sight, and the reader has not asked for a pause.
 * @module attention
 */

/**
 * Call `changed` with true when updates are wanted and with false when not; once at the start.
 * @param {?HTMLButtonElement} button toggles the pause; its `aria-pressed` tells the state
 * @param {function(boolean): void} changed
 */
export function whileWatched(button, changed) {
  let isPaused = false;
  let last = null;
  const tell = () => {
    const wanted = !document.hidden && !isPaused;
    if (wanted !== last) changed((last = wanted));
  };
  document.addEventListener("visibilitychange", tell);
  button?.addEventListener("click", () => {
    isPaused = !isPaused;
    button.setAttribute("aria-pressed", String(isPaused));
    tell();
  });
  tell();
}
