// @ts-check
/** The theme button: follow the system, light, dark. */

import { setText } from "./dom.js";

const NEXT = /** @type {Record<string, string>} */ ({ system: "light", light: "dark", dark: "system" });
const NAMES = /** @type {Record<string, string>} */ ({
  system: "Theme: auto", light: "Theme: light", dark: "Theme: dark",
});

/** @param {HTMLButtonElement} button */
export function attachThemeButton(button) {
  const root = document.documentElement;
  const show = () => setText(button, NAMES[root.dataset.theme ?? "system"] ?? NAMES.system);
  button.addEventListener("click", () => {
    root.dataset.theme = NEXT[root.dataset.theme ?? "system"] ?? "system";
    localStorage.setItem("streamlift.theme", root.dataset.theme);
    show();
  });
  show();
}
