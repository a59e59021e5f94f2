// @ts-check
/**
 * Reads the frame number and time that the demo draws into its pictures: 32 cells of 16x16
 * low-resolution pixels, row-major from the top left; 16 bits frame number, 16 bits milliseconds
 * (Gray-coded), white is 1, most significant bit first.
 */

/** @typedef {{number: number, ms: number}} Stamp */

const CELL = 16;
const CELLS = 32;
const MIDDLE = 127;
const LEAST_CONTRAST = 40;

/** Reads stamps from anything that can be drawn; keeps one small canvas for it. */
export class StampReader {
  #context = newContext();

  /**
   * @param {CanvasImageSource} picture
   * @param {number} width of the picture, in its own pixels
   * @param {number} scale picture pixels per low-resolution pixel
   * @returns {Stamp | null} null when there is no stamp
   */
  read(picture, width, scale) {
    const context = this.#context;
    const perRow = Math.floor(width / (CELL * scale));
    if (!context || perRow < 8) return null;
    const rows = Math.ceil(CELLS / perRow);
    const side = CELL * scale;
    const { canvas } = context;
    // Nearest-neighbour to one pixel a cell would sample an edge; 4 pixels a cell have a middle.
    canvas.width = perRow * 4;
    canvas.height = rows * 4;
    context.drawImage(
      picture, 0, 0, perRow * side, rows * side, 0, 0, canvas.width, canvas.height,
    );
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    return decode((cell) => {
      const x = (cell % perRow) * 4 + 1;
      const y = Math.floor(cell / perRow) * 4 + 1;
      let sum = 0;
      for (const [dx, dy] of [[0, 0], [1, 0], [0, 1], [1, 1]]) {
        const at = ((y + dy) * canvas.width + x + dx) * 4;
        sum += 0.299 * data[at] + 0.587 * data[at + 1] + 0.114 * data[at + 2];
      }
      return sum / 4;
    });
  }
}

/**
 * @param {(cell: number) => number} luma of a cell's middle, 0 to 255
 * @returns {Stamp | null}
 */
export function decode(luma) {
  const bits = [];
  for (let cell = 0; cell < CELLS; cell += 1) {
    const level = luma(cell);
    if (Math.abs(level - MIDDLE) < LEAST_CONTRAST) return null;
    bits.push(level > MIDDLE ? 1 : 0);
  }
  return { number: toNumber(bits.slice(0, 16)), ms: fromGray(toNumber(bits.slice(16))) };
}

/** @param {number[]} bits */
function toNumber(bits) {
  return bits.reduce((value, bit) => value * 2 + bit, 0);
}

/** @param {number} gray */
function fromGray(gray) {
  let value = gray;
  for (let rest = gray >> 1; rest; rest >>= 1) value ^= rest;
  return value;
}

function newContext() {
  return document.createElement("canvas").getContext("2d", { willReadFrequently: true });
}
