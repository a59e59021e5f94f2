// @ts-check
/** Client of the control API, relative to the page. */

import { Problem } from "./problem.js";
import { parseEvents } from "./sse.js";

/**
 * @typedef {{p50: number, p95: number}} Percentiles
 * @typedef {"decode" | "queue" | "upscale" | "encode" | "send" | "total"} Stage
 * @typedef {object} Stream
 * @property {string} name
 * @property {string} state
 * @property {string | null} reason
 * @property {boolean} degraded
 * @property {string | null} backend
 * @property {string | null} policy
 * @property {{codec: string, size: [number, number], fps: number | null} | null} publisher
 * @property {{size: [number, number] | null, fps: number | null, bitrate_bps: number | null,
 *             renditions?: {codec: string, bitrate_bps: number, profile: string}[]} | null} output
 * @property {Partial<Record<Stage, Percentiles>>} [latency_ms]
 * @property {{received: number, decoded: number, upscaled: number, encoded: number,
 *             dropped: Record<string, number>}} [frames]
 * @property {Compared[]} [compare] lanes that the shown picture is held against
 * @property {number} viewers
 * @property {{bitrate_bps: number, stabilise: string | null, idle: string}} [settings]
 * @property {{scale?: number, size?: [number, number]} | null} [target]
 * @typedef {object} Backend
 * @property {string} name
 * @property {string} upscaler
 * @property {string} device
 * @property {"ready" | "loading" | "unavailable" | "quarantined"} state
 * @property {string | null} reason
 * @property {number | null} fps
 * @property {{total: number, used: number}} slots
 * @property {Worker[]} [workers] in other processes or on other machines
 * @property {{words: string} | null} [plan] what a model that chooses by itself begins with here
 * @property {Record<string, string>} [settings] as they are configured
 * @property {{missing: string[], bytes: number, command: string, may_download: boolean,
 *             error: string} | null} [weights] what lacks, if that is why it cannot be used
 * @property {{bytes: number, total: number | null} | null} [download]
 *
 * @typedef {{backend: string, state: "opening" | "live" | "left_out", viewers: number, kept: number,
 *            size: [number, number] | null, fps: number | null}} Compared
 * @typedef {{name: string, address: string, state: string, reason: string, device: string,
 *            fps: number | null, slots: {total: number, used: number}, rtt_ms: number | null,
 *            restarts: number}} Worker
 * @typedef {{version: string, tokens: boolean, links: boolean, rtsp_port: number | null,
 *            weights_download: boolean, files: {largest_bytes: number, upscalers: string[]} | null}} About
 *            what this service has, and what of it is turned on
 * @typedef {{id: string, role: string, stream: string, state: string, codec: string | null,
 *            rtp_origin: number | null}} Session
 * @typedef {{event: string, seq: number, time: number | string, stream: string | null,
 *            from: string | null, to: string | null, gap_ms: number | null,
 *            reason: string | null}} ServiceEvent
 */

const TIMEOUT_MS = 5000;

export class Api {
  /** @param {import("./tokens.js").Tokens} tokens @param {string} base */
  constructor(tokens, base = document.baseURI) {
    this.tokens = tokens;
    this.base = base;
  }

  /** @param {string} path relative to the page @returns {URL} */
  url(path) {
    return new URL(path, this.base);
  }

  /** @param {AbortSignal} [signal] @returns {Promise<Stream[]>} */
  async streams(signal) {
    return (await this.#json("api/v1/streams", "view", { signal })).streams ?? [];
  }

  /** @param {AbortSignal} [signal] @returns {Promise<Backend[]>} */
  async backends(signal) {
    return (await this.#json("api/v1/backends", "view", { signal })).backends ?? [];
  }

  /** @param {AbortSignal} [signal] @returns {Promise<About>} */
  async about(signal) {
    return this.#json("api/v1/about", "view", { signal });
  }

  /** @param {string} id @param {AbortSignal} [signal] @returns {Promise<Session>} */
  async session(id, signal) {
    return this.#json(`api/v1/sessions/${encodeURIComponent(id)}`, "view", { signal });
  }

  /**
   * Ask for another backend or policy, exactly one of them.
   * @param {string} stream
   * @param {{backend: string} | {policy: string}} wanted
   * @returns {Promise<Stream>}
   */
  async switchTo(stream, wanted) {
    return this.#json(`api/v1/streams/${encodeURIComponent(stream)}/backend`, "control", {
      method: "PUT",
      asked: true,
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(wanted),
    });
  }

  /** @param {string} stream @param {"source" | "upscaled"} view @returns {Promise<Blob>} */
  async snapshot(stream, view) {
    const path = `api/v1/streams/${encodeURIComponent(stream)}/snapshot.jpg?view=${view}`;
    return (await this.#fetch(path, "view", { asked: true })).blob();
  }

  /**
   * Any call that changes something, or reads what only the control token may read.
   * @param {"GET" | "POST" | "PUT" | "PATCH" | "DELETE"} method
   * @param {string} path relative to the page
   * @param {object | null} body
   * @param {{signal?: AbortSignal, asked?: boolean, right?: import("./tokens.js").Right}} options
   *     `asked`: by the user, just now
   * @returns {Promise<any>} null where there is no content
   * @throws {Problem} for any status outside 2xx
   */
  async call(method, path, body = null, { signal, asked = true, right = "control" } = {}) {
    const response = await this.#fetch(path, right, {
      method,
      signal,
      asked,
      ...(body !== null && {
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(body),
      }),
    });
    return response.status === 204 ? null : response.json();
  }

  /**
   * A file of any size, however long it takes.
   * @param {string} path @returns {Promise<Blob>}
   */
  async file(path) {
    return (await this.#fetch(path, "control", { asked: true, endless: true })).blob();
  }

  /**
   * Service events until the connection ends. Read by fetch, not EventSource, which could send a
   * token only in the URL.
   * @param {AbortSignal} signal
   * @param {number | null} after go on after this event, if the service still has it
   * @returns {AsyncGenerator<ServiceEvent>}
   */
  async *events(signal, after = null) {
    const response = await this.#fetch("api/v1/events", "view", {
      signal,
      headers: {
        Accept: "text/event-stream",
        ...(after !== null && { "Last-Event-ID": String(after) }),
      },
      endless: true,
    });
    if (!response.body) return;
    for await (const { event, data } of parseEvents(response.body)) {
      yield { event, ...JSON.parse(data) };
    }
  }

  /**
   * @param {string} path
   * @param {import("./tokens.js").Right} right
   * @param {RequestInit & {asked?: boolean}} init
   */
  async #json(path, right, init) {
    return (await this.#fetch(path, right, init)).json();
  }

  /**
   * @param {string} path
   * @param {import("./tokens.js").Right} right
   * @param {RequestInit & {endless?: boolean, asked?: boolean}} init `asked`: by the user, just now
   * @returns {Promise<Response>}
   * @throws {Problem} for any status outside 2xx
   */
  async #fetch(path, right, { endless, asked, signal, headers, ...init }) {
    const token = this.tokens.get(right);
    const timeout = endless ? [] : [AbortSignal.timeout(TIMEOUT_MS)];
    const response = await fetch(this.url(path), {
      cache: "no-store",
      ...init,
      headers: { ...headers, ...(token && { Authorization: `Bearer ${token}` }) },
      signal: AbortSignal.any([...(signal ? [signal] : []), ...timeout]),
    });
    if (response.ok) return response;
    // 403 to a token: it opens another door than this one.
    const locked = response.status === 401 || (response.status === 403 && token);
    if (locked) this.tokens.ask(right, { again: asked });
    throw await Problem.from(response);
  }
}

/**
 * Whether the service does not have this endpoint, so that its panel should go.
 * @param {unknown} error
 */
export function isMissing(error) {
  return error instanceof Problem && [404, 405, 501].includes(error.status);
}
