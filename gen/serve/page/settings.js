// Sliders of a search.

import { el, unique } from "./dom.js";

const plain = String;

// What is sent for each: null leaves it out.
const WRITING = [
  { name: "temperature", label: "Temperature", min: 0, max: 2, step: 0.05, start: 0.8, says: (v) => v.toFixed(2), hint: "0 always takes the likeliest" },
  { name: "top_k", label: "Top-k", min: 0, max: 100, step: 1, start: 0, says: (v) => (v ? `${v}` : "off"), sent: (v) => v || null },
  { name: "top_p", label: "Top-p", min: 0.05, max: 1, step: 0.05, start: 1, says: (v) => (v < 1 ? v.toFixed(2) : "off"), sent: (v) => (v < 1 ? v : null) },
  { name: "max_new_tokens", label: "Length", min: 10, max: 1000, step: 10, start: 200, says: (v) => `${v} tokens` },
  { name: "seed", label: "Seed", min: 0, max: 99, step: 1, start: 1, says: plain },
];

const READING = [
  { name: "beam", label: "Beam", min: 1, max: 12, step: 1, start: 4, says: plain },
  { name: "n_best", label: "Alternatives", min: 1, max: 8, step: 1, start: 3, says: plain },
  { name: "length_penalty", label: "Length penalty", min: 0, max: 2, step: 0.1, start: 1, says: (v) => v.toFixed(1) },
];

export function settings(view, defaults, changed) {
  const wanted = view === "text" ? WRITING : view === "labels" ? [] : READING;
  const values = {};
  const starts = (defaults) => Object.fromEntries(wanted.map(({ name, start }) => [name, first(defaults[name]) ?? start]));
  const sliders = wanted.map((each) => slider(each, starts(defaults)[each.name], values, changed));
  const options = () => {
    const found = Object.fromEntries(wanted.map(({ name, sent }) => [name, sent ? sent(values[name]) : values[name]]));
    if ("n_best" in found) found.n_best = Math.min(found.n_best, found.beam);
    return found;
  };
  const set = (wanted) => sliders.forEach((each) => each.set(wanted));
  const reset = (defaults) => set(starts(defaults));
  if (!sliders.length) return { element: null, options, set, reset };
  const wide = matchMedia("(min-width: 48rem)").matches;
  return { element: el("details", { class: "settings", open: wide }, el("summary", {}, "Settings"), el("div", {}, ...sliders.map((each) => each.element))), options, set, reset };
}

const first = (value) => (Array.isArray(value) ? value[0] : value);

function slider({ name, label, min, max, step, says }, start, values, changed) {
  const id = unique("slider");
  const shown = el("span", { class: "value", "aria-hidden": "true" });
  const input = el("input", { id, type: "range", name, min, max, step });
  const take = (value) => {
    values[name] = Math.min(max, Math.max(min, value)); // which may lie between two steps of the slider
    shown.textContent = says(values[name]);
    input.setAttribute("aria-valuetext", says(values[name]));
  };
  const set = (wanted) => {
    if (!(name in wanted)) return;
    input.value = wanted[name];
    take(wanted[name]);
  };
  set({ [name]: start });
  input.addEventListener("input", () => take(Number(input.value)));
  input.addEventListener("change", changed);
  return { element: el("div", { class: "slider" }, el("label", { for: id }, label), shown, input), set };
}
