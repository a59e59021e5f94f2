// @ts-check
/**
 * Side by side in step: both pictures of a pair are drawn at once, over the two videos. While none is
 * in step the videos themselves are seen, each as it comes, and `InStep` says so.
 */

import { make } from "./dom.js";
import { drawPicture, SINGLE_PIXELS, whole } from "./drawing.js";

const DENSEST = 2;

export class Sides {
  /** @type {Record<"source" | "upscaled", HTMLCanvasElement>} */ #canvases;

  /**
   * @param {import("./slider.js").Slider} slider
   * @param {import("./instep.js").InStep} inStep
   * @param {() => boolean} shown whether this is the view that is looked at
   */
  constructor(slider, inStep, shown) {
    this.slider = slider;
    this.inStep = inStep;
    this.shown = shown;
    this.#canvases = { source: canvasOver("source"), upscaled: canvasOver("upscaled") };
    slider.addEventListener("pair", () => this.draw());
    slider.zoom.addEventListener("change", () => this.draw());
    inStep.addEventListener("change", () => this.draw());
    const resized = new ResizeObserver(() => this.draw());
    Object.values(this.#canvases).forEach((canvas) => resized.observe(canvas));
  }

  draw() {
    const pictures = this.slider.pictures();
    const visible = this.shown() && this.inStep.kept && pictures !== null;
    for (const side of /** @type {const} */ (["source", "upscaled"])) {
      this.#canvases[side].style.visibility = visible ? "visible" : "hidden";
      if (visible) this.#drawOne(this.#canvases[side], pictures[side]);
    }
  }

  /** @param {HTMLCanvasElement} canvas @param {import("./drawing.js").Picture} picture */
  #drawOne(canvas, picture) {
    const context = canvas.getContext("2d", { alpha: false });
    const density = Math.min(DENSEST, window.devicePixelRatio);
    const width = Math.round(canvas.clientWidth * density);
    const height = Math.round(canvas.clientHeight * density);
    if (!context || !width || !height) return;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const { zoom } = this.slider;
    context.imageSmoothingEnabled = zoom.scale < SINGLE_PIXELS;
    context.fillRect(0, 0, width, height);
    drawPicture(context, picture, whole(canvas), zoom);
  }
}

/** @param {"source" | "upscaled"} side */
function canvasOver(side) {
  const canvas = make("canvas", { className: "in-step" });
  canvas.setAttribute("aria-hidden", "true");
  document.querySelector(`#pane-${side} .frame`)?.append(canvas);
  return canvas;
}
