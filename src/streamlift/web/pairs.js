// @ts-check
/** Finds the source frame that belongs to an upscaled frame, by presentation time. */

/** @typedef {"source" | "upscaled"} Side */
/** @typedef {{close: () => void}} Closable a picture that must be given back, as VideoFrame */

/**
 * @template {Closable} T
 * @typedef {{pts: number | null, picture: T}} Held
 */

const KEPT = 24;
/** Both views carry the same pts; a millisecond of the 90 kHz clock forgives rounding. */
const TOLERANCE = 90;

/**
 * Holds the newest frames of both views. The views arrive over separate connections, and either
 * may be ahead by some frames, so both are kept until their partner comes.
 * @template {Closable} T
 */
export class FramePairs {
  /** @type {Record<Side, Held<T>[]>} */ #held = { source: [], upscaled: [] };
  /** @type {{source: Held<T>, upscaled: Held<T>} | null} */ #pair = null;

  /** The pair to show now; its pictures stay open until the next pair replaces it. */
  get pair() {
    return this.#pair;
  }

  /**
   * Take a frame. Its picture belongs to this object from now on.
   * @param {Side} side
   * @param {number | null} pts 90 kHz, modulo 2^32; null when unknown
   * @param {T} picture
   * @returns {boolean} whether there is a new pair
   */
  push(side, pts, picture) {
    const mine = this.#held[side];
    mine.push({ pts, picture });
    const other = this.#held[side === "source" ? "upscaled" : "source"];
    // With a full memory and no partner in it the times mean nothing: show the newest of both.
    const partner =
      other.findLast((held) => belongTogether(held.pts, pts)) ??
      (mine.length > KEPT && other.length === KEPT ? other[KEPT - 1] : undefined);
    if (!partner) {
      if (mine.length > KEPT) mine.shift()?.picture.close();
      return false;
    }
    const newest = mine[mine.length - 1];
    this.#show(
      side === "source"
        ? { source: newest, upscaled: partner }
        : { source: partner, upscaled: newest },
    );
    return true;
  }

  /** Whether the pair is known to be one frame. */
  get locked() {
    const pair = this.#pair;
    return pair !== null && pair.source.pts !== null && pair.upscaled.pts !== null &&
      belongTogether(pair.source.pts, pair.upscaled.pts);
  }

  /** How many frames wait for their partner. */
  get waiting() {
    return this.#held.source.length + this.#held.upscaled.length;
  }

  /** Give every picture back. */
  clear() {
    for (const side of /** @type {Side[]} */ (["source", "upscaled"])) {
      this.#held[side].splice(0).forEach(({ picture }) => picture.close());
      this.#pair?.[side].picture.close();
    }
    this.#pair = null;
  }

  /** @param {{source: Held<T>, upscaled: Held<T>}} pair */
  #show(pair) {
    for (const side of /** @type {Side[]} */ (["source", "upscaled"])) {
      const held = this.#held[side];
      const older = held.splice(0, held.indexOf(pair[side]) + 1);
      older.pop(); // the pair's own picture stays open
      older.forEach(({ picture }) => picture.close());
      this.#pair?.[side].picture.close();
    }
    this.#pair = pair;
  }
}

/**
 * Unknown times cannot tell frames apart: then the newest of both sides are shown together.
 * @param {number | null} a
 * @param {number | null} b
 */
function belongTogether(a, b) {
  return a === null || b === null || Math.abs((a - b) | 0) <= TOLERANCE;
}
