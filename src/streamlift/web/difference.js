// @ts-check
/** Draws the absolute difference of two pictures, amplified by a power of two. */

import { dimensions, drawPicture, SINGLE_PIXELS } from "./drawing.js";

/** What the difference of two levels may be multiplied by. */
export const FACTORS = [1, 2, 4, 8, 16, 32];

/**
 * |a - b| times the factor for each of red, green and blue, in levels of 0 to 255 as they are shown,
 * and no more than 255. The smaller picture is enlarged bilinearly. What the view makes smaller is
 * averaged first, so zoom in to see single pixels' differences.
 * @param {CanvasRenderingContext2D} context its whole canvas is drawn on, or its clip
 * @param {import("./drawing.js").Picture} a
 * @param {import("./drawing.js").Picture} b
 * @param {import("./drawing.js").Box} view
 * @param {import("./drawing.js").Zoomed} zoom
 * @param {number} factor one of `FACTORS`
 */
export function drawDifference(context, a, b, view, zoom, factor) {
  const equal = dimensions(a).join() === dimensions(b).join();
  context.save();
  context.beginPath();
  context.rect(view.left, view.top, view.width, view.height);
  context.clip();
  context.imageSmoothingEnabled = !equal || zoom.scale < SINGLE_PIXELS;
  drawPicture(context, b, view, zoom);
  context.globalCompositeOperation = "difference";
  drawPicture(context, a, view, zoom);
  // Adding the view to itself doubles it, and the canvas stops at 255 by itself.
  context.globalCompositeOperation = "lighter";
  const { left, top, width, height } = view;
  for (let times = 1; times < factor; times *= 2) {
    context.drawImage(context.canvas, left, top, width, height, left, top, width, height);
  }
  context.restore();
}
