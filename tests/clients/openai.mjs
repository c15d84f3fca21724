// The JavaScript package `openai` against a running `gen serve`: node openai.mjs URL PICTURE
// Models: writer (text), en-de (translation), captions (pictures). Prints what it checked; the exit code tells.
import assert from "node:assert/strict";
import OpenAI from "openai";

const [url, picture] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const prompt = { model: "writer", prompt: "the ", max_tokens: 20, seed: 5 };
const user = (content) => [{ role: "user", content }];

async function whole(stream, text) {
  const found = [];
  for await (const chunk of stream) for (const choice of chunk.choices) found[choice.index] = (found[choice.index] ?? "") + (text(choice) ?? "");
  return found;
}

const checks = {
  async models() {
    const names = (await client.models.list()).data.map((model) => model.id);
    assert.deepEqual(names, ["writer", "en-de", "captions"]);
  },
  async completions() {
    const made = await client.completions.create(prompt);
    assert.equal(made.usage.completion_tokens + made.usage.prompt_tokens, made.usage.total_tokens);
    assert.ok(["stop", "length"].includes(made.choices[0].finish_reason));
  },
  async seed() {
    const [a, b, c] = await Promise.all([5, 5, 6].map((seed) => client.completions.create({ ...prompt, seed })));
    assert.equal(a.choices[0].text, b.choices[0].text);
    assert.notEqual(a.choices[0].text, c.choices[0].text);
  },
  async streaming() {
    const asked = { ...prompt, n: 2 };
    const expected = (await client.completions.create(asked)).choices.map((choice) => choice.text);
    const stream = await client.completions.create({ ...asked, stream: true });
    assert.deepEqual(await whole(stream, (choice) => choice.text), expected);
  },
  async logprobs() {
    const { logprobs } = (await client.completions.create({ ...prompt, max_tokens: 4, logprobs: 3 })).choices[0];
    assert.equal(logprobs.tokens.length, logprobs.token_logprobs.length);
    assert.ok(logprobs.top_logprobs.every((top) => Object.keys(top).length >= 3));
  },
  async n() {
    const made = await client.completions.create({ ...prompt, prompt: ["the ", "a"], n: 3 });
    assert.deepEqual(made.choices.map((choice) => choice.index), [0, 1, 2, 3, 4, 5]);
  },
  async stop() {
    const { text } = (await client.completions.create(prompt)).choices[0];
    const stop = text[Math.floor(text.length / 2)];
    const made = await client.completions.create({ ...prompt, stop });
    assert.equal(made.choices[0].text, text.slice(0, text.indexOf(stop)));
    assert.equal(made.choices[0].finish_reason, "stop");
  },
  async errors() {
    await assert.rejects(client.completions.create({ ...prompt, n: 1e9 }), { constructor: OpenAI.BadRequestError, param: "n" });
    await assert.rejects(client.completions.create({ ...prompt, model: "x" }), { constructor: OpenAI.NotFoundError, code: "model_not_found" });
  },
  async translation() {
    const asked = { model: "en-de", messages: user("w3 w4") };
    const { content } = (await client.chat.completions.create(asked)).choices[0].message;
    const stream = await client.chat.completions.create({ ...asked, stream: true });
    assert.deepEqual(await whole(stream, (choice) => choice.delta.content), [content]);
  },
  async picture() {
    const messages = (url) => user([{ type: "text", text: "What is it?" }, { type: "image_url", image_url: { url } }]);
    const made = await client.chat.completions.create({ model: "captions", messages: messages(picture), logprobs: true, top_logprobs: 2 });
    assert.equal(typeof made.choices[0].message.content, "string");
    assert.ok(made.choices[0].logprobs.content.length > 0);
    const remote = client.chat.completions.create({ model: "captions", messages: messages("http://127.0.0.1:9/x.png") });
    await assert.rejects(remote, OpenAI.BadRequestError);
  },
};

for (const [name, check] of Object.entries(checks)) {
  await check();
  console.log(`ok ${name}`);
}
