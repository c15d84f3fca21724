// The page: which models, what they read, and a panel for each.

import * as api from "./api.js";
import { ClassifyView } from "./classify.js";
import { el, later } from "./dom.js";
import { fields } from "./form.js";
import { settings } from "./settings.js";
import { TextView } from "./text.js";
import { tour } from "./tour.js";
import { TranslateView } from "./translate.js";

const at = (id) => document.getElementById(id);
const VIEWS = { text: TextView, labels: ClassifyView, reading: TranslateView };
const HEADINGS = { text: "Write", labels: "Classify", translation: "Translate", pictures: "Describe" };

function viewOf(model) {
  if (model.labels.length) return "labels";
  return Object.values(model.inputs).includes("prompts") ? "text" : "reading";
}

function headingOf(model) {
  const view = viewOf(model);
  if (view !== "reading") return view;
  return Object.values(model.inputs).includes("sentences") ? "translation" : "pictures";
}

// Models that read the same can be side by side.
const kindOf = (model) => JSON.stringify([viewOf(model), model.inputs, model.optional, model.choices]);

function decoded(name) {
  try {
    return decodeURIComponent(name);
  } catch {
    return name; // typed, with a % of its own
  }
}

let known = [];
let panels = [];

// `wrong`: what to say if the key is refused.
async function start(wrong = "") {
  try {
    known = await api.models();
  } catch (error) {
    if (error.status === 401) return askForKey(wrong);
    return say(error.message);
  }
  at("notice").hidden = true;
  chooser();
  const wanted = location.hash.slice(1).split("+").map(decoded);
  const found = known.filter((model) => wanted.includes(model.name));
  choose(found.length ? found.filter((model) => kindOf(model) === kindOf(found[0])) : known.slice(0, 1));
}

function say(message) {
  at("notice").textContent = message;
  at("notice").hidden = false;
}

function askForKey(wrong) {
  const field = el("input", { id: "key", type: "password", autocomplete: "off", required: true });
  const said = el("p", { class: "wrong", role: "alert", hidden: !wrong }, wrong);
  const form = el("form", { class: "key" }, el("label", { for: "key" }, "API key of this server"), field, said, el("button", { class: "primary" }, "Use it"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    api.setKey(field.value);
    start("This key is wrong.");
  });
  at("panels").replaceChildren(form);
  if (wrong) field.focus();
}

function chooser() {
  const groups = new Map();
  for (const model of known) {
    const heading = HEADINGS[headingOf(model)];
    if (!groups.has(heading)) groups.set(heading, []);
    groups.get(heading).push(model);
  }
  const chip = (model) => {
    const input = el("input", { type: "checkbox", name: "model", value: model.name, onchange: () => toggled(model) });
    return el("label", { class: "chip" }, input, el("span", {}, model.name));
  };
  const group = ([heading, models]) => el("fieldset", {}, el("legend", {}, heading), ...models.map(chip));
  at("models").replaceChildren(...[...groups].map(group));
}

function toggled(model) {
  const shown = panels.map((panel) => panel.model);
  const same = shown.filter((each) => kindOf(each) === kindOf(model));
  const wanted = same.includes(model) ? same.filter((each) => each !== model) : [...same, model];
  choose(wanted.length ? wanted : [model]);
}

function choose(models) {
  for (const input of at("models").elements) if (input.type === "checkbox") input.checked = models.some((m) => m.name === input.value);
  history.replaceState(null, "", `#${models.map((model) => encodeURIComponent(model.name)).join("+")}`);
  document.title = `${models.map((model) => model.name).join(", ")} · gen`;
  for (const panel of panels) if (!models.includes(panel.model)) panel.stop();
  if (!panels.length || kindOf(panels[0].model) !== kindOf(models[0])) ask(models[0]);
  const before = new Map(panels.map((panel) => [panel.model, panel]));
  const [{ inputs, options }, view] = [current, viewOf(models[0])];
  panels = models.map((model) => before.get(model) ?? new VIEWS[view](model, inputs.text));
  for (const panel of panels) panel.changed = busy;
  at("panels").replaceChildren(...panels.map((panel) => panel.element));
  at("panels").classList.toggle("several", panels.length > 1);
  const running = [...before.values()].some((panel) => panel.asked);
  const other = !models.includes(current.model) && current.reset(models[0]); // the sliders were for one that has gone
  for (const panel of panels) if ((other || !panel.asked) && running && inputs.ready()) panel.ask(inputs.value(), options());
  current.begin();
  busy();
}

let current = null;

// The form: fields, sliders, and the buttons.
function ask(model) {
  panels = [];
  const view = viewOf(model);
  const go = () => {
    soon.cancel();
    caret.cancel();
    if (inputs.ready()) for (const panel of panels) panel.ask(inputs.value(), sliders.options());
  };
  const soon = later(350, go);
  const caret = later(120, () => {
    for (const panel of panels) panel.caret(inputs.value(), inputs.text.before());
  });
  const changed = (onlyCaret) => {
    if (view === "text") caret();
    else if (!onlyCaret) soon();
  };
  const inputs = fields(model, changed);
  const sliders = settings(view, model.defaults, () => panels.some((panel) => panel.asked) && go());
  const guide = tour(headingOf(model), (values) => {
    sliders.set(values);
    go();
  });
  const words = { text: "Write", labels: "Classify", reading: headingOf(model) === "pictures" ? "Describe" : "Translate" };
  const stop = el("button", { type: "button", id: "stop", onclick: () => panels.forEach((panel) => panel.stop()) }, "Stop");
  const buttons = el("div", { class: "buttons" }, el("button", { class: "primary", id: "go" }, words[view]), stop);
  const form = at("ask");
  form.replaceChildren(el("div", { class: "fields" }, ...inputs.elements), buttons, ...[sliders.element, guide].filter(Boolean));
  form.hidden = false;
  form.onsubmit = (event) => {
    event.preventDefault();
    go();
  };
  document.onpaste = (event) => {
    const file = [...event.clipboardData.files].find((each) => each.type.startsWith("image/"));
    if (file) form.querySelector(".picture")?.take(file);
  };
  // The sliders as another model has them. Returns whether that changes what is asked for.
  const reset = (other) => {
    const before = JSON.stringify(sliders.options());
    sliders.reset(other.defaults);
    current.model = other;
    return JSON.stringify(sliders.options()) !== before;
  };
  current = { model, inputs, reset, options: sliders.options, begin: () => view === "text" && caret() };
}

function busy() {
  at("stop").disabled = !panels.some((panel) => panel.busy);
}

addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => event.preventDefault()); // a picture beside the field must not replace the page
start();
