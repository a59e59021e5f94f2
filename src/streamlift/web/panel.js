// @ts-check
/** A panel that is closed at first: it asks the service for nothing until somebody opens it. */

import { byId, pause, setText } from "./dom.js";

const EVERY_MS = 2000;

/**
 * Do `round` again and again while the panel with this id is open and the page is visible.
 * @param {string} id of a details element
 * @param {import("./api.js").Api} api
 * @param {(signal: AbortSignal, asked: boolean) => Promise<void>} round
 *     `asked`: the first one after the panel was opened, so that a token may be asked for
 * @param {(message: string) => void} failed called with "" when a round went well
 */
export function whileOpen(id, api, round, failed) {
  const panel = byId(id, HTMLDetailsElement);
  let life = new AbortController();
  panel.addEventListener("toggle", () => {
    life.abort();
    if (!panel.open) return;
    life = new AbortController();
    void rounds(life.signal);
  });
  window.addEventListener("pagehide", () => life.abort());

  /** @param {AbortSignal} signal */
  async function rounds(signal) {
    for (let asked = true; !signal.aborted; asked = false) {
      if (!document.hidden) {
        try {
          await round(signal, asked);
          failed("");
        } catch (error) {
          if (!signal.aborted) failed(told(error));
        }
      }
      await pause(EVERY_MS, signal, api.tokens, "change");
    }
  }
}

/**
 * Run what a form or a button asks for, and say how it went.
 * @param {HTMLElement} message
 * @param {string} begun
 * @param {() => Promise<string>} work returns what to say
 */
export async function doing(message, begun, work) {
  setText(message, begun);
  try {
    setText(message, await work());
  } catch (error) {
    setText(message, told(error));
  }
}

/** @param {unknown} error @returns {string} */
export function told(error) {
  if (error instanceof TypeError) return "The service does not answer.";
  return error instanceof Error ? error.message : String(error);
}
