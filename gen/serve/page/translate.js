// A model that reads something and writes about it: translations and captions.

import * as api from "./api.js";
import { Cells } from "./cells.js";
import { el, percent } from "./dom.js";
import { Looks } from "./looks.js";
import { Panel } from "./panel.js";
import { drawTree } from "./tree.js";
import { Written } from "./written.js";

export class TranslateView extends Panel {
  constructor(model) {
    super(model);
    this.written = new Written(model.name, (kept, place) => this.ask(this.input, this.options, kept, place), (place) => this.#look(place));
    this.written.onFailure = (message) => this.complain(message);
    this.source = el("div");
    this.others = el("ol", { class: "others" });
    this.tree = el("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": "The beam as a tree" });
    const wide = matchMedia("(min-width: 48rem)").matches;
    this.drawn = el("details", { open: wide }, el("summary", {}, "The beam as a tree"), this.tree);
    const text = el("div", { class: "text", dir: "auto" }, this.written.view.element);
    this.doubts = el("p", { class: "legend", hidden: true }, el("span", { class: "doubtful" }, "underlined"), " more probably wrong than right");
    const alternatives = el("div", { class: "alternatives" }, el("h3", {}, "Alternatives"), this.others);
    this.alternatives = alternatives;
    this.answer = el("div", { class: "answer", hidden: true }, this.source, text, this.doubts, alternatives);
    this.drawn.hidden = true;
    this.body.append(this.answer, this.written.bars.element, this.drawn);
    this.cells = Cells.of(model.name, () => ({ input: this.input, from_ids: this.written.ids }));
    if (this.cells) this.body.append(this.cells.element);
  }

  get asked() {
    return this.input !== undefined;
  }

  // `kept`: tokens that are kept of the text before; at `place` another one was chosen.
  ask(input, options, kept = [], place = -1) {
    const looked = place < 0 ? [] : this.attention.slice(0, place + 1);
    return this.run("reading …", async (signal) => {
      const from_ids = kept.map((token) => token.id);
      const body = { model: this.model.name, input, ...options, from_ids, attention: true, tree: true };
      const answer = await api.generate(body, signal);
      [this.input, this.options, this.kept, this.looked, this.found] = [input, options, kept, looked, answer];
      this.looks = new Looks(this.model, input, answer, (at) => this.#turn(at));
      this.source.replaceChildren(this.looks.element);
      this.answer.hidden = this.drawn.hidden = false;
      this.#others();
      this.#choose(0);
      const [best] = answer.outputs;
      const sure = best.confidence == null ? "" : `, confidence ${percent(best.confidence)}`;
      const whole = this.#several(input) ? ", read as one sentence" : "";
      return [`${kept.length + best.tokens.length} tokens${sure}${whole}`, kept.map((token) => token.piece).join("") + best.text];
    });
  }

  // Whether an input has several sentences, or lines: they are not split here.
  #several(input) {
    const texts = Object.entries(this.model.inputs).map(([name, kind]) => (kind === "sentences" && input[name]) || "");
    return texts.some((text) => /\n|[.!?]\s+\S|[。！？]\S/u.test(text.trim()));
  }

  #others() {
    const before = this.kept.map((token) => token.piece).join("");
    const button = (output, place) =>
      el("button", { type: "button", onclick: () => this.#choose(place) }, el("span", { dir: "auto" }, (before + output.text).trim() || "(nothing)"), el("small", { title: "The logarithm of its probability" }, signed(output.score)));
    this.others.replaceChildren(...this.found.outputs.map((output, place) => el("li", {}, button(output, place))));
    this.alternatives.hidden = this.found.outputs.length < 2;
  }

  #choose(place) {
    const output = this.found.outputs[place];
    [...this.others.children].forEach((item, each) => item.firstChild.setAttribute("aria-pressed", each === place));
    this.attention = [...this.looked, ...(output.attention ?? [])];
    this.written.begin(this.input, this.kept);
    for (const token of output.tokens.filter((each) => each.text)) this.written.add(token);
    this.written.view.doubt(output.words ?? []);
    this.doubts.hidden = !this.written.view.element.querySelector(".doubtful");
    this.written.view.spans.forEach((span, each) => {
      const weights = this.attention[each];
      if (weights?.length) span.setAttribute("aria-label", `${span.getAttribute("aria-label")}, ${this.looks.most(weights)}`);
    });
    this.written.follow(Math.max(0, this.kept.length - 1));
    this.tree.replaceChildren(this.found.tree ? drawTree(this.found.tree, this.found.outputs, place) : "");
    this.cells?.read();
  }

  // A written token is looked at: where did the model look?
  #look(place) {
    this.looks?.show(place < 0 ? null : (this.attention[place] ?? null));
  }

  // A word of the input is looked at: for which tokens did the model look there?
  #turn(at) {
    const { view } = this.written;
    view.shade(at < 0 ? null : view.spans.map((_, place) => this.attention[place]?.[at] ?? 0));
  }
}

const signed = (number) => number.toFixed(2).replace("-", "\u2212");
