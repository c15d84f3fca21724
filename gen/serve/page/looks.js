// What a model reads, shaded by where it looks: the words of a text, the places of a picture.

import { el, percent, visible } from "./dom.js";
import { Photo } from "./photo.js";
import { Tokens } from "./tokens.js";

export class Looks {
  // `answer`: its `input_parts` are what stands at each place of the memory; `turned(place)`: a word of the input is
  // looked at (-1: none is any more).
  constructor(model, input, answer, turned = () => {}) {
    this.element = el("div", { class: "looks" });
    this.names = [];
    this.parts = [];
    for (const [name, pieces] of Object.entries(answer.input_parts)) {
      const begin = this.names.length;
      const end = begin + pieces.length;
      const photo = model.inputs[name] === "pictures";
      this.names.push(...pieces.map((piece) => (photo ? piece.replace(/(.+),(.+)/, "row $1, column $2") : visible(piece.trim()))));
      if (!pieces.length) continue;
      if (photo) this.#add(new Photo(input[name], model.pictures[name]), begin, end);
      else if (model.inputs[name] === "sentences") this.#add(this.#words(name, pieces, begin, turned), begin, end);
    }
  }

  #add(part, begin, end) {
    this.parts.push({ part, begin, end });
    this.element.append(part.element);
  }

  #words(name, pieces, begin, turned) {
    const words = new Tokens(`${name}; arrow keys move`, (place) => turned(place < 0 ? -1 : begin + place));
    words.element.classList.add("source");
    const last = pieces.length - 1;
    pieces.forEach((piece, place) => {
      const name = this.names[begin + place];
      words.add(place === last ? ` ${name}` : piece, 0, name, place === last ? "ending" : "");
    });
    return words;
  }

  // `weights`: one per place; null for none.
  show(weights) {
    for (const { part, begin, end } of this.parts) part.shade(weights && weights.slice(begin, end));
  }

  // The place that has most of the attention, in words.
  most(weights) {
    const place = weights.indexOf(Math.max(...weights));
    return `looked at ${this.names[place] ?? "something"} (${percent(weights[place])})`;
  }
}
