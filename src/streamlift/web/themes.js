// @ts-check
/** The theme button: follow the system, light, dark. */

import { setText } from "./dom.js";

const NEXT = /** @type {Record<string, string>} */ ({ system: "light", light: "dark", dark: "system" });
const SIGNS = /** @type {Record<string, string>} */ ({ system: "◐", light: "☀", dark: "☾" });
const NAMES = /** @type {Record<string, string>} */ ({
  system: "Theme: as the system", light: "Theme: light", dark: "Theme: dark",
});

/** @param {HTMLButtonElement} button */
export function attachThemeButton(button) {
  const root = document.documentElement;
  const show = () => {
    const theme = root.dataset.theme ?? "system";
    setText(button, SIGNS[theme] ?? SIGNS.system);
    button.title = NAMES[theme] ?? NAMES.system;
    button.setAttribute("aria-label", button.title);
  };
  button.addEventListener("click", () => {
    root.dataset.theme = NEXT[root.dataset.theme ?? "system"] ?? "system";
    localStorage.setItem("streamlift.theme", root.dataset.theme);
    show();
  });
  show();
}
