// A model that chooses among labels.

import * as api from "./api.js";
import { Bars } from "./bars.js";
import { el, percent } from "./dom.js";
import { Looks } from "./looks.js";
import { Panel } from "./panel.js";

export class ClassifyView extends Panel {
  constructor(model) {
    super(model);
    this.bars = new Bars("Labels");
    this.source = el("div");
    this.answer = el("div", { class: "answer", hidden: true }, el("h3", {}, "What it looked at"), this.source);
    this.body.append(this.answer, this.bars.element);
  }

  get asked() {
    return this.input !== undefined;
  }

  ask(input) {
    return this.run("reading …", async (signal) => {
      const answer = await api.classify({ model: this.model.name, input }, signal);
      this.input = input;
      this.bars.show(answer.labels);
      const looks = new Looks(this.model, input, answer);
      this.source.replaceChildren(looks.element);
      this.answer.hidden = !looks.parts.length;
      const shade = () => looks.show(answer.attention.length ? answer.attention : null);
      shade();
      looks.element.querySelector("img")?.addEventListener("load", shade);
      const [best] = answer.labels;
      return ["", `${best.label}, ${percent(best.probability)}`];
    });
  }
}
