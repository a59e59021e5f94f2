// @ts-check
/** The before/after view: source left, upscaled right of a line, both showing the same frame. */

import { dimensions, drawPicture, SINGLE_PIXELS, whole } from "./drawing.js";
import { FramePairs } from "./pairs.js";
import { StampReader } from "./stamp.js";

/**
 * @typedef {import("./drawing.js").Picture} Picture
 * @typedef {{video: HTMLVideoElement, origin: () => number | null}} Feed
 *   `origin` gives the RTP timestamp of pts 0, or null when unknown
 * @typedef {object} Pictures a pair that is shown
 * @property {Picture} source
 * @property {Picture} upscaled
 * @property {[number, number]} lowSize of the source
 * @property {[number, number]} highSize of the upscaled picture
 * @property {number | null} pts 90 kHz, modulo 2^32
 * @property {boolean} locked whether both are known to be one frame
 */

const STEP = 0.02;
const DENSEST = 2;
const TRIALS = 20;
const HAS_FRAME_CALLBACK = "requestVideoFrameCallback" in HTMLVideoElement.prototype;

/** Fires `move` when the line moves, `pair` when another pair is shown, and `draw` when it was drawn. */
export class Slider extends EventTarget {
  /** Where the line is, 0 to 1 across the view. */
  position = 0.5;
  /** Keep showing the same pair, to look at it closely. */
  frozen = false;
  /** What to call both sides; fires `names` when set anew. */
  names = { source: "Source", upscaled: "Upscaled" };
  /** How many times larger the left picture is than the publisher's; for reading stamps. */
  scale = 1;
  /**
   * Draws a pair in another way than as two halves, while it is set.
   * @type {((context: CanvasRenderingContext2D, pictures: Pictures) => void) | null}
   */
  painter = null;
  /** @type {Pictures | null} */ #still = null;
  /**
   * What happened so far, for tests and for the curious. `same` and `different` count frame numbers
   * read from the stamps of drawn pairs, while `readStamps` is on.
   */
  sync = {
    source: 0, upscaled: 0, late: 0, draws: 0, matched: 0, readStamps: false, same: 0, different: 0,
  };
  /** @type {FramePairs<{picture: Picture, close: () => void}>} */ #pairs = new FramePairs();
  /** @type {AbortController | null} */ #running = null;
  #stamps = new StampReader();
  #clocksAgree = false;
  /** @type {CanvasRenderingContext2D} */ #context;

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {HTMLElement} line the focusable element with role slider
   * @param {{source: Feed, upscaled: Feed}} feeds
   * @param {import("./zoom.js").Zoom} zoom
   */
  constructor(canvas, line, feeds, zoom) {
    super();
    const context = canvas.getContext("2d", { alpha: false });
    if (!context) throw new TypeError("this browser has no 2D canvas");
    this.#context = context;
    this.canvas = canvas;
    this.line = line;
    this.feeds = feeds;
    this.zoom = zoom;
    zoom.addEventListener("change", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(canvas);
    this.#listen();
  }

  /** Whether both halves are known to show the same frame. */
  get locked() {
    return this.#still ? this.#still.locked : this.#pairs.locked;
  }

  start() {
    if (this.#running) return;
    this.#running = new AbortController();
    this.#watch("source", this.#running.signal);
    this.#watch("upscaled", this.#running.signal);
  }

  stop() {
    this.#running?.abort();
    this.#running = null;
    this.#pairs.clear();
  }

  /** Another picture comes on one side: what is held of the one before means nothing beside it. */
  forget() {
    this.#pairs.clear();
    const { canvas } = this;
    this.#context.clearRect(0, 0, canvas.width, canvas.height);
    this.dispatchEvent(new Event("pair"));
  }

  /** @param {number} position 0 to 1 */
  moveTo(position) {
    this.position = Math.min(1, Math.max(0, position));
    const percent = Math.round(this.position * 100);
    this.line.style.left = `${this.position * 100}%`;
    this.line.setAttribute("aria-valuenow", String(percent));
    this.line.setAttribute("aria-valuetext", `${percent}% source`);
    this.draw();
    this.dispatchEvent(new Event("move"));
  }

  /** Draw the current pair again. */
  draw() {
    const pictures = this.pictures();
    if (!pictures || !this.#running) return;
    const { canvas } = this;
    const density = Math.min(DENSEST, window.devicePixelRatio);
    const width = Math.round(canvas.clientWidth * density);
    const height = Math.round(canvas.clientHeight * density);
    if (!width || !height) return;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = this.#context;
    context.imageSmoothingEnabled = this.zoom.scale < SINGLE_PIXELS;
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, height);
    if (this.painter) {
      this.painter(context, pictures);
    } else {
      const split = Math.round(width * this.position);
      this.#half(pictures.source, 0, split);
      this.#half(pictures.upscaled, split, width);
    }
    this.dispatchEvent(new Event("draw"));
  }

  /** @param {Picture} picture @param {number} left @param {number} right */
  #half(picture, left, right) {
    if (right <= left) return;
    const context = this.#context;
    const { canvas, zoom } = this;
    context.save();
    context.beginPath();
    context.rect(left, 0, right - left, canvas.height);
    context.clip();
    drawPicture(context, picture, whole(canvas), zoom);
    context.restore();
  }

  /**
   * Take every frame a video shows until the signal aborts.
   * @param {import("./pairs.js").Side} side
   * @param {AbortSignal} signal
   */
  #watch(side, signal) {
    const { video, origin } = this.feeds[side];
    /** @param {number} _now @param {VideoFrameCallbackMetadata | null} metadata */
    const take = (_now, metadata) => {
      if (signal.aborted) return;
      next();
      // Between two connections a video still calls back, with nothing to show.
      if (this.frozen || video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) return;
      this.sync[side] += 1;
      const picture = grab(video);
      if (!(picture instanceof HTMLCanvasElement) && this.#movedOn(picture, metadata)) {
        picture.close();
        this.sync.late += 1;
        return;
      }
      const held = { picture, close: () => "close" in picture && picture.close() };
      if (this.#pairs.push(side, ptsOf(metadata, origin()), held)) this.#shown();
    };
    let id = 0;
    const next = () => {
      if (HAS_FRAME_CALLBACK) id = video.requestVideoFrameCallback(take);
      else requestAnimationFrame((now) => take(now, null));
    };
    const again = () => {
      if (!HAS_FRAME_CALLBACK) return;
      video.cancelVideoFrameCallback(id);
      next();
    };
    // A callback that waits while the video gets another stream may never come (seen in Firefox).
    video.addEventListener("loadeddata", again, { signal });
    next();
  }

  /**
   * Whether the video went on to another frame between the callback and now; the next callback
   * announces that one. A browser whose two clocks never agree is taken at its word.
   * @param {VideoFrame} picture
   * @param {VideoFrameCallbackMetadata | null} metadata
   */
  #movedOn(picture, metadata) {
    if (!metadata) return false;
    const same = Math.abs(picture.timestamp - metadata.mediaTime * 1e6) < 1000;
    this.#clocksAgree ||= same;
    return !same && (this.#clocksAgree || this.sync.late < TRIALS);
  }

  #shown() {
    this.draw();
    this.sync.draws += 1;
    if (this.locked) this.sync.matched += 1;
    if (this.sync.readStamps) this.#countStamps();
    this.dispatchEvent(new Event("pair"));
  }

  /**
   * Show a pair from memory instead of the live one; whoever gave it takes it back with null.
   * @param {Pictures | null} still
   */
  show(still) {
    this.#still = still;
    this.draw();
    this.dispatchEvent(new Event("pair"));
  }

  /** The pictures shown now; null before the first pair. @returns {Pictures | null} */
  pictures() {
    if (this.#still) return this.#still;
    const pair = this.#pairs.pair;
    if (!pair) return null;
    const source = pair.source.picture.picture;
    const upscaled = pair.upscaled.picture.picture;
    return {
      source,
      upscaled,
      lowSize: dimensions(source),
      highSize: dimensions(upscaled),
      pts: pair.upscaled.pts,
      locked: this.#pairs.locked,
    };
  }

  /** Frame numbers of both halves, read from their stamps; null without a stamp. */
  stamps() {
    const pictures = this.pictures();
    if (!pictures) return null;
    const [lowWidth] = pictures.lowSize;
    const [highWidth] = pictures.highSize;
    const { scale } = this;
    const source = this.#stamps.read(pictures.source, lowWidth, scale);
    const ratio = (scale * highWidth) / lowWidth;
    const upscaled = this.#stamps.read(pictures.upscaled, highWidth, ratio);
    return source && upscaled && { source: source.number, upscaled: upscaled.number };
  }

  #countStamps() {
    const stamps = this.stamps();
    if (!stamps) return;
    if (stamps.source === stamps.upscaled) this.sync.same += 1;
    else this.sync.different += 1;
  }

  #listen() {
    const { line, canvas } = this;
    line.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -STEP, ArrowRight: STEP, PageDown: -0.1, PageUp: 0.1 }[event.key];
      if (step) this.moveTo(this.position + step);
      else if (event.key === "Home") this.moveTo(0);
      else if (event.key === "End") this.moveTo(1);
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    /** @param {PointerEvent} event */
    const drag = (event) => {
      const box = canvas.getBoundingClientRect();
      this.moveTo((event.clientX - box.left) / box.width);
    };
    /** @param {PointerEvent} event */
    const grip = (event) => {
      if (event.button !== 0) return;
      const target = /** @type {HTMLElement} */ (event.currentTarget);
      // On a zoomed picture a drag moves the picture, and only the line itself the line.
      if (target === canvas && this.zoom.scale > 1) return;
      event.stopPropagation();
      target.setPointerCapture(event.pointerId);
      target.addEventListener("pointermove", drag);
      target.addEventListener(
        "lostpointercapture",
        () => target.removeEventListener("pointermove", drag),
        { once: true },
      );
      drag(event);
    };
    line.addEventListener("pointerdown", grip);
    canvas.addEventListener("pointerdown", grip);
  }
}

/**
 * The picture a video shows now. A VideoFrame is only a reference, and tells its time; a canvas is
 * a copy for browsers without VideoFrame.
 * @param {HTMLVideoElement} video
 * @returns {Picture}
 */
function grab(video) {
  if (typeof VideoFrame === "function") return new VideoFrame(video);
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d")?.drawImage(video, 0, 0);
  return canvas;
}

/**
 * @param {VideoFrameCallbackMetadata | null} metadata
 * @param {number | null} origin
 * @returns {number | null} 90 kHz, modulo 2^32
 */
function ptsOf(metadata, origin) {
  const timestamp = metadata?.rtpTimestamp;
  return timestamp === undefined || origin === null ? null : (timestamp - origin) >>> 0;
}
