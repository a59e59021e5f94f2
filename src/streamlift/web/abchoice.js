// @ts-check
/**
 * What the stream's picture (B, right) is held against (A, left): the publisher's own picture, or that
 * of any other backend, which then runs beside the shown one for as long as it is watched.
 */

import { make, setText } from "./dom.js";
import { number } from "./format.js";

/**
 * @typedef {import("./api.js").Backend} Backend
 * @typedef {import("./api.js").Stream} Stream
 */

const SOURCE = "";

/** Fires `change` when another picture was chosen. */
export class Choice extends EventTarget {
  /** @type {string | null} the backend; null for the source */
  backend = null;
  /** @type {Stream | null} */ #stream = null;

  /**
   * @param {HTMLSelectElement} select
   * @param {import("./player.js").Player} player of side A
   * @param {import("./slider.js").Slider} slider
   * @param {(message: string) => void} say
   */
  constructor(select, player, slider, say) {
    super();
    this.select = select;
    this.player = player;
    this.slider = slider;
    this.say = say;
    select.addEventListener("change", () => this.choose(select.value || null));
    this.#showNames();
  }

  /** Compare with a backend, or with the source again. @param {string | null} backend */
  choose(backend) {
    if (backend === this.backend) return;
    this.backend = backend;
    this.select.value = backend ?? SOURCE;
    this.player.backend = backend;
    this.player.asked = backend !== null;
    this.slider.forget();
    this.#showNames();
    if (this.player.stream !== null) this.player.play(this.player.stream);
    this.dispatchEvent(new Event("change"));
  }

  /** @param {Backend[]} backends all there are */
  offer(backends) {
    const options = [make("option", { value: SOURCE, textContent: "Source" })];
    for (const { name, state, reason } of backends) {
      const ready = state === "ready";
      options.push(
        make("option", {
          value: name,
          textContent: ready ? name : `${name} (${state})`,
          title: reason ?? "",
          // The chosen one stays, so that its pane can say what is wrong.
          disabled: !ready && name !== this.backend,
        }),
      );
    }
    const known = [...this.select.options];
    const same = known.length === options.length && known.every(
      (option, at) => option.textContent === options[at].textContent &&
        option.disabled === options[at].disabled,
    );
    if (!same) this.select.replaceChildren(...options);
    this.select.value = this.backend ?? SOURCE;
  }

  /** What the service says of the stream. @param {Stream | null} stream */
  show(stream) {
    this.#stream = stream;
    this.#showNames();
  }

  /** @param {import("./api.js").ServiceEvent} event */
  showEvent(event) {
    if (event.event !== "compare.ended" || event.stream !== this.#stream?.name) return;
    if (event.from !== this.backend) return;
    this.say(`The comparison with ${event.from} ended: ${event.reason}.`);
  }

  /** The chosen backend's lane, as the service tells of it. */
  get lane() {
    return this.#stream?.compare?.find(({ backend }) => backend === this.backend) ?? null;
  }

  /** Why it gives fewer pictures than the stream's own lane, if it does. @returns {string} */
  get shortage() {
    const lane = this.lane;
    if (lane?.state !== "left_out") return "";
    return `${lane.backend} is left out for now: the machine is busy with the stream itself`;
  }

  /** @returns {[number, number] | null} of the pictures of side A */
  get size() {
    return this.backend ? (this.lane?.size ?? null) : (this.#stream?.publisher?.size ?? null);
  }

  #showNames() {
    const low = this.#stream?.publisher?.size;
    const high = this.lane?.size;
    this.slider.scale = low && high ? high[0] / low[0] : 1;
    const rate = this.lane?.fps;
    const slow = this.shortage && rate != null ? `, ${number(rate)} fps` : "";
    const names = {
      source: `${this.backend ?? "Source"}${slow}`,
      upscaled: this.#stream?.backend ?? "Upscaled",
    };
    for (const side of /** @type {const} */ (["source", "upscaled"])) {
      const name = `${side === "source" ? "A" : "B"} · ${names[side]}`;
      for (const place of document.querySelectorAll(`[data-name-of="${side}"]`)) {
        setText(place, name);
      }
      const notice = document.querySelector(`#pane-${side} .notice`);
      if (notice instanceof HTMLElement) notice.dataset.name = name;
    }
    if (names.source === this.slider.names.source && names.upscaled === this.slider.names.upscaled) {
      return;
    }
    this.slider.names = names;
    this.slider.dispatchEvent(new Event("names"));
  }
}
