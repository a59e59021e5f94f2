// @ts-check
/**
 * A WHIP publisher (RFC 9725): one publish session, without any user interface.
 *
 *     const session = await WhipSession.open("/whip/cam", mediaStream, { token });
 *     const reason = await session.ended;
 *     await session.close();
 */

import { ended, endSession, establish } from "./signalling.js";

/**
 * @typedef {import("./signalling.js").SessionOptions & {
 *   maxBitrateBps?: number, contentHint?: string}} WhipOptions
 */

const MAX_BITRATE_BPS = 4_000_000;
const PREFERRED = ["video/h264", "video/vp8"];

export class WhipSession {
  /** @type {string | undefined} */ #token;

  /**
   * Use `WhipSession.open`.
   * @param {RTCPeerConnection} peer
   * @param {import("./signalling.js").Signalled} signalled
   * @param {string} [token]
   */
  constructor(peer, signalled, token) {
    this.peer = peer;
    /** The session resource. */
    this.url = signalled.url;
    /** Resolves with the reason once the connection is over. */
    this.ended = ended(peer);
    this.#token = token;
  }

  /**
   * Offer the first video and audio track of a stream and wait until media can flow.
   * @param {string | URL} endpoint
   * @param {MediaStream} media stays the caller's: its tracks are not stopped here
   * @param {WhipOptions} options
   * @returns {Promise<WhipSession>}
   * @throws {import("./problem.js").Problem} when the server refuses
   * @throws {import("./signalling.js").MediaPathError} when no media path is found
   */
  static async open(endpoint, media, options = {}) {
    const peer = new RTCPeerConnection({
      bundlePolicy: "max-bundle",
      iceServers: options.iceServers ?? [],
    });
    await addVideo(peer, media, options);
    for (const track of media.getAudioTracks().slice(0, 1)) {
      peer.addTransceiver(track, { direction: "sendonly", streams: [media] });
    }
    const signalled = await establish(peer, endpoint, options);
    return new WhipSession(peer, signalled, options.token);
  }

  /** End the session here and at the server; may be called again. */
  async close() {
    if (this.peer.signalingState === "closed") return;
    this.peer.close();
    await endSession(this.url, this.#token);
  }
}

/**
 * @param {RTCPeerConnection} peer
 * @param {MediaStream} media
 * @param {WhipOptions} options
 */
async function addVideo(peer, media, options) {
  const [track] = media.getVideoTracks();
  if (!track) throw new TypeError("the stream to publish has no video track");
  // Without a hint browsers may halve the size of a busy picture to keep its rate.
  track.contentHint = options.contentHint ?? "motion";
  const transceiver = peer.addTransceiver(track, {
    direction: "sendonly",
    streams: [media],
    sendEncodings: [{ maxBitrate: options.maxBitrateBps ?? MAX_BITRATE_BPS }],
  });
  const capabilities = RTCRtpSender.getCapabilities?.("video");
  if (capabilities) transceiver.setCodecPreferences?.(preferred(capabilities.codecs));
  await keepResolution(transceiver.sender);
}

/**
 * An upscaler gains nothing from a picture that was made smaller on the way; drop frames instead.
 * @param {RTCRtpSender} sender
 */
async function keepResolution(sender) {
  const parameters = sender.getParameters();
  Object.assign(parameters, { degradationPreference: "maintain-resolution" });
  await sender.setParameters(parameters);
}

/**
 * H.264 first, then VP8, then the rest in the browser's own order.
 * @template {{mimeType: string}} Codec
 * @param {Codec[]} codecs
 * @returns {Codec[]}
 */
export function preferred(codecs) {
  /** @param {Codec} codec */
  const rank = (codec) => {
    const index = PREFERRED.indexOf(codec.mimeType.toLowerCase());
    return index < 0 ? PREFERRED.length : index;
  };
  return codecs
    .map((codec, index) => ({ codec, index }))
    .sort((a, b) => rank(a.codec) - rank(b.codec) || a.index - b.index)
    .map(({ codec }) => codec);
}
