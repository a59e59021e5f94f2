// @ts-check
/** Parser of server-sent events (WHATWG HTML, "event stream interpretation") over a byte stream. */

/** @typedef {{event: string, data: string, id: string}} ServerSentEvent */

const LONGEST = 65_536;

/**
 * @param {ReadableStream<Uint8Array>} body
 * @returns {AsyncGenerator<ServerSentEvent>}
 * @throws {RangeError} when a line exceeds 64 Ki characters
 */
export async function* parseEvents(body) {
  const text = /** @type {ReadableStream<string>} */ (
    body.pipeThrough(/** @type {any} */ (new TextDecoderStream())) // TypeScript's DOM types disagree
  );
  const reader = text.getReader();
  const lines = new Lines();
  let event = blank();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      for (const line of lines.push(value)) {
        if (line !== "") {
          read(event, line);
        } else {
          if (event.data) yield { ...event, data: event.data.slice(0, -1) };
          event = { ...blank(), id: event.id };
        }
      }
    }
  } finally {
    await reader.cancel().catch(() => undefined); // the connection may be gone already
  }
}

/** Cuts text into lines, which may end in CR LF, LF or CR. */
class Lines {
  #rest = "";

  /** @param {string} text @returns {string[]} */
  push(text) {
    const all = this.#rest + text;
    // A CR at the very end may be half of a CR LF.
    const usable = all.endsWith("\r") ? all.slice(0, -1) : all;
    const lines = usable.split(/\r\n|\n|\r/);
    this.#rest = (lines.pop() ?? "") + all.slice(usable.length);
    if (this.#rest.length > LONGEST) throw new RangeError("event stream line too long");
    return lines;
  }
}

/** @returns {ServerSentEvent} */
function blank() {
  return { event: "message", data: "", id: "" };
}

/** @param {ServerSentEvent} event @param {string} line */
function read(event, line) {
  const colon = line.indexOf(":");
  if (colon === 0) return; // a comment, sent to keep the connection open
  const field = colon < 0 ? line : line.slice(0, colon);
  const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
  if (field === "data") event.data += `${value}\n`;
  else if (field === "event") event.event = value;
  else if (field === "id") event.id = value;
}
