// @ts-check
/** Numbers as people read them. A missing number is a dash of the same width class. */

/** @typedef {number | null | undefined} Maybe */

const NONE = "–";

/** @param {Maybe} value @param {number} digits */
export function number(value, digits = 0) {
  return value == null || !Number.isFinite(value) ? NONE : value.toFixed(digits);
}

/** @param {Maybe} bps @returns {string} megabits per second, one decimal */
export function megabits(bps) {
  return bps == null ? NONE : (bps / 1e6).toFixed(1);
}

/** @param {Maybe} ms @returns {string} */
export function milliseconds(ms) {
  return ms == null ? NONE : ms < 9.95 ? ms.toFixed(1) : ms.toFixed(0);
}

/** @param {readonly [number, number] | null | undefined} size */
export function size(size) {
  return size ? `${size[0]} × ${size[1]}` : NONE;
}

/** @param {number} bytes */
export function bytes(bytes) {
  if (bytes >= 1e9) return `${(bytes / 1e9).toFixed(1)} GB`;
  return bytes < 1e6 ? `${(bytes / 1e3).toFixed(0)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

/** @param {number} bytes */
export function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(0)} MB`;
}

/** @param {number} seconds @returns {string} m:ss */
export function duration(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

/** @param {Date} date @returns {string} for file names: 20260131-142501 */
export function fileTime(date) {
  const text = date.toISOString().replace(/[-:]/g, "");
  return `${text.slice(0, 8)}-${text.slice(9, 15)}`;
}
