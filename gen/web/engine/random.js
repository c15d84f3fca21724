// numpy's random numbers: a stream of `np.random.default_rng((seed, i)).random(dtype=float32)`.

const [MULTIPLY_A, MULTIPLY_B] = [0x931e8875, 0x58f38ded];
const MULTIPLIER = (2549297995355413924n << 64n) | 4865540595714422341n;
const [ALL_64, ALL_128] = [(1n << 64n) - 1n, (1n << 128n) - 1n];

export const freshSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];

// The numbers of one row, by their place; drawn when they are asked for.
export class Stream {
  constructor(seed, row) {
    const words = seedWords([...parts(seed), ...parts(row)]);
    const at = (k) => (words[2 * k + 1] << 32n) | words[2 * k]; // pairs of 32 bits, the low ones first
    this.increment = ((((at(2) << 64n) | at(3)) << 1n) | 1n) & ALL_128;
    this.state = 0n;
    this.#step();
    this.state = (this.state + ((at(0) << 64n) | at(1))) & ALL_128;
    this.#step();
    this.drawn = [];
  }

  // The number at a place, in [0, 1).
  at(place) {
    while (this.drawn.length <= place) {
      const bits = this.#next();
      for (const half of [bits & 0xffffffffn, bits >> 32n]) this.drawn.push(Number(half >> 8n) / 16777216);
    }
    return this.drawn[place];
  }

  #step() {
    this.state = (this.state * MULTIPLIER + this.increment) & ALL_128;
  }

  // 64 bits of PCG64 (XSL-RR).
  #next() {
    this.#step();
    const value = (this.state >> 64n) ^ (this.state & ALL_64);
    const turn = this.state >> 122n;
    return ((value >> turn) | (value << (64n - turn))) & ALL_64;
  }
}

// A whole number as 32-bit parts, the low ones first.
function parts(number) {
  const found = [];
  let rest = BigInt(number);
  do {
    found.push(Number(rest & 0xffffffffn));
    rest >>= 32n;
  } while (rest);
  return found;
}

// numpy's SeedSequence: eight well mixed words.
function seedWords(entropy) {
  let factor = 0x43b0d7e5;
  const hash = (value) => {
    value = (value ^ factor) >>> 0;
    factor = Math.imul(factor, MULTIPLY_A) >>> 0;
    value = Math.imul(value, factor) >>> 0;
    return (value ^ (value >>> 16)) >>> 0;
  };
  const mix = (x, y) => {
    const found = (Math.imul(0xca01f9dd, x) - Math.imul(0x4973f715, y)) >>> 0;
    return (found ^ (found >>> 16)) >>> 0;
  };
  const pool = [0, 1, 2, 3].map((i) => hash(entropy[i] ?? 0));
  for (let from = 0; from < 4; from++) {
    for (let to = 0; to < 4; to++) if (from !== to) pool[to] = mix(pool[to], hash(pool[from]));
  }
  for (const more of entropy.slice(4)) for (let to = 0; to < 4; to++) pool[to] = mix(pool[to], hash(more));
  factor = 0x8b51f9dd;
  return Array.from({ length: 8 }, (_, i) => {
    let value = (pool[i % 4] ^ factor) >>> 0;
    factor = Math.imul(factor, MULTIPLY_B) >>> 0;
    value = Math.imul(value, factor) >>> 0;
    return BigInt((value ^ (value >>> 16)) >>> 0);
  });
}
