// Minimum Bayes risk: of what a beam finds, the output that the others agree with most, as in `gen.search.mbr`.

const ORDERS = 4; // of n-grams, as in BLEU
const SHARPNESS = 2.5; // how much more the more probable outputs count
const MOST = 64; // outputs of a beam that vote, the most probable ones

export function agreeing(hypotheses) {
  const among = hypotheses.slice(0, MOST);
  const expected = expectedBleu(among);
  const order = among.map((_, i) => i).sort((a, b) => expected[b] - expected[a] || a - b);
  return [...order.map((i) => among[i]), ...hypotheses.slice(MOST)];
}

function expectedBleu(hypotheses) {
  const counts = hypotheses.map(({ ids }) => Array.from({ length: ORDERS }, (_, n) => ngrams(ids, n + 1)));
  const logits = hypotheses.map(({ score, ids }) => (SHARPNESS * Math.max(score, -1e9)) / ((6 + ids.length) / 6));
  const most = Math.max(...logits);
  const weights = logits.map((logit) => Math.exp(logit - most));
  const sum = weights.reduce((a, b) => a + b, 0);
  return hypotheses.map((output, i) =>
    hypotheses.reduce((total, reference, j) => total + (weights[j] / sum) * bleu(output.ids.length, counts[i], reference.ids.length, counts[j]), 0),
  );
}

// BLEU of a sentence, one added to the counts of n-grams of two tokens and more.
function bleu(length, counts, referenceLength, referenceCounts) {
  if (!length) return 0;
  let logPrecision = 0;
  for (let n = 0; n < ORDERS; n++) {
    let matches = 0;
    for (const [key, count] of counts[n]) matches += Math.min(count, referenceCounts[n].get(key) ?? 0);
    const more = n > 0 ? 1 : 0;
    logPrecision += Math.log((matches + more) / (Math.max(length - n, 0) + more)) / ORDERS;
  }
  return Math.exp(logPrecision + Math.min(1 - referenceLength / length, 0));
}

function ngrams(ids, n) {
  const counts = new Map();
  for (let i = 0; i + n <= ids.length; i++) {
    const key = ids.slice(i, i + n).join(" ");
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  return counts;
}
