// @ts-check
/**
 * The bare view, as for a browser source in OBS: the upscaled picture and nothing else, on a
 * transparent page, muted. A token comes in the fragment: `/?stream=NAME&view=clean#view=TOKEN`.
 */

import { Api } from "./api.js";
import { setText } from "./dom.js";
import { Player } from "./player.js";
import { readAddress } from "./share.js";
import { Tokens } from "./tokens.js";

const { stream } = readAddress(location.href);
const video = /** @type {HTMLVideoElement} */ (document.querySelector("video"));
const said = /** @type {HTMLElement} */ (document.querySelector("[role=status]"));
const player = new Player(video, new Api(new Tokens(null)), "upscaled");

player.addEventListener("state", () => {
  const { phase, text } = player.state;
  // Nothing may lie on somebody's programme; only what waits for a person is written.
  setText(said, phase === "locked" ? "A right token is needed: add #view=TOKEN to the address." : "");
  document.title = ["streamlift", stream, phase === "live" ? "" : text].filter(Boolean).join(": ");
  video.hidden = phase !== "live";
});

if (stream) {
  video.setAttribute("aria-label", stream);
  player.play(stream);
} else {
  setText(said, "Add ?stream=NAME&view=clean to the address.");
}

// A token that is added to the address.
window.addEventListener("hashchange", () => location.reload());
window.addEventListener("pagehide", () => player.stop());
window.addEventListener("pageshow", (event) => event.persisted && location.reload());

/** For tests and for the curious. */
Object.assign(window, { streamlift: { upscaled: player } });
