// What the units of the state do along a text: choose one, or find one that follows quotes, lines or brackets
// (Karpathy, Johnson and Li, 2015).

import * as api from "./api.js";
import { el, unique } from "./dom.js";
import { Tokens } from "./tokens.js";

const OPENING = { "(": ")", "[": "]", "{": "}" };

// What a unit may follow: of each token a number, from the text so far and the token.
const PATTERNS = {
  quotes: (text) => (text.match(/["“”«»]/g)?.length ?? 0) % 2,
  brackets: (text) => Math.max(0, depth(text)),
  "the place in a line": (text) => text.length - 1 - text.lastIndexOf("\n"),
  "the place in a word": (text) => text.match(/[\p{L}\p{M}\p{N}]*$/u)[0].length,
  "capital letters": (text, piece) => Number(/\p{Lu}/u.test(piece)),
};

function depth(text) {
  let found = 0;
  for (const character of text) {
    if (character in OPENING) found++;
    else if (Object.values(OPENING).includes(character)) found--;
  }
  return found;
}

// Pearson's correlation; 0 where one of the two never changes.
export function correlation(a, b) {
  const mean = (values) => values.reduce((sum, each) => sum + each, 0) / values.length;
  const [ma, mb] = [mean(a), mean(b)];
  let [ab, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    const [x, y] = [a[i] - ma, b[i] - mb];
    ab += x * y;
    aa += x * x;
    bb += y * y;
  }
  return aa > 1e-12 && bb > 1e-12 ? ab / Math.sqrt(aa * bb) : 0;
}

export class Cells {
  // Where the model runs in this browser: a server does not send its states.
  static of(name, text) {
    return api.cells ? new Cells(name, text) : null;
  }

  // `text()`: {input, from_ids} of the text that is shown.
  constructor(name, text) {
    [this.name, this.text] = [name, text];
    const [unit, pattern] = [unique("unit"), unique("pattern")];
    this.unit = el("input", { id: unit, type: "number", min: 1, value: 1, oninput: () => this.#show() });
    this.pattern = el("select", { id: pattern, onchange: () => this.#find() }, el("option", { value: "" }, "—"));
    this.said = el("p", { class: "status", role: "status" });
    this.view = new Tokens("The text, coloured by the unit", (place) => this.#say(place));
    const fields = el("div", { class: "cells" }, el("label", { for: unit }, "Unit"), this.unit, el("label", { for: pattern }, "A unit that follows"), this.pattern);
    const legend = el("p", { class: "legend" }, "−1", el("span", { class: "scale signed", "aria-hidden": "true" }), "1");
    this.element = el("details", { ontoggle: () => this.read() }, el("summary", {}, "What single units do"), fields, this.said, el("div", { class: "source", dir: "auto" }, this.view.element), legend);
  }

  // Reads the text again, if anybody looks.
  async read() {
    const { input, from_ids } = this.text();
    if (!this.element.open || !input) return;
    this.abort?.abort();
    this.abort = new AbortController();
    try {
      this.found = await api.cells({ model: this.name, input, from_ids }, this.abort.signal);
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!(error instanceof api.Failure)) throw error;
      this.said.textContent = error.message;
      return;
    }
    const { pieces, units } = this.found;
    this.unit.max = units;
    this.view.clear();
    for (const piece of pieces) this.view.add(piece, 0, piece);
    this.best = this.#patterns();
    const option = ([name, { unit, r }]) => el("option", { value: name, disabled: !r }, r ? `${name} (unit ${unit + 1}, r = ${r.toFixed(2)})` : `${name} (none here)`);
    const chosen = this.pattern.value;
    this.pattern.replaceChildren(el("option", { value: "" }, "—"), ...Object.entries(this.best).map(option));
    this.pattern.value = this.best[chosen]?.r ? chosen : "";
    if (this.pattern.value) this.#find();
    else this.#show();
  }

  #values(unit) {
    const { values, units, pieces } = this.found;
    return Array.from(pieces, (_, t) => values[t * units + unit]);
  }

  // Of each pattern, the unit that goes with it most closely.
  #patterns() {
    const { pieces, units } = this.found;
    let text = "";
    const before = pieces.map((piece) => (text += piece));
    const all = Array.from({ length: units }, (_, unit) => this.#values(unit));
    const best = {};
    for (const [name, follow] of Object.entries(PATTERNS)) {
      const wanted = pieces.map((piece, t) => follow(before[t], piece));
      best[name] = { unit: 0, r: 0 };
      all.forEach((values, unit) => {
        const r = correlation(values, wanted);
        if (Math.abs(r) > Math.abs(best[name].r)) best[name] = { unit, r };
      });
    }
    return best;
  }

  #find() {
    const found = this.best?.[this.pattern.value];
    if (found) this.unit.value = found.unit + 1;
    this.#show(true);
  }

  #show(found = false) {
    if (!this.found) return;
    if (!found) this.pattern.value = "";
    const unit = Math.min(Math.max(1, Math.trunc(this.unit.value) || 1), this.found.units) - 1;
    this.values = this.#values(unit);
    this.values.forEach((value, t) => {
      const span = this.view.spans[t];
      span.style.setProperty("--heat", Math.min(1, Math.abs(value)).toFixed(3));
      span.classList.toggle("below", value < 0);
      span.setAttribute("aria-label", `${this.found.pieces[t]}, ${value.toFixed(2)}`);
    });
    this.#say(-1);
  }

  #say(place) {
    if (!this.values) return;
    const mean = this.values.reduce((sum, each) => sum + each, 0) / (this.values.length || 1);
    this.said.textContent = place < 0 ? `${this.found.units} units; this one is ${mean.toFixed(2)} on average` : `${this.values[place].toFixed(2)} after this`;
  }
}
