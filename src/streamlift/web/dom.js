// @ts-check
/** Small helpers for the document: typed look-up, and making elements without markup strings. */

/**
 * The element with this id, checked against the wanted type.
 * @template {Element} T
 * @param {string} id
 * @param {new () => T} type
 * @returns {T}
 */
export function byId(id, type) {
  const element = document.getElementById(id);
  if (!(element instanceof type)) throw new TypeError(`the page has no ${type.name} #${id}`);
  return element;
}

/** @param {string} id */
export const button = (id) => byId(id, HTMLButtonElement);

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Partial<HTMLElementTagNameMap[K]>} properties
 * @param {(Node | string)[]} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function make(tag, properties = {}, children = []) {
  const element = document.createElement(tag);
  Object.assign(element, properties);
  element.append(...children);
  return element;
}

/**
 * Set text only when it changes, so that screen readers and selections are left alone.
 * @param {Element} element
 * @param {string} text
 */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Save a blob as a file.
 * @param {Blob} blob
 * @param {string} name
 */
export function download(blob, name) {
  const url = URL.createObjectURL(blob);
  make("a", { href: url, download: name }).click();
  // The browser takes the URL up asynchronously.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/**
 * Resolves after a while, at once when the signal aborts or the target fires the event.
 * @param {number} ms
 * @param {AbortSignal} signal
 * @param {EventTarget} [target]
 * @param {string} [event]
 * @returns {Promise<void>}
 */
export function pause(ms, signal, target, event = "") {
  return new Promise((resolve) => {
    const done = new AbortController();
    const finish = () => {
      clearTimeout(timer);
      done.abort();
      resolve();
    };
    const timer = setTimeout(finish, ms);
    if (signal.aborted) finish();
    signal.addEventListener("abort", finish, { signal: done.signal });
    target?.addEventListener(event, finish, { signal: done.signal });
  });
}
