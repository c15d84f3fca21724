// A model that goes on with a text.

import * as api from "./api.js";
import { Cells } from "./cells.js";
import { el } from "./dom.js";
import { Panel } from "./panel.js";
import { Written } from "./written.js";

export class TextView extends Panel {
  constructor(model, place) {
    super(model);
    this.prompt = el("span", { class: "prompt" });
    this.written = new Written(model.name, (kept) => this.ask(this.input, this.options, kept));
    this.written.onFailure = (message) => this.complain(message);
    this.written.onCaret = (token) => place.insert(token.piece);
    const text = el("div", { class: "text", dir: "auto" }, this.prompt, this.written.view.element);
    const legend = el("p", { class: "legend" }, "expected", el("span", { class: "scale", "aria-hidden": "true" }), "surprising");
    this.answer = el("div", { class: "answer", hidden: true }, text, legend);
    this.body.append(this.answer, this.written.bars.element);
    this.cells = Cells.of(model.name, () => ({ input: this.input, from_ids: this.written.ids }));
    if (this.cells) this.body.append(this.cells.element);
    this.promptName = Object.entries(model.inputs).find(([, kind]) => kind === "prompts")?.[0];
  }

  get asked() {
    return this.input !== undefined;
  }

  // The bars for the text before the cursor.
  caret(input, before) {
    this.written.caret({ ...input, [this.promptName]: before }, before);
  }

  ask(input, options, kept = []) {
    return this.run("writing …", async (signal) => {
      [this.input, this.options] = [input, options];
      this.answer.hidden = false;
      this.prompt.textContent = input[this.promptName] ?? "";
      const { written } = this;
      written.begin(input, kept);
      const from_ids = kept.map((token) => token.id);
      const began = performance.now();
      let waiting = 0;
      const body = { model: this.model.name, input, ...options, from_ids, top: 10 };
      for await (const event of api.stream(body, signal)) {
        if (event.type === "token") {
          written.add(event.token);
          waiting ||= requestAnimationFrame(() => {
            waiting = 0;
            written.follow();
          });
          continue;
        }
        const [output] = event.outputs;
        const fresh = output.tokens.slice(written.tokens.length - kept.length);
        for (const token of fresh) written.add(token);
        this.cells?.read();
        const seconds = (performance.now() - began) / 1000;
        const count = output.tokens.length;
        return [`${count} tokens in ${seconds.toFixed(1)} s`, output.text];
      }
      return "";
    });
  }
}
