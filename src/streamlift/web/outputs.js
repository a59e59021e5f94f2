// @ts-check
/** Where the watched stream goes beside its viewers: pushes and recordings, with their state. */

import { byId, make, setText } from "./dom.js";
import { bytes } from "./format.js";
import { doing, whileOpen } from "./panel.js";

/**
 * @typedef {{id: string, type: string, state: string, reason: string | null, url?: string, device?: string,
 *            frames_written?: number, files?: string[], bytes_sent?: number, bytes_written?: number}} Output
 */

export class OutputsPanel {
  /** @type {string | null} */ #stream = null;
  /** @type {Map<string, HTMLLIElement>} */ #rows = new Map();
  #form = byId("output-form", HTMLFormElement);
  #fields = byId("output-fields", HTMLFieldSetElement);
  #type = byId("output-type", HTMLSelectElement);
  #url = byId("output-url", HTMLInputElement);
  #token = byId("output-token", HTMLInputElement);
  #list = byId("output-list", HTMLElement);
  #message = byId("output-message", HTMLElement);

  /** @param {import("./api.js").Api} api */
  constructor(api) {
    this.api = api;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#add();
    });
    this.#type.addEventListener("change", () => this.#showFields());
    this.#showFields();
    whileOpen("outputs", api, (signal, asked) => this.#look(signal, asked), (message) => {
      if (message) setText(this.#message, message);
    });
  }

  /** @param {import("./api.js").Stream | null} stream */
  showStream(stream) {
    if ((stream?.name ?? null) === this.#stream) return;
    this.#stream = stream?.name ?? null;
    this.#fields.disabled = this.#stream === null;
    setText(this.#message, "");
    this.#show([]);
  }

  /** @param {AbortSignal} signal @param {boolean} asked */
  async #look(signal, asked) {
    const stream = this.#stream;
    if (stream === null) return this.#show([]);
    const answer = await this.api.call("GET", this.#path(stream), null, { signal, asked });
    if (stream === this.#stream) this.#show(answer.outputs);
  }

  /** @param {Output[]} outputs */
  #show(outputs) {
    const ids = new Set(outputs.map(({ id }) => id));
    for (const [id, row] of this.#rows) {
      if (ids.has(id)) continue;
      row.remove();
      this.#rows.delete(id);
    }
    for (const output of outputs) {
      const row = this.#rows.get(output.id) ?? this.#addRow(output);
      setText(row.children[0], describe(output));
    }
    byId("output-empty", HTMLElement).hidden = outputs.length > 0;
  }

  /** @param {Output} output */
  #addRow({ id, type, url, device }) {
    const end = make("button", { type: "button", textContent: "End" });
    end.setAttribute("aria-label", `End ${type} ${url ?? device ?? "recording"}`);
    end.addEventListener("click", () => void this.#end(id));
    const row = make("li", { className: "item" }, [make("span"), end]);
    this.#rows.set(id, row);
    this.#list.append(row);
    return row;
  }

  async #add() {
    const stream = this.#stream;
    if (stream === null) return;
    await doing(this.#message, "Asked for it.", async () => {
      const type = this.#type.value;
      const token = this.#token.value.trim();
      const where = { [type === "v4l2" ? "device" : "url"]: this.#url.value.trim() };
      const body = { type, ...where, ...(type !== "v4l2" && token && { token }) };
      await this.api.call("POST", this.#path(stream), body);
      this.#token.value = "";
      return "Added. Its state is in the list within two seconds.";
    });
  }

  /** @param {string} id */
  async #end(id) {
    const stream = this.#stream;
    if (stream === null) return;
    await doing(this.#message, "Ending it.", async () => {
      await this.api.call("DELETE", `${this.#path(stream)}/${encodeURIComponent(id)}`);
      this.#rows.get(id)?.remove();
      this.#rows.delete(id);
      return "Ended.";
    });
  }

  /** @param {string} stream */
  #path(stream) {
    return `api/v1/streams/${encodeURIComponent(stream)}/outputs`;
  }

  #showFields() {
    const type = this.#type.value;
    const device = type === "v4l2";
    byId("output-token-field", HTMLElement).hidden = device;
    this.#token.disabled = device;
    setText(byId("output-token-label", HTMLElement), SECRETS[type] ?? "");
    setText(byId("output-url-label", HTMLElement), device ? "Device" : "Address");
    this.#url.placeholder = EXAMPLES[type] ?? "";
  }
}

const EXAMPLES = /** @type {Record<string, string>} */ ({
  whip: "https://server.example/whip/name",
  rtmp: "rtmp://server.example/live",
  rtsp: "rtsp://server.example:8554/name",
  v4l2: "/dev/video10",
});

const SECRETS = /** @type {Record<string, string>} */ ({
  whip: "Its bearer token, if it wants one",
  rtmp: "Its stream key, if the address has none",
  rtsp: "The password, if it wants one",
});

/** @param {Output} output */
function describe(output) {
  const { type, url, device, files, state, reason, frames_written: frames } = output;
  const where = url ?? device ?? (files ?? []).join(", ");
  const sent = output.bytes_sent ?? output.bytes_written;
  const much = frames === undefined ? bytes(sent ?? 0) : `${frames} pictures`;
  return [`${type}: ${state}`, where, much, reason].filter(Boolean).join(" · ");
}
