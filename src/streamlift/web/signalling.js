// @ts-check
/**
 * The HTTP half that WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep) share: POST an offer, get an
 * answer and a session to PATCH late candidates into and to DELETE.
 */

import { Problem } from "./problem.js";

/**
 * @typedef {object} SessionOptions
 * @property {string} [token] bearer token, sent as a header only
 * @property {string} [controlToken] of the right to control, where `token` may lack it
 * @property {AbortSignal} [signal] gives up the POST
 * @property {RTCIceServer[]} [iceServers]
 * @property {number} [gatherMs] how long to wait for candidates before the POST
 */

/**
 * @typedef {object} Signalled
 * @property {URL} url the session resource
 * @property {RTCIceServer[]} iceServers servers told in Link headers, for the next attempt
 */

const GATHER_MS = 500;
const CONNECT_MS = 10_000;

/**
 * Send the local offer, apply the answer. The peer connection must have its transceivers already.
 *
 * Candidates found within `gatherMs` travel in the offer. Later ones are sent by PATCH when the
 * server gave an ETag, and are otherwise left to peer-reflexive discovery.
 * @param {RTCPeerConnection} peer
 * @param {string | URL} endpoint
 * @param {SessionOptions} options
 * @returns {Promise<Signalled>}
 * @throws {Problem} for an answer other than 201
 */
async function signal(peer, endpoint, options) {
  await peer.setLocalDescription();
  await gathered(peer, options.gatherMs ?? GATHER_MS);
  const late = lateCandidates(peer);
  const response = await fetch(endpoint, {
    method: "POST",
    headers: {
      "Content-Type": "application/sdp",
      ...bearer(options.token),
      ...(options.controlToken && options.controlToken !== options.token &&
        { "Streamlift-Control": options.controlToken }),
    },
    body: peer.localDescription?.sdp ?? "",
    signal: options.signal,
  });
  if (response.status !== 201) throw await Problem.from(response);
  const location = response.headers.get("location");
  if (!location) throw new Problem(201, "the server opened a session but did not say where");
  // Relative to where a redirect led, not to where we asked (RFC 9725 section 4.2).
  const url = new URL(location, response.url);
  try {
    await peer.setRemoteDescription({ type: "answer", sdp: await response.text() });
  } catch (error) {
    await endSession(url, options.token);
    throw error;
  }
  const etag = response.headers.get("etag");
  if (etag) late.sendTo(url, etag, options.token);
  return { url, iceServers: iceServersFromLink(response.headers.get("link")) };
}

/**
 * DELETE a session. Never throws: a session that cannot be deleted times out at the server.
 * @param {URL} url
 * @param {string} [token]
 */
export async function endSession(url, token) {
  try {
    // keepalive lets the request outlive the page, for pagehide.
    await fetch(url, { method: "DELETE", headers: bearer(token), keepalive: true });
  } catch {
    // The server is gone, and the session with it.
  }
}

/**
 * Resolves when the connection is up; rejects with the reason when it fails or takes too long.
 * @param {RTCPeerConnection} peer
 * @param {number} timeoutMs
 * @param {AbortSignal} [signal]
 */
function connected(peer, timeoutMs, signal) {
  return new Promise((resolve, reject) => {
    const done = new AbortController();
    const timer = setTimeout(() => finish(new MediaPathError()), timeoutMs);
    /** @param {unknown} [error] */
    function finish(error) {
      clearTimeout(timer);
      done.abort();
      if (error) reject(error);
      else resolve(undefined);
    }
    function look() {
      if (peer.connectionState === "connected") finish();
      if (["failed", "closed"].includes(peer.connectionState)) finish(new MediaPathError());
    }
    peer.addEventListener("connectionstatechange", look, { signal: done.signal });
    signal?.addEventListener("abort", () => finish(signal.reason), { signal: done.signal });
    look();
  });
}

/** HTTP worked, but no media path was found. */
export class MediaPathError extends Error {
  /** @type {RTCIceServer[]} servers the service named; another attempt with them may succeed */
  iceServers = [];

  constructor() {
    super("the server answers, but no media path to it was found: is UDP blocked?");
    this.name = "MediaPathError";
  }
}

/**
 * Resolves with a reason once the other side or the network ended an established connection;
 * never after a `close()` here, for which browsers fire no event.
 * @param {RTCPeerConnection} peer
 * @param {number} patienceMs how long "disconnected" may last: ICE often recovers by itself
 * @returns {Promise<string>}
 */
export function ended(peer, patienceMs = 4000) {
  const [transceiver] = peer.getTransceivers();
  const transport = transceiver?.receiver.transport ?? transceiver?.sender.transport;
  return new Promise((resolve) => {
    const done = new AbortController();
    let timer = 0;
    /** @param {string} reason */
    function finish(reason) {
      clearTimeout(timer);
      done.abort();
      resolve(reason);
    }
    function look() {
      clearTimeout(timer);
      const state = peer.connectionState;
      if (state === "failed") finish("the connection was lost");
      if (state === "closed") finish("the connection was closed");
      // Told by a DTLS alert; without looking here it would take ICE ten seconds to notice.
      else if (transport?.state === "closed") finish("the service ended the session");
      if (state === "disconnected") {
        timer = setTimeout(() => finish("the connection was lost"), patienceMs);
      }
    }
    peer.addEventListener("connectionstatechange", look, { signal: done.signal });
    transport?.addEventListener("statechange", look, { signal: done.signal });
    look();
  });
}

/**
 * Open a session: signal, then wait until media can flow. On failure nothing is left behind.
 * @param {RTCPeerConnection} peer with its transceivers
 * @param {string | URL} endpoint
 * @param {SessionOptions} options
 * @returns {Promise<Signalled>}
 * @throws {Problem} when the server refuses
 * @throws {MediaPathError} when no media path is found
 */
export async function establish(peer, endpoint, options) {
  let signalled;
  try {
    signalled = await signal(peer, endpoint, options);
    await connected(peer, CONNECT_MS, options.signal);
    return signalled;
  } catch (error) {
    peer.close();
    if (error instanceof MediaPathError && signalled) error.iceServers = signalled.iceServers;
    if (signalled) await endSession(signalled.url, options.token);
    throw error;
  }
}

/** @param {string} [token] @returns {Record<string, string>} */
function bearer(token) {
  return token ? { Authorization: `Bearer ${token}` } : {};
}

/** @param {RTCPeerConnection} peer @param {number} capMs */
function gathered(peer, capMs) {
  if (peer.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, capMs);
    peer.addEventListener("icegatheringstatechange", () => {
      if (peer.iceGatheringState !== "complete") return;
      clearTimeout(timer);
      resolve(undefined);
    });
  });
}

/**
 * Collects candidates found after the offer was taken, and sends them once the session is known.
 * @param {RTCPeerConnection} peer
 */
function lateCandidates(peer) {
  /** @type {RTCIceCandidate[]} */
  const waiting = [];
  /** @type {((candidate: RTCIceCandidate) => void) | null} */
  let send = null;
  peer.addEventListener("icecandidate", ({ candidate }) => {
    if (!candidate?.candidate) return;
    if (send) send(candidate);
    else waiting.push(candidate);
  });
  return {
    /** @param {URL} url @param {string} etag @param {string} [token] */
    sendTo(url, etag, token) {
      send = (candidate) => patchCandidate(peer, url, etag, candidate, token);
      waiting.splice(0).forEach(send);
    },
  };
}

/**
 * One candidate as an SDP fragment (RFC 8840). A refusal is no error: the path may work without.
 * @param {RTCPeerConnection} peer
 * @param {URL} url
 * @param {string} etag
 * @param {RTCIceCandidate} candidate
 * @param {string} [token]
 */
function patchCandidate(peer, url, etag, candidate, token) {
  const sdp = peer.localDescription?.sdp ?? "";
  const fragment = [
    /^a=ice-ufrag:.*$/m.exec(sdp)?.[0].trim(),
    /^a=ice-pwd:.*$/m.exec(sdp)?.[0].trim(),
    /^m=.*$/m.exec(sdp)?.[0].trim(),
    `a=mid:${candidate.sdpMid ?? "0"}`,
    `a=${candidate.candidate}`,
    "",
  ].join("\r\n");
  const headers = {
    "Content-Type": "application/trickle-ice-sdpfrag",
    "If-Match": etag,
    ...bearer(token),
  };
  fetch(url, { method: "PATCH", headers, body: fragment }).catch(() => undefined);
}

/**
 * `<turn:host?transport=udp>; rel="ice-server"; username="u"; credential="c"` (RFC 9725, 4.6).
 * @param {string | null} link
 * @returns {RTCIceServer[]}
 */
export function iceServersFromLink(link) {
  if (!link) return [];
  return link
    .split(/,(?=\s*<)/)
    .filter((part) => /;\s*rel="?ice-server"?/.test(part))
    .map((part) => ({
      urls: /<([^>]*)>/.exec(part)?.[1] ?? "",
      username: /;\s*username="([^"]*)"/.exec(part)?.[1],
      credential: /;\s*credential="([^"]*)"/.exec(part)?.[1],
    }))
    .filter((server) => server.urls !== "");
}
