// Search options over a model's defaults, as `gen.search.options` combines them.

import { Refusal } from "./tokenizers.js";

const BEAM = ["beam", "length_penalty", "mbr", "n_best"];
const SAMPLE = ["temperature", "top_k", "top_p", "min_p", "num_samples", "seed"];
const MODEST = ["seed", "num_samples", "n_best", "length_penalty", "mbr"]; // these alone mean the model's own way to search
const NUMBERS = { max_new_tokens: [1, 1e6], max_ratio: [0, Infinity], min_new_tokens: [0, 1e6], repetition_penalty: [0.01, 100], no_repeat_ngram: [0, 1e6] };
const RANGES = { beam: [1, 1000], length_penalty: [-5, 5], n_best: [1, 1000], top_k: [1, Infinity], top_p: [0, 1], min_p: [0, 1], num_samples: [1, 10000], seed: [0, Infinity] };
const KNOWN = [...BEAM, ...SAMPLE, ...Object.keys(NUMBERS), "strategy", "unknown", "prefix", "stop", "ban"];

export function searchOptions(defaults, given) {
  const asked = Object.fromEntries(Object.entries(given).filter(([name, value]) => KNOWN.includes(name) && value != null));
  const ways = [...BEAM, ...SAMPLE, "strategy"];
  const chosen = ways.filter((name) => name in asked && !MODEST.includes(name));
  const stays = defaults.beam != null && chosen.every((name) => BEAM.includes(name)); // another width alone
  const fits = (name) => (stays ? name !== "n_best" || asked.beam == null : !chosen.length || !ways.includes(name));
  const own = Object.fromEntries(Object.entries(defaults).filter(([name]) => fits(name)));
  const found = { ...own, ...asked };
  for (const [name, [least, most]] of Object.entries({ ...NUMBERS, ...RANGES })) {
    if (found[name] != null && !(found[name] >= least && found[name] <= most)) throw new Refusal(`${name} must be between ${least} and ${most}, not ${found[name]}`);
  }
  const list = (value) => (value == null ? [] : Array.isArray(value) ? value : [value]);
  found.temperature = list(found.temperature);
  [found.stop, found.ban] = [list(found.stop), list(found.ban)];
  const beams = BEAM.filter((name) => found[name] != null && found[name] !== false);
  if (beams.length && found.beam == null) throw new Refusal(`${beams[0]} needs beam`);
  if (beams.length && SAMPLE.some((name) => name === "temperature" ? found.temperature.length : found[name] != null)) throw new Refusal("beam and sampling exclude each other: choose one way to search");
  if (found.n_best > found.beam) throw new Refusal(`n_best must be between 1 and beam (${found.beam}), not ${found.n_best}`);
  return found;
}

// The most tokens of an output whose input has so many.
export function lengthLimit({ max_new_tokens = 200, max_ratio }, inputLength) {
  return max_ratio == null || !inputLength ? max_new_tokens : Math.trunc(Math.min(max_new_tokens, max_ratio * inputLength + 10));
}
