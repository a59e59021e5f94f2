// @ts-check
/** Keeps the page's address at what is looked at, restores that from it, and copies it as a link. */

import { button, byId } from "./dom.js";
import { isForPage } from "./keys.js";
import { readAddress, writeAddress } from "./share.js";

const SETTLED_MS = 400;

export class Sharing {
  #timer = 0;

  /**
   * @param {import("./stage.js").Stage} stage
   * @param {import("./tools.js").Tools} tools
   * @param {() => string | null} stream name of the stream that is shown
   * @param {(message: string) => void} say
   */
  constructor(stage, tools, stream, say) {
    this.stage = stage;
    this.tools = tools;
    this.stream = stream;
    this.say = say;
    this.#restore();
    stage.zoom.addEventListener("change", () => this.#later());
    stage.slider.addEventListener("move", () => this.#later());
    tools.addEventListener("change", () => this.#later());
    button("share").addEventListener("click", () => void this.copy());
    document.addEventListener("keydown", (event) => {
      if (event.key === "k" && isForPage(event)) void this.copy();
    });
  }

  /** The address of what is looked at now. */
  get link() {
    const { scale, x, y } = this.stage.zoom;
    return writeAddress(location.href, {
      stream: this.stream(),
      view: this.tools.view,
      zoom: scale,
      x,
      y,
      line: this.stage.slider.position,
      factor: this.tools.factor,
    });
  }

  /** Copy the link, or show it where the browser does not let pages copy. */
  async copy() {
    const { href } = this.link;
    try {
      await navigator.clipboard.writeText(href);
      this.say("Link copied. It opens this stream, view and zoom; no token is in it.");
    } catch {
      // Pages without https have no clipboard, and users may refuse it.
      const field = byId("link-address", HTMLInputElement);
      field.value = href;
      byId("link", HTMLDialogElement).showModal();
      field.select();
    }
  }

  #restore() {
    const looked = readAddress(location.href);
    this.tools.setFactor(looked.factor);
    if (looked.view !== "side" && looked.view !== "clean") this.tools.show(looked.view);
    if (looked.zoom > 1) this.stage.zoom.at(looked.zoom, looked.x, looked.y);
    if (looked.line !== 0.5) this.stage.slider.moveTo(looked.line);
  }

  /** Once it has settled: browsers limit how often a page may change its address. */
  #later() {
    clearTimeout(this.#timer);
    this.#timer = window.setTimeout(() => {
      history.replaceState(null, "", this.link);
    }, SETTLED_MS);
  }
}
