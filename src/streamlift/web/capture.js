// @ts-check
/** Taking something home: a snapshot from the service, a recording of what is received here. */

import { isMissing } from "./api.js";
import { button, download, setText } from "./dom.js";
import { bytes, duration, fileTime } from "./format.js";

const LONGEST_S = 600;
const LARGEST = 1e9;
const KINDS = ["video/mp4;codecs=avc1", "video/webm;codecs=h264", "video/webm;codecs=vp8", ""];

export class Capture {
  /** @type {MediaRecorder | null} */ #recorder = null;
  #snapshot = button("snapshot");
  #record = button("record");

  /**
   * @param {import("./api.js").Api} api
   * @param {import("./player.js").Player} player the upscaled view
   * @param {() => string | null} stream name of the stream that is shown
   * @param {(message: string) => void} say
   */
  constructor(api, player, stream, say) {
    this.api = api;
    this.player = player;
    this.stream = stream;
    this.say = say;
    this.#snapshot.addEventListener("click", () => void this.#takeSnapshot());
    this.#record.addEventListener("click", () => this.#toggleRecording());
    this.#record.hidden = typeof MediaRecorder !== "function";
    player.addEventListener("state", () => {
      if (player.state.phase !== "live") this.#recorder?.stop();
    });
  }

  async #takeSnapshot() {
    const stream = this.stream();
    if (!stream) return;
    this.#snapshot.disabled = true;
    try {
      const blob = await this.api.snapshot(stream, "upscaled");
      download(blob, `${stream}-${fileTime(new Date())}.jpg`);
      this.say("Snapshot saved.");
    } catch (error) {
      if (isMissing(error)) this.#snapshot.hidden = true;
      this.say(`No snapshot: ${error instanceof Error ? error.message : error}`);
    } finally {
      this.#snapshot.disabled = false;
    }
  }

  #toggleRecording() {
    if (this.#recorder) {
      this.#recorder.stop();
      return;
    }
    const media = this.player.session?.stream;
    const stream = this.stream();
    if (!media?.getVideoTracks().length || !stream) {
      this.say("Nothing to record yet.");
      return;
    }
    this.#recorder = this.#startRecording(media, stream);
  }

  /** @param {MediaStream} media @param {string} stream */
  #startRecording(media, stream) {
    const recorder = new MediaRecorder(media, { mimeType: startableKind(), videoBitsPerSecond: 8_000_000 });
    /** @type {Blob[]} */
    const parts = [];
    const startedMs = performance.now();
    let total = 0;
    // By a clock, since MP4 data comes only at keyframes.
    const clock = setInterval(() => {
      const seconds = (performance.now() - startedMs) / 1000;
      setText(this.#record, `Stop · ${duration(seconds)}`);
      // What is recorded waits in memory until it is saved.
      if (seconds > LONGEST_S || total > LARGEST) recorder.stop();
    }, 500);
    recorder.addEventListener("dataavailable", ({ data }) => {
      parts.push(data);
      total += data.size;
    });
    recorder.addEventListener("stop", () => {
      clearInterval(clock);
      this.#recorder = null;
      this.#record.setAttribute("aria-pressed", "false");
      setText(this.#record, "Record");
      const type = recorder.mimeType.split(";")[0];
      const name = `${stream}-${fileTime(new Date())}.${ending(type)}`;
      if (total) download(new Blob(parts, { type }), name);
      this.say(total ? `Recording saved, ${bytes(total)}.` : "Nothing was recorded.");
    });
    recorder.start(1000);
    this.#record.setAttribute("aria-pressed", "true");
    setText(this.#record, "Stop");
    return recorder;
  }
}

/** What this browser can record, the best first; undefined leaves it to the browser. */
export function startableKind() {
  return KINDS.find((kind) => MediaRecorder.isTypeSupported(kind));
}

/** @param {string} type of a recording @returns {string} of its file name */
export function ending(type) {
  if (type.endsWith("mp4")) return "mp4";
  return type.endsWith("webm") ? "webm" : "mkv";
}
