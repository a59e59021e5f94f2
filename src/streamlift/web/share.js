// @ts-check
/** The address of what is looked at: stream, view, zoom. Never a token. */

import { FACTORS } from "./difference.js";

/**
 * @typedef {"side" | "compare" | "blink" | "difference" | "clean"} ViewName
 * @typedef {object} Looked
 * @property {string | null} stream
 * @property {ViewName} view
 * @property {number} zoom
 * @property {number} x of its middle, 0 to 1 across the picture
 * @property {number} y
 * @property {number} line of before / after, 0 to 1
 * @property {number} factor of the difference
 */

export const VIEWS = /** @type {const} */ (["side", "compare", "blink", "difference", "clean"]);
export const FIRST_FACTOR = 8;

/**
 * What an address asks for; anything that is out of range counts as not there.
 * @param {string | URL} address
 * @returns {Looked}
 */
export function readAddress(address) {
  const query = new URL(address).searchParams;
  const view = VIEWS.find((name) => name === query.get("view")) ?? "side";
  const [x, y] = (query.get("at") ?? "").split("_");
  const factor = Number(query.get("factor"));
  return {
    stream: query.get("stream"),
    view,
    zoom: inRange(query.get("zoom"), 1, 16, 1),
    x: inRange(x, 0, 1, 0.5),
    y: inRange(y, 0, 1, 0.5),
    line: inRange(query.get("line"), 0, 1, 0.5),
    factor: FACTORS.includes(factor) ? factor : FIRST_FACTOR,
  };
}

/**
 * The address that asks for this. What is as usual is left out, and so is everything that is not
 * known here, so that a link that is passed on tells no token.
 * @param {string | URL} address of the page now
 * @param {Looked} looked
 * @returns {URL}
 */
export function writeAddress(address, looked) {
  const url = new URL(address);
  url.hash = "";
  url.search = "";
  url.username = url.password = "";
  const { stream, view, zoom, x, y, line, factor } = looked;
  const set = (/** @type {string} */ name, /** @type {string} */ value) =>
    url.searchParams.set(name, value);
  if (stream !== null) set("stream", stream);
  if (view !== "side") set("view", view);
  if (zoom > 1) {
    set("zoom", short(zoom));
    set("at", `${short(x)}_${short(y)}`);
  }
  if (view === "compare" && line !== 0.5) set("line", short(line));
  if (view === "difference" && factor !== FIRST_FACTOR) set("factor", String(factor));
  return url;
}

/** @param {number} value */
const short = (value) => String(Number(value.toFixed(4)));

/**
 * @param {string | number | null | undefined} value
 * @param {number} least
 * @param {number} most
 * @param {number} otherwise
 */
function inRange(value, least, most, otherwise) {
  if (value === null || value === undefined || value === "") return otherwise;
  const found = Number(value);
  return found >= least && found <= most ? found : otherwise;
}
