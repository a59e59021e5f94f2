// @ts-check
/** QR codes (ISO/IEC 18004) of short texts, drawn here, so that no address leaves the page. */

/** Bytes of error correction in a block, and blocks, of level M by version 1 to 20 (table 9). */
const ECC_BYTES = [10, 16, 26, 18, 24, 16, 18, 22, 22, 26, 30, 22, 22, 24, 24, 28, 28, 26, 26, 26];
const BLOCKS = [1, 1, 1, 2, 2, 4, 4, 4, 5, 5, 5, 8, 9, 9, 10, 10, 11, 13, 14, 16];
const LEVEL_M = 0; // as the format information names it (table 12)
const QUIET = 4; // modules of light margin (section 5.3.8)

/**
 * The modules of a QR code in byte mode at level M: rows of booleans, true is dark.
 * @param {string} text
 * @returns {boolean[][]}
 * @throws {RangeError} when it is longer than version 20 holds, 666 bytes
 */
export function qrModules(text) {
  const data = new TextEncoder().encode(text);
  const version = smallestVersion(data.length);
  const words = interleaved(padded(data, version), version);
  const side = 17 + 4 * version;
  const grid = /** @type {(boolean | null)[][]} */ (
    Array.from({ length: side }, () => new Array(side).fill(null))
  );
  drawFunctionPatterns(grid, version);
  const free = grid.map((row) => row.map((module) => module === null));
  drawWords(grid, free, words);
  let best = /** @type {boolean[][] | null} */ (null);
  let least = Infinity;
  for (let mask = 0; mask < 8; mask += 1) {
    const tried = masked(grid, free, mask);
    const penalty = penaltyOf(tried);
    if (penalty < least) [best, least] = [tried, penalty];
  }
  if (best === null) throw new RangeError("no mask was tried");
  return best;
}

/**
 * Draw a QR code as an SVG element: dark on white whatever the theme, since scanners need that.
 * @param {string} text
 * @param {string} label for those who do not see it
 * @returns {SVGSVGElement}
 */
export function qrSvg(text, label) {
  const modules = qrModules(text);
  const side = modules.length + 2 * QUIET;
  const path = modules.flatMap((row, y) =>
    row.map((dark, x) => (dark ? `M${x + QUIET} ${y + QUIET}h1v1h-1z` : "")),
  );
  const svg = element("svg", { viewBox: `0 0 ${side} ${side}`, class: "qr", role: "img" });
  svg.setAttribute("aria-label", label);
  svg.append(
    element("rect", { width: String(side), height: String(side), fill: "#fff" }),
    element("path", { d: path.join(""), fill: "#000", "shape-rendering": "crispEdges" }),
  );
  return /** @type {SVGSVGElement} */ (svg);
}

/** @param {string} name @param {Record<string, string>} attributes */
function element(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// ---- data ----

/** All modules but those of function patterns, in whole bytes. @param {number} version */
function wordsOf(version) {
  const alignment = alignmentAt(version).length;
  let modules = (16 * version + 128) * version + 64;
  if (version > 1) modules -= (25 * alignment - 10) * alignment - 55;
  if (version > 6) modules -= 36;
  return Math.floor(modules / 8);
}

/** @param {number} version */
function dataWordsOf(version) {
  return wordsOf(version) - ECC_BYTES[version - 1] * BLOCKS[version - 1];
}

/** @param {number} length of the text in bytes */
function smallestVersion(length) {
  for (let version = 1; version <= BLOCKS.length; version += 1) {
    if (4 + countBits(version) + 8 * length <= 8 * dataWordsOf(version)) return version;
  }
  throw new RangeError(`${length} bytes are too many for a QR code here`);
}

/** Bits of the character count in byte mode (table 3). @param {number} version */
function countBits(version) {
  return version < 10 ? 8 : 16;
}

/**
 * Mode, count, text, terminator and padding (section 7.4).
 * @param {Uint8Array} text
 * @param {number} version
 */
function padded(text, version) {
  /** @type {number[]} */ const bits = [];
  /** @param {number} value @param {number} count */
  const put = (value, count) => {
    for (let bit = count - 1; bit >= 0; bit -= 1) bits.push((value >> bit) & 1);
  };
  put(0b0100, 4);
  put(text.length, countBits(version));
  text.forEach((byte) => put(byte, 8));
  const room = 8 * dataWordsOf(version);
  put(0, Math.min(4, room - bits.length));
  put(0, (8 - (bits.length % 8)) % 8);
  for (let pad = 0xec; bits.length < room; pad ^= 0xec ^ 0x11) put(pad, 8);
  return Uint8Array.from({ length: room / 8 }, (_, index) =>
    bits.slice(8 * index, 8 * index + 8).reduce((word, bit) => 2 * word + bit, 0),
  );
}

/**
 * Split into blocks, each with its error correction, and interleave (section 7.6).
 * @param {Uint8Array} data
 * @param {number} version
 */
function interleaved(data, version) {
  const blocks = BLOCKS[version - 1];
  const ecc = ECC_BYTES[version - 1];
  const all = wordsOf(version);
  const short = Math.floor(all / blocks) - ecc;
  const shortBlocks = blocks - (all % blocks);
  const divisor = generator(ecc);
  /** @type {Uint8Array[]} */ const parts = [];
  /** @type {Uint8Array[]} */ const checks = [];
  for (let block = 0, at = 0; block < blocks; block += 1) {
    const part = data.slice(at, at + short + (block < shortBlocks ? 0 : 1));
    at += part.length;
    parts.push(part);
    checks.push(remainder(part, divisor));
  }
  /** @type {number[]} */ const words = [];
  for (let index = 0; index <= short; index += 1) {
    for (const part of parts) if (index < part.length) words.push(part[index]);
  }
  for (let index = 0; index < ecc; index += 1) for (const check of checks) words.push(check[index]);
  return words;
}

/** Product in GF(2^8) modulo x^8 + x^4 + x^3 + x^2 + 1. @param {number} a @param {number} b */
function times(a, b) {
  let product = 0;
  for (let bit = 7; bit >= 0; bit -= 1) {
    product = (product << 1) ^ ((product >> 7) * 0x11d);
    product ^= ((b >> bit) & 1) * a;
  }
  return product;
}

/** The generator polynomial without its leading 1, highest power first. @param {number} degree */
function generator(degree) {
  const polynomial = new Uint8Array(degree);
  polynomial[degree - 1] = 1;
  for (let power = 0, root = 1; power < degree; power += 1, root = times(root, 2)) {
    for (let index = 0; index < degree; index += 1) {
      polynomial[index] = times(polynomial[index], root) ^ (polynomial[index + 1] ?? 0);
    }
  }
  return polynomial;
}

/** @param {Uint8Array} data @param {Uint8Array} divisor */
function remainder(data, divisor) {
  let rest = new Uint8Array(divisor.length);
  for (const word of data) {
    const factor = word ^ rest[0];
    rest = Uint8Array.from(divisor, (coefficient, index) =>
      (rest[index + 1] ?? 0) ^ times(coefficient, factor),
    );
  }
  return rest;
}

// ---- modules ----

/** @typedef {(boolean | null)[][]} Grid rows; null where data may go */

/** Centres of the alignment patterns on both axes (annex E). @param {number} version */
function alignmentAt(version) {
  if (version === 1) return [];
  const count = Math.floor(version / 7) + 2;
  const last = 4 * version + 10;
  const step = count === 2 ? 0 : 2 * Math.ceil((last - 6) / (2 * (count - 1)));
  return [6, ...Array.from({ length: count - 1 }, (_, i) => last - step * (count - 2 - i))];
}

/** @param {Grid} grid @param {number} version */
function drawFunctionPatterns(grid, version) {
  const side = grid.length;
  for (let index = 0; index < side; index += 1) grid[6][index] = grid[index][6] = index % 2 === 0;
  for (const [x, y] of [[3, 3], [side - 4, 3], [3, side - 4]]) drawRings(grid, x, y, 4);
  const centres = alignmentAt(version);
  const last = centres.length - 1;
  centres.forEach((y, row) => {
    centres.forEach((x, column) => {
      const corner = [`0,0`, `0,${last}`, `${last},0`].includes(`${row},${column}`);
      if (!corner) drawRings(grid, x, y, 2);
    });
  });
  drawFormat(grid, 0); // keeps its place; the mask is known later
  if (version >= 7) drawVersion(grid, version);
}

/** Finder (radius 4, its separator included) or alignment pattern (radius 2). */
/** @param {Grid} grid @param {number} x @param {number} y @param {number} radius */
function drawRings(grid, x, y, radius) {
  for (let down = -radius; down <= radius; down += 1) {
    for (let right = -radius; right <= radius; right += 1) {
      const ring = Math.max(Math.abs(down), Math.abs(right));
      const row = grid[y + down];
      if (row?.[x + right] !== undefined) {
        row[x + right] = radius === 4 ? ring !== 2 && ring !== 4 : ring !== 1;
      }
    }
  }
}

/** Level and mask, protected by BCH(15, 5) (section 7.9). @param {Grid} grid @param {number} mask */
function drawFormat(grid, mask) {
  const data = (LEVEL_M << 3) | mask;
  let rest = data;
  for (let step = 0; step < 10; step += 1) rest = (rest << 1) ^ ((rest >> 9) * 0x537);
  const bits = ((data << 10) | rest) ^ 0x5412;
  const side = grid.length;
  for (let index = 0; index < 15; index += 1) {
    const dark = ((bits >> index) & 1) === 1;
    // Beside the upper left finder, and the second copy beside the other two.
    if (index < 8) {
      grid[index < 6 ? index : index + 1][8] = dark;
      grid[8][side - 1 - index] = dark;
    } else {
      grid[8][index === 8 ? 7 : 14 - index] = dark;
      grid[side - 15 + index][8] = dark;
    }
  }
  grid[side - 8][8] = true;
}

/** The version, protected by BCH(18, 6) (section 7.10). @param {Grid} grid @param {number} version */
function drawVersion(grid, version) {
  let rest = version;
  for (let step = 0; step < 12; step += 1) rest = (rest << 1) ^ ((rest >> 11) * 0x1f25);
  const bits = (version << 12) | rest;
  for (let index = 0; index < 18; index += 1) {
    const dark = ((bits >> index) & 1) === 1;
    const along = grid.length - 11 + (index % 3);
    const across = Math.floor(index / 3);
    grid[across][along] = grid[along][across] = dark;
  }
}

/** In two columns at a time, from the right, up and down (section 7.7.3). */
/** @param {Grid} grid @param {boolean[][]} free @param {number[]} words */
function drawWords(grid, free, words) {
  const side = grid.length;
  let bit = 0;
  for (let right = side - 1; right >= 1; right -= 2) {
    if (right === 6) right = 5; // the timing pattern's column
    const upward = ((right + 1) & 2) === 0;
    for (let step = 0; step < side; step += 1) {
      const y = upward ? side - 1 - step : step;
      for (const x of [right, right - 1]) {
        if (!free[y][x]) continue;
        grid[y][x] = bit < 8 * words.length && ((words[bit >> 3] >> (7 - (bit & 7))) & 1) === 1;
        bit += 1;
      }
    }
  }
}

const MASKS = /** @type {((x: number, y: number) => boolean)[]} */ ([
  (x, y) => (x + y) % 2 === 0,
  (_, y) => y % 2 === 0,
  (x) => x % 3 === 0,
  (x, y) => (x + y) % 3 === 0,
  (x, y) => (Math.floor(x / 3) + Math.floor(y / 2)) % 2 === 0,
  (x, y) => ((x * y) % 2) + ((x * y) % 3) === 0,
  (x, y) => (((x * y) % 2) + ((x * y) % 3)) % 2 === 0,
  (x, y) => (((x + y) % 2) + ((x * y) % 3)) % 2 === 0,
]);

/** @param {Grid} grid @param {boolean[][]} free @param {number} mask */
function masked(grid, free, mask) {
  const copy = grid.map((row, y) =>
    row.map((dark, x) => Boolean(dark) !== (free[y][x] && MASKS[mask](x, y))),
  );
  drawFormat(copy, mask);
  return copy;
}

/** How hard it is to read (section 7.8.3): runs, blocks, false finders, imbalance. */
/** @param {boolean[][]} modules */
function penaltyOf(modules) {
  const side = modules.length;
  const columns = modules.map((_, x) => modules.map((row) => row[x]));
  let penalty = 0;
  for (const line of [...modules, ...columns]) {
    const text = line.map(Number).join("");
    for (const run of text.match(/(.)\1{4,}/g) ?? []) penalty += run.length - 2;
    penalty += 40 * (text.match(/(?=0000(1011101))|(?=(1011101)0000)/g) ?? []).length;
  }
  for (let y = 1; y < side; y += 1) {
    for (let x = 1; x < side; x += 1) {
      const dark = modules[y][x];
      const same = modules[y - 1][x] === dark && modules[y][x - 1] === dark;
      if (same && modules[y - 1][x - 1] === dark) penalty += 3;
    }
  }
  const dark = modules.flat().filter(Boolean).length;
  return penalty + 10 * Math.floor(Math.abs((20 * dark) / side ** 2 - 10));
}
