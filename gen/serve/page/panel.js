// The frame of a model on the page: its name, what it is doing, what went wrong.

import * as api from "./api.js";
import { el, unique } from "./dom.js";

export class Panel {
  constructor(model) {
    this.model = model;
    const id = unique("panel");
    this.status = el("p", { class: "status", role: "status" });
    this.wrong = el("p", { class: "wrong", role: "alert", hidden: true });
    this.body = el("div", { class: "body" });
    this.element = el("section", { class: "panel", "aria-labelledby": id }, el("header", {}, el("h2", { id }, model.name), this.status), this.wrong, this.body);
    this.running = null;
  }

  get busy() {
    return this.running !== null;
  }

  stop() {
    this.running?.abort();
  }

  // Does it instead of what is under way. `work(signal)` returns what to say at the end.
  async run(doing, work) {
    this.stop();
    const mine = (this.running = new AbortController());
    this.wrong.hidden = true;
    this.say(doing);
    this.element.setAttribute("aria-busy", "true");
    this.changed?.();
    try {
      const said = await work(mine.signal);
      if (this.running === mine) this.say(said);
    } catch (error) {
      if (this.running !== mine) return;
      if (error.name === "AbortError") this.say("stopped");
      else {
        this.say("");
        this.complain(error instanceof api.Failure ? error.message : String(error));
      }
    } finally {
      if (this.running === mine) {
        this.running = null;
        this.element.removeAttribute("aria-busy");
        this.changed?.();
      }
    }
  }

  // Says what is wrong and leaves the status as it is; "": nothing is wrong any more.
  complain(message) {
    this.wrong.textContent = message;
    this.wrong.hidden = !message;
  }

  // In the live region; `whole` is for screen readers alone.
  say(text, whole = "") {
    if (Array.isArray(text)) [text, whole] = text;
    this.status.replaceChildren(text, el("span", { class: "hidden" }, whole));
  }
}
