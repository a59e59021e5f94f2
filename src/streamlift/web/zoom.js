// @ts-check
/** The part of the picture that is looked at: one for both views, moved by wheel, keys and touch. */

const LARGEST = 16;
const STEP = 2;
const PAN = 0.1;

/** Fires `change`. */
export class Zoom extends EventTarget {
  scale = 1;
  /** Centre of the visible part, as a fraction of the picture. */
  x = 0.5;
  y = 0.5;

  /**
   * @param {number} scale
   * @param {{x: number, y: number}} keep the point, 0 to 1 across the view, that stays in place
   */
  to(scale, keep = { x: 0.5, y: 0.5 }) {
    const next = Math.min(LARGEST, Math.max(1, scale));
    const shift = 1 / this.scale - 1 / next;
    this.#set(next, this.x + (keep.x - 0.5) * shift, this.y + (keep.y - 0.5) * shift);
  }

  /**
   * Look at a place.
   * @param {number} scale
   * @param {number} x of its middle, as a fraction of the picture
   * @param {number} y
   */
  at(scale, x, y) {
    this.#set(Math.min(LARGEST, Math.max(1, scale)), x, y);
  }

  in() {
    this.to(this.scale * STEP);
  }

  out() {
    this.to(this.scale / STEP);
  }

  /** Move by fractions of the view. @param {number} dx @param {number} dy */
  pan(dx, dy) {
    this.#set(this.scale, this.x + dx / this.scale, this.y + dy / this.scale);
  }

  /** @param {string} key of a keyboard event @returns {boolean} whether it was used */
  key(key) {
    const moves = /** @type {Record<string, [number, number]>} */ ({
      ArrowLeft: [-PAN, 0], ArrowRight: [PAN, 0], ArrowUp: [0, -PAN], ArrowDown: [0, PAN],
    });
    if (key === "+" || key === "=") this.in();
    else if (key === "-") this.out();
    else if (key === "0") this.to(1);
    else if (key in moves && this.scale > 1) this.pan(...moves[key]);
    else return false;
    return true;
  }

  /** @param {number} scale @param {number} x @param {number} y */
  #set(scale, x, y) {
    const margin = 0.5 / scale;
    this.scale = scale;
    this.x = Math.min(1 - margin, Math.max(margin, x));
    this.y = Math.min(1 - margin, Math.max(margin, y));
    this.dispatchEvent(new Event("change"));
  }
}

/**
 * Wheel, drag and pinch on an element move the zoom. The wheel needs the focus or Ctrl, so that a
 * page can be scrolled past its video.
 * @param {HTMLElement} element
 * @param {Zoom} zoom
 */
export function attachZoom(element, zoom) {
  /** @type {Map<number, {x: number, y: number, surface: Element}>} */
  const fingers = new Map();

  element.addEventListener(
    "wheel",
    (event) => {
      if (!event.ctrlKey && !element.contains(document.activeElement)) return;
      event.preventDefault();
      zoom.to(zoom.scale * 2 ** (-event.deltaY / 240), fraction(surfaceOf(event, element), event));
    },
    { passive: false },
  );
  element.addEventListener("pointerdown", (event) => {
    if (event.target instanceof Element && event.target.closest("button")) return;
    const surface = surfaceOf(event, element);
    fingers.set(event.pointerId, { ...fraction(surface, event), surface });
  });
  element.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const { surface } = before;
    const now = { ...fraction(surface, event), surface };
    const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
    if (other) zoom.to((zoom.scale * distance(now, other)) / distance(before, other), now);
    else if (zoom.scale > 1) zoom.pan(before.x - now.x, before.y - now.y);
    fingers.set(event.pointerId, now);
  });
  for (const end of /** @type {const} */ (["pointerup", "pointercancel", "pointerleave"])) {
    element.addEventListener(end, (event) => fingers.delete(event.pointerId));
  }
}

/**
 * Show a zoom on an element by a transform, as for a plain video.
 * @param {HTMLElement} element
 * @param {Zoom} zoom
 */
export function applyZoom(element, zoom) {
  const { scale, x, y } = zoom;
  element.style.transform =
    scale === 1
      ? ""
      : `translate(${(0.5 - x * scale) * 100}%, ${(0.5 - y * scale) * 100}%) scale(${scale})`;
  element.classList.toggle("pixels", scale >= 2);
}

/**
 * The picture below the pointer; there may be two of them on the element.
 * @param {MouseEvent} event
 * @param {HTMLElement} element
 * @returns {Element}
 */
function surfaceOf(event, element) {
  return (event.target instanceof Element && event.target.closest(".pane, .compare")) || element;
}

/** @param {Element} element @param {MouseEvent} event */
function fraction(element, event) {
  const box = element.getBoundingClientRect();
  return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
}

/** @param {{x: number, y: number}} a @param {{x: number, y: number}} b */
function distance(a, b) {
  return Math.max(0.01, Math.hypot(a.x - b.x, a.y - b.y));
}
