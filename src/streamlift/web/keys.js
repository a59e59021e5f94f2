// @ts-check
/** Which key presses are meant for the page, and not for a field, a dialog or the browser. */

const FIELDS = "input:not([type=range]), select, textarea, dialog[open]";

/** @param {KeyboardEvent} event */
export function isForPage(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return false;
  const target = event.target instanceof Element ? event.target : document.body;
  // Space presses the button that has the focus.
  return !target.closest(FIELDS) && !(event.key === " " && target.closest("button, a, summary"));
}
