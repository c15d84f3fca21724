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
    for (const [name, size] of Object.entries(answer.input_parts)) {
      const [begin, end] = [at, at + size];
      at = end;
      if (model.inputs[name] === "pictures" && input[name]) this.#add(new Photo(input[name], model.pictures[name]), begin, end);
      else if (model.inputs[name] === "sentences" && size) this.#add(this.#words(name, begin, end, turned), begin, end);
    }
  }

  #add(part, begin, end) {
    this.parts.push({ part, begin, end });
    this.element.append(part.element);
  }

  #words(name, begin, end, turned) {
    const words = new Tokens(`${name}; arrow keys move`, (place) => turned(place < 0 ? -1 : begin + place));
    words.element.classList.add("source");
    for (const label of this.labels.slice(begin, end)) words.add(label, 0, visible(label), label === "∎" ? "ending" : "");
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
