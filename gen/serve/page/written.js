// What a model writes, with the bars of what it could have written instead.

import * as api from "./api.js";
import { Bars } from "./bars.js";
import { later, visible } from "./dom.js";
import { Tokens } from "./tokens.js";

const TOP = 10;

export class Written {
  // `again(kept)`: go on from these tokens; `look(place)`: one of them is looked at.
  constructor(name, again, look = () => {}) {
    this.name = name;
    this.again = again;
    this.tokens = [];
    this.pinned = -1;
    this.input = null;
    this.view = new Tokens("What the model wrote; arrow keys move, Enter shows what it could have written", (place) => {
      look(place);
      this.#look(place);
    }, (place, byKey) => this.#pick(place, byKey));
    this.bars = new Bars("What may come next", (token) => this.#choose(token));
    this.bars.element.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.view.focus(this.pinned);
    });
    this.ask = later(60, (place) => this.#ask(place));
    this.onCaret = () => {};
    this.onFailure = () => {}; // of the bars: with what is wrong, and with "" when it no longer is
    this.failed = false;
  }

  get ids() {
    return this.tokens.map((token) => token.id);
  }

  // A new text begins. `kept`: its first tokens, of an earlier one.
  begin(input, kept) {
    this.input = input;
    this.failed = false;
    this.tokens = [];
    this.unpin();
    this.ask.cancel();
    this.caretAbort?.abort();
    this.view.clear();
    for (const token of kept) this.add(token, "kept");
  }

  add(token, kind) {
    this.tokens.push(token);
    this.view.addToken(token, kind);
  }

  unpin() {
    this.pinned = -1;
    this.view.mark(-1);
    this.bars.element.classList.remove("pinned");
  }

  // The bars of a token, by default of the newest, unless the reader holds on to another one.
  follow(place = this.tokens.length - 1) {
    if (this.tokens[place]) this.#look(place);
    else this.bars.element.hidden = true;
  }

  // What may come after the text before the cursor.
  async caret(input, before) {
    this.caretAbort?.abort();
    this.caretAbort = new AbortController();
    try {
      const found = await api.next({ model: this.name, input, top: TOP }, this.caretAbort.signal);
      this.#mended();
      this.unpin();
      this.place = null;
      this.bars.show(found.tokens, { title: after(before) });
    } catch (error) {
      if (error.name !== "AbortError") this.#fail(error);
    }
  }

  // No bars instead of those of another place.
  #fail(error) {
    if (!(error instanceof api.Failure)) throw error;
    this.bars.element.hidden = this.failed = true;
    this.onFailure(error.message);
  }

  #mended() {
    if (this.failed) this.onFailure("");
    this.failed = false;
  }

  #look(place) {
    if (this.pinned >= 0) return;
    if (place < 0) this.ask.cancel();
    else if (this.tokens[place].top) this.#show(place, this.tokens[place].top);
    else this.ask(place);
  }

  async #ask(place) {
    const { tokens } = this;
    const token = tokens[place];
    try {
      const from_ids = tokens.slice(0, place).map((each) => each.id);
      token.top = (await api.next({ model: this.name, input: this.input, from_ids, top: TOP })).tokens;
    } catch (error) {
      if (this.tokens === tokens) this.#fail(error);
      return;
    }
    this.#mended();
    if (this.tokens === tokens && (this.pinned < 0 || this.pinned === place)) this.#show(place, token.top);
  }

  #show(place, top) {
    const token = this.tokens[place];
    const all = top.some((each) => each.id === token.id) ? top : [...top, token];
    const before = this.tokens.slice(0, place).map((each) => each.piece).join("");
    this.place = place;
    this.bars.show(all, { title: after(before), current: token.id });
  }

  async #pick(place, byKey) {
    const again = this.pinned === place;
    this.caretAbort?.abort();
    this.unpin();
    if (again) return;
    this.pinned = place;
    this.view.mark(place);
    this.bars.element.classList.add("pinned");
    this.view.spans[place].scrollIntoView({ block: "nearest" });
    if (this.tokens[place].top) this.#show(place, this.tokens[place].top);
    else await this.#ask(place);
    if (byKey) this.bars.focus();
  }

  #choose(token) {
    if (this.place == null) this.onCaret(token);
    else if (this.tokens[this.place]) this.again([...this.tokens.slice(0, this.place), { ...token, top: this.tokens[this.place].top }], this.place);
  }
}

const after = (text) => (text ? `After “${text.length > 18 ? "…" : ""}${visible(text.slice(-17))}”` : "At the beginning");
