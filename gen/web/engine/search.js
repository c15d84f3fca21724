// The search loop of `gen.search.loop`, for one input: prompts, greedy search, sampling and beam search all use it.

import { BOS, EOS, PAD, UNK } from "./tokenizers.js";
import { agreeing } from "./mbr.js";
import { cut } from "./processors.js";

const FORBIDDEN = [PAD, BOS, UNK];
const NOT_FINITE = "the model computes NaN instead of probabilities: its weights, or its input, hold NaN or infinite values";

// Unrolls the decoder.
//
// `step(ids, state)` → {logProbs: W · V float32, state, attention: W · S or null}; `told(record)` hears of each step:
// {parents, ids, logProbs: of the tokens picked, live, all: of all tokens, attention}, and may wait or end it by throwing.
// Returns the hypotheses, best first.
export async function search({ step, state, prompt, strategy, processors, limit }, told = () => {}) {
  const W = strategy.width;
  const everyone = Array.from({ length: W }, (_, r) => r);
  let answer;
  for (const id of prompt) {
    answer = await step([id], state);
    state = answer.state;
  }
  if (W > 1) answer = widened(answer, W);
  const V = answer.logProbs.length / W;
  for (const processor of processors) processor.start(prompt, W);
  let rows = everyone.map(() => ({ score: 0, length: 0, ended: false, finished: false }));
  const records = [];
  for (;;) {
    const { logProbs } = answer;
    const broken = everyone.map((r) => Number.isNaN(logProbs[r * V]));
    for (const r of everyone) for (const id of FORBIDDEN) logProbs[r * V + id] = -Infinity;
    let choice = logProbs;
    for (const processor of processors) choice = processor.change(choice, rows);
    rows.forEach((row, r) => {
      if (row.ended) choice.fill(-Infinity, r * V, (r + 1) * V)[r * V + PAD] = 0;
    });
    const picked = strategy.pick(choice, rows);
    const [parents, ids] = [picked.map(([parent]) => parent), picked.map(([, id]) => id)];
    const stuck = picked.map(([, , score]) => score === -Infinity); // all was forbidden, or a row that is not in use yet
    const live = picked.map(([parent], r) => !stuck[r] && !rows[parent].ended);
    const own = picked.map(([parent, id], r) => (live[r] ? logProbs[parent * V + id] : 0));
    rows = picked.map(([parent, id, score], r) => {
      const before = rows[parent];
      const finished = before.finished || (live[r] && id === EOS);
      return { score: stuck[r] && !strategy.revises ? before.score : score, length: before.length + live[r], finished, ended: before.ended };
    });
    for (const processor of processors) processor.observe(parents, ids, live)?.forEach((stops, r) => (rows[r].finished ||= stops && live[r]));
    rows.forEach((row, r) => (row.ended ||= row.finished || stuck[r] || row.length >= limit));
    const record = { parents, ids, logProbs: own, live, attention: answer.attention };
    records.push(record);
    if (rows.some((row, r) => !row.ended && (broken[r] || Number.isNaN(own[r])))) throw new Error(NOT_FINITE);
    await told({ ...record, all: logProbs });
    if (rows.every((row) => row.ended)) return hypotheses(records, rows, strategy);
    state = answer.state;
    answer = await step(ids, strategy.revises ? state.select(parents) : state);
  }
}

function widened({ logProbs, state, attention }, W) {
  const many = (values) => {
    const found = new Float32Array(W * values.length);
    for (let r = 0; r < W; r++) found.set(values, r * values.length);
    return found;
  };
  return { logProbs: many(logProbs), state: state.select(new Array(W).fill(0)), attention: attention && many(attention) };
}

// Follows the parents of the rows back from the last step, and ranks them.
function hypotheses(records, rows, strategy) {
  const possible = strategy.order(rows).filter((r) => rows[r].score > -Infinity);
  const order = possible.length ? possible : strategy.order(rows).slice(0, 1);
  return order.slice(0, strategy.returned).map((r) => {
    const [ids, logProbs, attention] = [[], [], []];
    let at = r;
    for (const record of records.toReversed()) {
      const parent = record.parents[at];
      if (record.live[at]) {
        ids.push(record.ids[at]);
        logProbs.push(record.logProbs[at]);
        if (record.attention) {
          const S = record.attention.length / rows.length;
          attention.push(record.attention.slice(parent * S, (parent + 1) * S));
        }
      }
      at = parent;
    }
    for (const each of [ids, logProbs, attention]) each.reverse();
    if (ids.at(-1) === EOS) {
      ids.pop();
      attention.pop();
    }
    const score = logProbs.reduce((sum, each) => sum + each, 0);
    return { ids, score, logProbs, finished: rows[r].finished, attention, ...strategy.origin(r) };
  });
}

// The texts of hypotheses; with `distinct`, of those with the same text only the best, and at most so many; with `mbr`,
// first what the others agree with most.
export function written(found, { tokenizer, space, stops, distinct, mbr }) {
  for (const hypothesis of found) {
    let text = tokenizer.decode(hypothesis.ids);
    if (space && text.startsWith(space)) text = text.slice(space.length);
    hypothesis.text = cut(text, stops);
  }
  if (!distinct) return found;
  const best = new Map();
  for (const each of found) {
    const text = tokenizer.normalize(each.text).trim();
    if (!best.has(text)) best.set(text, each);
  }
  const several = [...best.values()];
  return (mbr ? agreeing(several) : several).slice(0, distinct);
}
