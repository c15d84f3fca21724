// Elements from plain values. Text is always a text node: nothing a model writes becomes markup.

export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

// A probability as people read it.
export function percent(p) {
  if (p > 0 && p < 0.001) return "< 0.1 %";
  return `${p < 0.1 ? (100 * p).toFixed(1) : Math.round(100 * p)} %`;
}

// A token where it stands alone: spaces and line breaks can be seen.
export function visible(text) {
  if (text === "") return "end";
  return text.replaceAll("\n", "↵").replaceAll("\t", "⇥").replace(/^ +| +$/g, (s) => "␣".repeat(s.length));
}

// 0 for what was certain, 1 for what had a probability of 1/256 or less.
export function surprise(p) {
  return Math.min(1, -Math.log2(Math.max(p, 1e-9)) / 8);
}

export function later(milliseconds, action) {
  let timer = 0;
  const wait = (...given) => {
    clearTimeout(timer);
    timer = setTimeout(action, milliseconds, ...given);
  };
  wait.cancel = () => clearTimeout(timer);
  return wait;
}

let names = 0;
export const unique = (word) => `${word}-${++names}`;
