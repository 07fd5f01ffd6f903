// The server, spoken to by its OpenAI-compatible API alone.

import { read, sessionStorageOf, write } from "./storage.js";

const KEY = "ayni.key";

/** What went wrong, in the server's words, and what to do about it. status 0: no answer at all. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }

  get advice() {
    return ADVICE[this.status] ?? (this.status >= 500 ? "The server's log says more." : "");
  }
}

const ADVICE = {
  0: "Check that ayni serve still runs, then try again.",
  400: "Edit a message or the settings, or start a new chat.",
  401: "Give the server's API key below.",
  404: "Choose another model.",
  429: "Wait a moment, then try again.",
};

let key = read(sessionStorageOf(), KEY, "");

export function keepKey(given) {
  key = given;
  write(sessionStorageOf(), KEY, JSON.stringify(key));
}

async function request(path, body, signal) {
  const headers = {};
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The server does not answer.");
  }
  if (!response.ok) throw new ApiError(response.status, await problem(response));
  return response;
}

async function problem(response) {
  const text = await response.text().catch(() => "");
  try {
    const { error, detail } = JSON.parse(text);
    return error?.message ?? (typeof detail === "string" ? detail : JSON.stringify(detail)) ?? text;
  } catch {
    return text.slice(0, 500) || `The server answered ${response.status}.`;
  }
}

/** [{id, kind: "language" | "reward", max_model_len}] */
export async function listModels() {
  return (await (await request("/v1/models")).json()).data;
}

/** The reward model's score of a dialogue that ends with an answer. */
export async function score(model, messages) {
  const answer = await (await request("/v1/score", { model, messages })).json();
  return answer.data[0].score;
}

/**
 * Streams an answer: yields {text} as it comes, {finish: "stop" | "length"} and {tokens} when the server tells them.
 * Throws ApiError, or AbortError when the signal stops it.
 */
export async function* streamChat(body, signal) {
  const options = { ...body, stream: true, stream_options: { include_usage: true } };
  const response = await request("/v1/chat/completions", options, signal);
  let finished = false;
  for await (const data of serverEvents(response.body)) {
    if (data === "[DONE]") return;
    const event = JSON.parse(data);
    if (event.error) throw new ApiError(500, event.error.message);
    const choice = event.choices?.[0];
    if (choice?.delta?.content) yield { text: choice.delta.content };
    if (choice?.finish_reason) {
      finished = true;
      yield { finish: choice.finish_reason };
    }
    if (event.usage) yield { tokens: event.usage.completion_tokens };
  }
  if (!finished) throw new ApiError(0, "The connection broke off.");
}

/** The data of each server-sent event; events end with a blank line, and may be cut anywhere by the network. */
async function* serverEvents(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const events = (rest + value).split(/\r?\n\r?\n/);
      rest = events.pop();
      for (const event of events) {
        const lines = event.split(/\r?\n/).filter((line) => line.startsWith("data:"));
        if (lines.length) yield lines.map((line) => line.slice(5).trimStart()).join("\n");
      }
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The connection broke off.");
  } finally {
    reader.cancel().catch(() => {});
  }
}
