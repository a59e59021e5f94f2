// @ts-check
/** Learns which RTP timestamp means pts 0 in each session, so that frames of both can be matched. */

import { isMissing } from "./api.js";
import { pause } from "./dom.js";

const AGAIN_MS = 250;
const TRIES = 40;
/** Later: a compared backend may have its first picture when the machine has time for it. */
const SELDOM_MS = 2000;

export class Origins {
  /** @type {Map<import("./whep.js").WhepSession, number>} */ #known = new Map();

  /** @param {import("./api.js").Api} api @param {import("./player.js").Player[]} players */
  constructor(api, players) {
    this.api = api;
    for (const player of players) {
      player.addEventListener("state", () => {
        if (player.session) void this.#learn(player.session, player);
      });
    }
  }

  /** @param {import("./player.js").Player} player @returns {number | null} null when not known */
  of(player) {
    return player.session ? (this.#known.get(player.session) ?? null) : null;
  }

  /**
   * The service knows the origin once the first packet was sent, so ask until it does.
   * @param {import("./whep.js").WhepSession} session
   * @param {import("./player.js").Player} player
   */
  async #learn(session, player) {
    const life = new AbortController();
    void session.ended.then(() => life.abort());
    for (let tries = 0; player.session === session && !life.signal.aborted; tries += 1) {
      const origin = await this.#ask(session.id, life.signal);
      if (origin === "never") return;
      if (origin !== null && player.session === session) {
        this.#forgetOld(session, origin);
        return;
      }
      await pause(tries < TRIES ? AGAIN_MS : SELDOM_MS, life.signal);
    }
  }

  /** @param {string} id @param {AbortSignal} signal @returns {Promise<number | null | "never">} */
  async #ask(id, signal) {
    try {
      return (await this.api.session(id, signal)).rtp_origin ?? null;
    } catch (error) {
      return isMissing(error) ? "never" : null;
    }
  }

  /** @param {import("./whep.js").WhepSession} session @param {number} origin */
  #forgetOld(session, origin) {
    for (const old of this.#known.keys()) {
      if (old.peer.signalingState === "closed") this.#known.delete(old);
    }
    this.#known.set(session, origin);
  }
}
