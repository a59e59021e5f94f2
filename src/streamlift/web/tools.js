// @ts-check
/** The comparison tools: blink, difference, loupe, replay, and what can be taken home or passed on. */

import { Clip, differenceWords, LONGEST_CLIP_S, savePicture, whyNoClips } from "./comparison.js";
import { drawDifference, FACTORS } from "./difference.js";
import { button, byId, setText } from "./dom.js";
import { drawPicture, whole } from "./drawing.js";
import { duration, megabytes } from "./format.js";
import { isForPage } from "./keys.js";
import { Loupe } from "./loupe.js";
import { Replay } from "./replay.js";
import { FIRST_FACTOR } from "./share.js";

/** @typedef {"compare" | "blink" | "difference"} Look how a pair of pictures is shown */
/** @typedef {"source" | "upscaled"} Side */

/** Fires `change` when another look, side or factor is chosen. */
export class Tools extends EventTarget {
  /** @type {Look} */ look = "compare";
  /** Which picture blinking shows. @type {Side} */ side = "upscaled";
  factor = FIRST_FACTOR;
  /** @type {Look} what to show once the stage shows pairs */ #wanted = "compare";
  /** @type {Clip | null} under way */ #clip = null;
  #clock = 0;
  #stageElement = byId("stage", HTMLElement);
  #badge = byId("badge", HTMLElement);

  /**
   * @param {import("./stage.js").Stage} stage
   * @param {() => string | null} stream name of the stream that is shown
   * @param {() => import("./api.js").Stream | null} told what the service last said of it
   * @param {(message: string) => void} say
   */
  constructor(stage, stream, told, say) {
    super();
    this.told = told;
    this.stage = stage;
    this.slider = stage.slider;
    this.stream = stream;
    this.say = say;
    this.loupe = new Loupe(this.slider);
    this.replay = new Replay(stage, () => this.#names());
    stage.addEventListener("view", () => this.#follow());
    for (const event of ["pair", "names"]) {
      this.slider.addEventListener(event, () => this.#showBadge());
    }
    this.replay.addEventListener("change", () => this.#showReplay());
    this.#attachLooks();
    this.#attachReplay();
    this.#attachTakeHome();
    this.#attachKeys();
    this.#follow();
    this.#showReplay();
  }

  /** What is looked at, for the address. @returns {import("./share.js").ViewName} */
  get view() {
    return this.stage.view === "side" ? "side" : this.look;
  }

  /** @param {Look} look */
  show(look) {
    this.#wanted = look;
    if (this.stage.view === "compare") this.#follow();
    else this.stage.show("compare");
  }

  /** Blink, and once that is on, show the other picture in the same place. */
  swap() {
    if (this.view === "blink") this.side = this.side === "source" ? "upscaled" : "source";
    this.show("blink");
  }

  /** @param {number} by steps through `FACTORS`, which are a circle */
  amplify(by) {
    const at = FACTORS.indexOf(this.factor) + by + FACTORS.length;
    this.setFactor(FACTORS[at % FACTORS.length]);
  }

  /** @param {number} factor one of `FACTORS` */
  setFactor(factor) {
    this.factor = factor;
    this.#changed();
  }

  toggleLoupe() {
    this.#needPairs();
    this.#setLoupe(!this.loupe.on);
  }

  toggleReplay() {
    if (this.replay.on) {
      this.replay.stop();
      return;
    }
    this.#needPairs();
    this.replay.start();
    this.say("Replay keeps the last seconds from now on. Step back by ◂ or the comma key.");
  }

  /** @param {number} by pictures */
  step(by) {
    if (!this.replay.on) this.toggleReplay();
    else this.replay.step(by);
  }

  async takePicture() {
    const pictures = this.#pictures();
    if (pictures) this.say(await savePicture(pictures, this.stage.zoom, this.words()));
  }

  toggleClip() {
    if (this.#clip) {
      this.#clip.stop();
      return;
    }
    const why = whyNoClips();
    if (why) {
      this.say(why);
      return;
    }
    if (!this.#pictures()) return;
    this.#clip = new Clip(this.slider, () => this.words(), (told) => this.#clipSaved(told));
    button("clip").setAttribute("aria-pressed", "true");
    this.#clock = window.setInterval(() => this.#showClip(), 500);
    this.#showClip();
    // Of what is held, the clip is the replay itself.
    if (this.replay.index === null) return;
    this.replay.show(0);
    const clip = this.#clip;
    void this.replay.play().then(() => clip.stop());
  }

  /** What is written on a comparison. @returns {import("./comparison.js").Words} */
  words() {
    return {
      stream: this.stream() ?? "stream",
      names: this.replay.names ?? this.#names(),
      shownMs: this.replay.shownMs,
      factor: this.view === "difference" ? this.factor : null,
    };
  }

  /** The names of both sides; the stream's own with what upscales it now. */
  #names() {
    const { source, upscaled } = this.slider.names;
    return { source, upscaled: `${upscaled}${this.told()?.degraded ? " (degraded)" : ""}` };
  }

  /** What needs a picture to be drawn on needs the before / after view. */
  #needPairs() {
    if (this.stage.view !== "compare") this.show("compare");
  }

  #pictures() {
    if (!this.slider.pictures()) this.#needPairs();
    const pictures = this.slider.pictures();
    if (!pictures) this.say("There is no pair of pictures yet. Try again once both are shown.");
    return pictures;
  }

  /** The stage shows another view: show it in the wanted way, if it has pairs. */
  #follow() {
    const pairs = this.stage.view === "compare";
    this.look = pairs ? this.#wanted : "compare";
    this.#wanted = "compare";
    if (!pairs) {
      this.#clip?.stop();
      this.#setLoupe(false);
    }
    this.#changed();
  }

  /** @param {boolean} on */
  #setLoupe(on) {
    this.loupe.on = on;
    this.#stageElement.dataset.loupe = String(on);
    button("loupe-toggle").setAttribute("aria-pressed", String(on));
  }

  #changed() {
    const { view } = this;
    this.#stageElement.dataset.look = this.look;
    this.slider.painter = this.#painter();
    button("view-compare").setAttribute("aria-pressed", String(view === "compare"));
    button("view-blink").setAttribute("aria-pressed", String(view === "blink"));
    button("view-difference").setAttribute("aria-pressed", String(view === "difference"));
    byId("swap", HTMLElement).hidden = view !== "blink";
    byId("factors", HTMLElement).hidden = view !== "difference";
    setText(byId("factor", HTMLElement), `× ${this.factor}`);
    this.slider.draw();
    this.#showBadge();
    this.dispatchEvent(new Event("change"));
  }

  /** @returns {import("./slider.js").Slider["painter"]} */
  #painter() {
    const { zoom } = this.stage;
    if (this.look === "blink") {
      return (context, pictures) =>
        drawPicture(context, pictures[this.side], whole(context.canvas), zoom);
    }
    if (this.look !== "difference") return null;
    return (context, { source, upscaled, locked }) => {
      if (!locked) return;
      drawDifference(context, source, upscaled, whole(context.canvas), zoom, this.factor);
    };
  }

  #showBadge() {
    const { names, locked } = this.slider;
    const { view } = this;
    this.#badge.hidden = view !== "blink" && view !== "difference";
    const letter = this.side === "source" ? "A" : "B";
    if (view === "blink") setText(this.#badge, `${letter} · ${names[this.side]}`);
    if (view === "difference") setText(this.#badge, differenceWords(this.factor, locked));
  }

  #attachLooks() {
    button("view-blink").addEventListener("click", () => this.swap());
    button("view-difference").addEventListener("click", () => this.show("difference"));
    button("swap").addEventListener("click", () => this.swap());
    button("factor-less").addEventListener("click", () => this.amplify(-1));
    button("factor-more").addEventListener("click", () => this.amplify(1));
    button("loupe-toggle").addEventListener("click", () => this.toggleLoupe());
    this.slider.canvas.addEventListener("click", () => {
      if (this.view === "blink" && this.stage.zoom.scale === 1 && !this.loupe.on) this.swap();
    });
  }

  #attachReplay() {
    const range = byId("replay-range", HTMLInputElement);
    button("replay-toggle").addEventListener("click", () => this.toggleReplay());
    button("replay-back").addEventListener("click", () => this.step(-1));
    button("replay-on").addEventListener("click", () => this.step(1));
    button("replay-live").addEventListener("click", () => this.replay.live());
    button("replay-play").addEventListener("click", () => {
      if (this.replay.playing) this.replay.pause();
      else void this.replay.play();
    });
    range.addEventListener("input", () => {
      this.replay.pause();
      this.replay.show(Number(range.value));
    });
  }

  #showReplay() {
    const { replay } = this;
    const { on, index, length } = replay;
    const range = byId("replay-range", HTMLInputElement);
    const held = index !== null;
    button("replay-toggle").setAttribute("aria-pressed", String(on));
    byId("replay", HTMLElement).hidden = !on;
    for (const id of ["replay-back", "replay-on", "replay-play"]) button(id).disabled = length === 0;
    button("replay-live").disabled = !held;
    setText(button("replay-play"), replay.playing ? "Pause" : "Play");
    range.disabled = length === 0;
    range.max = String(Math.max(0, length - 1));
    range.value = String(index ?? length - 1);
    const place = held ? `picture ${index + 1} of ${length}` : `live, ${length} pictures kept`;
    range.setAttribute("aria-valuetext", `${place}, ${replay.ageS.toFixed(2)} seconds ago`);
    setText(
      byId("replay-place", HTMLElement),
      held
        ? `${index + 1} of ${length} · −${replay.ageS.toFixed(2)} s`
        : `Live · ${length} kept, ${megabytes(replay.bytes)}`,
    );
  }

  #attachTakeHome() {
    button("picture").addEventListener("click", () => void this.takePicture());
    button("clip").addEventListener("click", () => this.toggleClip());
  }

  #showClip() {
    const left = duration(Math.max(0, LONGEST_CLIP_S - (this.#clip?.seconds ?? 0)));
    setText(button("clip"), this.#clip ? `Stop · ${left}` : "Clip");
    if (this.#clip && this.#clip.seconds > LONGEST_CLIP_S) this.#clip.stop();
  }

  /** @param {string} told */
  #clipSaved(told) {
    clearInterval(this.#clock);
    this.#clip = null;
    button("clip").setAttribute("aria-pressed", "false");
    this.#showClip();
    this.say(told);
  }

  #attachKeys() {
    // Before the stage, whose arrow keys move the picture.
    document.addEventListener(
      "keydown",
      (event) => {
        if (!isForPage(event) || !this.#key(event)) return;
        event.preventDefault();
        event.stopImmediatePropagation();
      },
      { capture: true },
    );
  }

  /** @param {KeyboardEvent} event @returns {boolean} whether it was used */
  #key({ key, shiftKey, repeat }) {
    if (shiftKey && key.startsWith("Arrow")) return this.loupe.key(key);
    if (key === ",") this.step(-1);
    else if (key === ".") this.step(1);
    else if (repeat) return false;
    else if (key === "b") this.swap();
    else if (key === "d") this.show("difference");
    else if (key === "g" || key === "G") this.amplify(key === "g" ? 1 : -1);
    else if (key === "l") this.toggleLoupe();
    else if (key === "r") this.toggleReplay();
    else if (key === "p") void this.takePicture();
    else if (key === "v") this.toggleClip();
    else return false;
    return true;
  }
}
