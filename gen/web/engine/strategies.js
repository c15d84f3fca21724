// How the next tokens are chosen: the strategies of `gen.search`, for the W rows of one input.
//
// `pick(choice, rows)`: `choice` has V log-probabilities per row, what is forbidden is -Infinity; `rows` have a score,
// a number of tokens, and whether they have ended. It returns [parent, token id, score] per row.

import { Stream, freshSeed } from "./random.js";

const { fround } = Math;

export function strategyOf(options) {
  if (options.beam != null) return new Beam(options.beam, options.length_penalty ?? 1, options.n_best > 1 || options.mbr);
  if (options.strategy != null) return new Greedy(); // the only one that needs no options
  return new Sample(options);
}

// The places of the k largest of V values from `begin` on, the largest first, the first of equals before.
export function largest(values, begin, V, k) {
  const found = [];
  k = Math.min(k, V);
  if (k > 64) {
    const order = Uint32Array.from({ length: V }, (_, i) => i);
    return Array.from(order.sort((a, b) => values[begin + b] - values[begin + a] || a - b).subarray(0, k));
  }
  for (let i = 0; i < V; i++) {
    const value = values[begin + i];
    if (found.length === k && !(value > values[begin + found[k - 1]])) continue;
    let at = found.length < k ? found.length : k - 1;
    for (; at > 0 && value > values[begin + found[at - 1]]; at--) found[at] = found[at - 1];
    found[at] = i;
  }
  return found;
}

class Sample {
  constructor({ temperature, top_k, top_p, min_p, num_samples, seed }) {
    this.temperatures = temperature?.length ? temperature : [1];
    const draws = this.temperatures.some((each) => each > 0);
    this.samples = draws ? (num_samples ?? 1) : 1;
    this.width = this.returned = this.samples * this.temperatures.length;
    [this.topK, this.topP, this.minP] = [top_k ?? 0, top_p ?? 1, min_p ?? 0];
    this.seed = draws ? (seed ?? freshSeed()) : null;
    this.streams = draws ? Array.from({ length: this.samples }, (_, i) => new Stream(this.seed, i)) : [];
  }

  pick(choice, rows) {
    const V = choice.length / rows.length;
    return rows.map((row, r) => {
      const temperature = this.temperatures[Math.floor(r / this.samples)];
      const id = temperature > 0 ? this.#draw(choice, r * V, V, temperature, this.streams[r % this.samples].at(row.length)) : largest(choice, r * V, V, 1)[0];
      return [r, id, fround(row.score + choice[r * V + id])];
    });
  }

  // Inverts the cumulative distribution at `uniform`.
  #draw(choice, begin, V, temperature, uniform) {
    const cut = this.topK > 0 || this.topP < 1;
    const ids = cut ? largest(choice, begin, V, this.topK || V) : null;
    const n = ids?.length ?? V;
    const value = (i) => choice[begin + (ids ? ids[i] : i)];
    let best = value(0);
    if (!ids) for (let i = 1; i < n; i++) if (choice[begin + i] > best) best = choice[begin + i];
    const cool = fround(temperature);
    const weights = new Float64Array(n);
    let total = 0;
    for (let i = 0; i < n; i++) total += weights[i] = Math.exp(fround(fround(value(i) - best) / cool));
    if (this.topP < 1 || this.minP > 0) {
      let [before, kept] = [0, 0];
      for (let i = 0; i < n; i++) {
        const weight = weights[i];
        before += weight;
        if ((this.topP < 1 && !(before - weight < this.topP * total)) || weight < this.minP) weights[i] = 0;
        kept += weights[i];
      }
      total = kept;
    }
    const wanted = uniform * total;
    let cumulative = 0;
    let found = 0;
    while (found < n - 1 && (cumulative += weights[found]) <= wanted) found++;
    return ids ? ids[found] : found;
  }

  order(rows) {
    return rows.map((_, r) => r);
  }

  origin(r) {
    const temperature = this.temperatures[Math.floor(r / this.samples)];
    return temperature > 0 ? { seed: this.seed, temperature } : { temperature };
  }
}

class Greedy extends Sample {
  constructor() {
    super({ temperature: [0] });
  }

  origin() {
    return {};
  }
}

class Beam {
  constructor(width, lengthPenalty, several) {
    this.width = width;
    this.penalty = lengthPenalty;
    this.returned = several ? width : 1; // several may have the same text
    this.revises = true;
  }

  #normalise(score, length) {
    return score / ((5 + length) / 6) ** this.penalty;
  }

  pick(choice, rows) {
    const [W, V] = [this.width, choice.length / rows.length];
    const [parents, ids, ranking] = [[], [], []];
    rows.forEach((row, r) => {
      const score = row.length === 0 && r > 0 && !row.ended ? -Infinity : row.score; // at first all rows are the same
      for (const id of largest(choice, r * V, V, W)) {
        parents.push(r);
        ids.push(id);
        ranking.push(this.#normalise(fround(score + choice[r * V + id]), row.length + (row.ended ? 0 : 1)));
      }
    });
    return largest(ranking, 0, ranking.length, W).map((at) => {
      const [r, id] = [parents[at], ids[at]];
      const hidden = rows[r].length === 0 && r > 0 && !rows[r].ended;
      return [r, id, hidden ? -Infinity : fround(rows[r].score + choice[r * V + id])];
    });
  }

  order(rows) {
    const value = rows.map((row) => this.#normalise(row.score, row.length));
    return largest(value, 0, value.length, value.length);
  }

  origin() {
    return {};
  }
}
