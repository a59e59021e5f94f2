// @ts-check
/** A comparison to take home: both pictures side by side with their names, as PNG or as a clip. */

import { ending, startableKind } from "./capture.js";
import { download } from "./dom.js";
import { drawDifference } from "./difference.js";
import { drawPicture, offPage, SINGLE_PIXELS } from "./drawing.js";
import { bytes, fileTime, size } from "./format.js";

/**
 * @typedef {import("./slider.js").Pictures} Pictures
 * @typedef {object} Words what is written on it
 * @property {string} stream
 * @property {{source: string, upscaled: string}} names
 * @property {number} shownMs when the pictures were shown, since 1970
 * @property {number | null} factor of the difference, when it is to be there too
 *
 * @typedef {object} Layout
 * @property {number} width of the whole, even
 * @property {number} height of the whole, even
 * @property {number} unit how much larger than usual the writing is
 * @property {import("./drawing.js").Box[]} panes
 */

const GAP = 8;
const TITLE = 40;
const CAPTION = 36;
const WIDEST = 1920;
/** Up to this width of a pane the writing has its usual size; beyond, it grows with it. */
const USUAL = 640;
/** A clip is coded on this machine, beside all else that runs on it. */
const WIDEST_IN_CLIP = 640;
export const LONGEST_CLIP_S = 30;
const CLIP_BPS = 8_000_000;

/**
 * Panes in a row, each as large as the upscaled picture if that is not too wide.
 * @param {[number, number]} picture
 * @param {number} count
 * @param {number} widest
 * @returns {Layout}
 */
export function layOut([pictureWidth, pictureHeight], count, widest = WIDEST) {
  const width = Math.max(160, Math.min(widest, pictureWidth)) & ~1;
  const height = Math.round((width * pictureHeight) / pictureWidth) & ~1;
  const unit = Math.max(1, width / USUAL);
  const top = Math.round(TITLE * unit);
  const panes = Array.from({ length: count }, (_, index) => ({
    left: GAP + index * (width + GAP), top, width, height,
  }));
  const total = (top + height + Math.round(CAPTION * unit) + 1) & ~1;
  return { width: GAP + count * (width + GAP), height: total, unit, panes };
}

/**
 * Draw the comparison over the whole canvas of the context, made to the layout's size.
 * @param {CanvasRenderingContext2D} context
 * @param {Layout} layout
 * @param {Pictures} pictures
 * @param {import("./drawing.js").Zoomed} zoom
 * @param {Words} words
 */
export function compose(context, layout, pictures, zoom, words) {
  context.fillStyle = "#0c0f14";
  context.fillRect(0, 0, layout.width, layout.height);
  const [first, second, third] = layout.panes;
  for (const [picture, pane] of /** @type {const} */ ([
    [pictures.source, first],
    [pictures.upscaled, second],
  ])) {
    context.save();
    context.beginPath();
    context.rect(pane.left, pane.top, pane.width, pane.height);
    context.clip();
    context.imageSmoothingEnabled = zoom.scale < SINGLE_PIXELS;
    drawPicture(context, picture, pane, zoom);
    context.restore();
  }
  const captions = [
    `A · ${words.names.source} · ${size(pictures.lowSize)}`,
    `B · ${words.names.upscaled} · ${size(pictures.highSize)}`,
  ];
  if (third && words.factor !== null) {
    if (pictures.locked) {
      drawDifference(context, pictures.source, pictures.upscaled, third, zoom, words.factor);
    }
    captions.push(differenceWords(words.factor, pictures.locked));
  }
  write(context, layout, title(words, zoom, pictures.locked), captions);
}

/** @param {number} factor @param {boolean} locked */
export function differenceWords(factor, locked) {
  return locked ? `|A − B| × ${factor}` : "Not the same frame: no difference is shown";
}

/** @param {Words} words @param {import("./drawing.js").Zoomed} zoom @param {boolean} locked */
export function title({ stream, shownMs }, zoom, locked) {
  const time = new Date(shownMs).toISOString().replace("T", " ").slice(0, 23);
  const part = zoom.scale > 1
    ? ` at ${(zoom.x * 100).toFixed(0)} %, ${(zoom.y * 100).toFixed(0)} %`
    : "";
  return [
    stream,
    `${time} UTC`,
    `zoom ${Number(zoom.scale.toFixed(2))}×${part}`,
    locked ? "same frame" : "NOT the same frame",
  ].join("  ·  ");
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Layout} layout
 * @param {string} title
 * @param {string[]} captions
 */
function write(context, layout, title, captions) {
  context.textBaseline = "middle";
  context.fillStyle = "#a9b4c3";
  const { unit } = layout;
  context.font = `${16 * unit}px system-ui, sans-serif`;
  context.fillText(title, GAP, (TITLE * unit) / 2, layout.width - 2 * GAP);
  context.fillStyle = "#f1f4f8";
  context.font = `600 ${17 * unit}px system-ui, sans-serif`;
  layout.panes.forEach((pane, index) => {
    const middle = pane.top + pane.height + (CAPTION * unit) / 2;
    context.fillText(captions[index] ?? "", pane.left, middle, pane.width);
  });
}

/**
 * Save one pair as PNG.
 * @param {Pictures} pictures
 * @param {import("./drawing.js").Zoomed} zoom
 * @param {Words} words
 * @returns {Promise<string>} what to tell the user
 */
export async function savePicture(pictures, zoom, words) {
  const layout = layOut(pictures.highSize, words.factor === null ? 2 : 3);
  const context = offPage(layout.width, layout.height);
  compose(context, layout, pictures, zoom, words);
  const blob = await new Promise((done) => context.canvas.toBlob(done, "image/png"));
  if (!(blob instanceof Blob)) return "This browser could not make the picture.";
  download(blob, `${words.stream}-compare-${fileTime(new Date(words.shownMs))}.png`);
  return `Comparison saved, ${layout.width} × ${layout.height}, ${bytes(blob.size)}.`;
}

/** Why this browser cannot make clips; empty when it can. */
export function whyNoClips() {
  if (typeof MediaRecorder !== "function") {
    return "This browser cannot make clips: it has no MediaRecorder. A picture can be saved.";
  }
  if (!("captureStream" in HTMLCanvasElement.prototype)) {
    return "This browser cannot make clips: it cannot record a canvas. A picture can be saved.";
  }
  return "";
}

/** Records pairs as they are shown, and saves them as a file when it is stopped. */
export class Clip {
  #life = new AbortController();
  /** @type {Blob[]} */ #parts = [];

  /**
   * @param {import("./slider.js").Slider} slider
   * @param {() => Words} words
   * @param {(told: string) => void} saved called once, with what to tell the user
   */
  constructor(slider, words, saved) {
    const pictures = slider.pictures();
    if (!pictures) throw new TypeError("no pair of pictures is shown yet");
    this.slider = slider;
    this.startedMs = performance.now();
    const first = words();
    const layout = layOut(pictures.highSize, first.factor === null ? 2 : 3, WIDEST_IN_CLIP);
    const context = offPage(layout.width, layout.height);
    const draw = () => {
      const now = slider.pictures();
      if (now) compose(context, layout, now, slider.zoom, { ...words(), factor: first.factor });
    };
    draw();
    // A frame for each pair, and none between.
    const media = context.canvas.captureStream(0);
    const [track] = media.getVideoTracks();
    this.recorder = new MediaRecorder(media, {
      mimeType: startableKind(), videoBitsPerSecond: CLIP_BPS,
    });
    const { signal } = this.#life;
    const take = () => {
      draw();
      if ("requestFrame" in track) /** @type {CanvasCaptureMediaStreamTrack} */ (track).requestFrame();
      if (this.seconds >= LONGEST_CLIP_S) this.stop();
    };
    slider.addEventListener("pair", take, { signal });
    this.recorder.addEventListener("dataavailable", ({ data }) => this.#parts.push(data));
    this.recorder.addEventListener("stop", () => {
      this.#life.abort();
      track.stop();
      saved(this.#save(first));
    });
    this.recorder.start(1000);
    take();
  }

  get seconds() {
    return (performance.now() - this.startedMs) / 1000;
  }

  stop() {
    if (this.recorder.state !== "inactive") this.recorder.stop();
  }

  /** @param {Words} words @returns {string} */
  #save({ stream, shownMs }) {
    const type = this.recorder.mimeType.split(";")[0];
    const blob = new Blob(this.#parts, { type });
    if (!blob.size) return "Nothing was recorded.";
    download(blob, `${stream}-compare-${fileTime(new Date(shownMs))}.${ending(type)}`);
    return `Clip saved, ${this.seconds.toFixed(1)} s, ${bytes(blob.size)}.`;
  }
}
