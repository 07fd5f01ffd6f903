// The page: columns, one box to write in, settings and keys.

import { ApiError, keepKey, listModels } from "./api.js";
import { Column } from "./column.js";
import { isAnswer, jsonl, keep, kept } from "./dialogue.js";
import { localStorageOf, read, write } from "./storage.js";
import { element, entered, fit, note } from "./turn.js";

const EXAMPLES = ["How much is 9 plus 10?", "Give me two tips for good sleep.", "Explain the rainbow."];
const SETTINGS = "ayni.settings";
const THEME = "ayni.theme";

const $ = (id) => document.getElementById(id);
const box = $("box");

const page = { languages: [], rewards: [], settings, changed, failed, copy, both };
let columns = [];

// Settings

const FIELDS = { system: $("system"), temperature: $("temperature"), max_tokens: $("max-tokens"), seed: $("seed") };

/** What a request carries besides the dialogue; an empty field leaves the choice to the server. */
function settings() {
  const { system, temperature, max_tokens, seed } = FIELDS;
  const chosen = { system: system.value, temperature: Number(temperature.value) };
  if (max_tokens.value) chosen.max_tokens = Number(max_tokens.value);
  if (seed.value) chosen.seed = Number(seed.value);
  return chosen;
}

function showSettings() {
  $("temperature-shown").value = Number(FIELDS.temperature.value).toFixed(2);
  $("settings-toggle").classList.toggle("marked", FIELDS.system.value.trim() !== "");
}

function restoreSettings() {
  const stored = { temperature: "0.7", ...read(localStorageOf(), SETTINGS, {}) };
  for (const [name, field] of Object.entries(FIELDS)) field.value = stored[name] ?? "";
  showSettings();
}

$("settings").addEventListener("input", () => {
  const values = Object.fromEntries(Object.entries(FIELDS).map(([name, field]) => [name, field.value]));
  write(localStorageOf(), SETTINGS, JSON.stringify(values));
  showSettings();
});

function toggleSettings() {
  const opening = $("settings").hidden;
  $("settings").hidden = !opening;
  $("settings-toggle").setAttribute("aria-expanded", String(opening));
  (opening ? FIELDS.system : box).focus();
}

// Columns

function busy() {
  return columns.some((column) => column.busy);
}

/** Called whenever something was said, or began or ceased to be said. */
function changed() {
  $("send").hidden = busy();
  $("stop").hidden = !busy();
  $("download").disabled = !columns.some(({ turns }) => turns.some(isAnswer));
  $("examples").hidden = page.languages.length === 0 || columns.some(({ turns }) => turns.length > 0);
  keep(columns.map(({ model, turns }) => ({ model, turns })));
}

function arrange(next) {
  columns = next;
  $("columns").replaceChildren(...columns.map(({ node }) => node));
  document.body.classList.toggle("comparing", columns.length > 1);
  $("compare").setAttribute("aria-pressed", String(columns.length > 1));
  changed();
}

/** The second column offers to ask the first one's questions; closing it leaves the first as it is. */
function toggleCompare() {
  if (columns.length > 1) {
    columns[1].stop();
    arrange(columns.slice(0, 1));
    return;
  }
  const [first] = columns;
  const another = page.languages.find(({ id }) => id !== first.model) ?? page.languages[0];
  const second = new Column(page, another?.id ?? "");
  second.offered = first.turns.filter((turn) => !isAnswer(turn)).map(({ content }) => content);
  second.show();
  arrange([first, second]);
}

function newChat() {
  for (const column of columns) column.clear();
  changed();
  box.focus();
}

function both(column, index) {
  const question = column.turns[index].content;
  const shared = columns.length > 1 && columns.every(({ turns, busy }) => !busy && turns[index]?.content === question);
  return shared ? (text) => columns.forEach((each) => each.edit(index, text)) : undefined;
}

function send(text) {
  if (!text || busy() || page.languages.length === 0) return;
  for (const column of columns) column.ask(text);
  box.value = "";
  fit(box);
  box.focus();
}

function stop() {
  for (const column of columns) column.stop();
  box.focus();
}

function retry() {
  for (const column of columns) column.retry();
}

function editLast() {
  const column = columns.find(({ turns }) => turns.length > 0);
  column?.openEdit(column.turns.findLastIndex((turn) => !isAnswer(turn)));
}

// Out of the page

async function copy(text) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
  } else { // a page served over plain http from another machine has no clipboard of its own
    const field = element("textarea", { class: "unseen" });
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  say("Copied.");
}

function say(message) {
  $("status").textContent = message;
  $("status").classList.add("shown");
  setTimeout(() => $("status").classList.remove("shown"), 1500);
}

function download() {
  const url = URL.createObjectURL(new Blob([jsonl(columns, FIELDS.system.value)], { type: "application/jsonl" }));
  element("a", { href: url, download: "dialogue.jsonl" }).click();
  URL.revokeObjectURL(url);
}

// The server

function failed(error) {
  if (error.status !== 401) return;
  $("key-form").hidden = false;
  $("key").focus();
}

async function connect() {
  $("unreachable")?.remove();
  try {
    const models = await listModels();
    page.languages = models.filter(({ kind }) => kind !== "reward");
    page.rewards = models.filter(({ kind }) => kind === "reward");
    if (page.languages.length === 0) throw new ApiError(404, "This server has no language model to talk to.");
  } catch (error) {
    const problem = error instanceof ApiError ? error : new ApiError(500, String(error));
    const message = note(problem.message, problem.advice, connect);
    message.id = "unreachable";
    columns[0].log.append(message);
    failed(problem);
  }
  for (const column of columns) column.show();
  changed();
}

$("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  keepKey($("key").value);
  $("key").value = "";
  $("key-form").hidden = true;
  box.focus();
  await connect();
  for (const column of columns) if (column.turns.length && !isAnswer(column.turns.at(-1))) column.retry();
});

// Keys and buttons

function toggleTheme() {
  const { dataset } = document.documentElement;
  const now = dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  const theme = now === "dark" ? "light" : "dark";
  dataset.theme = theme;
  write(localStorageOf(), THEME, theme);
}

const CHORDS = { Enter: retry, KeyO: newChat, Digit2: toggleCompare };

document.addEventListener("keydown", (event) => {
  const control = event.ctrlKey || event.metaKey;
  const typing = event.target.matches("textarea, input:not([type=range]), select");
  let action;
  if ($("help").open) return;
  if (control && event.shiftKey) action = CHORDS[event.code];
  else if (control && event.key === ",") action = toggleSettings;
  else if (control && event.key === "/") action = () => $("help").showModal();
  else if (control || event.altKey) return;
  else if (event.key === "Escape") action = busy() ? stop : () => document.activeElement.blur();
  else if (!typing && event.key === "?") action = () => $("help").showModal();
  else if (!typing && event.key === "/") action = () => box.focus();
  if (!action) return;
  event.preventDefault();
  action();
});

box.addEventListener("keydown", (event) => {
  if (entered(event)) {
    event.preventDefault();
    send(box.value.trim());
  } else if (event.key === "ArrowUp" && !box.value && !event.isComposing) {
    event.preventDefault();
    editLast();
  }
});

box.addEventListener("input", () => fit(box));
$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send(box.value.trim());
});
$("stop").addEventListener("click", stop);
$("new").addEventListener("click", newChat);
$("compare").addEventListener("click", toggleCompare);
$("download").addEventListener("click", download);
$("settings-toggle").addEventListener("click", toggleSettings);
$("theme").addEventListener("click", toggleTheme);
$("help-open").addEventListener("click", () => $("help").showModal());
$("examples").append(...EXAMPLES.map((text) => element("button", { type: "button", onclick: () => send(text) }, text)));

restoreSettings();
const before = kept();
arrange((before.length ? before : [{ model: "" }]).map(({ model, turns }) => new Column(page, model, turns)));
await connect();
