// Text to token ids and back, as `gen.inputs.tokenizer` does it.

import { PATTERNS } from "./words.js";
import { Pieces } from "./sentencepiece.js";

export const PAD = 0;
export const BOS = 1;
export const EOS = 2;
export const UNK = 3;
export const SPECIALS = 4;

export class Refusal extends Error {}

class Tokenizer {
  constructor({ kind, normalization }, texts) {
    this.kind = kind;
    this.form = normalization && normalization !== "none" ? normalization.toUpperCase() : null;
    this.texts = texts; // of each token, "" for special ones
    this.size = texts.length;
  }

  normalize(text) {
    return this.form ? text.normalize(this.form) : text;
  }

  // `unknown`: "error", "skip" or "replace" what the vocabulary lacks; null: an error for a character.
  encodeKnown(text, unknown) {
    const ids = this.encode(text, unknown !== "skip" && unknown !== "replace");
    if (unknown === "error" && ids.includes(UNK)) throw new Refusal("the vocabulary lacks a part of this text");
    return unknown === "skip" ? ids.filter((id) => id !== UNK) : ids;
  }

  decode(ids) {
    return ids.map((id) => this.written[id]).join("");
  }
}

class CharTokenizer extends Tokenizer {
  constructor(saved) {
    const characters = [...new Set(saved.characters)].sort((a, b) => a.codePointAt(0) - b.codePointAt(0));
    super(saved, ["", "", "", "", ...characters]);
    this.written = ["", "", "", "\ufffd", ...characters];
    this.ids = new Map(characters.map((character, i) => [character, i + SPECIALS]));
  }

  encode(text, strict = false) {
    const characters = [...this.normalize(text)];
    const ids = characters.map((character) => this.ids.get(character) ?? UNK);
    const at = ids.indexOf(UNK);
    if (strict && at >= 0) {
      const code = characters[at].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
      throw new Refusal(`the vocabulary has no character '${characters[at]}' (U+${code}, at position ${at + 1} of the text)`);
    }
    return ids;
  }
}

class WordTokenizer extends Tokenizer {
  constructor(saved) {
    super(saved, ["", "", "", "", ...saved.words]);
    this.written = ["", "", "", "<unk>", ...saved.words];
    this.ids = new Map(saved.words.map((word, i) => [word, i + SPECIALS]));
    this.find = PATTERNS[saved.pattern];
    this.prefix = saved.dummy_prefix === true;
  }

  encode(text) {
    const normal = this.normalize(text);
    return this.find(this.prefix && normal ? ` ${normal}` : normal).map((word) => this.ids.get(word) ?? UNK);
  }

  decode(ids) {
    const text = super.decode(ids);
    return this.prefix && text.startsWith(" ") ? text.slice(1) : text;
  }
}

class LabelTokenizer extends Tokenizer {
  constructor(saved) {
    super(saved, ["", "", "", "", ...saved.labels]);
    this.written = this.texts;
    this.labels = saved.labels;
    this.ids = new Map(saved.labels.map((label, i) => [label, i + SPECIALS]));
  }

  encode(text, strict = false) {
    if (!text) return [];
    if (strict && !this.ids.has(text)) throw new Refusal(`unknown label '${text}'`);
    return [this.ids.get(text) ?? UNK];
  }
}

class SubwordTokenizer extends Tokenizer {
  constructor(saved) {
    super(saved, saved.pieces.map((piece, i) => (i < SPECIALS ? "" : piece.replaceAll("\u2581", " "))));
    this.pieces = new Pieces(saved);
  }

  encode(text) {
    return this.pieces.encode(this.normalize(text));
  }

  decode(ids) {
    return this.pieces.decode(ids.filter((id) => id > EOS));
  }
}

const KINDS = { char: CharTokenizer, word: WordTokenizer, label: LabelTokenizer, subword: SubwordTokenizer };

// `saved`: what `gen.web.pack` wrote of a tokenizer.
export const tokenizer = (saved) => new KINDS[saved.kind](saved);

const NEAR = 8; // tokens before that can change how one is written

// What each token adds to a text: a character of several tokens belongs to the last of them.
export class Spelling {
  // `space`: of the prompt's end, which the first word brings again.
  constructor(tokenizer, before, space = "") {
    [this.tokenizer, this.space] = [tokenizer, space];
    this.written = before.slice(-NEAR);
    this.pending = [];
  }

  piece(id) {
    const decode = (ids) => this.tokenizer.decode(ids);
    const text = after(after(decode([...this.written, ...this.pending, id]), decode(this.written)), this.space);
    return text.endsWith("\ufffd") ? "" : text;
  }

  add(id) {
    const text = this.piece(id);
    this.pending.push(id);
    if (text) {
      this.written = [...this.written, ...this.pending].slice(-NEAR);
      this.pending = [];
      this.space = "";
    }
    return text;
  }
}

// The rest of a text after its beginning, which may have only the first bytes of its last character.
export function after(text, begun) {
  const beginning = text.startsWith(begun) ? begun : begun.replace(/\ufffd+$/, "");
  return text.startsWith(beginning) ? text.slice(beginning.length) : text;
}
