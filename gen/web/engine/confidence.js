// How sure a model is of what it wrote, as `gen.search.confidence` computes it.

import { Spelling } from "./tokenizers.js";
import { PATTERNS } from "./words.js";

const clusters = new Intl.Segmenter(undefined, { granularity: "grapheme" });

// `about`: curves {x, y} for a `word` and a `text`, and the `unspaced` scripts. {confidence, words: [{word, confidence}]}.
export function confidenceOf(about, tokenizer, { ids, logProbs, text }) {
  const spelling = new Spelling(tokenizer, []);
  const pieces = [];
  let [whole, waiting] = ["", 0];
  ids.forEach((id, t) => {
    waiting += logProbs[t];
    const piece = spelling.add(id);
    if (!piece) return; // a part of a character
    pieces.push({ begin: whole.length, end: whole.length + piece.length, logProb: waiting });
    whole += piece;
    waiting = 0;
  });
  const shift = Math.max(0, whole.indexOf(text));
  const words = wordsOf(text, about.unspaced).map(({ word, begin }) => {
    const [from, to] = [begin + shift, begin + shift + word.length];
    const sum = pieces.reduce((all, each) => (each.begin < to && each.end > from ? all + each.logProb : all), 0);
    return { word, confidence: rounded(at(about.word, sum)) };
  });
  const mean = logProbs.reduce((all, each) => all + each, 0) / Math.max(1, logProbs.length);
  return { confidence: rounded(at(about.text, mean)), words };
}

// The words of a text: marks are none, and a character of a script without spaces is one.
function wordsOf(text, unspaced) {
  const alone = new RegExp(`^[${unspaced.map((name) => `\\p{Script=${name}}`).join("")}]`, "u");
  const found = [];
  let place = 0;
  for (const part of PATTERNS.words(text)) {
    const apart = Array.from(clusters.segment(part), ({ segment }) => (alone.test(segment) ? ` ${segment} ` : segment)).join("");
    for (const word of apart.split(/\s+/u).filter(Boolean)) {
      const begin = text.indexOf(word, place);
      place = begin + word.length;
      if (/[\p{L}\p{N}]/u.test(word)) found.push({ word, begin });
    }
  }
  return found;
}

// The value of a curve: linear between its knots, constant outside.
function at({ x, y }, value) {
  const right = x.findIndex((knot) => knot > value);
  if (right <= 0) return right ? y.at(-1) : y[0];
  const share = (value - x[right - 1]) / (x[right] - x[right - 1]);
  return y[right - 1] + share * (y[right] - y[right - 1]);
}

const rounded = (share) => Number(share.toFixed(4));
