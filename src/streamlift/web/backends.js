// @ts-check
/** The backend panel: which upscalers there are, which one runs, and switching between them. */

import { isMissing } from "./api.js";
import { byId, make, setText } from "./dom.js";
import { WeightsRow } from "./weights.js";

const REFRESH_MS = 5000;
const WATCH_MS = 700;

export class BackendPanel {
  /** @type {import("./api.js").Backend[]} as last told */ list = [];
  /** @type {string | null} */ #stream = null;
  /** @type {Map<string, HTMLButtonElement>} */ #buttons = new Map();
  /** @type {Map<string, WeightsRow>} */ #weights = new Map();
  #panel = byId("backends", HTMLElement);
  #list = byId("backend-list", HTMLElement);
  #policies = byId("policies", HTMLElement);
  #message = byId("backend-message", HTMLElement);
  #plan = byId("backend-plan", HTMLElement);

  /** @param {import("./api.js").Api} api */
  constructor(api) {
    this.api = api;
    this.#policies.addEventListener("click", (event) => {
      const policy = event.target instanceof HTMLButtonElement && event.target.dataset.policy;
      if (policy) void this.#switch({ policy }, policy);
    });
  }

  /** Ask which backends there are. @param {AbortSignal} signal */
  async refresh(signal) {
    try {
      const backends = await this.api.backends(signal);
      this.#showAll(backends);
      if (backends.some(({ download }) => download)) this.#refreshSoon();
      this.#panel.hidden = false;
    } catch (error) {
      if (!isMissing(error)) throw error;
      this.#panel.hidden = true;
    }
  }

  #refreshing = 0;

  /** While something is fetched the list is read more often. */
  #refreshSoon(afterMs = WATCH_MS) {
    clearTimeout(this.#refreshing);
    this.#refreshing = setTimeout(() => {
      // What goes wrong here is told by the next of the regular rounds.
      void this.refresh(AbortSignal.timeout(REFRESH_MS)).catch(() => undefined);
    }, afterMs);
  }

  /** @param {import("./api.js").Stream | null} stream */
  showStream(stream) {
    this.#stream = stream?.name ?? null;
    for (const [name, button] of this.#buttons) {
      button.setAttribute("aria-pressed", String(name === stream?.backend));
      button.disabled = !stream || button.dataset.state !== "ready";
    }
    for (const button of this.#policies.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(button.dataset.policy === stream?.policy));
      button.disabled = !stream;
    }
  }

  /** @param {import("./api.js").ServiceEvent} event */
  showEvent(event) {
    if (event.stream !== this.#stream) return;
    const text = describeSwitch(event);
    if (text) setText(this.#message, text);
  }

  /** @param {import("./api.js").Backend[]} backends */
  #showAll(backends) {
    this.list = backends;
    const names = new Set(backends.map(({ name }) => name));
    for (const [name, button] of this.#buttons) {
      if (names.has(name)) continue;
      button.remove();
      this.#buttons.delete(name);
      this.#weights.get(name)?.element.remove();
      this.#weights.delete(name);
    }
    backends.forEach((backend) => this.#showOne(backend));
    const planned = backends.find(({ plan }) => plan);
    this.#plan.hidden = !planned;
    setText(this.#plan, planned?.plan ? `${planned.name} on this machine: ${planned.plan.words}` : "");
  }

  /** @param {import("./api.js").Backend} backend */
  #showOne(backend) {
    const button = this.#buttons.get(backend.name) ?? this.#add(backend.name);
    const ready = backend.state === "ready";
    button.dataset.state = backend.state;
    button.disabled = !ready || !this.#stream;
    button.title = [backend.state, backend.reason].filter(Boolean).join(": ");
    const workers = (backend.workers ?? []).map(describeWorker);
    const [, note, configured] = button.children;
    const { slots, fps, device } = backend;
    const speed = fps === null ? device : `${device} · ${fps.toFixed(0)} fps`;
    setText(note, ready ? `${speed} · ${slots.used}/${slots.total} used` : button.title);
    button.title = [button.title, ...workers].join("\n");
    setText(configured, describeSettings(backend.settings ?? {}));
    if (backend.weights) setText(note, `${device}: weights missing`);
    if (backend.download) setText(note, `${device}: fetching weights`);
    this.#showWeights(backend, button);
  }

  /** @param {import("./api.js").Backend} backend @param {HTMLButtonElement} button */
  #showWeights(backend, button) {
    const row = this.#weights.get(backend.name);
    if (!row) return;
    row.show(backend);
    if (!backend.weights && !backend.download) row.element.remove();
    else if (!row.element.isConnected) button.after(row.element);
  }

  /** @param {string} name */
  #add(name) {
    const button = make("button", { type: "button", className: "choice" }, [
      make("strong", { textContent: name }),
      make("small"),
      make("small"),
    ]);
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => void this.#switch({ backend: name }, name));
    this.#buttons.set(name, button);
    const weights = new WeightsRow(this.api, name, () => this.#refreshSoon(0));
    this.#weights.set(name, weights);
    this.#list.append(button);
    return button;
  }

  /** @param {{backend: string} | {policy: string}} wanted @param {string} label */
  async #switch(wanted, label) {
    if (!this.#stream) return;
    setText(this.#message, `Asked for ${label}.`);
    try {
      this.showStream(await this.api.switchTo(this.#stream, wanted));
      if ("policy" in wanted) setText(this.#message, `Policy: ${label}.`);
    } catch (error) {
      setText(
        this.#message,
        isMissing(error)
          ? "This service cannot switch backends while it runs."
          : `Not switched: ${error instanceof Error ? error.message : error}`,
      );
    }
  }
}

/** @param {Record<string, string>} settings as configured */
function describeSettings(settings) {
  const told = Object.entries(settings).filter(([, value]) => value !== "off");
  return told.map(([key, value]) => `${key} ${value}`).join(" · ");
}

/** @param {import("./api.js").Worker} worker */
function describeWorker({ name, state, reason, device, slots, rtt_ms: rtt }) {
  const how = state === "ready" ? `${slots.used}/${slots.total} used` : reason || state;
  return `${name}: ${device || "?"}, ${how}${rtt == null ? "" : `, ${rtt.toFixed(1)} ms away`}`;
}

/** @param {import("./api.js").ServiceEvent} event @returns {string} empty when not about a switch */
export function describeSwitch({ event, from, to, gap_ms: gap, reason }) {
  const because = reason ? ` (${reason})` : "";
  switch (event) {
    case "switch.started":
      return `Switching ${from ?? "?"} → ${to ?? "?"}.`;
    case "switched":
      return `Switched ${from ?? "?"} → ${to ?? "?"}${gap == null ? "" : `, gap ${gap.toFixed(0)} ms`}${because}.`;
    case "switch.aborted":
      return `Switch to ${to ?? "?"} given up${because}.`;
    case "policy.step":
      return `Policy stepped ${from ?? "?"} → ${to ?? "?"}${because}.`;
    default:
      return "";
  }
}
