// SentencePiece: BPE and unigram segmentation with byte fallback, over the pieces of a trained model.

const SPACE = "\u2581";
const [NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE] = [1, 2, 3, 4, 5, 6];
const UNK_SURFACE = " \u2047 ";
const UNK_PENALTY = 10;

export class Pieces {
  // `saved`: pieces, scores and types in the order of their ids; model "bpe" or "unigram"; dummy_prefix.
  constructor({ pieces, scores, types, model, dummy_prefix }) {
    this.pieces = pieces;
    this.scores = Float32Array.from(scores);
    this.types = types;
    this.prefix = dummy_prefix;
    this.unk = types.indexOf(UNKNOWN);
    this.segment = model === "bpe" ? this.#bpe : this.#unigram;
    this.ids = new Map();
    this.user = [];
    this.bytes = new Map();
    this.longest = 1;
    pieces.forEach((piece, id) => {
      if (types[id] === BYTE) this.bytes.set(parseInt(piece.slice(3, 5), 16), id);
      else if ([NORMAL, USER, UNUSED].includes(types[id])) {
        this.ids.set(piece, id);
        this.longest = Math.max(this.longest, [...piece].length);
        if (types[id] === USER) this.user.push(piece);
      }
    });
    this.user.sort((a, b) => b.length - a.length); // the longest match wins
    const normal = scores.filter((_, id) => types[id] === NORMAL);
    this.least = normal.reduce((a, b) => Math.min(a, b), 0);
    this.most = normal.reduce((a, b) => Math.max(a, b), -Infinity);
  }

  encode(text) {
    if (!text) return [];
    const normal = (this.prefix ? " " : "") + text;
    const ids = [];
    let unknown = false; // a run of unknown pieces is one
    for (const piece of this.segment(normal.replaceAll(" ", SPACE))) {
      const id = this.ids.get(piece) ?? this.unk;
      const before = unknown;
      unknown = id === this.unk;
      if (unknown && this.bytes.size) for (const byte of new TextEncoder().encode(piece)) ids.push(this.bytes.get(byte));
      else if (!unknown || !before) ids.push(id);
    }
    return ids;
  }

  decode(ids) {
    let [text, bytes, begins, stripped] = ["", [], true, false];
    const flush = () => {
      if (bytes.length) text += fromBytes(bytes);
      bytes = [];
    };
    for (const id of ids) {
      const type = this.types[id];
      if (type === BYTE) {
        bytes.push(parseInt(this.pieces[id].slice(3, 5), 16));
        continue;
      }
      flush();
      if (stripped || text) begins = false;
      let piece = type === CONTROL ? "" : type === UNKNOWN ? UNK_SURFACE : this.pieces[id];
      stripped = begins && this.prefix && piece.startsWith(SPACE);
      if (stripped) piece = piece.slice(1);
      text += piece.replaceAll(SPACE, " ");
    }
    flush();
    return text;
  }

  // Characters, and user-defined pieces, which are never joined with others.
  #symbols(text) {
    const found = [];
    for (let at = 0; at < text.length; ) {
      const user = this.user.find((piece) => text.startsWith(piece, at));
      const piece = user ?? String.fromCodePoint(text.codePointAt(at));
      found.push({ piece, frozen: user !== undefined });
      at += piece.length;
    }
    return found;
  }

  // Joins the pair of the best score, the leftmost of equals, until none is left.
  #bpe(text) {
    const symbols = this.#symbols(text);
    symbols.forEach((symbol, at) => Object.assign(symbol, { before: at - 1, after: at + 1 < symbols.length ? at + 1 : -1 }));
    const queue = new Heap((a, b) => a.score > b.score || (a.score === b.score && a.left < b.left));
    const parts = new Map(); // an unused piece → what it was joined from
    const offer = (left, right) => {
      if (left < 0 || right < 0 || symbols[left].frozen || symbols[right].frozen) return;
      const piece = symbols[left].piece + symbols[right].piece;
      const id = this.ids.get(piece);
      if (id === undefined) return;
      queue.push({ left, right, piece, score: this.scores[id] });
      if (this.types[id] === UNUSED) parts.set(piece, [symbols[left].piece, symbols[right].piece]);
    };
    for (let at = 1; at < symbols.length; at++) offer(at - 1, at);
    for (let best; (best = queue.pop()); ) {
      const [left, right] = [symbols[best.left], symbols[best.right]];
      if (!left.piece || !right.piece || left.piece + right.piece !== best.piece) continue; // joined otherwise meanwhile
      left.piece = best.piece;
      left.after = right.after;
      if (right.after >= 0) symbols[right.after].before = best.left;
      right.piece = "";
      offer(left.before, best.left);
      offer(best.left, left.after);
    }
    const used = (piece) => (parts.has(piece) && this.types[this.ids.get(piece)] === UNUSED ? parts.get(piece).flatMap(used) : [piece]);
    return symbols.filter((symbol) => symbol.piece).flatMap((symbol) => used(symbol.piece));
  }

  // The most probable segmentation (Viterbi).
  #unigram(text) {
    const characters = [...text];
    const n = characters.length;
    const best = Array.from({ length: n + 1 }, () => null);
    best[0] = { score: 0, from: 0, piece: "" };
    for (let at = 0; at < n; at++) {
      const before = best[at].score;
      let single = false;
      let piece = "";
      for (let end = at + 1; end <= Math.min(n, at + this.longest); end++) {
        piece += characters[end - 1];
        const id = this.ids.get(piece);
        if (id === undefined || this.types[id] === UNUSED) continue;
        single ||= end === at + 1;
        const bytes = new TextEncoder().encode(piece).length;
        const own = this.types[id] === USER ? bytes * this.most - 0.1 : this.scores[id];
        relax(best, end, Math.fround(before + own), at, piece);
      }
      if (!single) relax(best, at + 1, Math.fround(before + this.least - UNK_PENALTY), at, characters[at]);
    }
    const found = [];
    for (let at = n; at > 0; at = best[at].from) found.push(best[at].piece);
    return found.reverse();
  }
}

function relax(best, end, score, from, piece) {
  if (!best[end] || score > best[end].score) best[end] = { score, from, piece };
}

// UTF-8; each byte that belongs to no character is U+FFFD.
function fromBytes(bytes) {
  const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  let text = "";
  for (let at = 0; at < bytes.length; ) {
    const length = bytes[at] < 0x80 ? 1 : bytes[at] < 0xe0 ? 2 : bytes[at] < 0xf0 ? 3 : 4;
    try {
      text += strict.decode(Uint8Array.from(bytes.slice(at, at + length)));
      at += length;
    } catch {
      text += "\ufffd";
      at += 1;
    }
  }
  return text;
}

class Heap {
  constructor(before) {
    [this.items, this.before] = [[], before];
  }

  push(item) {
    const { items, before } = this;
    let at = items.push(item) - 1;
    for (let up; at > 0 && before(item, items[(up = (at - 1) >> 1)]); at = up) items[at] = items[up];
    items[at] = item;
  }

  pop() {
    const { items, before } = this;
    const [top, last] = [items[0], items.pop()];
    if (!items.length) return top;
    let at = 0;
    for (;;) {
      let down = 2 * at + 1;
      if (down >= items.length) break;
      if (down + 1 < items.length && before(items[down + 1], items[down])) down++;
      if (!before(items[down], last)) break;
      items[at] = items[down];
      at = down;
    }
    items[at] = last;
    return top;
  }
}
