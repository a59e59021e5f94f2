// @ts-check
/** The event log: follows the service's events, shows the newest, and passes them on. */

import { isMissing } from "./api.js";
import { describeSwitch } from "./backends.js";
import { byId, make, pause } from "./dom.js";

const SHOWN = 30;
const AGAIN_MS = 3000;

/** Fires `event`, a CustomEvent with the service event as its detail. */
export class EventLog extends EventTarget {
  #panel = byId("events", HTMLElement);
  #list = byId("event-list", HTMLElement);
  /** @type {number | null} */ #last = null;

  /** @param {import("./api.js").Api} api */
  constructor(api) {
    super();
    this.api = api;
  }

  /** Follow the events until the signal aborts. @param {AbortSignal} signal */
  async follow(signal) {
    while (!signal.aborted) {
      try {
        for await (const event of this.api.events(signal, this.#last)) this.#take(event);
      } catch (error) {
        if (isMissing(error)) return;
        // Otherwise the connection broke or a token is missing: the state line says so already.
      }
      await pause(AGAIN_MS, signal, this.api.tokens, "change");
    }
  }

  /** @param {import("./api.js").ServiceEvent} event */
  #take(event) {
    this.#last = event.seq;
    // The events of a switch tell more than the state "switching" does.
    if (event.from !== "switching" && event.to !== "switching") this.#show(event);
    this.dispatchEvent(new CustomEvent("event", { detail: event }));
  }

  /** @param {import("./api.js").ServiceEvent} event */
  #show(event) {
    this.#panel.hidden = false;
    this.#list.prepend(
      make("li", {}, [
        make("time", { textContent: clock(event.time) }),
        make("span", { textContent: event.stream || "service", className: "who" }),
        make("span", { textContent: describe(event) }),
      ]),
    );
    while (this.#list.childElementCount > SHOWN) this.#list.lastElementChild?.remove();
  }
}

/** @param {import("./api.js").ServiceEvent} event */
function describe(event) {
  const text = describeSwitch(event);
  if (text) return text;
  const change = [event.from, event.to].filter(Boolean).join(" → ");
  const words = event.event === "stream.state" ? "" : event.event.replace(".", " ");
  return [words, change, event.reason && `(${event.reason})`].filter(Boolean).join(" ");
}

/** @param {number | string} time seconds since 1970, or ISO 8601 */
function clock(time) {
  const date = new Date(typeof time === "number" ? time * 1000 : time);
  return Number.isNaN(date.getTime()) ? "" : date.toLocaleTimeString([], { hour12: false });
}
