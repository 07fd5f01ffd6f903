// One dialogue with one model: asks, shows the answer as it comes, and lets every turn be taken up again.

import { ApiError, score, streamChat } from "./api.js";
import { isAnswer, messagesOf, transcript } from "./dialogue.js";
import { answerTurn, editForm, element, note, userTurn } from "./turn.js";

const NEAR_END = 60; // pixels: a reader this close to the end is taken along as the answer grows

export class Column {
  /**
   * page: {languages, rewards, settings(): {system, ...sampling}, changed(), failed(error), copy(text), both(column, index)}.
   * both() gives a function that asks every column anew from that turn, where all share it; else undefined.
   */
  constructor(page, model, turns = []) {
    this.page = page;
    this.model = model;
    this.turns = [];
    this.views = []; // the node of each turn
    this.offered = []; // questions of another column, to be asked here too
    this.running = null; // the AbortController of the answer under way
    this.picker = element("select", { "aria-label": "Model", onchange: () => this.pick(this.picker.value) });
    this.whole = element("button", { type: "button", class: "whole", onclick: () => page.copy(transcript(this.turns)) }, "Copy all");
    this.empty = element("div", { class: "empty" });
    this.log = element("div", { class: "log", role: "log", "aria-live": "polite", "aria-label": "Dialogue" });
    this.scroller = element("div", { class: "scroller", tabindex: 0, role: "group" },
      element("div", { class: "measure" }, this.empty, this.log));
    this.node = element("section", { class: "column" },
      element("div", { class: "head" }, element("div", { class: "measure" }, this.picker, this.whole)), this.scroller);
    for (const turn of turns) this.add(turn);
    this.show();
  }

  get busy() {
    return this.running !== null;
  }

  /** The models on offer may become known, or change, after the column is there. */
  show() {
    const { languages } = this.page;
    const ids = languages.map(({ id }) => id);
    if (!ids.includes(this.model)) this.model = ids[0] ?? "";
    this.picker.replaceChildren(...ids.map((id) => element("option", { value: id }, id)));
    this.picker.value = this.model;
    this.picker.disabled = ids.length === 0;
    this.node.setAttribute("aria-label", this.model || "No model");
    this.scroller.setAttribute("aria-label", `Dialogue with ${this.model}`);
    const context = languages.find(({ id }) => id === this.model)?.max_model_len;
    this.empty.hidden = this.turns.length > 0 || this.busy || !this.model || this.log.childElementCount > 0;
    this.whole.hidden = !this.turns.some(isAnswer);
    this.empty.replaceChildren(
      element("h2", {}, "Ask ", element("em", {}, this.model)),
      element("p", {}, `A language model that answers questions and follows a dialogue${context ? ` of up to ${context.toLocaleString("en")} tokens` : ""}. It can be wrong; ask again, edit a question, or compare two models.`));
    if (this.offered.length) {
      const questions = this.offered.length === 1 ? "the question" : `the ${this.offered.length} questions`;
      const ask = element("button", { type: "button", class: "solid", onclick: () => this.replay(this.offered) }, `Ask ${questions} here too`);
      this.empty.append(element("p", { class: "under" }, ask));
    }
  }

  pick(model) {
    this.model = model;
    this.show();
    this.page.changed();
  }

  add(turn) {
    let view;
    if (isAnswer(turn)) {
      view = this.answerView(turn);
      view.settle();
    } else {
      view = { node: userTurn(turn, () => this.openEdit(this.turns.indexOf(turn))) };
    }
    this.turns.push(turn);
    this.views.push(view.node);
    this.log.append(view.node);
    this.toEnd();
  }

  answerView(turn) {
    return answerTurn(turn, () => this.page.copy(turn.content), () => this.retry());
  }

  /** Forgets everything from a turn on. */
  cut(from) {
    this.stop();
    this.turns.length = from;
    this.views.length = from;
    while (this.log.children.length > from) this.log.lastElementChild.remove();
  }

  clear() {
    this.cut(0);
    this.offered = [];
    this.show();
  }

  /** Ends the answer under way; what has come of it stays. */
  stop() {
    this.running?.abort();
  }

  /** A question still open (its answer failed) makes room for the new one. */
  async ask(content) {
    const open = this.turns.length > 0 && !isAnswer(this.turns.at(-1));
    this.cut(this.turns.length - (open ? 1 : 0));
    this.add({ role: "user", content });
    await this.answer();
  }

  /** Another answer to the last question. */
  async retry() {
    if (this.busy || this.turns.length === 0) return;
    this.cut(this.turns.findLastIndex((turn) => !isAnswer(turn)) + 1);
    await this.answer();
  }

  /** The dialogue is cut at that question and goes on from its new words. */
  async edit(index, content) {
    this.cut(index);
    await this.ask(content);
  }

  /** Asks the questions of the other column here too, one after the other, as long as answers come whole. */
  async replay(questions) {
    this.offered = [];
    for (const question of questions) {
      await this.ask(question);
      const last = this.turns.at(-1);
      if (!last || !isAnswer(last) || last.cut === "stopped" || last.cut === "broken") return;
    }
  }

  openEdit(index) {
    if (this.busy) return;
    const both = this.page.both(this, index);
    const here = ["Ask again", (text) => this.edit(index, text)];
    editForm(this.views[index], this.turns[index].content, both ? [["Ask both again", both], ["Only here", here[1]]] : [here]);
  }

  async answer() {
    const running = new AbortController();
    this.running = running;
    const { system, ...sampling } = this.page.settings();
    const turn = { role: "assistant", content: "", model: this.model, tokens: 0, exact: false, seconds: 0, cut: "", scores: [] };
    const messages = messagesOf(this.turns, system);
    const view = this.answerView(turn);
    this.log.setAttribute("aria-busy", "true");
    this.log.append(view.node);
    this.toEnd();
    this.page.changed();
    this.show();
    this.unseen = "";
    this.frame = 0;
    const started = performance.now();
    let error = null;
    try {
      for await (const event of streamChat({ model: this.model, messages, ...sampling }, running.signal)) {
        this.take(event, turn, view);
      }
    } catch (problem) {
      turn.cut = running.signal.aborted ? "stopped" : "broken";
      if (!running.signal.aborted) error = problem instanceof ApiError ? problem : new ApiError(500, String(problem));
    }
    turn.seconds = (performance.now() - started) / 1000;
    if (this.running === running) this.running = null;
    if (view.node.isConnected) this.settle(turn, view, error);
    this.log.setAttribute("aria-busy", String(this.busy));
    this.show();
    this.page.changed();
    if (error) this.page.failed(error);
    if (view.node.isConnected && turn.content) await this.scoreAnswer(turn, view, [...messages, { role: "assistant", content: turn.content }]);
  }

  take({ text, finish, tokens }, turn, view) {
    if (text) {
      turn.content += text;
      turn.tokens += 1;
      this.unseen += text;
      this.frame ||= requestAnimationFrame(() => this.paint(view));
    }
    if (finish === "length") turn.cut = "length";
    if (tokens !== undefined) {
      turn.tokens = tokens;
      turn.exact = true;
    }
  }

  /** Once a frame, not once a token: each look at the scroller's end lays out the whole answer anew. */
  paint(view) {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    if (!this.unseen) return;
    const follows = this.atEnd();
    view.add(this.unseen);
    this.unseen = "";
    if (follows) this.toEnd();
  }

  /** An answer cut before its first word leaves the question open. */
  settle(turn, view, error) {
    this.paint(view);
    const follows = this.atEnd();
    const wordless = !turn.content && (turn.cut === "stopped" || turn.cut === "broken");
    if (wordless) {
      view.node.remove();
    } else {
      view.settle();
      this.turns.push(turn);
      this.views.push(view.node);
    }
    if (error) this.log.append(note(error.message, error.advice, () => this.retry()));
    else if (wordless) this.log.append(note("Stopped before the first word.", "", () => this.retry()));
    if (follows) this.toEnd();
  }

  /** A reward model that fails to answer only leaves its score out: the dialogue does not depend on it. */
  async scoreAnswer(turn, view, messages) {
    for (const { id } of this.page.rewards) {
      const value = await score(id, messages).catch(() => null);
      if (value === null) continue;
      turn.scores.push([id, value]);
      view.settle();
    }
    this.page.changed();
  }

  atEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroller;
    return scrollHeight - scrollTop - clientHeight < NEAR_END;
  }

  toEnd() {
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }
}
