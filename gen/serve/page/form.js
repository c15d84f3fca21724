// What a model reads: a field for each of its inputs.

import { el, unique } from "./dom.js";

const HINTS = { prompts: "Write a beginning …", sentences: "Write a sentence …", texts: "Write or paste a text …", pictures: "Drop a picture here, paste one, or choose a file" };

// The fields of a model's inputs. `changed(caret)` is called when what the model reads changes; `caret` where only
// the cursor has moved.
export function fields(model, changed) {
  const made = Object.entries(model.inputs).map(([name, kind]) => field(model, name, kind, changed));
  const value = () => Object.fromEntries(made.map((each) => [each.name, each.value()]));
  const ready = () => made.every((each) => each.kind === "prompts" || each.optional || each.value());
  const text = made.find((each) => each.area);
  return { elements: made.map((each) => each.element), value, ready, text, some: () => made.some((e) => e.value()) };
}

function field(model, name, kind, changed) {
  const id = unique("input");
  const optional = model.optional.includes(name) && kind !== "prompts";
  const label = el("label", { for: id }, name, optional ? el("small", {}, " optional") : null);
  const required = !optional && kind !== "prompts";
  const made =
    kind === "pictures" ? picture(id, required, changed)
    : kind === "labels" ? choice(id, model.choices[name] ?? [], required, changed)
    : area(id, kind, HINTS[model.labels.length ? "texts" : kind], required, changed);
  return { name, kind, optional, ...made, element: el("div", { class: `field ${kind}` }, label, made.element) };
}

function area(id, kind, placeholder, required, changed) {
  const area = el("textarea", { id, rows: 3, dir: "auto", placeholder, required, spellcheck: "false" });
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
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) area.form.requestSubmit();
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

function choice(id, labels, required, changed) {
  const none = required ? [] : [el("option", { value: "" }, "none")];
  const options = [...none, ...labels.map((label) => el("option", { value: label }, label))];
  const select = el("select", { id, onchange: () => changed(false) }, ...options);
  return { element: select, value: () => select.value || null };
}

function picture(id, required, changed) {
  let url = null;
  const input = el("input", { id, type: "file", accept: "image/*", class: "hidden", required });
  const thumb = el("img", { alt: "", hidden: true });
  const says = el("span", {}, HINTS.pictures);
  const zone = el("label", { class: "drop", for: id }, thumb, says);
  const show = (file, found) => {
    url = found;
    if (url) thumb.src = url;
    else thumb.removeAttribute("src");
    thumb.hidden = url === null;
    remove.hidden = required || url === null;
    input.required = required && url === null; // one that was dropped is not in the field
    says.textContent = url === null ? HINTS.pictures : file.name || "picture";
    changed(false);
  };
  const remove = el("button", { type: "button", hidden: true, onclick: () => show((input.value = ""), null) }, "Remove the picture");
  const take = (file) => {
    if (!file) return;
    const reader = new FileReader();
    reader.onload = () => show(file, reader.result);
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
  const element = el("div", { class: "picture" }, input, zone, remove);
  element.take = take;
  return { element, value: () => url };
}
