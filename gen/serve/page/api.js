// The server's own interface.

const KEY = "gen-api-key";

export class Failure extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export const setKey = (key) => sessionStorage.setItem(KEY, key);

// A header takes Latin-1 alone: the bytes of UTF-8, one character each.
const latin = (text) => String.fromCharCode(...new TextEncoder().encode(text));

async function ask(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${latin(key)}`;
  const request = body ? { method: "POST", headers, body: JSON.stringify(body), signal } : { headers, signal };
  let response;
  try {
    response = await fetch(path, request);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("The server does not answer.", 0);
  }
  if (!response.ok) {
    const said = await response.json().catch(() => null);
    throw new Failure(said?.error?.message ?? `The server answered ${response.status}.`, response.status);
  }
  return response;
}

export const models = async () => (await (await ask("api/models")).json()).models;
export const next = async (body, signal) => (await ask("api/next", body, signal)).json();
export const classify = async (body, signal) => (await ask("api/classify", body, signal)).json();
export const generate = async (body, signal) => (await ask("api/generate", body, signal)).json();

// The events of a text while it is written; the last one is the whole answer.
export async function* stream(body, signal) {
  const response = await ask("api/generate", { ...body, stream: true }, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n\n");
    rest = lines.pop();
    for (const line of lines) {
      const event = JSON.parse(line.slice("data: ".length));
      if (event.error) throw new Failure(event.error.message ?? event.error, 500);
      yield event;
    }
  }
}
