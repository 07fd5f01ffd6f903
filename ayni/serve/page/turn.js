// How a turn looks. Everything said is put in as text, never as HTML.

/** element("p", {class: "note", onclick}, "text", node, ...) */
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

/** The user's words; edit(form) opens in their place. */
export function userTurn(turn, onedit) {
  const edit = element("button", { type: "button", class: "edit", onclick: onedit }, "Edit");
  const text = element("p", { class: "said" }, turn.content);
  return element("article", { class: "turn user", "aria-label": "You" },
    element("p", { class: "who" }, "You"), element("div", { class: "row" }, text, edit));
}

/**
 * A form in place of a user's turn. actions: [[label, function of the new text]], the first one is what Enter does;
 * Escape or Cancel brings the turn back.
 */
export function editForm(node, content, actions) {
  const body = node.lastElementChild;
  const box = element("textarea", { "aria-label": "Edit your message", rows: 1 });
  box.value = content;
  const close = () => {
    form.replaceWith(body);
    body.querySelector(".edit").focus();
  };
  const submit = (action) => {
    const text = box.value.trim();
    if (text) action(text);
  };
  const buttons = actions.map(([label, action], place) =>
    element("button", place === 0 ? { type: "submit", class: "solid" } : { type: "button", onclick: () => submit(action) }, label));
  const cancel = element("button", { type: "button", onclick: close }, "Cancel");
  const form = element("form", { class: "editing" }, box, element("p", { class: "under" }, ...buttons, cancel));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit(actions[0][1]);
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      event.stopPropagation();
      close();
    } else if (entered(event)) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  box.addEventListener("input", () => fit(box));
  body.replaceWith(form);
  fit(box);
  box.focus();
}

/** Enter alone, and not the one that ends the choice of a character in an input method. */
export const entered = (event) =>
  event.key === "Enter" && !event.shiftKey && !event.ctrlKey && !event.metaKey && !event.isComposing
  && event.target.tagName === "TEXTAREA";

/** A text area as high as its text, up to the limit that the style sheet sets. */
export function fit(box) {
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + box.offsetHeight - box.clientHeight}px`;
}

/** An answer while it comes and when it is whole: {node, add(text), settle()}. */
export function answerTurn(turn, oncopy, onretry) {
  const text = document.createTextNode(turn.content);
  const said = element("p", { class: "said" }, text);
  const figures = element("span", { class: "figures" });
  const under = element("p", { class: "under", hidden: "" }, figures,
    element("span", { class: "actions" },
      element("button", { type: "button", class: "copy", onclick: oncopy }, "Copy"),
      element("button", { type: "button", class: "retry", onclick: onretry, title: "Another answer (Ctrl Shift Enter)" }, "Try again")));
  const node = element("article", { class: "turn answer", "aria-label": turn.model },
    element("p", { class: "who" }, turn.model), element("div", {}, said, under));
  const settle = () => {
    node.classList.remove("coming");
    figures.replaceChildren(...describe(turn));
    under.hidden = false;
  };
  node.classList.add("coming");
  return { node, add: (piece) => text.appendData(piece), settle };
}

const CUTS = { stopped: "stopped", broken: "broken off", length: "cut at the longest answer" };

function describe(turn) {
  const parts = [];
  if (turn.cut) parts.push(element("span", { class: "cut" }, CUTS[turn.cut]));
  if (!turn.content) parts.push(element("span", {}, "no words"));
  const count = `${turn.exact ? "" : "about "}${turn.tokens} ${turn.tokens === 1 ? "token" : "tokens"}`;
  parts.push(element("span", {}, count));
  if (turn.seconds > 0 && turn.tokens > 1) parts.push(element("span", {}, `${rate(turn.tokens / turn.seconds)} tokens/s`));
  for (const [model, score] of turn.scores) {
    parts.push(element("span", { title: `Score of the reward model ${model}` }, `${model} ${score.toFixed(2).replace("-", "−")}`));
  }
  return parts;
}

const rate = (value) => (value < 10 ? value.toFixed(1) : Math.round(value).toString());

/** Something went wrong, or stopped before the first word: what, and what to do. */
export function note(message, advice, onretry) {
  return element("div", { class: "note" }, element("p", {}, `${/[.!?]$/.test(message) ? message : `${message}.`} ${advice}`.trim()),
    element("p", { class: "under" }, element("button", { type: "button", class: "retry", onclick: onretry }, "Try again")));
}
