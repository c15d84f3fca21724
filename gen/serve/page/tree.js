// A beam search as a tree, from left to right: a column per step.

import { percent, svg, visible } from "./dom.js";

const ROW = 34;
const GAP = 30;

export function drawTree(nodes, outputs, chosen) {
  const measure = document.createElement("canvas").getContext("2d");
  measure.font = "14px system-ui, sans-serif";
  const columns = [];
  for (const [id, node] of nodes.entries()) (columns[node.step] ??= []).push({ ...node, id });
  const at = new Map();
  let x = 8;
  let rows = 1;
  for (const column of columns.filter(Boolean)) {
    const height = (node) => at.get(node.parent)?.row ?? 0;
    column.sort((a, b) => height(a) - height(b) || b.score - a.score);
    const widths = column.map((node) => measure.measureText(label(node)).width + 18);
    column.forEach((node, row) => at.set(node.id, { x, row, y: 8 + row * ROW, width: widths[row] }));
    x += Math.max(...widths) + GAP;
    rows = Math.max(rows, column.length);
  }
  const ended = ({ path }) => [...path, nodes.findIndex((node) => node.ends && node.parent === (path.at(-1) ?? -1))];
  const useful = new Set(outputs.flatMap(ended));
  const path = new Set(ended(outputs[chosen]));
  const kind = (id) => (path.has(id) ? "chosen" : useful.has(id) ? "kept" : "lost");
  const order = [...at.keys()].sort((a, b) => path.has(a) - path.has(b));
  const edges = order.filter((id) => nodes[id].parent >= 0).map((id) => edge(at.get(nodes[id].parent), at.get(id), nodes[id], kind(id)));
  const boxes = order.map((id) => box(at.get(id), nodes[id], kind(id)));
  const size = { width: x - GAP + 8, height: rows * ROW + 10 };
  const says = `${columns.length} steps of beam search; ${nodes.length} tokens were kept on the way`;
  return svg("svg", { ...size, viewBox: `0 0 ${size.width} ${size.height}`, role: "img", "aria-label": says, class: "tree" }, ...edges, ...boxes);
}

const label = (node) => (node.ends ? "end" : visible(node.text).replace(/^␣/, ""));

function edge(from, to, node, kind) {
  const [x1, y1, x2, y2] = [from.x + from.width, from.y + 13, to.x, to.y + 13];
  const middle = (x1 + x2) / 2;
  const line = svg("path", { d: `M${x1} ${y1}C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}`, class: `edge ${kind}` });
  line.style.setProperty("--width", `${(1 + 3 * node.probability).toFixed(2)}px`);
  return line;
}

function box({ x, y, width }, node, kind) {
  return svg("g", { class: `node ${kind}` },
    svg("title", {}, `${node.ends ? "end" : visible(node.text)}: ${percent(node.probability)}, score ${node.score.toFixed(2)}`),
    svg("rect", { x, y, width, height: 26, rx: 6 }),
    svg("text", { x: x + width / 2, y: y + 18 }, label(node)));
}
