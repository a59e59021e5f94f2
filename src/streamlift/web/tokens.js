// @ts-check
/**
 * Bearer tokens of this tab: one for each right, kept in sessionStorage. A link may bring one in
 * its fragment, which no browser sends to anybody; it is taken out of the address at once.
 */

/** @typedef {"view" | "publish" | "control"} Right */

const PREFIX = "streamlift.token.";
const NEEDS = {
  view: "Watching needs a token.",
  publish: "Publishing needs a token.",
  control: "Changing things here needs a token.",
};

/** Tokens, and the dialog that asks for them. Fires `change` when one was entered. */
export class Tokens extends EventTarget {
  /** @type {HTMLDialogElement | null} */ #dialog;
  /** @type {Right} */ #asked = "view";
  /** @type {Set<Right>} rights whose prompt was turned away; asked again only on request */
  #declined = new Set();

  /**
   * @param {HTMLDialogElement | null} dialog holds a form with an input `token` and a `.reason`;
   *   null where nobody is to be asked
   */
  constructor(dialog) {
    super();
    this.#dialog = dialog;
    dialog?.addEventListener("close", () => this.#closed());
    this.#takeFromAddress();
  }

  /**
   * The token for a right; one that was entered for another right is tried when there is none.
   * @param {Right} right
   * @returns {string | undefined}
   */
  get(right) {
    const rights = [right, .../** @type {Right[]} */ (["view", "publish", "control"])];
    for (const name of rights) {
      const token = sessionStorage.getItem(PREFIX + name);
      if (token) return token;
    }
    return undefined;
  }

  /**
   * Open the prompt, unless it is open or the user turned it away before.
   * @param {Right} right
   * @param {{again?: boolean}} options `again`: the user asked for it
   */
  ask(right, { again = false } = {}) {
    const dialog = this.#dialog;
    if (!dialog || dialog.open || (this.#declined.has(right) && !again)) return;
    this.#asked = right;
    const known = sessionStorage.getItem(PREFIX + right) !== null;
    const reason = dialog.querySelector(".reason");
    if (reason) reason.textContent = `${NEEDS[right]}${known ? " The last one was refused." : ""}`;
    this.#input.value = "";
    dialog.returnValue = "";
    dialog.showModal();
  }

  #takeFromAddress() {
    const url = new URL(location.href);
    const brought = new URLSearchParams(url.hash.slice(1));
    for (const right of ["view", "publish"]) {
      const token = brought.get(right);
      if (!token) continue;
      sessionStorage.setItem(PREFIX + right, token);
      url.hash = "";
      history.replaceState(null, "", url);
    }
  }

  #closed() {
    const token = this.#input.value.trim();
    this.#input.value = "";
    if (this.#dialog?.returnValue !== "use" || !token) {
      this.#declined.add(this.#asked);
      return;
    }
    this.#declined.clear();
    sessionStorage.setItem(PREFIX + this.#asked, token);
    this.dispatchEvent(new Event("change"));
  }

  get #input() {
    const input = this.#dialog?.querySelector("input");
    if (!input) throw new TypeError("the token dialog has no input");
    return input;
  }
}
