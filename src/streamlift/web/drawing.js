// @ts-check
/** Where a picture lies in a view that is zoomed, and drawing it there. */

/**
 * @typedef {VideoFrame | HTMLCanvasElement} Picture
 * @typedef {{left: number, top: number, width: number, height: number}} Box
 * @typedef {{scale: number, x: number, y: number}} Zoomed what of the picture is looked at
 */

/** From this zoom on the eye wants the pixels themselves, not a blur of them. */
export const SINGLE_PIXELS = 2;

/**
 * Where the whole picture lies, so that the looked-at part fills the view.
 * @param {Box} view
 * @param {[number, number]} size of the picture
 * @param {Zoomed} zoom
 * @returns {Box} in the view's units
 */
export function placed(view, [width, height], zoom) {
  const fit = Math.min(view.width / width, view.height / height) * zoom.scale;
  return {
    left: view.left + view.width / 2 - zoom.x * width * fit,
    top: view.top + view.height / 2 - zoom.y * height * fit,
    width: width * fit,
    height: height * fit,
  };
}

/**
 * The point of a picture below a point of the view.
 * @param {Box} place from `placed`
 * @param {{x: number, y: number}} point in the view's units
 * @returns {{x: number, y: number} | null} fractions of the picture; null beside it
 */
export function pointOf(place, point) {
  const x = (point.x - place.left) / place.width;
  const y = (point.y - place.top) / place.height;
  return x >= 0 && x < 1 && y >= 0 && y < 1 ? { x, y } : null;
}

/**
 * Draw a picture where it lies in the view; whoever calls clips.
 * @param {CanvasRenderingContext2D} context
 * @param {Picture} picture
 * @param {Box} view
 * @param {Zoomed} zoom
 */
export function drawPicture(context, picture, view, zoom) {
  const { left, top, width, height } = placed(view, dimensions(picture), zoom);
  context.drawImage(picture, left, top, width, height);
}

/** @param {Picture} picture @returns {[number, number]} */
export function dimensions(picture) {
  return picture instanceof HTMLCanvasElement
    ? [picture.width, picture.height]
    : [picture.displayWidth, picture.displayHeight];
}

/** @param {HTMLCanvasElement} canvas @returns {Box} all of it */
export function whole({ width, height }) {
  return { left: 0, top: 0, width, height };
}

/**
 * A canvas that is drawn to and read, off the page.
 * @param {number} width
 * @param {number} height
 * @param {CanvasRenderingContext2DSettings} settings
 */
export function offPage(width, height, settings = { alpha: false }) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d", settings);
  if (!context) throw new TypeError("this browser has no 2D canvas");
  return context;
}
