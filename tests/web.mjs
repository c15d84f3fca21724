// The engine of exported pages under Node: `node web.mjs SITE` reads a JSON list of {call, body} and prints the answers.

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const site = process.argv[2];
const engine = (name) => import(pathToFileURL(`${site}/engine/${name}.js`));
const [answers, { begin, Model }, { tokenizer }, { preprocessed }, { Stream }] = await Promise.all(["answers", "model", "tokenizers", "pictures", "random"].map(engine));
const known = JSON.parse(readFileSync(`${site}/models.json`));
const models = new Map();

async function model(name) {
  if (!models.size) await begin(readFileSync(`${site}/engine/ort.wasm`));
  if (!models.has(name)) models.set(name, await Model.load(readFileSync(`${site}/${known.find((each) => each.name === name).file}`)));
  return models.get(name);
}

const DO = {
  spelled({ saved, texts, ids }) {
    const made = tokenizer(saved);
    return { ids: texts.map((text) => made.encode(text)), texts: ids.map((each) => made.decode(each)), tokens: made.texts };
  },
  pixels: async ({ picture, preprocessing }) => Array.from(await preprocessed(picture, preprocessing)),
  drawn: ({ seed, row, count }) => Array.from({ length: count }, (_, at) => new Stream(seed, row).at(at)),
};

const found = [];
for (const { call, body } of JSON.parse(readFileSync(0, "utf8"))) {
  try {
    found.push(await (DO[call]?.(body) ?? answers[call](await model(body.model), body)));
  } catch (error) {
    found.push({ error: error.message, where: error.stack });
  }
}
process.stdout.write(JSON.stringify(found));
