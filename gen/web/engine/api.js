// The answers of `gen serve`, from a worker of this page: nothing is sent anywhere.

export class Failure extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

// What is in the page itself, in base64; null where it is a file beside it.
function part(name) {
  const found = document.getElementById(name);
  return found && Uint8Array.from(atob(found.textContent), (character) => character.charCodeAt(0)).buffer;
}

async function asset(name) {
  const own = part(name);
  if (own) return own;
  let response;
  try {
    response = await fetch(name);
  } catch {
    response = { ok: false };
  }
  if (!response.ok) throw new Failure(`${name} is missing beside this page.`, 404);
  return response.arrayBuffer();
}

const open = new Map(); // number of a request → who hears of it
let requests = 0;
let worker = null;
let broken = ""; // why it can do nothing

function start() {
  worker?.terminate();
  broken = "";
  const code = part("worker.js"); // no module: of those, browsers start none from a file's own text
  const own = code && URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  worker = own ? new Worker(own) : new Worker("engine/worker.js", { type: "module" });
  worker.onmessage = ({ data }) => open.get(data.id)?.(data);
  worker.onerror = (event) => {
    broken = event.message || "The worker of this page cannot start: is engine/ beside the page, and served as scripts?";
    ready = null; // the next request tries again
    loading.clear();
    for (const hear of [...open.values()]) hear({ error: broken });
  };
  return asset("engine/ort.wasm").then((wasm) => call("begin", wasm, { transfer: [wasm] }));
}

// `heard(events)`: what comes before the answer.
function call(name, body, { signal, heard, transfer = [] } = {}) {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    if (broken) return reject(new Failure(broken, 400));
    const id = requests++;
    const stop = () => {
      worker.postMessage({ id, stop: true });
      done(reject, signal.reason);
    };
    signal?.addEventListener("abort", stop);
    const done = (settle, value) => {
      open.delete(id);
      signal?.removeEventListener("abort", stop);
      settle(value);
    };
    open.set(id, ({ events, error, answer }) => {
      if (events) heard?.(events);
      else if (error) done(reject, new Failure(error, 400));
      else done(resolve, answer);
    });
    worker.postMessage({ id, call: name, body }, transfer);
  });
}

const loading = new Map();
let known = null;
let ready = null;

const begun = () => (ready ??= start().catch((error) => {
  ready = null;
  throw error;
}));

export async function models() {
  begun().catch(() => {}); // said to who asks for a text
  known ??= JSON.parse(new TextDecoder().decode(await asset("models.json")));
  return known;
}

// A model's file is fetched when it is first asked for.
async function loaded(name) {
  await begun();
  if (!loading.has(name)) {
    const { file } = known.find((model) => model.name === name);
    const load = async () => {
      const data = await asset(file);
      await call("load", { name, data }, { transfer: [data] });
    };
    loading.set(name, load().catch((error) => {
      loading.delete(name);
      throw error;
    }));
  }
  return loading.get(name);
}

// Waits for it, or until nobody wants it any more.
function until(done, signal) {
  const given = new Promise((_, reject) => {
    if (signal?.aborted) reject(signal.reason);
    signal?.addEventListener("abort", () => reject(signal.reason));
  });
  return Promise.race([done, given]);
}

async function ask(name, body, signal) {
  await until(loaded(body.model), signal);
  return call(name, body, { signal });
}

export const next = (body, signal) => ask("next", body, signal);
export const classify = (body, signal) => ask("classify", body, signal);
export const cells = (body, signal) => ask("cells", body, signal);
export const generate = (body, signal) => ask("generate", body, signal);

// The events of a text while it is written; the last one is the whole answer.
export async function* stream(body, signal) {
  await until(loaded(body.model), signal);
  const events = [];
  let wake = () => {};
  const heard = (more) => {
    events.push(...more);
    wake();
  };
  let [over, wrong] = [false, null];
  call("generate", body, { signal, heard })
    .then((answer) => heard([{ type: "done", ...answer }]), (error) => (wrong = error))
    .finally(() => {
      over = true;
      wake();
    });
  for (;;) {
    while (events.length && !signal?.aborted) yield events.shift();
    if (wrong) throw wrong;
    if (over) return;
    await new Promise((resolve) => (wake = resolve));
  }
}
