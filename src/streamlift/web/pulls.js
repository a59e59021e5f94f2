// @ts-check
/** Streams that the service fetches itself: add one, see how it goes, and prompt a Scope. */

import { Problem } from "./problem.js";
import { button, byId, setText } from "./dom.js";
import { doing, whileOpen } from "./panel.js";

/**
 * @typedef {{stream: string, kind: string, state: string, reason: string, connections: number,
 *            url?: string, pipeline?: string, parameters?: {prompts?: {text: string}[]}}} Source
 */

/** Which fields each kind needs; the ids of the page without "pull-". */
const FIELDS = /** @type {Record<string, string[]>} */ ({
  whep: ["url", "token"],
  url: ["url"],
  daydream: ["id"],
  scope: ["url", "pipeline", "prompt"],
});
const EXAMPLES = /** @type {Record<string, string>} */ ({
  whep: "https://server.example/whep/name",
  url: "rtsp://camera.example:554/stream",
  scope: "http://localhost:8000",
});

/** Fires `added`, a CustomEvent with the stream's name, when the service has taken one. */
export class PullPanel extends EventTarget {
  /** @type {string | null} */ #stream = null;
  /** @type {string | null} the stream that is not fetched: it is not asked for again and again */
  #published = null;
  #form = byId("pull-form", HTMLFormElement);
  #kind = byId("pull-kind", HTMLSelectElement);
  #message = byId("pull-message", HTMLElement);
  #state = byId("source-state", HTMLElement);
  #prompts = byId("prompt-form", HTMLFormElement);
  #prompt = byId("prompt", HTMLTextAreaElement);
  #promptMessage = byId("prompt-message", HTMLElement);

  /** @param {import("./api.js").Api} api */
  constructor(api) {
    super();
    this.api = api;
    this.#kind.addEventListener("change", () => this.#showFields());
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#add();
    });
    this.#prompts.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#send();
    });
    button("source-end").addEventListener("click", () => void this.#end());
    this.#showFields();
    whileOpen("pull", api, (signal, asked) => this.#look(signal, asked), (message) => {
      if (message) setText(this.#state, message);
    });
  }

  /** @param {import("./api.js").Stream | null} stream */
  showStream(stream) {
    if ((stream?.name ?? null) === this.#stream) return;
    this.#stream = stream?.name ?? null;
    this.#published = null;
    this.#showSource(null);
  }

  /** @param {AbortSignal} signal @param {boolean} asked */
  async #look(signal, asked) {
    if (this.#stream === null) return this.#showSource(null);
    if (this.#stream === this.#published && !asked) return;
    try {
      const path = `api/v1/streams/${encodeURIComponent(this.#stream)}/source`;
      this.#showSource(await this.api.call("GET", path, null, { signal, asked }));
    } catch (error) {
      if (!(error instanceof Problem && error.status === 404)) throw error;
      this.#published = this.#stream;
      this.#showSource(null);
    }
  }

  /** @param {Source | null} source */
  #showSource(source) {
    const name = this.#stream;
    button("source-end").hidden = !source;
    this.#prompts.hidden = source?.kind !== "scope";
    if (!source) {
      setText(this.#state, name === null ? "" : `“${name}” is published here, not fetched.`);
      return;
    }
    const from = source.url ? ` from ${source.url}` : "";
    const reason = source.reason ? `: ${source.reason}` : "";
    setText(this.#state, `“${name}” is fetched${from} (${source.kind}): ${source.state}${reason}`);
    const prompts = source.parameters?.prompts ?? [];
    if (document.activeElement !== this.#prompt && !this.#prompt.dataset.changed) {
      this.#prompt.value = prompts.map(({ text }) => text).join("\n");
    }
  }

  async #add() {
    const name = byId("pull-name", HTMLInputElement).value.trim();
    await doing(this.#message, "Asked for it.", async () => {
      await this.api.call("POST", "api/v1/streams", { name, source: this.#source() });
      byId("pull-token", HTMLInputElement).value = "";
      this.#published = null;
      this.dispatchEvent(new CustomEvent("added", { detail: name }));
      return `The service fetches “${name}” now. If nothing comes, the state here says why.`;
    });
  }

  /** The body's `source`. */
  #source() {
    const kind = this.#kind.value;
    /** @param {string} field */
    const value = (field) => byId(`pull-${field}`, HTMLInputElement).value.trim();
    switch (kind) {
      case "daydream":
        return { kind, stream_id: value("id") };
      case "scope": {
        const prompt = value("prompt");
        return {
          kind,
          ...(value("url") && { url: value("url") }),
          ...(value("pipeline") && { pipeline: value("pipeline") }),
          prompts: prompt ? [prompt] : [],
        };
      }
      default: {
        const token = kind === "whep" ? value("token") : "";
        return { kind, url: value("url"), ...(token && { token }) };
      }
    }
  }

  /** Pass prompts on to Scope: one a line, each of the same weight. */
  async #send() {
    const stream = this.#stream;
    if (stream === null) return;
    const prompts = this.#prompt.value.split("\n").map((line) => line.trim()).filter(Boolean);
    await doing(this.#promptMessage, "Sent.", async () => {
      const path = `api/v1/streams/${encodeURIComponent(stream)}/source`;
      await this.api.call("PUT", path, { prompts });
      return prompts.length ? "Scope was told. The picture follows within its next block." : "No prompt.";
    });
  }

  async #end() {
    const stream = this.#stream;
    if (stream === null) return;
    await doing(this.#message, "Ending it.", async () => {
      await this.api.call("DELETE", `api/v1/streams/${encodeURIComponent(stream)}`);
      return `“${stream}” has ended.`;
    });
  }

  #showFields() {
    const kind = this.#kind.value;
    const wanted = FIELDS[kind] ?? [];
    for (const field of ["url", "token", "id", "pipeline", "prompt"]) {
      const shown = wanted.includes(field);
      byId(`pull-${field}-field`, HTMLElement).hidden = !shown;
      const input = byId(`pull-${field}`, HTMLInputElement);
      input.disabled = !shown; // a hidden required field would hold the form up
    }
    const url = byId("pull-url", HTMLInputElement);
    url.placeholder = EXAMPLES[kind] ?? "";
    url.required = kind !== "scope";
  }
}
