// Probabilities as bars: of the tokens that may come next, or of labels.

import { el, percent, visible } from "./dom.js";

export class Bars {
  // `choose(token)`: a bar was pressed; without it bars are no buttons.
  constructor(title, choose) {
    this.choose = choose;
    this.title = el("h3", {}, title);
    this.list = el("ol", { class: "bars" });
    this.element = el("aside", { class: "next", "aria-label": title, hidden: true }, this.title, this.list);
    this.element.addEventListener("keydown", (event) => this.#keys(event));
  }

  // `tokens`: {text, probability} each; `current`: the id of the one that was taken.
  show(tokens, { title, current } = {}) {
    this.element.hidden = false;
    if (title != null) this.title.textContent = title;
    const most = Math.max(...tokens.map((token) => token.probability), 1e-9);
    const rows = tokens.map((token, place) => this.#row(this.list.children[place], token, most, current != null && token.id === current));
    this.list.replaceChildren(...rows);
  }

  // A row is used again, so that its bar moves instead of jumping and a pressed button stays.
  #row(item, token, most, current) {
    if (!item) {
      const row = el(this.choose ? "button" : "div", { class: "bar", type: this.choose ? "button" : null });
      row.append(el("span", { class: "name" }), el("span", { class: "track" }, el("span", { class: "fill" })), el("span", { class: "share" }));
      item = el("li", {}, row);
      row.addEventListener("click", () => this.choose?.(item.token));
    }
    item.token = token;
    const row = item.firstChild;
    const [name, track, share] = row.children;
    const text = token.label ?? visible(token.text);
    if (name.textContent !== text) name.textContent = text;
    name.classList.toggle("mark", token.text === "");
    share.textContent = percent(token.probability);
    track.firstChild.style.setProperty("--share", token.probability / (this.choose ? most : 1));
    row.classList.toggle("current", current);
    if (this.choose) {
      row.disabled = token.text === "";
      row.setAttribute("aria-current", current);
    }
    return item;
  }

  focus() {
    this.list.querySelector("button:not(:disabled)")?.focus();
  }

  #keys(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const buttons = [...this.list.querySelectorAll("button:not(:disabled)")];
    const place = buttons.indexOf(document.activeElement) + step;
    buttons[Math.max(0, Math.min(buttons.length - 1, place))]?.focus();
    event.preventDefault();
  }
}
