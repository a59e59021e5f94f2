// @ts-check
/**
 * Sharpness and flicker of both halves, measured here on demand, over one second of frame pairs.
 *
 * Sharpness is the spread of the 3x3 Laplacian of luma, upscaled over source, the source being
 * enlarged bilinearly as a browser shows it. Flicker is the RMS change from frame to frame, in
 * levels of 255, where the source, looked at coarsely, stands still; so motion does not count.
 */

/**
 * @typedef {object} Measured
 * @property {number} sharpness upscaled over source; above 1 is sharper
 * @property {{source: number, upscaled: number} | null} flicker null when nothing stood still
 */

const SIDE = 256;
const FRAMES = 25;
const BLOCK = 8;
const PATCH = 4;
const STILL = 1.5;
const FEWEST_STILL = 0.02;

/**
 * @typedef {{source: Float32Array, upscaled: Float32Array}} Lumas
 * @typedef {{source: CanvasImageSource, upscaled: CanvasImageSource,
 *            lowSize: [number, number], highSize: [number, number]}} Pictures
 */

export class Measurement {
  #context = newContext();
  /** @type {Lumas | null} */ #before = null;
  /** @type {Record<"source" | "upscaled", number[]>} */ #sharpness = { source: [], upscaled: [] };
  #change = { source: 0, upscaled: 0, pixels: 0 };
  #frames = 0;

  /**
   * Take one pair of the same frame.
   * @param {Pictures} pictures
   * @returns {Measured | null} the result once there were enough
   */
  add({ source, upscaled, lowSize, highSize }) {
    const now = {
      source: this.#middle(source, lowSize, SIDE / (highSize[0] / lowSize[0])),
      upscaled: this.#middle(upscaled, highSize, SIDE),
    };
    this.#sharpness.source.push(laplacianSpread(now.source, SIDE));
    this.#sharpness.upscaled.push(laplacianSpread(now.upscaled, SIDE));
    if (this.#before) this.#addChange(this.#before, now);
    this.#before = now;
    this.#frames += 1;
    return this.#frames < FRAMES ? null : this.#result();
  }

  /**
   * Luma of the picture's middle, drawn to SIDE x SIDE.
   * @param {CanvasImageSource} picture
   * @param {[number, number]} size
   * @param {number} side of the middle in the picture's own pixels
   * @returns {Float32Array}
   */
  #middle(picture, [width, height], side) {
    const context = this.#context;
    const left = (width - side) / 2;
    const top = (height - side) / 2;
    context.drawImage(picture, left, top, side, side, 0, 0, SIDE, SIDE);
    return luma(context.getImageData(0, 0, SIDE, SIDE).data);
  }

  /** @param {Lumas} before @param {Lumas} now */
  #addChange(before, now) {
    for (const start of stillBlocks(before.source, now.source, SIDE)) {
      for (let y = 0; y < BLOCK; y += 1) {
        for (let x = 0; x < BLOCK; x += 1) {
          const at = start + y * SIDE + x;
          this.#change.source += (now.source[at] - before.source[at]) ** 2;
          this.#change.upscaled += (now.upscaled[at] - before.upscaled[at]) ** 2;
        }
      }
      this.#change.pixels += BLOCK * BLOCK;
    }
  }

  /** @returns {Measured} */
  #result() {
    const { source, upscaled, pixels } = this.#change;
    const enough = pixels >= FEWEST_STILL * SIDE * SIDE * (FRAMES - 1);
    return {
      sharpness: mean(this.#sharpness.upscaled) / Math.max(mean(this.#sharpness.source), 1e-6),
      flicker: enough
        ? { source: Math.sqrt(source / pixels), upscaled: Math.sqrt(upscaled / pixels) }
        : null,
    };
  }
}

/**
 * @param {Measured} measured
 * @param {{source: string}} names of the sides
 * @returns {string}
 */
export function describeMeasured({ sharpness, flicker }, names) {
  const still = flicker
    ? `flicker ${flicker.source.toFixed(1)} → ${flicker.upscaled.toFixed(1)} levels where still`
    : "flicker unknown: nothing stood still";
  return `Sharpness ${sharpness.toFixed(2)} × that of ${names.source}, ${still}.`;
}

/**
 * First pixels of the blocks in which no patch changes its mean: noise averages out, motion does not.
 * @param {Float32Array} before
 * @param {Float32Array} now
 * @param {number} side
 * @returns {number[]}
 */
export function stillBlocks(before, now, side) {
  const starts = [];
  for (let top = 0; top < side; top += BLOCK) {
    for (let left = 0; left < side; left += BLOCK) {
      const start = top * side + left;
      const patches = [0, PATCH, PATCH * side, PATCH * side + PATCH].map((at) => start + at);
      const still = patches.every(
        (at) => Math.abs(patchMean(now, at, side) - patchMean(before, at, side)) < STILL,
      );
      if (still) starts.push(start);
    }
  }
  return starts;
}

/**
 * @param {Float32Array} picture square
 * @param {number} side
 * @returns {number} standard deviation of the 3x3 Laplacian, border left out
 */
export function laplacianSpread(picture, side) {
  let sum = 0;
  let squares = 0;
  for (let y = 1; y < side - 1; y += 1) {
    for (let x = 1; x < side - 1; x += 1) {
      const at = y * side + x;
      const value =
        picture[at - 1] + picture[at + 1] + picture[at - side] + picture[at + side] -
        4 * picture[at];
      sum += value;
      squares += value * value;
    }
  }
  const count = (side - 2) ** 2;
  return Math.sqrt(Math.max(0, squares / count - (sum / count) ** 2));
}

/** @param {Float32Array} picture @param {number} start @param {number} side */
function patchMean(picture, start, side) {
  let sum = 0;
  for (let y = 0; y < PATCH; y += 1) {
    for (let x = 0; x < PATCH; x += 1) sum += picture[start + y * side + x];
  }
  return sum / (PATCH * PATCH);
}

/** @param {Uint8ClampedArray} rgba @returns {Float32Array} */
function luma(rgba) {
  const out = new Float32Array(rgba.length / 4);
  for (let at = 0; at < out.length; at += 1) {
    out[at] = 0.299 * rgba[at * 4] + 0.587 * rgba[at * 4 + 1] + 0.114 * rgba[at * 4 + 2];
  }
  return out;
}

/** @param {number[]} values */
function mean(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function newContext() {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: SIDE, height: SIDE });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new TypeError("this browser has no 2D canvas");
  return context;
}
