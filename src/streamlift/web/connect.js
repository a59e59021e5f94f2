// @ts-check
/** Addresses and settings to copy into other programs, and QR codes for phones. */

import { button, byId, make, setText } from "./dom.js";
import { doing } from "./panel.js";
import { qrSvg } from "./qr.js";

/** @typedef {import("./api.js").About} About */

const LINK_S = 3600;

export class ConnectPanel {
  /** @type {string | null} */ #stream = null;
  /** @type {About | null} */ #about = null;
  /** @type {Map<string, {text: HTMLElement, row: HTMLElement}>} */ #rows = new Map();
  #list = byId("connect-list", HTMLElement);
  #name = byId("connect-name", HTMLInputElement);
  #qr = byId("connect-qr", HTMLElement);
  #message = byId("connect-message", HTMLElement);

  /** @param {import("./api.js").Api} api */
  constructor(api) {
    this.api = api;
    this.#name.addEventListener("input", () => this.#show());
    button("connect-watch").addEventListener("click", () => void this.#code("view"));
    button("connect-publish").addEventListener("click", () => void this.#code("publish"));
    const panel = byId("connect", HTMLDetailsElement);
    panel.addEventListener("toggle", () => panel.open && void this.#open());
  }

  /** @param {import("./api.js").Stream | null} stream */
  showStream(stream) {
    const name = stream?.name ?? null;
    if (name === this.#stream) return;
    const followed = this.#name.value === (this.#stream ?? "");
    this.#stream = name;
    if (followed && name !== null) this.#name.value = name;
    this.#qr.replaceChildren();
    this.#show();
  }

  async #open() {
    try {
      this.#about = await this.api.about();
    } catch {
      this.#about = null; // then the RTSP address is not shown; the rest needs nothing
    }
    this.#show();
  }

  /** The stream that addresses are made for. */
  get #wanted() {
    return this.#name.value.trim() || "NAME";
  }

  #show() {
    const lines = recipes(this.api.url("."), this.#wanted, this.#about);
    const labels = new Set(lines.map(({ label }) => label));
    for (const [label, { row }] of this.#rows) {
      if (!labels.has(label)) {
        row.remove();
        this.#rows.delete(label);
      }
    }
    for (const { label, text } of lines) {
      const row = this.#rows.get(label) ?? this.#addRow(label);
      setText(row.text, text);
    }
  }

  /** @param {string} label */
  #addRow(label) {
    const text = make("code", { className: "copied" });
    const copy = make("button", { type: "button", textContent: "Copy" });
    copy.setAttribute("aria-label", `Copy ${label}`);
    copy.addEventListener("click", () => void this.#copy(text, label));
    const head = make("div", { className: "row spread" }, [make("strong", { textContent: label }), copy]);
    const row = make("li", { className: "recipe" }, [head, text]);
    const entry = { text, row };
    this.#rows.set(label, entry);
    this.#list.append(row);
    return entry;
  }

  /** @param {HTMLElement} element @param {string} label */
  async #copy(element, label) {
    try {
      await navigator.clipboard.writeText(element.textContent ?? "");
      setText(this.#message, `Copied: ${label}.`);
    } catch {
      // Not allowed, or an insecure page: the text is selected, and Ctrl-C does the rest.
      getSelection()?.selectAllChildren(element);
      setText(this.#message, `${label} is selected: press Ctrl and C.`);
    }
  }

  /** @param {"view" | "publish"} right */
  async #code(right) {
    const name = this.#wanted;
    this.#qr.replaceChildren();
    await doing(this.#message, "Making it.", async () => {
      const url = await this.#pageFor(right, name);
      const what = right === "view" ? `watch “${name}”` : `publish “${name}”`;
      this.#qr.append(qrSvg(url.href, `QR code to ${what}`), make("code", { textContent: url.href }));
      return caution(url, this.#about, what);
    });
  }

  /** A page to open: with a link that expires where the service makes them. */
  /** @param {"view" | "publish"} right @param {string} name */
  async #pageFor(right, name) {
    let url = this.api.url(`?stream=${encodeURIComponent(name)}`);
    if (this.#about?.links) {
      const path = `api/v1/streams/${encodeURIComponent(name)}/links`;
      url = new URL((await this.api.call("POST", path, { right, ttl_s: LINK_S })).url);
    }
    if (right === "publish") url.searchParams.set("publish", name);
    return url;
  }
}

/** @param {URL} url @param {About | null} about @param {string} what */
function caution(url, about, what) {
  if (["localhost", "127.0.0.1", "[::1]"].includes(url.hostname)) {
    return (
      `This page is open as ${url.hostname}, which a phone cannot reach. Give the service an ` +
      "address and tokens (docs: operating, TLS and tokens), and open the page there."
    );
  }
  const camera = url.protocol === "http:" ? " Phones give their camera to https:// pages only." : "";
  const ends = about?.links ? " It ends in an hour." : "";
  return `Scan it to ${what}.${ends}${camera}`;
}

/**
 * What to copy, for one stream.
 * @param {URL} base the page's address
 * @param {string} name
 * @param {About | null} about
 * @returns {{label: string, text: string}[]}
 */
export function recipes(base, name, about) {
  const stream = encodeURIComponent(name);
  const whip = new URL(`whip/${stream}`, base).href;
  const whep = new URL(`whep/${stream}`, base).href;
  const tokens = about?.tokens ?? false;
  const token = tokens ? " -authorization PUBLISH_TOKEN" : "";
  const lines = [
    { label: "WHIP address (publish)", text: whip },
    { label: "WHEP address (watch)", text: whep },
    {
      label: "Picture alone (OBS browser source)",
      text: new URL(`?stream=${stream}&view=clean`, base).href + (tokens ? "#view=VIEW_TOKEN" : ""),
    },
    {
      label: "OBS settings",
      text: [
        "Settings, Stream: Service WHIP",
        `Server: ${whip}`,
        `Bearer Token: ${tokens ? "your publish token" : "(empty)"}`,
        "Settings, Output, Advanced: H.264, Keyframe Interval 2 s, Profile baseline, B-frames 0",
        "Settings, Video: Output 640x360, 25 or 30 fps",
      ].join("\n"),
    },
    {
      label: "FFmpeg line (8 or later)",
      text:
        "ffmpeg -re -i clip.mp4 -c:v libx264 -profile:v baseline -tune zerolatency -bf 0 -g 50 " +
        `-an -f whip${token} ${whip}`,
    },
    { label: "Snippet for a page of yours", text: snippet(base, whep, tokens) },
  ];
  if (about?.rtsp_port) {
    const host = base.hostname;
    const login = tokens ? "view:VIEW_TOKEN@" : "";
    const text = `rtsp://${login}${host}:${about.rtsp_port}/${stream}`;
    lines.push({ label: "RTSP address (watch)", text });
  }
  return lines;
}

/** A page elsewhere needs `server.allowed_origins`, unless all doors have tokens. */
/** @param {URL} base @param {string} whep @param {boolean} tokens */
function snippet(base, whep, tokens) {
  const options = tokens ? '{ token: "VIEW_TOKEN", audio: true }' : "{ audio: true }";
  return [
    '<video id="lift" autoplay muted playsinline></video>',
    '<script type="module">',
    `  import { WhepSession } from "${new URL("static/whep.js", base).href}";`,
    `  const session = await WhepSession.open("${whep}", ${options});`,
    '  document.getElementById("lift").srcObject = session.stream;',
    "</script>",
  ].join("\n");
}

/** A phone that came by a QR code to publish finds the form filled in. */
export function prefillPublishing() {
  const name = new URL(location.href).searchParams.get("publish");
  if (!name) return;
  byId("publish-name", HTMLInputElement).value = name;
  byId("publish", HTMLFormElement).scrollIntoView({ block: "center" });
  button("publish-start").focus({ preventScroll: true });
}
