// @ts-check
/** What a backend without weights needs, beside its button: the command, or a download with progress. */

import { make, setText } from "./dom.js";
import { bytes } from "./format.js";

/** @typedef {import("./api.js").Backend} Backend */

/** One line and its controls; `element` belongs below the button while something lacks. */
export class WeightsRow {
  #text = make("span", { className: "message" });
  #command = make("code", { hidden: true });
  #progress = make("progress", { hidden: true, max: 1 });
  #button = make("button", { type: "button", hidden: true });
  #downloading = false;

  /**
   * @param {import("./api.js").Api} api
   * @param {string} backend
   * @param {() => void} changed called when the list of backends should be read again
   */
  constructor(api, backend, changed) {
    this.api = api;
    this.backend = backend;
    this.changed = changed;
    this.element = make("div", { className: "weights" }, [
      this.#text,
      this.#command,
      this.#progress,
      this.#button,
    ]);
    this.element.setAttribute("role", "group");
    this.element.setAttribute("aria-label", `Weights of ${backend}`);
    this.#progress.setAttribute("aria-label", `Download of ${backend}`);
    this.#button.addEventListener("click", () => void this.#press());
  }

  /** @param {Backend} backend */
  show({ weights, download }) {
    this.#downloading = Boolean(download);
    this.#progress.hidden = !download;
    if (download?.total) this.#progress.value = download.bytes / download.total;
    else this.#progress.removeAttribute("value");
    this.#button.hidden = !download && !weights?.may_download;
    setText(this.#button, download ? "Cancel" : weights?.error ? "Try again" : "Download");
    this.#command.hidden = Boolean(download || weights?.may_download || !weights);
    setText(this.#command, weights?.command ?? "");
    setText(this.#text, describe(weights, download));
  }

  async #press() {
    const method = this.#downloading ? "DELETE" : "POST";
    this.#button.disabled = true;
    try {
      await this.api.call(method, `api/v1/backends/${encodeURIComponent(this.backend)}/weights`);
      this.changed();
    } catch (error) {
      setText(this.#text, error instanceof Error ? error.message : String(error));
    } finally {
      this.#button.disabled = false;
    }
  }
}

/**
 * @param {Backend["weights"]} weights
 * @param {Backend["download"]} download
 */
function describe(weights, download) {
  if (download) {
    const total = download.total ? ` of ${bytes(download.total)}` : "";
    return `Fetching its weights: ${bytes(download.bytes)}${total}.`;
  }
  if (!weights) return "";
  if (weights.error) return `Not fetched: ${weights.error}`;
  const size = weights.bytes ? `, ${bytes(weights.bytes)}` : "";
  const files = weights.missing.length === 1 ? "1 file" : `${weights.missing.length} files`;
  const what = `Its weights are not here (${files}${size}).`;
  return weights.may_download ? what : `${what} On the service's machine, run:`;
}
