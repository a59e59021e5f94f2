// @ts-check
/** The live numbers: what the service says of the stream, and what this viewer receives. */

import { Chart } from "./charts.js";
import { byId, make, setText } from "./dom.js";
import { megabits, milliseconds, number, size } from "./format.js";

/** @typedef {import("./api.js").Stream} Stream */
/** @typedef {{fps: number | null, bitrateBps: number | null, dropped: number, freezes: number}} Received */

const STAGES = /** @type {const} */ (["decode", "queue", "upscale", "encode", "send"]);

export class Numbers {
  #fps = new Chart(canvas("chart-fps"), { least: 30 });
  #latency = new Chart(canvas("chart-latency"), { series: STAGES.length, least: 20 });
  #bitrate = new Chart(canvas("chart-bitrate"), { least: 2 });
  #stages = new Map(STAGES.map((stage, index) => [stage, stageRow(stage, index)]));

  constructor() {
    byId("stages", HTMLElement).append(...[...this.#stages.values()].map(({ row }) => row));
  }

  /** Forget the charts, for another stream. */
  clear() {
    for (const chart of [this.#fps, this.#latency, this.#bitrate]) chart.clear();
  }

  /** @param {Stream | null} stream @param {Received | null} received */
  show(stream, received) {
    this.#showRates(stream, received);
    this.#showLatency(stream?.latency_ms ?? {});
    const dropped = stream?.frames?.dropped ?? {};
    write("backend", stream?.backend ?? "–");
    write("viewers", number(stream?.viewers));
    write("source-size", size(stream?.publisher?.size));
    write("output-size", size(stream?.output?.size));
    write("codec", stream?.publisher?.codec?.toUpperCase() ?? "–");
    write("dropped", stream?.frames ? reasons(dropped) : "–");
    write("dropped-here", received ? String(received.dropped) : "–");
  }

  /** @param {Stream | null} stream @param {Received | null} received */
  #showRates(stream, received) {
    const fps = stream?.output?.fps ?? received?.fps;
    const bitrate = stream?.output?.bitrate_bps ?? received?.bitrateBps;
    this.#fps.push(fps);
    this.#bitrate.push(bitrate == null ? null : bitrate / 1e6);
    write("fps", number(fps, 1));
    write("bitrate", megabits(bitrate));
    write("fps-here", `${number(received?.fps, 1)} fps`);
    write("bitrate-here", `${megabits(received?.bitrateBps)} Mbit/s`);
  }

  /** @param {NonNullable<Stream["latency_ms"]>} latency */
  #showLatency(latency) {
    this.#latency.push(...STAGES.map((stage) => latency[stage]?.p50));
    write("latency", milliseconds(latency.total?.p50));
    write("latency-p95", `${milliseconds(latency.total?.p95)} ms`);
    for (const [stage, { value, row }] of this.#stages) {
      setText(value, milliseconds(latency[stage]?.p50));
      row.title = `95 % of frames take at most ${milliseconds(latency[stage]?.p95)} ms`;
    }
  }
}

/** Turns the counters of a peer connection into rates. */
export class ReceivedRates {
  /** @type {{at: number, bytes: number, frames: number} | null} */ #before = null;

  /**
   * @param {RTCPeerConnection | undefined} peer
   * @returns {Promise<Received | null>} null without a connection
   */
  async read(peer) {
    const video = peer && (await inboundVideo(peer));
    if (!video) {
      this.#before = null;
      return null;
    }
    const now = { at: video.timestamp, bytes: video.bytesReceived, frames: video.framesDecoded };
    const before = this.#before;
    this.#before = now;
    const seconds = before ? (now.at - before.at) / 1000 : 0;
    // A new connection starts counting from nothing again.
    const comparable = before && seconds > 0 && now.frames >= before.frames;
    return {
      fps: comparable ? (now.frames - before.frames) / seconds : null,
      bitrateBps: comparable ? ((now.bytes - before.bytes) * 8) / seconds : null,
      dropped: video.framesDropped ?? 0,
      freezes: video.freezeCount ?? 0,
    };
  }
}

/** @param {RTCPeerConnection} peer */
async function inboundVideo(peer) {
  for (const report of (await peer.getStats()).values()) {
    if (report.type === "inbound-rtp" && report.kind === "video") return report;
  }
  return null;
}

/** @param {string} stage @param {number} index */
function stageRow(stage, index) {
  const value = make("span", { className: "value", textContent: "–" });
  const swatch = make("i", { className: `swatch s${index}` });
  return { row: make("li", {}, [swatch, stage, value]), value };
}

/** @param {Record<string, number>} dropped @returns {string} such as "3 stale, 1 damaged" */
function reasons(dropped) {
  const counts = Object.entries(dropped).filter(([, count]) => count > 0);
  return counts.length ? counts.map(([reason, count]) => `${count} ${reason.replaceAll("_", " ")}`).join(", ") : "0";
}

/** @param {string} name @param {string} text */
function write(name, text) {
  setText(byId(`n-${name}`, HTMLElement), text);
}

/** @param {string} id */
function canvas(id) {
  return byId(id, HTMLCanvasElement);
}
