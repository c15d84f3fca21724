// Computes beside the page, which never waits: one request after another, in slices between which news come in.

import * as answers from "./answers.js";
import { begin, Model } from "./model.js";
import { Refusal } from "./tokenizers.js";

const SLICE = 12; // milliseconds

const loaded = new Map(); // name → the promise of a model
const stopped = new Set();
let ready;

// Lets messages in. Timers would wait four milliseconds each.
const channel = new MessageChannel();
let resume = () => {};
channel.port1.onmessage = () => resume();
const pause = () =>
  new Promise((resolve) => {
    resume = resolve;
    channel.port2.postMessage(null);
  });

const DO = {
  begin: (id, wasm) => (ready = begin(wasm)),
  load: (id, { name, data }) => {
    loaded.set(name, ready.then(() => Model.load(data)));
    return loaded.get(name).then(() => null);
  },
  next: async (id, body) => answers.next(await loaded.get(body.model), body),
  cells: async (id, body) => answers.cells(await loaded.get(body.model), body),
  classify: async (id, body) => answers.classify(await loaded.get(body.model), body),
  generate: async (id, body) => {
    let events = [];
    let last = performance.now();
    return answers.generate(await loaded.get(body.model), body, async (more) => {
      events.push(...more);
      if (performance.now() - last < SLICE) return;
      postMessage({ id, events });
      events = [];
      await pause();
      last = performance.now();
      if (stopped.delete(id)) throw new DOMException("stopped", "AbortError");
    });
  },
};

// Requests are answered one after another: the graphs of a model run for one at a time.
let line = Promise.resolve();

onmessage = ({ data: { id, call, body, stop } }) => {
  if (stop) return stopped.add(id);
  line = line.then(async () => {
    try {
      await pause(); // what was stopped meanwhile is not begun
      if (stopped.delete(id)) throw new DOMException("stopped", "AbortError");
      postMessage({ id, answer: await DO[call](id, body) });
    } catch (error) {
      if (error.name !== "AbortError") postMessage({ id, error: error instanceof Refusal ? error.message : `${error.name}: ${error.message}` });
    }
  });
};
