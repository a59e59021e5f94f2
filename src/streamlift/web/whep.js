// @ts-check
/**
 * A WHEP viewer (draft-ietf-wish-whep): one play session, without any user interface.
 *
 *     const session = await WhepSession.open("/whep/demo", { token });
 *     video.srcObject = session.stream;
 *     const reason = await session.ended;
 *     await session.close();
 */

import { ended, endSession, establish } from "./signalling.js";

/** @typedef {import("./signalling.js").SessionOptions & {audio?: boolean}} WhepOptions */

export class WhepSession {
  /** @type {string | undefined} */ #token;

  /**
   * Use `WhepSession.open`.
   * @param {RTCPeerConnection} peer
   * @param {MediaStream} stream
   * @param {import("./signalling.js").Signalled} signalled
   * @param {string} [token]
   */
  constructor(peer, stream, signalled, token) {
    this.peer = peer;
    /** What is received; tracks may join it later. */
    this.stream = stream;
    /** The session resource. */
    this.url = signalled.url;
    /** Resolves with the reason once the connection is over. */
    this.ended = ended(peer);
    this.#token = token;
  }

  /**
   * Ask for a stream and wait until media can flow.
   * @param {string | URL} endpoint
   * @param {WhepOptions} options
   * @returns {Promise<WhepSession>}
   * @throws {import("./problem.js").Problem} when the server refuses (409: nobody publishes yet)
   * @throws {import("./signalling.js").MediaPathError} when no media path is found
   */
  static async open(endpoint, options = {}) {
    const peer = new RTCPeerConnection({
      bundlePolicy: "max-bundle",
      iceServers: options.iceServers ?? [],
    });
    const stream = new MediaStream();
    peer.addEventListener("track", ({ track }) => stream.addTrack(track));
    peer.addTransceiver("video", { direction: "recvonly" });
    if (options.audio) peer.addTransceiver("audio", { direction: "recvonly" });
    const signalled = await establish(peer, endpoint, options);
    return new WhepSession(peer, stream, signalled, options.token);
  }

  /** The last path segment of the session resource. */
  get id() {
    return this.url.pathname.split("/").filter(Boolean).at(-1) ?? "";
  }

  /** End the session here and at the server; may be called again. */
  async close() {
    if (this.peer.signalingState === "closed") return;
    this.peer.close();
    await endSession(this.url, this.#token);
  }
}
