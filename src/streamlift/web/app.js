// @ts-check
/** The page: puts the parts together and asks the service for news once a second. */

import { Choice } from "./abchoice.js";
import { Api } from "./api.js";
import { BackendPanel } from "./backends.js";
import { Capture } from "./capture.js";
import { button, byId, pause, setText } from "./dom.js";
import { EventLog } from "./events.js";
import { FilesPanel } from "./files.js";
import { size } from "./format.js";
import { Numbers, ReceivedRates } from "./numbers.js";
import { Origins } from "./origins.js";
import { OutputsPanel } from "./outputs.js";
import { Player } from "./player.js";
import { PublishPanel } from "./publish.js";
import { PullPanel } from "./pulls.js";
import { SettingsPanel } from "./settings.js";
import { prefillPublishing, ConnectPanel } from "./connect.js";
import { Sharing } from "./sharing.js";
import { Stage } from "./stage.js";
import { preferredStream, StreamList } from "./streams.js";
import { attachThemeButton } from "./themes.js";
import { Tokens } from "./tokens.js";
import { Tools } from "./tools.js";

const POLL_MS = 1000;
const BACKENDS_MS = 5000;
const SAID_MS = 15_000;
const NOTHING = "No stream yet. Publish one below.";

const tokens = new Tokens(byId("token", HTMLDialogElement));
const api = new Api(tokens);
const source = new Player(byId("video-source", HTMLVideoElement), api, "source");
const upscaled = new Player(byId("video-upscaled", HTMLVideoElement), api, "upscaled");
const origins = new Origins(api, [source, upscaled]);
const stage = new Stage(source, upscaled, origins, say);
const choice = new Choice(byId("other", HTMLSelectElement), source, stage.slider, say);
const tools = new Tools(stage, () => chosen, () => stream, say);
const streams = new StreamList();
const numbers = new Numbers();
const rates = new ReceivedRates();
const backends = new BackendPanel(api);
const events = new EventLog(api);
const publisher = new PublishPanel(api);
const files = new FilesPanel(api);
const pulls = new PullPanel(api);
/** Panels about the stream that is watched. */
const panels = [backends, new SettingsPanel(api), pulls, new OutputsPanel(api), new ConnectPanel(api)];

/** @type {string | null} */
let chosen = new URL(location.href).searchParams.get("stream");

/** @param {string} name */
function choose(name) {
  chosen = name;
  const url = new URL(location.href);
  url.searchParams.set("stream", name);
  history.replaceState(null, "", url);
  numbers.clear();
  choice.show(null);
  choice.choose(null);
  stage.freeze(false);
  stage.slider.forget();
  source.play(name);
  upscaled.play(name);
}

/** @type {import("./api.js").Stream | null} what the service last said of the chosen stream */
let stream = null;

/** One round of news. @param {AbortSignal} signal */
async function poll(signal) {
  const [list, received] = await Promise.all([
    api.streams(signal),
    rates.read(upscaled.session?.peer),
  ]);
  const first = preferredStream(list);
  if (chosen === null && first !== null) choose(first);
  if (chosen === null) [source, upscaled].forEach((player) => player.rest(NOTHING));
  stream = list.find(({ name }) => name === chosen) ?? null;
  streams.show(list, chosen);
  numbers.show(stream, received);
  panels.forEach((panel) => panel.showStream(stream));
  choice.show(stream);
  setText(byId("caption-source", HTMLElement), size(choice.size));
  setText(byId("caption-upscaled", HTMLElement), size(stream?.output?.size));
}

/**
 * Do something again and again, one at a time, until the signal aborts; not while hidden.
 * @param {(signal: AbortSignal) => Promise<void>} round
 * @param {number} everyMs
 * @param {AbortSignal} signal
 * @param {(error: unknown) => void} failed
 */
async function repeat(round, everyMs, signal, failed) {
  while (!signal.aborted) {
    if (!document.hidden) await round(signal).then(() => failed(null), failed);
    await pause(everyMs, signal, tokens, "change");
  }
}

/** @type {unknown} */
let pollError = null;

function showStatus() {
  const { phase, text } = upscaled.state;
  const status = byId("status", HTMLElement);
  const locked = phase === "locked" || isUnauthorised(pollError);
  const news = phase === "live" ? streamNews(stream) : "";
  status.dataset.phase = locked ? "locked" : news ? "waiting" : phase;
  button("enter-token").hidden = !locked;
  setText(byId("status-text", HTMLElement), news || statusText(phase, text, locked));
}

/**
 * What is to be said of a stream that is watched but not simply live.
 * @param {import("./api.js").Stream | null} stream
 * @returns {string} empty when there is nothing
 */
function streamNews(stream) {
  if (!stream || (stream.state === "live" && !stream.degraded)) return "";
  const state = stream.degraded ? "degraded" : stream.state;
  const text = stream.reason ? `${state}: ${stream.reason}` : state;
  return text[0].toUpperCase() + text.slice(1);
}

/**
 * @param {import("./player.js").Phase} phase
 * @param {string} text
 * @param {boolean} locked
 */
function statusText(phase, text, locked) {
  if (locked) return text || "A token is needed.";
  if (phase === "live") return "Live";
  if (phase !== "idle") return text;
  return pollError ? "The service does not answer." : text || "Connecting";
}

/** Without a right token; 429 is for those who showed too many wrong ones. */
/** @param {unknown} error */
function isUnauthorised(error) {
  return error instanceof Error && "status" in error && [401, 429].includes(Number(error.status));
}

/** @param {string} message */
function say(message) {
  const said = byId("said", HTMLElement);
  setText(said, message);
  setTimeout(() => said.textContent === message && setText(said, ""), SAID_MS);
}

function start() {
  const life = new AbortController();
  attachThemeButton(button("theme"));
  stage.why = () => choice.shortage;
  choice.addEventListener("change", () => stage.freeze(false));
  new Capture(api, upscaled, () => chosen, say);
  new Sharing(stage, tools, () => chosen, say);
  streams.addEventListener("choose", (event) => {
    choose(/** @type {CustomEvent<string>} */ (event).detail);
  });
  pulls.addEventListener("added", (event) => {
    choose(/** @type {CustomEvent<string>} */ (event).detail);
  });
  prefillPublishing();
  const ask = () => void api.about().then((about) => files.showAbout(about), () => undefined);
  ask();
  tokens.addEventListener("change", ask);
  publisher.addEventListener("live", () => choose(publisher.name));
  events.addEventListener("event", (event) => {
    backends.showEvent(/** @type {CustomEvent} */ (event).detail);
    choice.showEvent(/** @type {CustomEvent} */ (event).detail);
  });
  upscaled.addEventListener("state", showStatus);
  button("enter-token").addEventListener("click", () => tokens.ask("view", { again: true }));
  if (chosen) choose(chosen);
  void repeat(poll, POLL_MS, life.signal, (error) => {
    pollError = error;
    showStatus();
  });
  void repeat(
    (signal) => backends.refresh(signal).then(() => choice.offer(backends.list)),
    BACKENDS_MS,
    life.signal,
    () => undefined,
  );
  void events.follow(life.signal);
  leaveCleanly(life);
}

/** Say goodbye to the service on the way out, and start again when the page comes back. */
/** @param {AbortController} life */
function leaveCleanly(life) {
  window.addEventListener("pagehide", () => {
    life.abort();
    source.stop();
    upscaled.stop();
    void publisher.stop("Stopped.");
  });
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) location.reload();
  });
}

start();

/** For tests and for the curious: the parts, by name. */
Object.assign(window, {
  streamlift: { source, upscaled, publisher, stage, choice, tools, sync: stage.slider.sync },
});
