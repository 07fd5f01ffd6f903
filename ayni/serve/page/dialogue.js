// What is said, apart from how it is shown.
//
// A turn is {role: "user", content} or {role: "assistant", content, model, and how it went: tokens, exact, seconds,
// cut: "" | "stopped" | "broken" | "length", scores: [[model, score]]}.

import { read, sessionStorageOf, write } from "./storage.js";

const KEPT = "ayni.dialogues";
const MOST_KEPT = 2_000_000; // characters; browsers give a page about 5 million

/** The messages of an API request or of a JSONL line. */
export function messagesOf(turns, system) {
  const said = turns.map(({ role, content }) => ({ role, content }));
  return system.trim() ? [{ role: "system", content: system.trim() }, ...said] : said;
}

/** One line a column, in the form `ayni sft --data` reads: each ends with an answer, so an open question is left out. */
export function jsonl(columns, system) {
  const lines = columns
    .map(({ model, turns }) => ({ model, turns: turns.slice(0, turns.findLastIndex(isAnswer) + 1) }))
    .filter(({ turns }) => turns.length)
    .map(({ model, turns }) => JSON.stringify({ model, messages: messagesOf(turns, system) }) + "\n");
  return lines.join("");
}

export const isAnswer = (turn) => turn.role === "assistant";

/** Plain text, as for an e-mail. */
export function transcript(turns) {
  return turns.map((turn) => `${isAnswer(turn) ? turn.model : "You"}: ${turn.content}`).join("\n\n");
}

/** Keeps the page's dialogues for a reload of this tab; beyond the bound nothing is kept. */
export function keep(columns) {
  const text = JSON.stringify(columns);
  write(sessionStorageOf(), KEPT, text.length > MOST_KEPT ? null : text);
}

/** [{model, turns}] as they were, or [] where nothing readable is kept. */
export function kept() {
  const columns = read(sessionStorageOf(), KEPT, []);
  const whole = (turn) => typeof turn?.content === "string" && (!isAnswer(turn) || Array.isArray(turn.scores));
  const good = (column) => Array.isArray(column?.turns) && column.turns.every(whole);
  return Array.isArray(columns) && columns.every(good) ? columns : [];
}
