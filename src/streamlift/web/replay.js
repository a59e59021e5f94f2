// @ts-check
/** Short replay: the last seconds of paired pictures, kept in bounded memory, shown one by one. */

import { offPage } from "./drawing.js";

/** @typedef {import("./drawing.js").Picture} Picture */
/**
 * @typedef {object} Kept a picture out of the browser's hands, so that its decoder is not held up
 * @property {number} bytes
 * @property {() => Picture} show a picture of it, to be closed if it can be
 * @property {ArrayBuffer | null} buffer
 *
 * @typedef {object} Shot
 * @property {number | null} pts 90 kHz, modulo 2^32
 * @property {number} shownMs when the page showed it, since 1970
 * @property {boolean} locked
 * @property {number} bytes
 * @property {Kept} source
 * @property {Kept} upscaled
 * @property {[number, number]} lowSize
 * @property {[number, number]} highSize
 * @property {{source: string, upscaled: string}} names
 */

export const LONGEST_MS = 4000;
export const MOST_BYTES = 160 * 2 ** 20;
/** Copies under way, so that they end in order; one more is left out and counted. */
const MOST_AT_ONCE = 1;
/** Between two pictures, whatever their clocks say. */
const LONGEST_WAIT_MS = 1000;

/**
 * The newest of what is put in, bounded in bytes and in time.
 * @template {{bytes: number, shownMs: number}} T
 */
export class Ring {
  /** @type {T[]} oldest first */ #items = [];
  bytes = 0;

  /** @param {number} mostBytes @param {number} longestMs */
  constructor(mostBytes = MOST_BYTES, longestMs = LONGEST_MS) {
    this.mostBytes = mostBytes;
    this.longestMs = longestMs;
  }

  get length() {
    return this.#items.length;
  }

  /** @param {number} index from the oldest @returns {T | undefined} */
  at(index) {
    return this.#items[index];
  }

  /** @param {T} item newer than all before @returns {T | undefined} the last that had to go */
  push(item) {
    this.#items.push(item);
    this.bytes += item.bytes;
    let gone;
    while (
      this.#items.length > 1 &&
      (this.bytes > this.mostBytes || item.shownMs - this.#items[0].shownMs > this.longestMs)
    ) {
      gone = this.#items.shift();
      this.bytes -= gone?.bytes ?? 0;
    }
    return gone;
  }

  clear() {
    this.#items = [];
    this.bytes = 0;
  }
}

/** Fires `change` when another picture of it is shown, and when there is more to show. */
export class Replay extends EventTarget {
  /** Pairs that were not kept, since copies of others were under way. */
  skipped = 0;
  /** @type {number | null} what is shown, from the oldest; null is the live picture */ index = null;
  /** @type {Ring<Shot>} */ #ring = new Ring();
  /** @type {AbortController | null} while it is on */ #on = null;
  /** @type {AbortController | null} while it plays */ #playing = null;
  /** @type {Shot | undefined} lends its memory to the next one */ #spare;
  /** @type {import("./slider.js").Pictures | null} what is shown of it */ #still = null;
  #copies = 0;

  /**
   * @param {import("./stage.js").Stage} stage
   * @param {() => {source: string, upscaled: string}} namesNow
   */
  constructor(stage, namesNow) {
    super();
    this.stage = stage;
    this.namesNow = namesNow;
    stage.addEventListener("freeze", () => {
      if (!stage.slider.frozen) this.#letGo();
    });
    const [, upscaled] = stage.players;
    upscaled.addEventListener("state", () => {
      // Another session, perhaps of another stream; whoever looks at a picture may go on.
      if (upscaled.state.phase === "connecting" && this.index === null) this.#ring.clear();
    });
  }

  get on() {
    return this.#on !== null;
  }

  /** How many pairs can be shown. */
  get length() {
    return this.#ring.length;
  }

  get bytes() {
    return this.#ring.bytes;
  }

  /** Whether it is showing itself, picture after picture. */
  get playing() {
    return this.#playing !== null;
  }

  start() {
    if (this.#on) return;
    this.#on = new AbortController();
    const { slider } = this.stage;
    slider.addEventListener("pair", () => void this.#keep(), { signal: this.#on.signal });
    this.dispatchEvent(new Event("change"));
  }

  /** Give all memory back; the picture is live again. */
  stop() {
    this.#on?.abort();
    this.#on = null;
    this.#ring.clear();
    this.#spare = undefined;
    if (this.index !== null) this.stage.freeze(false);
    this.dispatchEvent(new Event("change"));
  }

  /** Pause, and go on from what is shown by some pictures. @param {number} by */
  step(by) {
    this.#playing?.abort();
    this.show((this.index ?? this.length - 1) + by);
  }

  /** Pause at one picture. @param {number} index from the oldest; the nearest there is */
  show(index) {
    if (!this.length) return;
    this.stage.freeze(true);
    const at = Math.min(this.length - 1, Math.max(0, index));
    if (at === this.index) return;
    this.index = at;
    const shot = /** @type {Shot} */ (this.#ring.at(at));
    this.#present(shot);
  }

  /** Back to the live picture. */
  live() {
    this.stage.freeze(false);
  }

  /** Seconds between the picture that is shown and the newest one that is kept. */
  get ageS() {
    const newest = this.#ring.at(this.length - 1);
    const shot = this.index === null ? newest : this.#ring.at(this.index);
    return newest && shot ? elapsedMs(shot, newest) / 1000 : 0;
  }

  /** What both sides were called when the picture that is shown was live; null while it is. */
  get names() {
    return (this.index !== null && this.#ring.at(this.index)?.names) || null;
  }

  /** When the picture that is shown was live, since 1970. */
  get shownMs() {
    return (this.index !== null && this.#ring.at(this.index)?.shownMs) || Date.now();
  }

  /** Show all that is kept at its own pace, then pause. @returns {Promise<void>} */
  async play() {
    this.#playing?.abort();
    const playing = new AbortController();
    this.#playing = playing;
    this.dispatchEvent(new Event("change"));
    let dueMs = performance.now();
    const last = this.length - 1;
    let index = this.index === null || this.index >= last ? 0 : this.index;
    for (; index <= last && !playing.signal.aborted; index += 1) {
      this.show(index);
      const [now, next] = [this.#ring.at(index), this.#ring.at(index + 1)];
      if (!now || !next) break;
      dueMs += Math.min(LONGEST_WAIT_MS, Math.max(0, elapsedMs(now, next)));
      await new Promise((done) => setTimeout(done, dueMs - performance.now()));
    }
    if (this.#playing === playing) this.#playing = null;
    this.dispatchEvent(new Event("change"));
  }

  pause() {
    this.#playing?.abort();
  }

  async #keep() {
    const pictures = this.stage.slider.pictures();
    if (!pictures || this.stage.slider.frozen) return;
    if (this.#copies >= MOST_AT_ONCE) {
      this.skipped += 1;
      return;
    }
    this.#copies += 1;
    const on = this.#on;
    const shownMs = Date.now();
    const names = this.namesNow();
    const { source, upscaled, pts, locked, lowSize, highSize } = pictures;
    const spare = this.#spare;
    this.#spare = undefined;
    try {
      const [low, high] = await Promise.all([
        keep(source, spare?.source.buffer ?? null),
        keep(upscaled, spare?.upscaled.buffer ?? null),
      ]);
      // While it was copied, the user may have turned to another view or held the picture.
      if (on !== this.#on || this.index !== null) return;
      const bytes = low.bytes + high.bytes;
      this.#spare = this.#ring.push({
        pts, shownMs, locked, bytes, lowSize, highSize, names, source: low, upscaled: high,
      });
      this.dispatchEvent(new Event("change"));
    } finally {
      this.#copies -= 1;
    }
  }

  /** @param {Shot} shot */
  #present(shot) {
    const before = this.#still;
    const { pts, locked, lowSize, highSize } = shot;
    const [source, upscaled] = [shot.source.show(), shot.upscaled.show()];
    this.#still = { source, upscaled, pts, locked, lowSize, highSize };
    this.stage.slider.show(this.#still);
    close(before);
    this.dispatchEvent(new Event("change"));
  }

  #letGo() {
    this.#playing?.abort();
    // What comes now does not follow on what was kept before the pause.
    this.#ring.clear();
    if (this.index !== null) {
      this.index = null;
      const before = this.#still;
      this.#still = null;
      this.stage.slider.show(null);
      close(before);
    }
    this.dispatchEvent(new Event("change"));
  }
}

/**
 * From one shot to a later one, by the stream's clock where it is known.
 * @param {{pts: number | null, shownMs: number}} from
 * @param {{pts: number | null, shownMs: number}} to
 */
export function elapsedMs(from, to) {
  const known = from.pts !== null && to.pts !== null;
  return known ? ((to.pts ?? 0) - (from.pts ?? 0) | 0) / 90 : to.shownMs - from.shownMs;
}

/**
 * Copy a picture as the decoder gave it, in 12 bits a pixel as a rule.
 * @param {Picture} picture
 * @param {ArrayBuffer | null} spare memory to use again if it fits
 * @returns {Promise<Kept>}
 */
async function keep(picture, spare) {
  if (picture instanceof HTMLCanvasElement) return keepCanvas(picture);
  // The slider closes its pictures when the next pair comes, which may be before the copy is done.
  const frame = picture.clone();
  try {
    if (frame.format === null) return keepCanvas(drawn(frame));
    const bytes = frame.allocationSize();
    const buffer = spare?.byteLength === bytes ? spare : new ArrayBuffer(bytes);
    const layout = await frame.copyTo(buffer);
    const { width, height } = frame.visibleRect ?? { width: 0, height: 0 };
    const { format, timestamp, displayWidth, displayHeight, colorSpace } = frame;
    const show = () =>
      new VideoFrame(buffer, {
        format, timestamp, layout, displayWidth, displayHeight, colorSpace,
        codedWidth: width, codedHeight: height,
      });
    return { bytes, buffer, show };
  } finally {
    frame.close();
  }
}

/** @param {HTMLCanvasElement} canvas @returns {Kept} */
function keepCanvas(canvas) {
  return { bytes: canvas.width * canvas.height * 4, buffer: null, show: () => canvas };
}

/** @param {VideoFrame} frame */
function drawn(frame) {
  const context = offPage(frame.displayWidth, frame.displayHeight);
  context.drawImage(frame, 0, 0);
  return context.canvas;
}

/** @param {import("./slider.js").Pictures | null} still */
function close(still) {
  for (const picture of [still?.source, still?.upscaled]) {
    if (picture && "close" in picture) picture.close();
  }
}
