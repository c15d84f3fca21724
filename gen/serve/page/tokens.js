// A text as its tokens: coloured, and one tab stop with arrow keys inside.

import { el, percent, surprise, visible } from "./dom.js";

export class Tokens {
  // `look(place)`: a token has the pointer or the focus (-1: none has any more); `pick(place, byKey)`: it was pressed.
  constructor(label, look, pick) {
    this.spans = [];
    this.element = el("div", { class: "tokens", role: "group", "aria-label": label });
    const place = (event) => this.spans.indexOf(event.target.closest?.(".token"));
    this.element.addEventListener("pointerover", (event) => place(event) >= 0 && look(place(event)));
    this.element.addEventListener("pointerleave", () => look(-1));
    this.element.addEventListener("focusin", (event) => place(event) >= 0 && this.#enter(place(event), look));
    this.element.addEventListener("focusout", () => look(-1));
    this.element.addEventListener("click", (event) => place(event) >= 0 && pick?.(place(event), false));
    this.element.addEventListener("keydown", (event) => this.#keys(event, place(event), pick));
  }

  clear() {
    this.spans = [];
    this.element.replaceChildren();
  }

  // `heat`: 0 to 1; `says`: for those who cannot see it.
  add(text, heat, says, kind = "") {
    const space = text.trim() ? text.slice(0, text.search(/\S/)) : ""; // between words nothing is coloured
    const attributes = { class: `token ${kind}`, role: "button", tabindex: this.spans.length ? -1 : 0, "aria-label": says };
    const span = el("span", attributes, text.slice(space.length));
    span.style.setProperty("--heat", heat.toFixed(3));
    this.spans.push(span);
    this.element.append(space, span);
  }

  addToken(token, kind) {
    const says = `${visible(token.text)}, ${percent(token.probability)}`;
    const ends = token.text === "";
    this.add(ends ? " end" : token.piece, surprise(token.probability), says, ends ? "ending" : kind);
  }

  // Shades each token by a weight of 0 to 1 instead of its own heat; null undoes it.
  shade(weights) {
    this.element.classList.toggle("shaded", weights != null);
    if (!weights) return;
    const most = Math.max(...weights, 1e-9);
    this.spans.forEach((span, place) => span.style.setProperty("--look", ((weights[place] ?? 0) / most).toFixed(3)));
  }

  // Underlines the words that are more probably wrong than right. `words`: [{word, confidence}] in their order.
  doubt(words) {
    const text = this.element.textContent;
    let [from, end] = [0, 0];
    const doubtful = [];
    for (const { word, confidence } of words) {
      const begin = text.indexOf(word, from);
      if (begin < 0) continue;
      from = begin + word.length;
      if (confidence < 0.5) doubtful.push({ begin, end: from, says: `“${word}” is right with ${percent(confidence)}` });
    }
    for (const node of this.element.childNodes) {
      const begin = end;
      end += node.textContent.length;
      const word = this.spans.includes(node) && doubtful.find((each) => each.begin < end && each.end > begin);
      if (!word) continue;
      node.classList.add("doubtful");
      node.title = word.says;
      node.setAttribute("aria-label", `${node.getAttribute("aria-label")}, doubtful`);
    }
  }

  mark(place) {
    this.spans.forEach((span, each) => span.classList.toggle("marked", each === place));
  }

  focus(place) {
    this.spans[place]?.focus();
  }

  #enter(place, look) {
    this.spans.forEach((span, each) => (span.tabIndex = each === place ? 0 : -1));
    look(place);
  }

  #keys(event, place, pick) {
    if (place < 0) return;
    const last = this.spans.length - 1;
    const to = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: last }[event.key];
    if (to !== undefined) this.spans[Math.max(0, Math.min(last, to))].focus();
    else if (event.key === "Enter" || event.key === " ") pick?.(place, true);
    else return;
    event.preventDefault();
  }
}
