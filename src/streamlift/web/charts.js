// @ts-check
/** Small live charts on canvas: the last minute, one value a second, in the page's colours. */

const KEPT = 60;

/** One or more series stacked on each other; a bounded memory of the newest values. */
export class Chart {
  /** @type {(number | null)[][]} newest last, one array of series values a second */ #rows = [];

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {{series?: number, least?: number}} options `least`: smallest top of the value axis
   */
  constructor(canvas, { series = 1, least = 1 } = {}) {
    this.canvas = canvas;
    this.series = series;
    this.least = least;
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  /** @param {...(number | null | undefined)} values one for each series, bottom first */
  push(...values) {
    this.#rows.push(values.map((value) => value ?? null));
    if (this.#rows.length > KEPT) this.#rows.shift();
    this.draw();
  }

  clear() {
    this.#rows = [];
    this.draw();
  }

  draw() {
    const { canvas } = this;
    const density = window.devicePixelRatio;
    const width = Math.round(canvas.clientWidth * density);
    const height = Math.round(canvas.clientHeight * density);
    const context = canvas.getContext("2d");
    if (!context || !width || !height) return;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    context.clearRect(0, 0, width, height);
    const style = getComputedStyle(canvas);
    const top = Math.max(this.least, ...this.#rows.map(total)) * 1.1;
    /** @param {number} index */
    const x = (index) => width - ((this.#rows.length - 1 - index) * width) / (KEPT - 1);
    /** @param {number} value */
    const y = (value) => height - (value / top) * (height - 2 * density) - density;
    for (let series = this.series - 1; series >= 0; series -= 1) {
      const colour = style.getPropertyValue(`--series-${this.series > 1 ? series : "line"}`);
      this.#area(context, series, x, y, height, colour, density);
    }
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {number} series
   * @param {(index: number) => number} x
   * @param {(value: number) => number} y
   * @param {number} bottom
   * @param {string} colour
   * @param {number} density
   */
  #area(context, series, x, y, bottom, colour, density) {
    const points = this.#rows.flatMap((row, index) => {
      const value = upTo(row, series);
      return value === null ? [] : [{ x: x(index), y: y(value) }];
    });
    if (points.length < 2) return;
    const path = new Path2D();
    points.forEach((point) => path.lineTo(point.x, point.y));
    if (this.series === 1) {
      context.strokeStyle = colour;
      context.lineWidth = 1.5 * density;
      context.lineJoin = "round";
      context.stroke(path);
    }
    path.lineTo(points[points.length - 1].x, bottom);
    path.lineTo(points[0].x, bottom);
    context.fillStyle = colour;
    context.globalAlpha = this.series === 1 ? 0.14 : 1;
    context.fill(path);
    context.globalAlpha = 1;
  }
}

/** @param {(number | null)[]} row @param {number} last @returns {number | null} */
function upTo(row, last) {
  const values = row.slice(0, last + 1).filter((value) => value !== null);
  return values.length ? values.reduce((sum, value) => sum + value, 0) : null;
}

/** @param {(number | null)[]} row */
function total(row) {
  return upTo(row, row.length - 1) ?? 0;
}
