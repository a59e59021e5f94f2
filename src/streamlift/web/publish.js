// @ts-check
/** The publish panel: choose a source and a name, start, stop, and say what happens. */

import { button, byId, setText } from "./dom.js";
import { Problem } from "./problem.js";
import { MediaPathError } from "./signalling.js";
import { openCamera, openFile, openScreen, SourceError } from "./sources.js";
import { WhipSession } from "./whip.js";

/** @typedef {"idle" | "starting" | "live"} Phase */

/** Fires `live` when publishing has begun. */
export class PublishPanel extends EventTarget {
  /** @type {Phase} */ phase = "idle";
  /** @type {WhipSession | null} */ session = null;
  /** @type {import("./sources.js").Source | null} */ #source = null;
  #form = byId("publish", HTMLFormElement);
  #name = byId("publish-name", HTMLInputElement);
  #file = byId("publish-file", HTMLInputElement);
  #square = byId("publish-square", HTMLInputElement);
  #sound = byId("publish-sound", HTMLInputElement);
  #preview = byId("publish-preview", HTMLVideoElement);
  #message = byId("publish-message", HTMLElement);
  #start = button("publish-start");
  #stop = button("publish-stop");

  /** @param {import("./api.js").Api} api */
  constructor(api) {
    super();
    this.api = api;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.start();
    });
    this.#form.addEventListener("change", () => this.#showFields());
    this.#stop.addEventListener("click", () => void this.stop("Stopped."));
    this.api.tokens.addEventListener("change", () => {
      if (this.#wantsToken) void this.start();
    });
    this.#showFields();
    this.#set("idle", "");
  }

  /** The name of the stream that is, or would be, published. */
  get name() {
    return this.#name.value.trim();
  }

  async start() {
    if (this.phase !== "idle") return;
    this.#wantsToken = false;
    this.#set("starting", "Opening the source.");
    try {
      this.#source = await this.#openSource();
      this.#preview.srcObject = this.#source.media;
      this.#set("starting", "Connecting.");
      this.session = await this.#connect(this.#source);
    } catch (error) {
      await this.stop(this.#explain(error));
      return;
    }
    this.#set("live", `Publishing as “${this.name}”.`);
    this.dispatchEvent(new Event("live"));
    void this.#untilEnd(this.session, this.#source.media);
  }

  /**
   * @param {import("./sources.js").Source} source
   * @param {RTCIceServer[]} [iceServers]
   * @returns {Promise<WhipSession>}
   */
  async #connect(source, iceServers) {
    try {
      return await WhipSession.open(
        this.api.url(`whip/${encodeURIComponent(this.name)}`),
        source.media,
        {
          token: this.api.tokens.get("publish"),
          contentHint: source.contentHint,
          iceServers,
        },
      );
    } catch (error) {
      const relays = error instanceof MediaPathError ? error.iceServers : [];
      if (iceServers || !relays.length) throw error;
      this.#set("starting", "No direct path; trying through a relay.");
      return this.#connect(source, relays);
    }
  }

  /** @param {string} message what to leave standing */
  async stop(message) {
    const { session } = this;
    this.session = null;
    this.#source?.stop();
    this.#source = null;
    this.#preview.srcObject = null;
    this.#set("idle", message);
    await session?.close();
  }

  #wantsToken = false;

  /** @param {WhipSession} session @param {MediaStream} media */
  async #untilEnd(session, media) {
    const shared = new Promise((resolve) => {
      media.getVideoTracks()[0].addEventListener("ended", () => resolve("the source ended"));
    });
    const reason = await Promise.race([session.ended, shared]);
    if (this.session === session) await this.stop(`Publishing ended: ${reason}.`);
  }

  /** @returns {Promise<import("./sources.js").Source>} */
  #openSource() {
    const options = { square: this.#square.checked, sound: this.#sound.checked };
    switch (this.#kind) {
      case "screen":
        return openScreen(options);
      case "file":
        return openFile(this.#file.files?.[0], options);
      default:
        return openCamera(options);
    }
  }

  /** @param {unknown} error */
  #explain(error) {
    if (error instanceof SourceError) return error.message;
    if (error instanceof Problem && [401, 403].includes(error.status)) {
      this.#wantsToken = true;
      this.api.tokens.ask("publish", { again: true });
      return `A token is needed to publish “${this.name}”: ${error.message}`;
    }
    if (error instanceof Problem) return `The service refused: ${error.message}`;
    if (error instanceof MediaPathError) return `Not published: ${error.message}`;
    return error instanceof TypeError ? "The service does not answer." : String(error);
  }

  get #kind() {
    // Not by FormData, which leaves out a disabled fieldset.
    return this.#form.querySelector("input[name=source]:checked")?.getAttribute("value");
  }

  #showFields() {
    byId("publish-file-field", HTMLElement).hidden = this.#kind !== "file";
    byId("publish-sound-field", HTMLElement).hidden = this.#kind === "file";
  }

  /** @param {Phase} phase @param {string} message */
  #set(phase, message) {
    this.phase = phase;
    this.#form.dataset.phase = phase;
    this.#start.disabled = phase !== "idle";
    this.#stop.disabled = phase !== "live";
    this.#preview.hidden = phase === "idle";
    byId("publish-fields", HTMLFieldSetElement).disabled = phase !== "idle";
    setText(this.#message, message);
  }
}
