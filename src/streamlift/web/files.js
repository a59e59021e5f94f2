// @ts-check
/** A file that is sent to the service, upscaled there, and fetched again, with progress all along. */

import { button, byId, download, make, setText } from "./dom.js";
import { bytes } from "./format.js";
import { Problem } from "./problem.js";
import { told, whileOpen } from "./panel.js";

/**
 * @typedef {{id: string, name: string, state: "waiting" | "working" | "done" | "failed",
 *            reason: string, pictures: number, total: number | null, fps: number,
 *            bytes: number | null, result: string, warnings: string[]}} Job
 */

export class FilesPanel {
  /** @type {Map<string, {row: HTMLElement, text: HTMLElement, bar: HTMLProgressElement, get: HTMLButtonElement}>} */
  #rows = new Map();
  #panel = byId("files", HTMLDetailsElement);
  #form = byId("files-form", HTMLFormElement);
  #fields = byId("files-fields", HTMLFieldSetElement);
  #file = byId("files-file", HTMLInputElement);
  #bar = byId("files-progress", HTMLProgressElement);
  #message = byId("files-message", HTMLElement);
  #list = byId("files-list", HTMLElement);
  /** @type {XMLHttpRequest | null} */ #sending = null;
  /** @type {import("./api.js").About["files"]} */ #limits = null;

  /** @param {import("./api.js").Api} api */
  constructor(api) {
    this.api = api;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#send();
    });
    button("files-cancel").addEventListener("click", () => this.#sending?.abort());
    whileOpen("files", api, (signal, asked) => this.#look(signal, asked), (message) => {
      if (message) setText(this.#message, message);
    });
  }

  /** Only where the service takes files. @param {import("./api.js").About | null} about */
  showAbout(about) {
    this.#limits = about?.files ?? null;
    this.#panel.hidden = this.#limits === null;
    if (this.#limits) {
      setText(byId("files-limit", HTMLElement), `At most ${bytes(this.#limits.largest_bytes)}.`);
    }
  }

  /** @param {AbortSignal} signal @param {boolean} asked */
  async #look(signal, asked) {
    const { files } = await this.api.call("GET", "api/v1/files", null, { signal, asked });
    this.#show(files);
  }

  async #send() {
    const file = this.#file.files?.[0];
    if (!file) return setText(this.#message, "Choose a file first.");
    const most = this.#limits?.largest_bytes ?? Infinity;
    if (file.size > most) {
      return setText(this.#message, `${bytes(file.size)}; this service takes ${bytes(most)} at most.`);
    }
    const query = new URLSearchParams({ name: file.name });
    for (const field of ["upscaler", "scale", "stabilise"]) {
      const { value } = byId(`files-${field}`, HTMLSelectElement);
      if (value) query.set(field, value);
    }
    this.#busy(true);
    try {
      await this.#upload(file, query);
      setText(this.#message, "Sent. It is upscaled now; the page may be closed meanwhile.");
      this.#file.value = "";
      await this.#look(AbortSignal.timeout(5000), false);
    } catch (error) {
      if (error instanceof Problem && [401, 403].includes(error.status)) {
        this.api.tokens.ask("control", { again: true });
      }
      setText(this.#message, told(error));
    } finally {
      this.#busy(false);
    }
  }

  /** By XMLHttpRequest: fetch does not tell how much has been sent. */
  /** @param {File} file @param {URLSearchParams} query @returns {Promise<void>} */
  #upload(file, query) {
    const request = new XMLHttpRequest();
    this.#sending = request;
    return new Promise((resolve, reject) => {
      request.open("POST", this.api.url(`api/v1/files?${query}`));
      const token = this.api.tokens.get("control");
      if (token) request.setRequestHeader("Authorization", `Bearer ${token}`);
      request.setRequestHeader("Content-Type", "application/octet-stream");
      request.upload.addEventListener("progress", ({ loaded, total }) => {
        this.#bar.value = total ? loaded / total : 0;
        setText(this.#message, `Sending: ${bytes(loaded)} of ${bytes(total)}.`);
      });
      request.addEventListener("load", () => {
        if (request.status === 201) resolve();
        else reject(new Problem(request.status, detailOf(request)));
      });
      request.addEventListener("error", () => reject(new TypeError("the connection broke")));
      request.addEventListener("abort", () => reject(new Error("Not sent: cancelled.")));
      request.send(file);
    });
  }

  /** @param {boolean} sending */
  #busy(sending) {
    this.#fields.disabled = sending;
    this.#bar.hidden = !sending;
    this.#bar.value = 0;
    button("files-send").disabled = sending;
    button("files-cancel").disabled = !sending;
    if (!sending) this.#sending = null;
  }

  /** @param {Job[]} jobs newest last */
  #show(jobs) {
    const ids = new Set(jobs.map(({ id }) => id));
    for (const [id, { row }] of this.#rows) {
      if (ids.has(id)) continue;
      row.remove();
      this.#rows.delete(id);
    }
    for (const job of jobs) {
      const { text, bar, get } = this.#rows.get(job.id) ?? this.#addRow(job);
      setText(text, describe(job));
      bar.hidden = !["waiting", "working"].includes(job.state);
      if (job.total) bar.value = job.pictures / job.total;
      else bar.removeAttribute("value");
      get.hidden = job.state !== "done";
    }
  }

  /** @param {Job} job */
  #addRow({ id, name, result }) {
    const text = make("span");
    const bar = make("progress", { max: 1 });
    bar.setAttribute("aria-label", `Progress of ${name}`);
    const get = make("button", { type: "button", textContent: "Save", hidden: true });
    get.setAttribute("aria-label", `Save ${result}`);
    get.addEventListener("click", () => void this.#save(id, result));
    const remove = make("button", { type: "button", textContent: "Remove" });
    remove.setAttribute("aria-label", `Remove ${name}`);
    remove.addEventListener("click", () => void this.#remove(id));
    const row = make("li", { className: "item" }, [text, bar, get, remove]);
    const entry = { row, text, bar, get };
    this.#rows.set(id, entry);
    this.#list.prepend(row);
    return entry;
  }

  /** By fetch: a plain link cannot carry the token in a header. */
  /** @param {string} id @param {string} name */
  async #save(id, name) {
    setText(this.#message, `Fetching ${name}.`);
    try {
      download(await this.api.file(`api/v1/files/${encodeURIComponent(id)}/result`), name);
      setText(this.#message, `Saved: ${name}.`);
    } catch (error) {
      setText(this.#message, told(error));
    }
  }

  /** @param {string} id */
  async #remove(id) {
    try {
      await this.api.call("DELETE", `api/v1/files/${encodeURIComponent(id)}`);
      this.#rows.get(id)?.row.remove();
      this.#rows.delete(id);
    } catch (error) {
      setText(this.#message, told(error));
    }
  }
}

/** @param {XMLHttpRequest} request */
function detailOf(request) {
  try {
    const { detail, title } = JSON.parse(request.responseText);
    return String(detail || title);
  } catch {
    return `${request.status} ${request.statusText}`.trim();
  }
}

/** @param {Job} job */
function describe({ name, state, reason, pictures, total, fps, bytes: size, warnings }) {
  switch (state) {
    case "waiting":
      return `${name}: waits for its turn`;
    case "working":
      return `${name}: ${pictures}${total ? ` of ${total}` : ""} pictures, ${fps.toFixed(1)} a second`;
    case "done":
      return [`${name}: ${pictures} pictures, ${bytes(size ?? 0)}`, ...warnings].join(". ");
    default:
      return `${name}: failed: ${reason}`;
  }
}
