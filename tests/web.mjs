// Answers of the page's engine under Node: `node web.mjs SITE` reads a JSON list of {call, body} and prints theirs.

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const site = process.argv[2];
const from = (name) => import(pathToFileURL(`${site}/engine/${name}`));
const [answers, { begin, Model }] = [await from("answers.js"), await from("model.js")];
const known = JSON.parse(readFileSync(`${site}/models.json`));
await begin(readFileSync(`${site}/engine/ort.wasm`));
const loaded = {};
const model = async (name) => (loaded[name] ??= await Model.load(readFileSync(`${site}/${known.find((each) => each.name === name).file}`)));

const DO = {
  encode: async ({ model: name, texts }) => texts.map((text) => model.tokenizer.encode(text)),
};
const found = [];
for (const { call, body } of JSON.parse(readFileSync(0))) {
  try {
    found.push(await answers[call](await model(body.model), body));
  } catch (error) {
    found.push({ error: `${error.name}: ${error.message}`, stack: error.stack });
  }
}
process.stdout.write(JSON.stringify(found));
