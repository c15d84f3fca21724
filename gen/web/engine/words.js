// Words as `gen.inputs.words` finds them.

export const SPACE = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000"; // Python's \s
const PLAIN = new RegExp(` ?[\\p{L}\\p{N}_]+(?:['’\\-][\\p{L}\\p{N}_]+)*| ?(?:[^\\p{L}\\p{N}_${SPACE}]|\\r\\n|(?! )[${SPACE}])| `, "gu");
const NOT_PLAIN =
  /[^\x00-\u02ff\u0370-\u0482\u048a-\u0530\u2010-\u2027\u20a0-\u20bf\u3000-\u3020\u3041-\u3096\u30a0-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uff01-\uff9d]/u;
const LINES = /[^\n\r\v\f\x1c-\x1e\x85\u2028\u2029]*(?:\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029])|[^\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+$/gu;
const CAPTIONS = new RegExp(` ?[^${SPACE}']+| ?'[^${SPACE}']*`, "gu");
const LETTER = /^[\p{L}\p{N}_]/u;
const clusters = new Intl.Segmenter(undefined, { granularity: "grapheme" });

function findWords(text) {
  const plain = (line) => line.match(PLAIN) ?? [];
  if (!NOT_PLAIN.test(text)) return plain(text);
  return (text.match(LINES) ?? []).flatMap((line) => (NOT_PLAIN.test(line) ? wordsOfClusters(line) : plain(line)));
}

// Where a character may have several code points: words are runs of clusters that begin with a letter.
function wordsOfClusters(line) {
  const parts = Array.from(clusters.segment(line), (each) => each.segment);
  const letter = (at) => at < parts.length && LETTER.test(parts[at]);
  const found = [];
  for (let at = 0; at < parts.length; ) {
    const begin = at;
    if (parts[at] === " " && at + 1 < parts.length && !parts[at + 1].startsWith(" ")) at++;
    if (letter(at)) {
      do at++;
      while (letter(at) || /^\p{M}/u.test(parts[at] ?? "") || (/^['’-]$/.test(parts[at]) && letter(at + 1)));
    } else at++;
    found.push(parts.slice(begin, at).join(""));
  }
  return found;
}

const captions = (text) => text.match(CAPTIONS) ?? [];

export const PATTERNS = {
  words: findWords,
  captions,
  " ?[^\\s']+| ?'[^\\s']*": captions, // as older models have it
  " ?\\w+(?:['’\\-]\\w+)*| ?[^\\w\\s]|\\s": (text) =>
    text.match(new RegExp(` ?[\\p{L}\\p{N}_]+(?:['’\\-][\\p{L}\\p{N}_]+)*| ?[^\\p{L}\\p{N}_${SPACE}]|[${SPACE}]`, "gu")) ?? [],
};
