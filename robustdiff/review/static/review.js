// The page of `robustdiff review`. Names of classes and files may be anybody's: they only ever
// become text, never markup.
"use strict";

const $ = (id) => document.getElementById(id);
const CHOICES = 50; // classes that the chooser shows at once
const LONG = 40; // characters of a name that is shortened
const NARROW = window.matchMedia("(max-width: 46rem)");

const state = {
  classes: [],
  isProbability: true,
  items: [], // of the page that is shown, in the order of their places
  selected: 0,
  total: 0,
  before: 0,
  pair: null,
  grid: false,
  chosen: null, // the item that the chooser is open for
};

// ---------------------------------------------------------------- text

// Control characters, and those that turn the direction of the text around them, are spelled out.
function visible(text) {
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, (one) =>
    one === "\n" ? "\\n" : `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

// The middle of a very long name is left out where there is little room.
function short(text) {
  const letters = [...text];
  return letters.length <= LONG ? text : `${letters.slice(0, 24).join("")}…${letters.slice(-12).join("")}`;
}

const className = (label) => visible(state.classes[label] ?? "?");
const count = (number) => number.toLocaleString("en");

function element(kind, classes, ...children) {
  const made = document.createElement(kind);
  if (classes) made.className = classes;
  made.append(...children);
  return made;
}

const makeArrow = () => element("span", "arrow", " → "); // a line may break beside it
const name = (label, classes) => element("bdi", classes, short(className(label)));

// The given class, and the class that it becomes or might become.
function names(item) {
  const arrow = makeArrow();
  const { suggestion } = item;
  const decision = item.decision?.action === "unsure" ? null : item.decision;
  const label = decision ? decision.label : suggestion?.label;
  if (decision?.action === "keep") return [name(item.given, "kept")];
  if (decision?.action === "remove") return [name(item.given, "given gone")];
  if (label === null || label === undefined) return [name(item.given, "given")];
  return [name(item.given, decision ? "given gone" : "given"), arrow, name(label, "better")];
}

function quality(item) {
  if (item.quality === null) return "";
  return state.isProbability ? `right: ${percent(item.quality)}` : `rank: ${item.quality.toFixed(3)}`;
}

function percent(share) {
  if (share > 0 && share < 0.001) return "< 0.1 %";
  return `${Number((100 * share).toFixed(share < 0.1 ? 1 : 0))} %`;
}

const OUTCOMES = { keep: "kept", remove: "removed", unsure: "unsure" };
const outcome = (decision) =>
  decision.action === "relabel" ? `→ ${short(className(decision.label))}` : OUTCOMES[decision.action];
const badge = (decision) => element("bdi", `badge ${decision.action}`, outcome(decision));

// ---------------------------------------------------------------- talking to the server

async function ask(path, content) {
  const options = content === undefined ? {} : {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(content),
  };
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("robustdiff does not answer, and nothing was written. Start the review again, " +
      "and open the new address.");
  }
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(told.error ?? `refused with status ${answer.status}`);
  return told;
}

// What changes the page runs one after the other, so that quick keys all count.
let chain = Promise.resolve();
function then(job) {
  chain = chain.then(job).catch((error) => {
    $("alert").textContent = visible(error.message);
    $("alert").hidden = false;
    render();
  });
  return chain;
}

function filter() {
  const words = new URLSearchParams({ issue: $("issue").value, below: below() });
  if ($("undecided").checked) words.set("undecided", "1");
  if (state.pair) {
    words.set("given", state.pair.given);
    words.set("predicted", state.pair.predicted);
  }
  return words;
}

const below = () => Number($("below").value) / 1000;

// Shows the page of labels from a place on, or the one before a place; false if there is none.
async function load({ from = 0, before, number, select = 0, even = true }) {
  const words = filter();
  if (before === undefined) words.set("from", from);
  else words.set("before", before);
  const page = await ask(`/api/page?${words}`);
  progress(page.progress);
  if (!page.items.length && !even) return false;
  Object.assign(state, { items: page.items, total: page.total, before: page.before });
  const found = page.items.findIndex((item) => item.number === number);
  state.selected = Math.max(0, found >= 0 ? found : Math.min(select, page.items.length - 1));
  render();
  return true;
}

const current = () => state.items[state.selected];

async function reload() {
  await load({ from: state.items[0]?.place ?? 0, number: current()?.number, select: state.selected });
  await showPairs();
}

// ---------------------------------------------------------------- decisions

function decide(choose) {
  return then(async () => {
    const item = current();
    const decision = item && choose(item);
    if (decision) await write(item, decision);
  });
}

async function write(item, { action, label = null }) {
  $("alert").hidden = true;
  card(item)?.classList.add("saving");
  const told = await ask("/api/decide", { sample: item.number, action, label });
  place(told.item);
  progress(told.progress);
  await step(1, `Image ${item.number}: ${outcome(told.item.decision)}. `);
}

const takeSuggestion = (item) => item.suggestion;

// Another class than the given one is a new label, the given one is kept.
const become = (item, label) =>
  label === item.given ? { action: "keep" } : { action: "relabel", label };

function undo() {
  return then(async () => {
    $("alert").hidden = true;
    const told = await ask("/api/undo", {});
    progress(told.progress);
    say("Taken back");
    if (!told.item) return; // the audit knows its image no more
    if (place(told.item)) {
      state.selected = state.items.findIndex((one) => one.number === told.item.number);
      render();
    } else {
      await load({ from: told.item.place, number: told.item.number });
    }
  });
}

// Puts a newer state of an item in its place on the page; false if it is not there.
function place(item) {
  const found = state.items.findIndex((one) => one.number === item.number);
  if (found < 0) return false;
  state.items[found] = item;
  card(item)?.replaceWith(makeCard(item, found));
  return true;
}

// ---------------------------------------------------------------- moving

async function step(by, done = "") {
  const wanted = state.selected + by;
  const onPage = wanted >= 0 && wanted < state.items.length;
  if (onPage) state.selected = wanted;
  const moved = onPage || (await turn(by > 0));
  render();
  say(done + (moved ? described(current()) : by > 0 ? "This was the last one" : "This is the first one"));
}

async function turn(forward) {
  if (!state.items.length) return false;
  if (forward) return load({ from: state.items.at(-1).place + 1, even: false });
  return load({ before: state.items[0].place, select: Infinity, even: false });
}

function columns() {
  const cards = [...$("grid").children];
  const inRow = cards.findIndex((one) => one.offsetTop !== cards[0].offsetTop);
  return inRow < 0 ? Math.max(1, cards.length) : inRow;
}

// ---------------------------------------------------------------- drawing

function progress({ decided, decided_suspects: done, suspects, labels }) {
  $("bar").value = suspects ? done / suspects : 0;
  const others = decided > done ? `, ${count(decided - done)} others` : "";
  $("progress").textContent =
    `${count(done)} of ${count(suspects)} suspects decided${others}, of ${count(labels)} labels`;
}

function say(text) {
  $("said").textContent = text;
}

const card = (item) => $("grid").querySelector(`[data-number="${item.number}"]`);

function crisp(event) {
  const image = event.target;
  image.classList.toggle("crisp", image.naturalWidth < 200);
}

function makeCard(item, index) {
  const image = element("img");
  image.alt = "";
  image.loading = "lazy";
  image.onload = crisp;
  image.src = `/image/${item.number}`;
  const made = element("button", "card", image, element("span", "names", ...names(item)));
  made.append(element("small", "", quality(item)));
  made.type = "button";
  made.dataset.number = item.number;
  made.dataset.decision = JSON.stringify(item.decision);
  made.title = item.file ? visible(item.file) : `#${item.number}`;
  made.setAttribute("aria-label", described(item));
  mark(made, index === state.selected);
  if (item.decision) {
    made.classList.add("decided");
    made.append(badge(item.decision));
  }
  return made;
}

function described(item) {
  const suggested = item.suggestion
    ? `, suggested: ${item.suggestion.label === null ? "remove" : className(item.suggestion.label)}`
    : "";
  const decided = item.decision ? `, decided: ${outcome(item.decision)}` : ", undecided";
  return `Image ${item.number}, given: ${className(item.given)}${suggested}${decided}`;
}

function mark(made, selected) {
  made.setAttribute("aria-current", selected);
  made.tabIndex = selected ? 0 : -1;
}

function render() {
  const item = current();
  $("empty").hidden = Boolean(item);
  $("one").hidden = state.grid || !item;
  $("grid").hidden = !state.grid;
  $("layout").firstChild.textContent = state.grid ? "One image " : "Grid ";
  if (state.grid) renderGrid();
  else if (item) renderOne(item);
  renderActions(item);
  const last = state.before + state.items.length, at = state.before + state.selected;
  $("place").textContent = !item ? "" : state.grid
    ? `${count(state.before + 1)} to ${count(last)} of ${count(state.total)}`
    : `${count(at + 1)} of ${count(state.total)}`;
  $("first").disabled = at === 0;
  $("previous").disabled = state.grid ? state.before === 0 : at === 0;
  $("next").disabled = state.grid ? last >= state.total : at + 1 >= state.total;
  const what = state.grid ? "page" : "image";
  for (const id of ["first", "previous", "next"]) $(id).setAttribute("aria-label", `${id} ${what}`);
}

function renderGrid() {
  const cards = [...$("grid").querySelectorAll(".card")];
  const same = cards.length === state.items.length &&
    cards.every((one, i) => Number(one.dataset.number) === state.items[i].number);
  if (same) {
    cards.forEach((one, i) => {
      const item = state.items[i];
      if (one.dataset.decision !== JSON.stringify(item.decision)) one.replaceWith(makeCard(item, i));
      mark(one, i === state.selected);
      one.classList.remove("saving");
    });
  } else {
    $("grid").replaceChildren(...state.items.map((item, i) => element("li", "", makeCard(item, i))));
  }
  const chosen = current() && card(current());
  chosen?.scrollIntoView({ block: "nearest" });
  if (!document.activeElement || document.activeElement === document.body ||
      $("grid").contains(document.activeElement)) chosen?.focus({ preventScroll: true });
}

function renderOne(item) {
  const source = `${item.file === null ? "/image" : "/original"}/${item.number}`;
  if ($("picture").getAttribute("src") !== source) $("picture").src = source;
  $("picture").alt = described(item);
  $("names").replaceChildren(...names(item));
  $("names").title = [item.given, item.predicted].filter((label) => label >= 0).map(className).join(" → ");
  const facts = [quality(item), item.issue && item.issue !== "label" ? visible(item.issue) : ""];
  if (![-1, item.given].includes(item.second) && !item.decision) facts.push(`next likeliest: ${className(item.second)}`);
  $("facts").replaceChildren(facts.filter(Boolean).join(" · "));
  if (item.decision) $("facts").append(" ", badge(item.decision));
  $("file").textContent = item.file === null ? `#${item.number}` : visible(item.file);
  const next = state.items[state.selected + 1];
  if (next) new Image().src = `${next.file === null ? "/image" : "/original"}/${next.number}`;
}

function renderActions(item) {
  for (const id of ["keep", "choose", "remove", "unsure"]) $(id).disabled = !item;
  const suggestion = item?.suggestion;
  $("suggestion").disabled = !suggestion;
  $("suggestion").firstElementChild.textContent = !suggestion ? "No suggestion"
    : suggestion.label === null ? "→ remove" : `→ ${short(className(suggestion.label))}`;
  $("keep").firstElementChild.textContent = item ? `Keep ${short(className(item.given))}` : "Keep";
}

// ---------------------------------------------------------------- filters

async function showThreshold() {
  $("below-value").textContent = percent(below());
  const sides = await ask(`/api/threshold?below=${below()}`);
  for (const [side, { labels, wrong }] of [["low", sides.below], ["high", sides.above]]) {
    $(`${side}-labels`).textContent = count(labels);
    $(`${side}-wrong`).textContent = wrong === null ? "" : count(Math.round(wrong));
  }
}

// Runs a job again after it is done if it was asked for meanwhile: the newest request counts.
function latest(job) {
  let running = false, again = false;
  return async () => {
    again = true;
    if (running) return;
    running = true;
    while (again) {
      again = false;
      await job().catch(() => {});
    }
    running = false;
  };
}

async function showPairs() {
  const pairs = await ask(`/api/pairs?${new URLSearchParams({ words: $("words").value })}`);
  const rows = pairs.map((pair) => {
    const left = element("span", "", `${count(pair.left)} of ${count(pair.labels)}`);
    const button = element("button", "", element("span", "names",
      name(pair.given, "given"), makeArrow(), name(pair.predicted)), left);
    const isChosen = state.pair?.given === pair.given && state.pair?.predicted === pair.predicted;
    button.type = "button";
    button.title = `${className(pair.given)} → ${className(pair.predicted)}: left to decide, of all`;
    button.setAttribute("aria-pressed", isChosen);
    button.onclick = () => setPair(isChosen ? null : pair);
    return element("li", "", button);
  });
  if (state.pair) {
    const all = element("button", "", "All pairs");
    all.onclick = () => setPair(null);
    rows.unshift(element("li", "", all));
  }
  $("pairs").replaceChildren(...rows);
}

function setPair(pair) {
  state.pair = pair;
  return restart();
}

function restart() {
  return then(async () => {
    await load({});
    await showPairs();
  });
}

// ---------------------------------------------------------------- choosing a class

function choose(begin = "") {
  return then(() => {
    state.chosen = current();
    if (!state.chosen) return;
    $("class-words").value = begin;
    $("chooser").showModal();
    showClasses();
    $("class-words").focus();
  });
}

function showClasses() {
  const words = $("class-words").value.trim().toLowerCase();
  const { predicted, second, given } = state.chosen;
  const likely = [predicted, second].filter((label) => label >= 0);
  const all = [...new Set([...likely, ...state.classes.keys()])].filter((label) =>
    state.classes[label].toLowerCase().includes(words));
  // A name that begins with the words comes before one that holds them.
  if (words) all.sort((a, b) => begins(b, words) - begins(a, words));
  const rows = all.slice(0, CHOICES).map((label, i) => {
    const note = label === given ? "given" : label === predicted ? "likeliest"
      : label === second ? "next likeliest" : "";
    const row = element("li", "", name(label), element("small", "", note));
    row.id = `class-${label}`;
    row.setAttribute("role", "option");
    row.dataset.label = label;
    row.onclick = () => take(label);
    return row;
  });
  $("classes").replaceChildren(...rows);
  point(0);
  $("more-classes").textContent = all.length > CHOICES
    ? `${count(all.length - CHOICES)} more: type to find them` : all.length ? "" : "no such class";
}

const begins = (label, words) => Number(state.classes[label].toLowerCase().startsWith(words));

function point(index) {
  const rows = [...$("classes").children];
  rows.forEach((row, i) => row.setAttribute("aria-selected", i === index));
  if (rows[index]) {
    $("class-words").setAttribute("aria-activedescendant", rows[index].id);
    rows[index].scrollIntoView({ block: "nearest" });
  } else {
    $("class-words").removeAttribute("aria-activedescendant");
  }
}

function take(label) {
  const item = state.chosen;
  $("chooser").close();
  return then(() => write(item, become(item, label)));
}

$("class-words").oninput = showClasses;
$("class-words").onkeydown = (event) => {
  const rows = [...$("classes").children];
  const at = rows.findIndex((row) => row.getAttribute("aria-selected") === "true");
  if (event.key === "ArrowDown") point(Math.min(at + 1, rows.length - 1));
  else if (event.key === "ArrowUp") point(Math.max(at - 1, 0));
  else if (event.key === "Enter" && at >= 0) take(Number(rows[at].dataset.label));
  else return;
  event.preventDefault();
};
$("no-class").onclick = () => $("chooser").close();
$("no-keys").onclick = () => $("keys").close();
for (const dialog of [$("chooser"), $("keys")]) {
  dialog.onclick = (event) => event.target === dialog && dialog.close(); // beside it
}

// ---------------------------------------------------------------- keys, clicks, start

function setGrid(grid) {
  state.grid = grid;
  localStorage.setItem("grid", grid ? "1" : "");
  render();
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("theme", theme);
}

function toggleTheme() {
  const dark = window.matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.theme || (dark ? "dark" : "light");
  setTheme(now === "dark" ? "light" : "dark");
}

const ACTIONS = {
  keep: () => decide(() => ({ action: "keep" })),
  suggestion: () => decide(takeSuggestion),
  choose: () => choose(),
  remove: () => decide(() => ({ action: "remove" })),
  unsure: () => decide(() => ({ action: "unsure" })),
  undo,
  layout: () => setGrid(!state.grid),
  theme: toggleTheme,
  help: () => $("keys").showModal(),
  first: () => then(() => load({})),
  previous: () => then(() => (state.grid ? turn(false) : step(-1))),
  next: () => then(() => (state.grid ? turn(true) : step(1))),
};
for (const [id, action] of Object.entries(ACTIONS)) $(id).onclick = action;

const move = (by) => then(() => step(by));
const row = () => (state.grid ? columns() : 1);
const KEYS = {
  k: ACTIONS.keep, s: ACTIONS.suggestion, c: ACTIONS.choose, r: ACTIONS.remove, u: ACTIONS.unsure,
  z: undo, g: ACTIONS.layout, "?": ACTIONS.help, j: () => move(1),
  ArrowRight: () => move(1), ArrowLeft: () => move(-1),
  ArrowDown: () => move(row()), ArrowUp: () => move(-row()),
};

document.addEventListener("keydown", (event) => {
  const { key, target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (target.matches('input[type="search"], select')) return;
  if (target.matches('input[type="range"]') && key.startsWith("Arrow")) return;
  const moves = key.startsWith("Arrow") || key === "j";
  if (event.repeat && !moves) return; // a key that is held decides once
  if (KEYS[key]) KEYS[key]();
  else if (/^[\p{L}\p{N}]$/u.test(key)) choose(key);
  else return;
  event.preventDefault();
});

$("grid").onclick = (event) => {
  const clicked = event.target.closest(".card");
  if (!clicked) return;
  then(() => {
    const index = state.items.findIndex((item) => item.number === Number(clicked.dataset.number));
    if (index < 0) return;
    if (index === state.selected) setGrid(false); // a second click looks closer
    else state.selected = index;
    render();
  });
};
$("picture").onload = crisp;
$("issue").onchange = $("undecided").onchange = $("below").onchange = restart;
$("below").oninput = latest(showThreshold);
$("words").oninput = latest(showPairs);
// Another tab may have decided meanwhile.
document.addEventListener("visibilitychange", () => document.hidden || then(reload));
window.addEventListener("focus", () => then(reload));

if (localStorage.getItem("theme")) setTheme(localStorage.getItem("theme"));
state.grid = Boolean(localStorage.getItem("grid"));
$("filters").open = !NARROW.matches;
history.replaceState(null, "", "/"); // the token need not stay in the address
then(async () => {
  const start = await ask("/api/start");
  state.classes = start.classes;
  state.isProbability = start.is_probability;
  if (!start.is_probability) {
    $("below-label").textContent = "Rank of the label, below";
    $("wrong").textContent = "";
  }
  for (const issue of start.issues) {
    const option = element("option", "", visible(issue));
    option.value = issue;
    $("issue").append(option);
  }
  await showThreshold();
  await load({});
  await showPairs();
});
