// @ts-check
/** The stage: both videos or the before/after view, zoom, full screen, keys and notices. */

import { button, byId, setText } from "./dom.js";
import { InStep } from "./instep.js";
import { isForPage } from "./keys.js";
import { describeMeasured, Measurement } from "./measure.js";
import { Sides } from "./sides.js";
import { Slider } from "./slider.js";
import { applyZoom, attachZoom, Zoom } from "./zoom.js";

/** @typedef {import("./player.js").Player} Player */
/** @typedef {"side" | "compare"} View */

/** Fires `view` when another view is chosen, and `freeze` when it is held or let go. */
export class Stage extends EventTarget {
  zoom = new Zoom();
  /** What is known of why one picture does not come with the other; set by the page. */
  why = () => "";
  #stage = byId("stage", HTMLElement);
  #compare = byId("compare", HTMLElement);
  #freeze = button("freeze");
  #measure = button("measure");
  /** @type {Measurement | null} under way */ #measurement = null;

  /**
   * @param {Player} source
   * @param {Player} upscaled
   * @param {import("./origins.js").Origins} origins
   * @param {(message: string) => void} say
   */
  constructor(source, upscaled, origins, say) {
    super();
    this.say = say;
    this.players = [source, upscaled];
    this.slider = new Slider(
      byId("compare-canvas", HTMLCanvasElement),
      byId("line", HTMLElement),
      {
        source: { video: source.video, origin: () => origins.of(source) },
        upscaled: { video: upscaled.video, origin: () => origins.of(upscaled) },
      },
      this.zoom,
    );
    this.slider.addEventListener("pair", () => {
      this.#showLock();
      this.#measurePair();
    });
    this.inStep = new InStep(this.#stage, this.slider, {
      live: () => this.players.every(({ state }) => state.phase === "live"),
      why: () => this.why(),
    });
    this.sides = new Sides(this.slider, this.inStep, () => this.view === "side");
    this.slider.start();
    attachZoom(this.#stage, this.zoom);
    this.zoom.addEventListener("change", () => this.#showZoom());
    for (const player of this.players) this.#attach(player);
    this.#attachButtons();
    this.#attachKeys();
  }

  /** @returns {View} */
  get view() {
    return this.#stage.dataset.view === "compare" ? "compare" : "side";
  }

  /** @param {View} view */
  show(view) {
    const compare = view === "compare";
    this.#stage.dataset.view = view;
    this.#compare.hidden = !compare;
    this.#freeze.disabled = !compare;
    this.#measure.disabled = !compare;
    this.#measurement = null;
    button("view-side").setAttribute("aria-pressed", String(!compare));
    button("view-compare").setAttribute("aria-pressed", String(compare));
    this.freeze(false);
    this.slider.draw();
    this.sides.draw();
    this.dispatchEvent(new Event("view"));
  }

  /** @param {boolean} frozen */
  freeze(frozen) {
    this.slider.frozen = frozen;
    this.#freeze.setAttribute("aria-pressed", String(frozen));
    this.dispatchEvent(new Event("freeze"));
  }

  async toggleFullScreen() {
    if (document.fullscreenElement) await document.exitFullscreen();
    else await byId("theatre", HTMLElement).requestFullscreen();
  }

  /** @param {Player} player */
  #attach(player) {
    const notice = player.video.closest(".pane")?.querySelector(".notice");
    if (!(notice instanceof HTMLElement)) throw new TypeError("a video has no notice beside it");
    const show = () => {
      notice.hidden = player.state.text === "";
      setText(notice, player.state.text);
    };
    player.addEventListener("state", show);
    player.video.addEventListener("resize", () => {
      const { videoWidth, videoHeight } = player.video;
      if (videoWidth) this.#stage.style.setProperty("--ratio", String(videoWidth / videoHeight));
    });
  }

  #attachButtons() {
    button("view-side").addEventListener("click", () => this.show("side"));
    button("view-compare").addEventListener("click", () => this.show("compare"));
    button("zoom-in").addEventListener("click", () => this.zoom.in());
    button("zoom-out").addEventListener("click", () => this.zoom.out());
    button("zoom-reset").addEventListener("click", () => this.zoom.to(1));
    this.#freeze.addEventListener("click", () => this.freeze(!this.slider.frozen));
    this.#measure.addEventListener("click", () => {
      this.freeze(false);
      this.#measurement = new Measurement();
      this.say("Measuring.");
    });
    button("fullscreen").hidden = !document.fullscreenEnabled;
    button("fullscreen").addEventListener("click", () => void this.toggleFullScreen());
    const help = byId("help", HTMLDialogElement);
    button("help-open").addEventListener("click", () => help.showModal());
    this.#attachSound();
  }

  #attachSound() {
    const [, upscaled] = this.players;
    const sound = button("sound");
    sound.addEventListener("click", () => {
      upscaled.video.muted = !upscaled.video.muted;
      sound.setAttribute("aria-pressed", String(!upscaled.video.muted));
    });
    upscaled.addEventListener("state", () => {
      const receivers = upscaled.session?.peer.getTransceivers() ?? [];
      sound.hidden = !receivers.some(
        ({ receiver, currentDirection }) =>
          receiver.track.kind === "audio" && currentDirection === "recvonly",
      );
    });
  }

  #attachKeys() {
    document.addEventListener("keydown", (event) => {
      const target = event.target instanceof Element ? event.target : document.body;
      if (!isForPage(event)) return;
      const moves = event.key.startsWith("Arrow");
      if (moves && !this.#stage.contains(target) && target !== document.body) return;
      if (this.#key(event.key)) event.preventDefault();
    });
  }

  /** @param {string} key @returns {boolean} whether it was used */
  #key(key) {
    if (this.zoom.key(key)) return true;
    const compare = this.view === "compare";
    switch (key) {
      case "s":
        this.show("side");
        return true;
      case "c":
        this.show("compare");
        return true;
      case "f":
        void this.toggleFullScreen();
        return true;
      case "?":
        byId("help", HTMLDialogElement).showModal();
        return true;
      case " ":
        if (compare) this.freeze(!this.slider.frozen);
        return compare;
      case "ArrowLeft":
      case "ArrowRight":
        if (compare) this.slider.moveTo(this.slider.position + (key === "ArrowLeft" ? -0.02 : 0.02));
        return compare;
      default:
        return false;
    }
  }

  #showZoom() {
    const { scale } = this.zoom;
    for (const { video } of this.players) applyZoom(video, this.zoom);
    this.#stage.dataset.zoomed = String(scale > 1);
    setText(button("zoom-reset"), `${scale < 9.95 ? Number(scale.toFixed(1)) : scale.toFixed(0)}×`);
  }

  #measurePair() {
    const pictures = this.slider.pictures();
    if (!this.#measurement || !pictures || !this.slider.locked) return;
    const measured = this.#measurement.add(pictures);
    if (!measured) return;
    this.#measurement = null;
    this.say(describeMeasured(measured, this.slider.names));
  }

  #showLock() {
    setText(byId("lock", HTMLElement), this.slider.locked ? "Same frame" : "Not frame-locked");
  }
}
