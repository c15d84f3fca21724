// What the page asks for: the answers of `gen.serve.api`, made here.

import { confidenceOf } from "./confidence.js";
import { lengthLimit, searchOptions } from "./options.js";
import { cut, processorsOf } from "./processors.js";
import { search, written } from "./search.js";
import { sentence } from "./model.js";
import { largest, strategyOf } from "./strategies.js";
import { BOS, EOS, Refusal, SPECIALS, Spelling, after } from "./tokenizers.js";
import { SPACE } from "./words.js";

const SPACES = new RegExp(`[${SPACE}]+`, "u");

// Of a word model, the space at a prompt's end: the next word brings its own.
const endSpace = (prompt, tokenizer) => (tokenizer.kind === "word" && prompt.endsWith(" ") ? " " : "");

async function prepared(model, input, options, fromIds) {
  const { tokenizer } = model;
  const start = await model.start(itemOf(model, input));
  const space = endSpace(start.prompt, tokenizer);
  const spelled = tokenizer.encodeKnown(start.prompt.slice(0, start.prompt.length - space.length), options.unknown);
  const prompt = [BOS, ...spelled, ...fromIds];
  const limit = lengthLimit(options, start.mask.filter(Boolean).length);
  const several = options.beam != null && (options.n_best > 1 || options.mbr);
  return {
    ...start,
    tokenizer,
    prompt,
    space: fromIds.length ? "" : space,
    limit,
    strategy: strategyOf(options),
    processors: processorsOf(options, tokenizer),
    stops: options.stop.map((text) => tokenizer.normalize(text)),
    distinct: several ? (options.n_best ?? 1) : 0,
    mbr: options.mbr,
  };
}

// {name: value} with all inputs of a model; one value alone is the one that it needs.
function itemOf({ processors }, input) {
  const names = Object.keys(processors);
  const needed = names.filter((name) => !processors[name].optional);
  const single = input === null || typeof input !== "object" || ArrayBuffer.isView(input.data) || Array.isArray(input.data);
  if (single && needed.length > 1) throw new Refusal(`this model reads ${names.join(" and ")}`);
  const given = single ? { [needed[0] ?? names[0]]: input } : input;
  for (const name of needed) if (given[name] == null) throw new Refusal(`the input '${name}' is missing`);
  return Object.fromEntries(names.map((name) => [name, given[name] ?? null]));
}

const probability = (logProb) => Number(Math.exp(logProb).toPrecision(6));

function tokenOf(tokenizer, id, logProb, spelling) {
  return { id, text: tokenizer.texts[id], piece: spelling.piece(id), probability: probability(logProb) };
}

function best(tokenizer, all, begin, count, spelling) {
  const V = tokenizer.size;
  const possible = largest(all, begin, V, count).filter((id) => all[begin + id] > -Infinity);
  return possible.map((id) => tokenOf(tokenizer, id, all[begin + id], spelling));
}

// The likeliest next tokens.
export async function next(model, { input = "", from_ids = [], top = 10 }) {
  const { tokenizer } = model;
  const wanted = await prepared(model, input, searchOptions(model.defaults, { temperature: 0, max_new_tokens: 1, min_new_tokens: 0 }), from_ids);
  const spelling = new Spelling(tokenizer, wanted.prompt, wanted.space);
  let tokens = [];
  await search(wanted, ({ all }) => {
    tokens = best(tokenizer, all, 0, top, spelling);
  });
  return { tokens };
}

// The state along a text, after each of its tokens: T · units numbers. Unbounded ones, as in LSTM cells, through a tanh.
export async function cells(model, { input = "", from_ids = [] }) {
  const { tokenizer } = model;
  const { step, state, prompt } = await prepared(model, input, searchOptions(model.defaults, { temperature: 0 }), from_ids);
  const spelling = new Spelling(tokenizer, [BOS]);
  const [values, pieces] = [[], []];
  let before = (await step([BOS], state)).state;
  for (const id of prompt.slice(1)) {
    if (id === EOS) break;
    before = (await step([id], before)).state;
    pieces.push(spelling.add(id));
    values.push(before.arrays.flatMap((array) => Array.from(array, Math.tanh)));
  }
  return { pieces, units: before.arrays.reduce((sum, array) => sum + array.length, 0), values: Float32Array.from(values.flat()) };
}

// A text, with what the model thought of each token and looked at. `told(events)` hears after each step of the tokens
// of samples, and may wait; of a beam's it hears nothing, as they may be revised.
export async function generate(model, body, told = () => {}) {
  const { input = "", from_ids = [], top = 0, attention = false, tree = false } = body;
  const { tokenizer } = model;
  const options = searchOptions(model.defaults, body);
  const wanted = await prepared(model, input, options, from_ids);
  const { strategy, prompt, mask } = wanted;
  const rows = Array.from({ length: strategy.width }, () => ({ spelling: new Spelling(tokenizer, prompt, wanted.space), tokens: [] }));
  const [records, V] = [[], tokenizer.size];
  const all = await search(wanted, (record) => {
    if (tree) records.push(record);
    const events = [];
    for (const [r, row] of rows.entries()) {
      if (strategy.revises || !record.live[r]) continue;
      const [id, logProb] = [record.ids[r], record.logProbs[r]];
      const token = { ...tokenOf(tokenizer, id, logProb, row.spelling), log_prob: logProb };
      if (top) token.top = best(tokenizer, record.all, r * V, top, row.spelling);
      row.spelling.add(id);
      row.tokens.push(token);
      events.push({ type: "token", index: r, token });
    }
    return told(events);
  });
  const found = written(all, wanted);
  const nodes = tree ? treeOf(records, tokenizer) : null;
  const seen = (weights) => Array.from(weights.filter((_, at) => mask[at]), (weight) => Number(weight.toFixed(5)));
  const outputs = found.map((hypothesis, place) => {
    const { ids, score, logProbs, finished, seed, temperature } = hypothesis;
    const output = { text: hypothesis.text, score, finished, seed, temperature };
    if (from_ids.length) output.text = cut(after(tokenizer.decode([...from_ids, ...ids]), tokenizer.decode(from_ids)), wanted.stops);
    const spelling = new Spelling(tokenizer, prompt, wanted.space);
    output.tokens = strategy.revises ? ids.map((id, t) => spelledToken(tokenizer, id, logProbs[t], spelling)) : rows[place].tokens.slice(0, ids.length);
    if (model.confidence && !from_ids.length) Object.assign(output, confidenceOf(model.confidence, tokenizer, hypothesis));
    if (attention) output.attention = hypothesis.attention.length ? hypothesis.attention.map(seen) : null;
    if (nodes) output.path = pathOf(nodes, ids);
    return output;
  });
  return { ...inputParts(model, input), outputs, ...(nodes && { tree: nodes }) };
}

function spelledToken(tokenizer, id, logProb, spelling) {
  const token = { ...tokenOf(tokenizer, id, logProb, spelling), log_prob: logProb };
  spelling.add(id);
  return token;
}

// The likeliest labels, and what the model looked at.
export async function classify(model, { input = "", top = 10 }) {
  const { tokenizer } = model;
  const plain = (value, kind) => (kind !== "pictures" && typeof value === "string" ? value.split(SPACES).filter(Boolean).join(" ") : value);
  const item = itemOf(model, input);
  for (const name of Object.keys(item)) item[name] = plain(item[name], model.processors[name].kind);
  const { step, state, mask } = await model.start(item);
  const { logProbs, attention } = await step([BOS], state);
  const labels = logProbs.subarray(SPECIALS);
  const most = labels.reduce((a, b) => Math.max(a, b), -Infinity);
  const total = Math.log(labels.reduce((sum, each) => sum + Math.exp(each - most), 0)) + most;
  const chosen = largest(labels, 0, labels.length, top).map((at) => ({ label: tokenizer.texts[at + SPECIALS], probability: probability(labels[at] - total) }));
  const looked = attention ? Array.from(attention.filter((_, at) => mask[at]), (weight) => Number(weight.toFixed(5))) : [];
  return { labels: chosen, ...inputParts(model, item), attention: looked };
}

// Per input what stands at each of its memory positions: of a text, the parts that joined are the text.
function inputParts(model, input) {
  const item = itemOf(model, input);
  const parts = {};
  // Labels beside other inputs have no position of their own.
  const others = Object.values(model.processors).some(({ kind }) => !["labels", "prompts"].includes(kind));
  for (const [name, processor] of Object.entries(model.processors)) {
    const value = item[name];
    parts[name] = [];
    if (value == null) continue;
    if (processor.kind === "labels" && value && !others) parts[name] = [value];
    if (processor.kind === "pictures") {
      const side = Math.round(Math.sqrt(processor.num_cells));
      parts[name] = Array.from({ length: processor.num_cells }, (_, i) => `${Math.floor(i / side) + 1},${(i % side) + 1}`);
    }
    if (processor.kind === "sentences") {
      const spelling = new Spelling(processor.tokenizer, []);
      parts[name] = sentence(processor, value).map((id) => spelling.add(id));
    }
  }
  return { input_parts: parts };
}

// The steps of a beam search: every token that was kept, with the one before it (-1: the beginning).
function treeOf(records, tokenizer) {
  const nodes = [];
  let at = records.length ? records[0].ids.map(() => -1) : [];
  for (const [step, { parents, ids, logProbs, live }] of records.entries()) {
    const before = at;
    at = parents.map((parent, r) => {
      if (!live[r]) return before[parent];
      const score = logProbs[r] + (nodes[before[parent]]?.score ?? 0);
      const node = { parent: before[parent], step, id: ids[r], text: tokenizer.texts[ids[r]], probability: probability(logProbs[r]), score };
      return nodes.push({ ...node, ends: ids[r] === EOS }) - 1;
    });
  }
  return nodes;
}

function pathOf(nodes, ids) {
  const path = [];
  let last = -1;
  for (const id of ids) {
    last = nodes.findIndex((node) => node.parent === last && node.id === id);
    if (last < 0) break;
    path.push(last);
  }
  return path;
}
