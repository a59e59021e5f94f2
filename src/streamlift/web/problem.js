// @ts-check
/** What went wrong in an HTTP exchange, as the service tells it (RFC 9457 problem bodies). */

/** An answer with a status outside 2xx. */
export class Problem extends Error {
  /**
   * @param {number} status
   * @param {string} detail one sentence for the user
   * @param {number | null} retryAfterS seconds from the Retry-After header, or null
   */
  constructor(status, detail, retryAfterS = null) {
    super(detail);
    this.name = "Problem";
    this.status = status;
    this.retryAfterS = retryAfterS;
  }

  /**
   * Read the problem out of an answer; a body that is not a problem document is not shown.
   * @param {Response} response
   */
  static async from(response) {
    const fallback = `${response.status} ${response.statusText}`.trim();
    const detail = await problemDetail(response);
    return new Problem(response.status, detail || fallback, retryAfter(response.headers));
  }
}

/** @param {Response} response */
async function problemDetail(response) {
  const type = response.headers.get("content-type") ?? "";
  if (!type.includes("json")) return "";
  try {
    const body = await response.json();
    const text = body.detail || body.title;
    return typeof text === "string" ? text : "";
  } catch {
    return ""; // not JSON after all; the status line has to do
  }
}

/**
 * Seconds of a Retry-After header (RFC 9110 section 10.2.3: seconds or a date).
 * @param {Headers} headers
 * @param {number} nowMs
 * @returns {number | null}
 */
export function retryAfter(headers, nowMs = Date.now()) {
  const text = headers.get("retry-after");
  if (!text) return null;
  const seconds = /^\d+$/.test(text) ? Number(text) : (Date.parse(text) - nowMs) / 1000;
  return Number.isFinite(seconds) ? Math.max(0, seconds) : null;
}
