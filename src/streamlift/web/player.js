// @ts-check
/** Keeps one video element playing one view of a stream, connecting again by itself. */

import { pause } from "./dom.js";
import { Problem } from "./problem.js";
import { MediaPathError } from "./signalling.js";
import { WhepSession } from "./whep.js";

/**
 * @typedef {"idle" | "connecting" | "live" | "waiting" | "retrying" | "locked"} Phase
 * @typedef {{phase: Phase, text: string}} PlayerState
 */

const FIRST_WAIT_S = 1;
const LONGEST_WAIT_S = 10;

/** Fires `state` whenever `state` changes. */
export class Player extends EventTarget {
  /** @type {PlayerState} */ state = { phase: "idle", text: "" };
  /** @type {string | null} a backend to run beside the shown one, instead of the view */ backend = null;
  /** Whether the user has just asked for it, so that a token may be asked for again. */
  asked = false;
  /** @type {WhepSession | null} the session that plays now */ session = null;
  /** @type {string | null} what it plays, or tries to */ stream = null;
  /** @type {AbortController | null} */ #life = null;
  /** @type {RTCIceServer[]} */ #iceServers = [];

  /**
   * @param {HTMLVideoElement} video
   * @param {import("./api.js").Api} api
   * @param {"source" | "upscaled"} view
   */
  constructor(video, api, view) {
    super();
    this.video = video;
    this.view = view;
    this.api = api;
  }

  /** Play a stream; what played before ends. @param {string} stream */
  play(stream) {
    this.stop();
    this.stream = stream;
    this.#life = new AbortController();
    void this.#keepPlaying(stream, this.#life.signal);
  }

  /** End the session, and stop trying. */
  stop() {
    this.#life?.abort();
    this.#life = null;
    this.stream = null;
    void this.session?.close();
    this.session = null;
    this.video.srcObject = null;
    this.#set("idle", "");
  }

  /** Say why nothing is tried. @param {string} text */
  rest(text) {
    if (!this.#life) this.#set("idle", text);
  }

  /** @param {string} stream @param {AbortSignal} signal */
  async #keepPlaying(stream, signal) {
    let failures = 0;
    while (!signal.aborted) {
      let retry;
      try {
        const reason = await this.#playOnce(stream, signal);
        failures = 0;
        retry = { phase: /** @type {Phase} */ ("retrying"), text: reason, waitS: FIRST_WAIT_S };
      } catch (error) {
        failures += 1;
        if (error instanceof MediaPathError) this.#iceServers = error.iceServers;
        retry = explain(error, stream, failures, this.backend);
      }
      if (signal.aborted) return;
      this.#set(retry.phase, retry.text);
      if (retry.phase === "locked") this.#askForToken();
      await pause(retry.waitS * 1000, signal, this.api.tokens, "change");
    }
  }

  /**
   * One session from POST to DELETE.
   * @param {string} stream
   * @param {AbortSignal} signal
   * @returns {Promise<string>} why it ended
   */
  async #playOnce(stream, signal) {
    if (this.state.phase !== "waiting") this.#set("connecting", "Connecting");
    const { backend } = this;
    const query = backend
      ? `?backend=${encodeURIComponent(backend)}`
      : this.view === "source" ? "?view=source" : "";
    const session = await WhepSession.open(
      this.api.url(`whep/${encodeURIComponent(stream)}${query}`),
      {
        token: this.api.tokens.get("view"),
        controlToken: backend ? this.api.tokens.get("control") : undefined,
        audio: this.view === "upscaled",
        iceServers: this.#iceServers,
        signal,
      },
    );
    try {
      if (signal.aborted) return "stopped";
      this.session = session;
      this.video.srcObject = session.stream;
      this.#set("live", "");
      return await Promise.race([session.ended, aborted(signal)]);
    } finally {
      if (this.session === session) this.session = null;
      await session.close();
    }
  }

  #askForToken() {
    this.api.tokens.ask(this.backend ? "control" : "view", { again: this.asked });
    this.asked = false;
  }

  /** @param {Phase} phase @param {string} text */
  #set(phase, text) {
    if (this.state.phase === phase && this.state.text === text) return;
    this.state = { phase, text };
    this.dispatchEvent(new Event("state"));
  }
}

/**
 * The same of a backend to compare with: the stream itself is there, or its own player tells.
 * @param {Problem} error
 * @param {string} backend
 * @param {number} told seconds
 * @returns {PlayerState & {waitS: number}}
 */
function refused(error, backend, told) {
  if (error.status === 409) {
    const waitS = Math.max(3, told);
    return { phase: "retrying", text: `No picture of ${backend}: ${error.message}`, waitS };
  }
  const text = "Comparing needs a token that may control this stream. Choose again to enter one.";
  return { phase: "locked", text, waitS: 3600 };
}

/**
 * What to tell the user, and how long to wait.
 * @param {unknown} error
 * @param {string} stream
 * @param {number} failures in a row, from 1
 * @param {string | null} backend that was to be compared with, if one was
 * @returns {PlayerState & {waitS: number}}
 */
export function explain(error, stream, failures, backend = null) {
  const waitS = Math.min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (failures - 1));
  if (error instanceof Problem) {
    const told = error.retryAfterS === null ? waitS : Math.max(1, error.retryAfterS);
    if (backend && [401, 403, 409].includes(error.status)) return refused(error, backend, told);
    switch (error.status) {
      case 409:
        return { phase: "waiting", text: notPublished(stream), waitS: told };
      case 401:
        return { phase: "locked", text: "A token is needed to watch. Enter it above.", waitS: 3600 };
      case 403:
        return {
          phase: "locked",
          text: "This token is not for this stream. Enter another one above, or choose another stream.",
          waitS: 3600,
        };
      case 422: // such as no codec in common; it helps only if the publisher changes
        return {
          phase: "retrying",
          text: `Cannot be played here: ${error.message}. Another browser may have the codec.`,
          waitS: 30,
        };
      case 503:
        return {
          phase: "retrying",
          text: `The service is full: ${error.message}. Tried again in ${Math.ceil(told)} s.`,
          waitS: told,
        };
      default:
        return { phase: "retrying", text: error.message, waitS: told };
    }
  }
  if (error instanceof MediaPathError) {
    return {
      phase: "retrying",
      text: `No picture: ${error.message} Allow UDP to ${location.hostname}, or set up a TURN server.`,
      waitS,
    };
  }
  if (error instanceof TypeError) {
    return {
      phase: "retrying",
      text: "The service does not answer. Is it running? Tried again by itself.",
      waitS,
    };
  }
  return { phase: "retrying", text: String(error), waitS };
}

/** @param {string} stream */
function notPublished(stream) {
  const whip = new URL(`whip/${encodeURIComponent(stream)}`, document.baseURI);
  return `Nobody publishes “${stream}” yet. Waiting. Publish it below, or send WHIP to ${whip}`;
}

/** @param {AbortSignal} signal @returns {Promise<string>} */
function aborted(signal) {
  return new Promise((resolve) => {
    signal.addEventListener("abort", () => resolve("stopped"), { once: true });
  });
}
