// @ts-check
/** The loupe: the pixels of both pictures around a point, magnified, with their values. */

import { byId, setText } from "./dom.js";
import { offPage, placed, pointOf, whole } from "./drawing.js";

/** Pixels of the upscaled picture across the loupe; odd, so that one is in the middle. */
const ACROSS = 11;
const MIDDLE = (ACROSS - 1) / 2;
const TELL_AFTER_MS = 600;
const MOVES = /** @type {Record<string, [number, number]>} */ ({
  ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
});

/** @typedef {[number, number, number]} Rgb */

export class Loupe {
  #panel = byId("loupe", HTMLElement);
  #mark = byId("loupe-mark", HTMLElement);
  #told = byId("loupe-told", HTMLElement);
  #contexts = {
    source: offPage(ACROSS, ACROSS, { alpha: false, willReadFrequently: true }),
    upscaled: offPage(ACROSS, ACROSS, { alpha: false, willReadFrequently: true }),
  };
  /** What is looked at, as fractions of the picture. */
  #at = { x: 0.5, y: 0.5 };
  #timer = 0;

  /** @param {import("./slider.js").Slider} slider */
  constructor(slider) {
    this.slider = slider;
    for (const side of /** @type {const} */ (["source", "upscaled"])) {
      const { canvas } = this.#contexts[side];
      canvas.setAttribute("aria-hidden", "true");
      byId(`loupe-${side}`, HTMLElement).prepend(canvas);
    }
    slider.addEventListener("draw", () => this.show());
    this.#listen(slider.canvas);
  }

  get on() {
    return !this.#panel.hidden;
  }

  /** @param {boolean} on */
  set on(on) {
    this.#panel.hidden = this.#mark.hidden = !on;
    if (on) this.#moved();
  }

  /**
   * Move by one pixel of the upscaled picture.
   * @param {string} key of a keyboard event
   * @returns {boolean} whether it was used
   */
  key(key) {
    const pictures = this.slider.pictures();
    if (!this.on || !pictures || !(key in MOVES)) return false;
    const [width, height] = pictures.highSize;
    const [dx, dy] = MOVES[key];
    this.#at = { x: within(this.#at.x + dx / width), y: within(this.#at.y + dy / height) };
    this.#moved();
    return true;
  }

  /** Show the pixels of the pair that is shown now. */
  show() {
    const pictures = this.slider.pictures();
    if (!this.on || !pictures) return;
    const [width, height] = pictures.highSize;
    const x = Math.floor(this.#at.x * width);
    const y = Math.floor(this.#at.y * height);
    const values = {
      source: this.#look("source", pictures.source, pictures.lowSize, pictures.highSize, x, y),
      upscaled: this.#look("upscaled", pictures.upscaled, pictures.highSize, pictures.highSize, x, y),
    };
    const { names } = this.slider;
    setText(byId("loupe-source-name", HTMLElement), names.source);
    setText(byId("loupe-upscaled-name", HTMLElement), names.upscaled);
    setText(byId("loupe-source-rgb", HTMLElement), rgbText(values.source));
    setText(byId("loupe-upscaled-rgb", HTMLElement), rgbText(values.upscaled));
    const change = pictures.locked ? changeText(values.source, values.upscaled) : "not the same frame";
    setText(byId("loupe-change", HTMLElement), change);
    setText(byId("loupe-place", HTMLElement), `x ${x}, y ${y}`);
    this.#place();
  }

  /** For screen readers and tests: what the loupe shows, in words. */
  get words() {
    const text = (/** @type {string} */ id) => byId(id, HTMLElement).textContent ?? "";
    return `${text("loupe-place")}. Red, green, blue: ` +
      `${text("loupe-source-name")} ${text("loupe-source-rgb")}, ` +
      `${text("loupe-upscaled-name")} ${text("loupe-upscaled-rgb")}.`;
  }

  /**
   * Draw the surroundings of a pixel, each pixel by itself, and read the one in the middle.
   * @param {"source" | "upscaled"} side
   * @param {import("./drawing.js").Picture} picture
   * @param {[number, number]} size of this picture
   * @param {[number, number]} high size that x and y count in
   * @param {number} x
   * @param {number} y
   * @returns {Rgb}
   */
  #look(side, picture, size, high, x, y) {
    const context = this.#contexts[side];
    const [across, down] = [size[0] / high[0], size[1] / high[1]];
    context.imageSmoothingEnabled = false;
    context.fillRect(0, 0, ACROSS, ACROSS);
    context.drawImage(
      picture,
      (x - MIDDLE) * across, (y - MIDDLE) * down, ACROSS * across, ACROSS * down,
      0, 0, ACROSS, ACROSS,
    );
    const [red, green, blue] = context.getImageData(MIDDLE, MIDDLE, 1, 1).data;
    return [red, green, blue];
  }

  /** Put the mark on the point, and the panel where the point is not. */
  #place() {
    const { canvas, zoom } = this.slider;
    const pictures = this.slider.pictures();
    if (!pictures || !canvas.width) return;
    const box = placed(whole(canvas), pictures.highSize, zoom);
    const left = (box.left + this.#at.x * box.width) / canvas.width;
    const top = (box.top + this.#at.y * box.height) / canvas.height;
    this.#mark.style.left = `${left * 100}%`;
    this.#mark.style.top = `${top * 100}%`;
    // A little past the middle before it moves over, so that it does not flit to and fro.
    if (left > 0.55) this.#panel.dataset.side = "left";
    else if (left < 0.45 || !this.#panel.dataset.side) this.#panel.dataset.side = "right";
  }

  #moved() {
    this.show();
    clearTimeout(this.#timer);
    this.#timer = window.setTimeout(() => {
      if (this.on) setText(this.#told, this.words);
    }, TELL_AFTER_MS);
  }

  /** @param {HTMLCanvasElement} canvas */
  #listen(canvas) {
    /** @param {PointerEvent} event */
    const follow = (event) => {
      const pictures = this.slider.pictures();
      const bounds = canvas.getBoundingClientRect();
      if (!this.on || !pictures || !bounds.width) return;
      const density = canvas.width / bounds.width;
      const point = pointOf(placed(whole(canvas), pictures.highSize, this.slider.zoom), {
        x: (event.clientX - bounds.left) * density,
        y: (event.clientY - bounds.top) * density,
      });
      if (!point) return;
      this.#at = point;
      this.#moved();
    };
    canvas.addEventListener("pointermove", follow);
    canvas.addEventListener(
      "pointerdown",
      (event) => {
        follow(event);
        // A finger has no hover: while the loupe is on it moves that, and nothing else.
        if (this.on && event.pointerType !== "mouse") event.stopImmediatePropagation();
      },
      { capture: true },
    );
  }
}

/** @param {Rgb} rgb */
const rgbText = (rgb) => rgb.join(" ");

/** @param {Rgb} a @param {Rgb} b */
const changeText = (a, b) => a.map((value, at) => signed(b[at] - value)).join(" ");

/** @param {number} value */
function signed(value) {
  return value > 0 ? `+${value}` : value < 0 ? `−${-value}` : "0";
}

/** @param {number} fraction */
const within = (fraction) => Math.min(0.999999, Math.max(0, fraction));
