// @ts-check
/** The stream list, as rows to choose from and as the select in the header. */

import { byId, make, setText } from "./dom.js";
import { number, size } from "./format.js";

/** @typedef {import("./api.js").Stream} Stream */

/** Fires `choose`, a CustomEvent with the name as its detail. */
export class StreamList extends EventTarget {
  /** @type {Map<string, HTMLButtonElement>} */ #rows = new Map();
  #list = byId("stream-list", HTMLElement);
  #empty = byId("stream-empty", HTMLElement);
  #select = byId("stream", HTMLSelectElement);

  constructor() {
    super();
    this.#select.addEventListener("change", () => this.#choose(this.#select.value));
  }

  /** @param {Stream[]} streams @param {string | null} chosen */
  show(streams, chosen) {
    const names = streams.map(({ name }) => name);
    for (const [name, row] of this.#rows) {
      if (names.includes(name)) continue;
      row.parentElement?.remove();
      this.#rows.delete(name);
    }
    for (const stream of streams) this.#showRow(stream, stream.name === chosen);
    this.#empty.hidden = streams.length > 0;
    this.#showSelect(chosen && !names.includes(chosen) ? [chosen, ...names] : names, chosen);
  }

  /** @param {Stream} stream @param {boolean} chosen */
  #showRow(stream, chosen) {
    const row = this.#rows.get(stream.name) ?? this.#addRow(stream.name);
    row.setAttribute("aria-pressed", String(chosen));
    row.dataset.state = stream.degraded ? "degraded" : stream.state;
    const [, note] = row.children;
    const parts = [
      stream.degraded ? `${stream.state}, degraded` : stream.state,
      stream.publisher && `${size(stream.publisher.size)} → ${size(stream.output?.size)}`,
      stream.output?.fps != null && `${number(stream.output.fps)} fps`,
      stream.backend,
      stream.compare?.length && `held against ${stream.compare.map(({ backend }) => backend).join(", ")}`,
      `${stream.viewers} ${stream.viewers === 1 ? "viewer" : "viewers"}`,
    ];
    setText(note, parts.filter(Boolean).join(" · "));
    row.title = stream.reason ?? "";
  }

  /** @param {string} name */
  #addRow(name) {
    const row = make("button", { type: "button", className: "choice" }, [
      make("strong", { textContent: name }),
      make("small"),
    ]);
    row.addEventListener("click", () => this.#choose(name));
    this.#rows.set(name, row);
    this.#list.append(make("li", {}, [row]));
    return row;
  }

  /** @param {string[]} names @param {string | null} chosen */
  #showSelect(names, chosen) {
    const shown = [...this.#select.options].map((option) => option.value);
    if (shown.join("\n") !== names.join("\n")) {
      const options = names.map((name) => make("option", { value: name, textContent: name }));
      this.#select.replaceChildren(...options);
    }
    if (chosen !== null && this.#select.value !== chosen) this.#select.value = chosen;
    this.#select.hidden = names.length === 0;
  }

  /** @param {string} name */
  #choose(name) {
    this.dispatchEvent(new CustomEvent("choose", { detail: name }));
  }
}

/**
 * What to show when nobody chose: the demo, else the first live stream, else the first.
 * @param {Stream[]} streams
 * @returns {string | null}
 */
export function preferredStream(streams) {
  const names = streams.map(({ name }) => name);
  if (names.includes("demo")) return "demo";
  return streams.find(({ state }) => state === "live")?.name ?? names[0] ?? null;
}
