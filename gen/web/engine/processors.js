// What changes the log-probabilities that a strategy picks from: the processors of `gen.search`, for the W rows of
// one input. They return an array of W · V; entries may be set to -Infinity in place, but nothing else.

import { EOS, SPECIALS, Refusal } from "./tokenizers.js";

export function processorsOf(options, tokenizer) {
  const found = [];
  const banned = options.ban.flatMap((text) => bannedTokens(tokenizer.normalize(text), tokenizer));
  if (banned.length) found.push(new BannedTokens(banned));
  if (options.min_new_tokens) found.push(new MinLength(options.min_new_tokens));
  if ((options.repetition_penalty ?? 1) !== 1) found.push(new RepetitionPenalty(options.repetition_penalty));
  const begin = options.prefix ? tokenizer.encode(options.prefix, true) : [];
  if (options.no_repeat_ngram) found.push(new NoRepeatNgram(options.no_repeat_ngram, begin.length));
  if (begin.length) found.push(new ForcedPrefix(begin));
  if (options.stop.length) found.push(new StopStrings(options.stop.map((text) => tokenizer.normalize(text)), tokenizer));
  return found;
}

function bannedTokens(text, tokenizer) {
  const found = [];
  tokenizer.texts.forEach((token, id) => id >= SPECIALS && (token === text || token === ` ${text}`) && found.push(id));
  if (!found.length || tokenizer.kind === "subword") throw new Refusal(`ban '${text}': this page bans single characters and words of the vocabulary`);
  return found;
}

class Processor {
  start() {}
  change(logProbs) {
    return logProbs;
  }
  // Row r goes on from row parents[r] with ids[r]. Returns which rows end here, or nothing.
  observe() {}
}

class BannedTokens extends Processor {
  constructor(ids) {
    super();
    this.ids = ids;
  }

  change(logProbs, rows) {
    const V = logProbs.length / rows.length;
    rows.forEach((_, r) => this.ids.forEach((id) => (logProbs[r * V + id] = -Infinity)));
    return logProbs;
  }
}

class MinLength extends Processor {
  constructor(length) {
    super();
    this.length = length;
  }

  change(logProbs, rows) {
    const V = logProbs.length / rows.length;
    rows.forEach((row, r) => row.length < this.length && (logProbs[r * V + EOS] = -Infinity));
    return logProbs;
  }
}

class ForcedPrefix extends Processor {
  constructor(ids) {
    super();
    this.ids = ids;
  }

  change(logProbs, rows) {
    const V = logProbs.length / rows.length;
    rows.forEach((row, r) => {
      if (row.length >= this.ids.length) return;
      const at = r * V + this.ids[row.length];
      const kept = logProbs[at];
      logProbs.fill(-Infinity, r * V, (r + 1) * V);
      logProbs[at] = kept;
    });
    return logProbs;
  }
}

class RepetitionPenalty extends Processor {
  constructor(penalty) {
    super();
    this.penalty = penalty;
  }

  start(prompt, width) {
    this.seen = Array.from({ length: width }, () => new Set(prompt));
  }

  change(logProbs, rows) {
    const V = logProbs.length / rows.length;
    const changed = logProbs.slice(); // the reported scores stay as they are
    this.seen.forEach((seen, r) => seen.forEach((id) => (changed[r * V + id] *= this.penalty)));
    return changed;
  }

  observe(parents, ids) {
    this.seen = parents.map((parent, r) => new Set(this.seen[parent]).add(ids[r]));
  }
}

class NoRepeatNgram extends Processor {
  constructor(n, forced) {
    super();
    [this.n, this.forced] = [n, forced];
  }

  start(prompt, width) {
    this.seen = Array.from({ length: width }, () => prompt);
  }

  change(logProbs, rows) {
    const V = logProbs.length / rows.length;
    const { n } = this;
    this.seen.forEach((seen, r) => {
      if (rows[r].length < this.forced) return;
      const last = seen.length - n + 1;
      for (let at = 0; at < last; at++) {
        let same = true;
        for (let i = 0; i < n - 1 && same; i++) same = seen[at + i] === seen[last + i];
        if (same) logProbs[r * V + seen[at + n - 1]] = -Infinity;
      }
    });
    return logProbs;
  }

  observe(parents, ids) {
    this.seen = parents.map((parent, r) => [...this.seen[parent], ids[r]]);
  }
}

// Ends a row once its text has one of the strings.
class StopStrings extends Processor {
  constructor(strings, tokenizer) {
    super();
    [this.strings, this.tokenizer] = [strings, tokenizer];
    // A token is at least one byte. One more, since decoding may drop a space before the first token.
    this.window = Math.max(...strings.map((text) => new TextEncoder().encode(text).length)) + 1;
  }

  start(prompt, width) {
    this.tails = Array.from({ length: width }, () => []);
  }

  observe(parents, ids, live) {
    this.tails = parents.map((parent, r) => (live[r] ? [...this.tails[parent], ids[r]].slice(-this.window) : this.tails[parent]));
    return this.tails.map((tail) => {
      const text = this.tokenizer.decode(tail);
      return this.strings.some((each) => text.includes(each));
    });
  }
}

// A text up to the first of the stop strings.
export function cut(text, stops) {
  const ends = stops.map((stop) => text.indexOf(stop)).filter((at) => at >= 0);
  return ends.length ? text.slice(0, Math.min(...ends)) : text;
}
