// What a model reads: a field for each of its inputs.

import { el, unique } from "./dom.js";

const HINTS = { prompts: "Write a beginning …", sentences: "Write or paste a text …" };

// The fields of a model's inputs. `changed(caret)` is called when what the model reads changes; `caret` where only
// the cursor has moved.
export function fields(model, changed, pick) {
  const made = Object.entries(model.inputs).map(([name, kind]) => field(model, name, kind, changed, pick));
  const value = () => Object.fromEntries(made.map((each) => [each.name, each.value()]));
  const ready = () => made.every((each) => each.kind === "prompts" || each.optional || each.value());
  const text = made.find((each) => each.area);
  return { elements: made.map((each) => each.element), value, ready, text, some: () => made.some((e) => e.value()) };
}

function field(model, name, kind, changed, pick) {
  const id = unique("input");
  const optional = model.optional.includes(name) && kind !== "prompts";
  const label = el("label", { for: id }, name, optional ? el("small", {}, " optional") : null);
  const made = kind === "pictures" ? picture(id, changed) : kind === "labels" ? choice(id, model.choices[name] ?? [], changed) : area(id, kind, changed, pick);
  return { name, kind, optional, ...made, element: el("div", { class: `field ${kind}` }, label, made.element) };
}

function area(id, kind, changed, pick) {
  const area = el("textarea", { id, rows: 3, dir: "auto", placeholder: HINTS[kind] ?? "", spellcheck: "false" });
  let seen = 0;
  area.addEventListener("input", () => {
    seen = area.selectionEnd;
    changed(false);
  });
  const moved = () => {
    if (area.selectionEnd !== seen) changed(true);
    seen = area.selectionEnd;
  };
  for (const event of ["keyup", "click", "focus"]) area.addEventListener(event, moved);
  area.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) pick();
  });
  const before = () => area.value.slice(0, area.selectionEnd);
  const insert = (text) => {
    area.setRangeText(text, area.selectionEnd, area.selectionEnd, "end");
    changed(false);
  };
  // A sentence is a line, as commands read it; nothing is no input.
  const value = () => (kind === "sentences" ? area.value.trim() || null : area.value);
  return { element: area, area, value, before, insert };
}

function choice(id, labels, changed) {
  const options = [el("option", { value: "" }, "none"), ...labels.map((label) => el("option", { value: label }, label))];
  const select = el("select", { id, onchange: () => changed(false) }, ...options);
  return { element: select, value: () => select.value || null };
}

function picture(id, changed) {
  let url = null;
  const input = el("input", { id, type: "file", accept: "image/*", class: "hidden" });
  const thumb = el("img", { alt: "", hidden: true });
  const says = el("span", {}, "Drop a picture here, paste one, or choose a file");
  const zone = el("label", { class: "drop", for: id }, thumb, says);
  const take = (file) => {
    if (!file) return;
    const reader = new FileReader();
    reader.onload = () => {
      url = reader.result;
      thumb.src = url;
      thumb.hidden = false;
      says.textContent = file.name || "picture";
      changed(false);
    };
    reader.readAsDataURL(file);
  };
  input.addEventListener("change", () => take(input.files[0]));
  zone.addEventListener("dragover", (event) => {
    event.preventDefault();
    zone.classList.add("over");
  });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    take(event.dataTransfer.files[0]);
  });
  const element = el("div", { class: "picture" }, input, zone);
  element.take = take;
  return { element, value: () => url };
}
