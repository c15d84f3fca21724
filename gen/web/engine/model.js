// A model of an exported folder, packed by `gen.web.pack`: its graphs on ONNX Runtime, its tokenizers, what it reads.

import * as ort from "./ort.js";
import { EOS, PAD, Refusal, tokenizer } from "./tokenizers.js";
import { preprocessed } from "./pictures.js";

// Makes ONNX Runtime ready. `wasm`: its module, compressed or not.
export async function begin(wasm) {
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = await unzipped(wasm);
  ort.env.logLevel = "error";
}

// Some servers send compressed files as they are, others have the browser decompress them.
export async function unzipped(data) {
  const bytes = new Uint8Array(data);
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// The states of all rows, R · H float32 each.
class State {
  constructor(arrays, rows) {
    [this.arrays, this.rows] = [arrays, rows];
  }

  select(order) {
    const arrays = this.arrays.map((array) => {
      const H = array.length / this.rows;
      const found = new Float32Array(order.length * H);
      order.forEach((from, to) => found.set(array.subarray(from * H, (from + 1) * H), to * H));
      return found;
    });
    return new State(arrays, order.length);
  }
}

export class Model {
  static async load(data) {
    const bytes = await unzipped(data);
    const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
    const about = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
    const whole = (pieces) => {
      const found = new Uint8Array(pieces.reduce((sum, [, size]) => sum + size, 0));
      let to = 0;
      for (const [from, size] of pieces) {
        found.set(bytes.subarray(4 + length + from, 4 + length + from + size), to);
        to += size;
      }
      return found;
    };
    const session = (name) => ort.InferenceSession.create(whole(about.graphs[name]));
    return new Model(about, await session("encoder"), await session("step"));
  }

  constructor(about, encoder, step) {
    [this.encoder, this.decoder] = [encoder, step];
    [this.defaults, this.processors] = [about.search, about.processors];
    this.confidence = about.confidence;
    this.tokenizer = tokenizer(about.tokenizer);
    for (const each of Object.values(this.processors)) if (each.tokenizer) each.tokenizer = tokenizer(each.tokenizer);
    this.stateNames = step.inputNames.filter((name) => name.startsWith("state"));
    this.memoryNames = step.inputNames.filter((name) => name !== "token_ids" && !this.stateNames.includes(name));
    this.looks = step.outputNames.includes("attention");
  }

  // Encodes an item {name: value}: {state, step, prompt: its text, mask: the real positions of its memory}.
  async start(item) {
    const source = {};
    let prompt = "";
    for (const [name, processor] of Object.entries(this.processors)) {
      source[name] = await this.#read(processor, item[name]);
      if (processor.kind === "prompts") prompt += item[name] ?? "";
    }
    // Folders of format 1 call their only input so, whatever it is.
    const given = this.encoder.inputNames[0] === "source" ? { source: Object.values(source)[0] } : source;
    const made = await this.encoder.run(given);
    const memory = Object.fromEntries(this.memoryNames.map((name) => [name, made[name]]));
    const state = new State(this.stateNames.map((name) => made[name].data), 1);
    const step = async (ids, before) => {
      const given = { token_ids: tensor("int64", ids), ...memory };
      before.arrays.forEach((array, i) => (given[this.stateNames[i]] = new ort.Tensor("float32", array, [ids.length, array.length / ids.length])));
      const found = await this.decoder.run(given);
      const after = new State(this.stateNames.map((name) => found[`next_${name}`].data), ids.length);
      return { logProbs: found.log_probs.data, state: after, attention: this.looks ? found.attention.data : null };
    };
    return { state, step, prompt, mask: made.mask ? Array.from(made.mask.data, Boolean) : [] };
  }

  async #read({ kind, optional, tokenizer, lowercase, preprocessing }, value) {
    if (kind === "prompts") return tensor("int64", [0]);
    if (kind === "labels") return tensor("int64", [value ? tokenizer.encode(value, true)[0] : PAD], 1);
    if (kind === "sentences") return tensor("int64", sentence({ tokenizer, lowercase }, value), 1);
    if (kind !== "pictures") throw new Refusal(`this page cannot read ${kind}`);
    const { size } = preprocessing;
    const pixels = value == null ? new Uint8Array(3 * size * size) : await preprocessed(value, preprocessing);
    if (optional && value != null && !pixels.some(Boolean)) pixels[0] = 1; // zeros are no picture, and a black one is one
    return new ort.Tensor("uint8", pixels, [1, 3, size, size]);
  }
}

const tensor = (type, numbers, rows) => new ort.Tensor(type, BigInt64Array.from(numbers, BigInt), rows ? [rows, numbers.length] : [numbers.length]);

// The tokens of a sentence, with EOS; nothing is a row of padding.
export function sentence({ tokenizer, lowercase }, text) {
  return text == null ? [PAD] : [...tokenizer.encode(lowercase ? text.toLowerCase() : text), EOS];
}
