// What a model reads, shaded by where it looks: the words of a text, the places of a picture.

import { el, percent, visible } from "./dom.js";
import { Photo } from "./photo.js";
import { Tokens } from "./tokens.js";

export class Looks {
  // `answer`: has `input_labels` and `input_parts`; `turned(place)`: a word of the input is looked at, by its place in
  // the memory (-1: none).
  constructor(model, input, answer, turned = () => {}) {
    this.element = el("div", { class: "looks" });
    this.labels = answer.input_labels;
    this.parts = [];
    let at = 0;
    for (const [name, pieces] of Object.entries(answer.input_parts)) {
      const [begin, end] = [at, at + pieces.length];
      at = end;
      if (model.inputs[name] === "pictures" && input[name]) this.#add(new Photo(input[name], model.pictures[name]), begin, end);
      else if (model.inputs[name] === "sentences" && pieces.length) this.#add(this.#words(name, pieces, begin, turned), begin, end);
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
      const says = visible(place === last ? "" : this.labels[begin + place]);
      words.add(place === last ? ` ${says}` : piece, 0, says, place === last ? "ending" : "");
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
    return `looked at ${visible(this.labels[place] ?? "")} (${percent(weights[place])})`;
  }
}
