"use strict";
const ROW_PX = 76, BEYOND = 6, FRAME_MS = 80;
const $ = (id) => document.getElementById(id);
const token = new URLSearchParams(location.search).get("token");
const at = (path, more = "") => `${path}?token=${encodeURIComponent(token)}${more}`;
const state = { rows: [], shown: [], marks: new Map(), classes: [], current: -1, case: null, z: 0, on: new Set(["prediction"]), timer: 0 };

const number = (value) => (value === undefined || value === null ? "" : Number(value).toFixed(3));

function words(row) {
  const parts = [];
  if (row.label) parts.push(row.predicted && row.predicted !== row.label ? `${row.label}, taken for ${row.predicted}` : row.label);
  else if (row.predicted) parts.push(row.predicted);
  if (row.score !== undefined && !row.label) parts.push(`Dice ${number(row.score) || "undefined"}`);
  if (row.confidence !== undefined) parts.push(`confidence ${number(row.confidence)}`);
  if (row.disagreement !== undefined) parts.push(`disagreement ${number(row.disagreement)}`);
  if (row.fold !== undefined) parts.push(`fold ${row.fold}`);
  return parts.join(" · ");
}

function options(select, title, values) {
  select.replaceChildren(new Option(title, ""), ...values.map((each) => new Option(each[1], each[0])));
  select.hidden = values.length === 0;
}

function apply() {
  const text = $("search").value.toLowerCase(), kind = $("class").value, fold = $("fold").value, what = $("what").value;
  const limit = Number($("limit").value), order = $("order").value;
  const keeps = (row, index) => (!text || row.case.toLowerCase().includes(text))
    && (!kind || row.label === kind || row.predicted === kind || row.shows?.includes(kind))
    && (!fold || String(row.fold) === fold)
    && (what !== "finding" || row.finding) && (what !== "marked" || state.marks.has(index))
    && (what !== "wrong" || (row.score !== undefined && row.score !== null && row.score < limit));
  state.shown = state.rows.map((row, index) => index).filter((index) => keeps(state.rows[index], index));
  if (order) {
    const sign = order[0] === "-" ? -1 : 1, key = order.slice(1);
    const value = (index) => state.rows[index][key];
    const has = (index) => value(index) !== undefined && value(index) !== null;
    state.shown.sort((a, b) => (has(b) - has(a)) || (has(a) ? sign * (value(a) - value(b)) : 0) || a - b);
  }
  document.querySelector(".limit").hidden = what !== "wrong";
  $("count").textContent = `${state.shown.length.toLocaleString("en")} of ${state.rows.length.toLocaleString("en")} cases`
    + (state.marks.size ? `, ${state.marks.size} marked` : "");
  $("canvas").style.height = `${state.shown.length * ROW_PX}px`;
  draw(true);
}

// only the rows in sight are in the page, so ten thousand cases scroll as one hundred
function draw(anew = false) {
  const scroller = $("scroller"), canvas = $("canvas");
  const first = Math.max(0, Math.floor(scroller.scrollTop / ROW_PX) - BEYOND);
  const last = Math.min(state.shown.length, Math.ceil((scroller.scrollTop + scroller.clientHeight) / ROW_PX) + BEYOND);
  const there = new Map(anew ? [] : [...canvas.children].map((row) => [Number(row.dataset.place), row]));
  const wanted = [];
  for (let place = first; place < last; place++) wanted.push(there.get(place) ?? line(place));
  canvas.replaceChildren(...wanted);
}

function line(place) {
  const index = state.shown[place], row = state.rows[index], made = document.createElement("div");
  made.className = state.marks.has(index) ? "row marked" : "row";
  made.dataset.place = place;
  made.id = `row-${index}`;
  made.style.top = `${place * ROW_PX}px`;
  made.setAttribute("role", "option");
  made.setAttribute("aria-selected", String(index === state.current));
  made.setAttribute("aria-setsize", state.shown.length);
  made.setAttribute("aria-posinset", place + 1);
  const image = new Image();
  image.alt = "";
  image.loading = "lazy";
  image.src = at(`/thumbnail/${index}`);
  const box = document.createElement("div"), name = document.createElement("strong"), more = document.createElement("span");
  name.textContent = name.title = row.case;
  more.textContent = words(row);
  box.append(name, more);
  made.append(image, box);
  made.addEventListener("click", () => open(index));
  return made;
}

async function open(index) {
  if (index === undefined || index < 0) return;
  stop();
  const row = state.rows[index];
  state.current = index;
  $("name").textContent = row.case;
  $("facts").textContent = [words(row), row.finding, row.seen && row.seen !== "no" ? `seen in ${row.seen}` : "", row.note].filter(Boolean).join(" · ");
  $("scroller").setAttribute("aria-activedescendant", `row-${index}`);
  const place = state.shown.indexOf(index), scroller = $("scroller");
  if (place >= 0) {
    const top = place * ROW_PX;
    if (top < scroller.scrollTop) scroller.scrollTop = top;
    else if (top + ROW_PX > scroller.scrollTop + scroller.clientHeight) scroller.scrollTop = top + ROW_PX - scroller.clientHeight;
  }
  draw(true);
  showMark();
  const answer = await fetch(at(`/case/${index}`));
  if (state.current !== index) return;
  $("trouble").hidden = answer.ok;
  $("layers").replaceChildren();
  if (!answer.ok) {
    $("image").removeAttribute("src");
    $("trouble").textContent = await answer.text();
    state.case = null;
    return;
  }
  state.case = await answer.json();
  state.z = Math.floor(state.case.depth / 2);
  $("slices").hidden = state.case.depth < 2;
  $("slice").max = state.case.depth - 1;
  toggles();
  slice();
}

function toggles() {
  const wanted = state.case.layers;
  $("toggles").replaceChildren(...wanted.map((name, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = `${place + 1} ${name}`;
    button.setAttribute("aria-pressed", String(state.on.has(name)));
    button.addEventListener("click", () => toggle(name));
    return button;
  }));
}

function toggle(name) {
  if (!state.on.delete(name)) state.on.add(name);
  toggles();
  slice();
}

function slice() {
  const { current, z } = state;
  $("slice").value = z;
  $("place").textContent = state.case ? `${z + 1} of ${state.case.depth}` : "";
  $("image").src = at(`/image/${current}/${z}`);
  $("image").alt = `Image of ${state.rows[current].case}`;
  const shown = state.case.layers.filter((name) => state.on.has(name)).map((name) => {
    const image = new Image();
    image.alt = `${name} of ${state.rows[current].case}`;
    image.style.opacity = name === "doubt" ? 1 : $("opacity").value / 100;
    image.src = at(`/layer/${current}/${name}/${z}`);
    return image;
  });
  $("layers").replaceChildren(...shown);
}

function move(step) {
  const place = state.shown.indexOf(state.current);
  open(state.shown[Math.min(state.shown.length - 1, Math.max(0, place < 0 ? 0 : place + step))]);
}

function turn(step) {
  if (!state.case) return;
  state.z = (state.z + step + state.case.depth) % state.case.depth;
  slice();
}

function stop() {
  clearInterval(state.timer);
  state.timer = 0;
  $("play").setAttribute("aria-pressed", "false");
}

function play() {
  if (state.timer) return stop();
  if (!state.case || state.case.depth < 2) return;
  $("play").setAttribute("aria-pressed", "true");
  // the next frame waits for this one to be there, so a slow disk slows the clip instead of breaking it
  state.timer = setInterval(() => { if ($("image").complete) turn(1); }, FRAME_MS);
}

function showMark() {
  const is = state.marks.has(state.current);
  $("mark").setAttribute("aria-pressed", String(is));
  $("note").hidden = !is;
  $("note").value = state.marks.get(state.current) ?? "";
}

async function mark(note) {
  if (state.current < 0) return;
  const index = state.current;
  const answer = note === null
    ? await fetch(at(`/mark/${index}`), { method: "DELETE" })
    : await fetch(at(`/mark/${index}`, `&note=${encodeURIComponent(note)}`), { method: "PUT" });
  if (!answer.ok) {
    $("trouble").hidden = false;
    $("trouble").textContent = "The mark was not saved.";
    return;
  }
  if (note === null) state.marks.delete(index); else state.marks.set(index, note);
  showMark();
  apply();
}

const keys = {
  j: () => move(1), k: () => move(-1), ArrowDown: () => move(1), ArrowUp: () => move(-1), m: () => mark(state.marks.has(state.current) ? null : ""),
  ",": () => turn(-1), ".": () => turn(1), ArrowLeft: () => turn(-1), ArrowRight: () => turn(1), " ": play, "/": () => $("search").focus(),
  "[": () => fade(-10), "]": () => fade(10), 0: () => { state.on.clear(); toggles(); slice(); },
};
for (const place of [1, 2, 3, 4]) keys[place] = () => { const name = state.case?.layers[place - 1]; if (name) toggle(name); };

function fade(step) {
  $("opacity").value = Number($("opacity").value) + step;
  if (state.case) slice();
}

addEventListener("keydown", (event) => {
  const typing = event.target.matches("input:not([type=range]), select");
  if (event.key === "Escape" && typing) event.target.blur();
  if (typing || event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
  if (event.target.matches("button, input[type=range]") && (event.key === " " || event.key.startsWith("Arrow"))) return;
  event.preventDefault();
  keys[event.key]();
});
for (const id of ["search", "class", "fold", "what", "limit", "order"]) $(id).addEventListener("input", apply);
$("scroller").addEventListener("scroll", () => requestAnimationFrame(() => draw()), { passive: true });
addEventListener("resize", () => draw());
$("opacity").addEventListener("input", () => state.case && slice());
$("slice").addEventListener("input", () => { state.z = Number($("slice").value); slice(); });
$("play").addEventListener("click", play);
$("mark").addEventListener("click", () => mark(state.marks.has(state.current) ? null : ""));
$("note").addEventListener("change", () => mark($("note").value));
$("export").href = at("/marks.csv");

(async () => {
  const { classes, rows, marks } = await (await fetch(at("/cases"))).json();
  state.rows = rows;
  state.classes = classes;
  state.marks = new Map(Object.entries(marks).map(([index, note]) => [Number(index), note]));
  const values = (key) => [...new Set(rows.map((row) => row[key]).filter((each) => each !== undefined && each !== ""))].sort();
  options($("class"), "all classes", [...new Set([...values("label"), ...values("predicted"), ...classes.map((each) => each.name)])].sort().map((each) => [each, each]));
  options($("fold"), "all folds", values("fold").map((each) => [each, `fold ${each}`]));
  const has = (key) => rows.some((row) => row[key] !== undefined && row[key] !== null);
  options($("order"), "by name", [["+score", "worst first"], ["-score", "best first"], ["+confidence", "least sure first"], ["-disagreement", "most disagreement first"]]
    .filter(([key]) => has(key.slice(1))));
  if (has("score")) $("order").value = "+score";
  apply();
  open(state.shown[0]);
})();
