// @ts-check
/** Whether the two pictures are known to be one frame, and the word on the picture when they are not. */

import { make, setText } from "./dom.js";

const LOOK_MS = 250;
const OLD_MS = 1500;
/** A new session has no time yet by which frames could be told apart; that is no news. */
const GRACE_MS = 1000;

/** Fires `change` when `kept` does. */
export class InStep extends EventTarget {
  /** Whether what is shown is one frame, and not an old one. */
  kept = false;
  #pairedMs = 0;
  /** @type {number | null} since when nothing is in step */ #lostMs = null;
  #words = make("p", { className: "step-words", hidden: true });

  /**
   * @param {HTMLElement} stage
   * @param {import("./slider.js").Slider} slider
   * @param {{live: () => boolean, why: () => string}} told `live`: both pictures come; `why`: what
   *   is known of why one of them does not come with the other
   */
  constructor(stage, slider, told) {
    super();
    this.slider = slider;
    this.told = told;
    this.#words.setAttribute("role", "status");
    stage.append(this.#words);
    slider.addEventListener("pair", () => {
      this.#pairedMs = performance.now();
      this.look();
    });
    setInterval(() => this.look(), LOOK_MS);
  }

  look() {
    const { slider } = this;
    const held = slider.frozen || document.hidden;
    const old = !held && performance.now() - this.#pairedMs > OLD_MS;
    const kept = slider.locked && !old;
    if (kept || !this.told.live()) this.#lostMs = null;
    else this.#lostMs ??= performance.now();
    const lost = this.#lostMs !== null && performance.now() - this.#lostMs > GRACE_MS;
    setText(this.#words, lost ? this.#say(old) : "");
    this.#words.hidden = this.#words.textContent === "";
    if (kept === this.kept) return;
    this.kept = kept;
    this.dispatchEvent(new Event("change"));
  }

  /** @param {boolean} old */
  #say(old) {
    if (old && this.told.why()) return `Not in step: ${this.told.why()}.`;
    return old
      ? "Not in step: no two pictures of one frame come."
      : "Not in step: these may be two different frames.";
  }
}
