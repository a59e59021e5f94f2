// @ts-check
/** What can be changed of the stream that is watched: bit rate, stabiliser, size, behaviour without viewers. */

import { byId, setText } from "./dom.js";
import { size } from "./format.js";
import { doing } from "./panel.js";

/** @typedef {import("./api.js").Stream} Stream */

const LEAST_MBIT = 0.1;
const MOST_MBIT = 50;

export class SettingsPanel {
  /** @type {string | null} */ #stream = null;
  #form = byId("settings-form", HTMLFormElement);
  #fields = byId("settings-fields", HTMLFieldSetElement);
  #bitrate = byId("settings-bitrate", HTMLInputElement);
  #stabilise = byId("settings-stabilise", HTMLSelectElement);
  #scale = byId("settings-scale", HTMLSelectElement);
  #idle = byId("settings-idle", HTMLSelectElement);
  #message = byId("settings-message", HTMLElement);

  /** @param {import("./api.js").Api} api */
  constructor(api) {
    this.api = api;
    this.#form.addEventListener("submit", (event) => event.preventDefault());
    this.#bitrate.addEventListener("change", () => this.#changeBitrate());
    this.#stabilise.addEventListener("change", () => {
      this.#change({ stabilise: this.#stabilise.value }, `Stabiliser: ${this.#stabilise.value}.`);
    });
    this.#scale.addEventListener("change", () => this.#changeScale());
    this.#idle.addEventListener("change", () => {
      this.#change({ idle: this.#idle.value }, `Without viewers: ${this.#idle.value}.`);
    });
  }

  /** @param {Stream | null} stream */
  showStream(stream) {
    const other = (stream?.name ?? null) !== this.#stream;
    this.#stream = stream?.name ?? null;
    this.#fields.disabled = !stream;
    if (other) setText(this.#message, "");
    if (!stream) return;
    const rendition = stream.output?.renditions?.find(({ profile }) => profile !== "Thin");
    const bps = stream.settings?.bitrate_bps ?? rendition?.bitrate_bps;
    // What somebody is about to enter is not taken out of their hands.
    if (bps != null) put(this.#bitrate, String(bps / 1e6));
    if (stream.settings) {
      put(this.#stabilise, stream.settings.stabilise ?? "");
      put(this.#idle, stream.settings.idle);
    }
    this.#showScale(stream);
  }

  /** @param {Stream} stream */
  #showScale(stream) {
    const known = stream.target !== undefined;
    byId("settings-scale-field", HTMLElement).hidden = !known;
    if (!known) return;
    const { target } = stream;
    const value = !target ? "" : target.scale ? String(target.scale) : size(target.size);
    this.#offer(stream.publisher?.size ?? null, value);
    put(this.#scale, value);
  }

  /** Sizes of the picture's own shape, so that it lies over its source. */
  /** @param {[number, number] | null} from @param {string} value the one that is set */
  #offer(from, value) {
    const offered = [["", "As the model gives it"], ...sizesFor(from)];
    if (!offered.some(([known]) => known === value)) offered.push([value, value]);
    const shown = [...this.#scale.options].map((option) => option.text).join("\n");
    if (shown === offered.map(([, text]) => text).join("\n")) return;
    this.#scale.replaceChildren(...offered.map(([known, text]) => new Option(text, known)));
  }

  #changeBitrate() {
    const mbit = this.#bitrate.valueAsNumber;
    if (!(mbit >= LEAST_MBIT && mbit <= MOST_MBIT)) {
      setText(this.#message, `Bit rate: ${LEAST_MBIT} to ${MOST_MBIT} Mbit/s.`);
      return;
    }
    this.#change({ bitrate_bps: Math.round(mbit * 1e6) }, `Bit rate: ${mbit} Mbit/s.`);
  }

  #changeScale() {
    const { value } = this.#scale;
    const pair = /^(\d+) × (\d+)$/.exec(value);
    const target = pair
      ? { size: [Number(pair[1]), Number(pair[2])] }
      : value
        ? { scale: Number(value) }
        : null;
    this.#change({ target }, `Size: ${this.#scale.selectedOptions[0]?.text ?? value}.`);
  }

  /** @param {object} change @param {string} done */
  #change(change, done) {
    const stream = this.#stream;
    if (stream === null) return;
    void doing(this.#message, "Asked for it.", async () => {
      await this.api.call("PATCH", `api/v1/streams/${encodeURIComponent(stream)}`, change);
      return done;
    });
  }
}

/**
 * What may be chosen for a source of this size: factors, and two usual heights, with even sides.
 * @param {[number, number] | null} from
 * @returns {[string, string][]} value and text
 */
export function sizesFor(from) {
  /** @type {[string, string][]} */
  const factors = [1, 1.5, 2, 3, 4].map((factor) => [String(factor), `${factor}×`]);
  if (!from) return factors;
  const [width, height] = from;
  /** @type {[string, string][]} */
  const heights = [];
  for (const lines of [720, 1080]) {
    const fits = lines >= height && lines <= 4 * height;
    const wide = 2 * Math.round((lines * width) / height / 2);
    if (fits) heights.push([size([wide, lines]), size([wide, lines])]);
  }
  return [...factors, ...heights];
}

/** @param {HTMLInputElement | HTMLSelectElement} field @param {string} value */
function put(field, value) {
  if (document.activeElement !== field && field.value !== value) field.value = value;
}
