"use strict";

// Boxes are requested once, at the slider's lowest value. NMS goes from the best box down, so the boxes it keeps above a threshold
// do not depend on those below: moving the slider only filters.
const $ = (id) => document.getElementById(id);
const state = { model: null, file: "", frames: [], at: 0, complete: true, job: null, timer: null };

const threshold = () => Number($("threshold").value);
const chosen = (frame) => (frame.detections ?? []).filter((each) => each.score > threshold());

// The token, if the server requires one, is kept until the tab is closed.
function ask(address, options = {}) {
  const token = sessionStorage.getItem("token");
  const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
  return fetch(address, { ...options, headers });
}

async function start() {
  const answer = await ask("model");
  $("login").hidden = answer.status !== 401;
  $("main").hidden = answer.status === 401;
  if (answer.status === 401) {
    $("refused").hidden = sessionStorage.getItem("token") === null;
    return $("token").focus();
  }
  if (!answer.ok) throw new Error(`the server responded with status ${answer.status}`);
  const model = (state.model = await answer.json());
  const count = model.classes.length;
  document.title = $("title").textContent = model.title;
  $("about").textContent = `${count} ${count === 1 ? "class" : "classes"}, input ${model.input.join(" x ")}`;
}

async function upload(file) {
  if (!file || !state.model) return;
  state.job?.abort();
  const job = (state.job = new AbortController());
  reset(file.name);
  if (file.size > state.model.upload_bytes) {
    const most = (state.model.upload_bytes / 1e6).toLocaleString("en");
    return showError(`${file.name}: larger than the limit of ${most} MB.`);
  }
  $("status").textContent = "Detecting ...";
  try {
    const conf = state.model.task === "detect" ? `&conf=${$("threshold").min}` : "";
    const address = `stream?images=1${conf}`;
    const body = { method: "POST", body: file, signal: job.signal, headers: { "Content-Type": "application/octet-stream" } };
    const answer = await ask(address, body);
    if (!answer.ok) {
      const text = await answer.text();
      throw new Error(text.startsWith("{") ? JSON.parse(text).error : text);
    }
    for await (const facts of lines(answer.body)) await add(facts);
  } catch (error) {
    if (error.name !== "AbortError") showError(`${file.name}: ${error.message}`);
  }
}

async function* lines(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) yield JSON.parse(part);
  }
}

async function add(facts) {
  if ("error" in facts) return showError(facts.error);
  if ("complete" in facts) {
    state.complete = facts.complete;
    return report();
  }
  const { jpeg, ...frame } = facts;
  const bytes = Uint8Array.from(atob(jpeg), (letter) => letter.charCodeAt(0));
  state.frames.push({ ...frame, image: new Blob([bytes], { type: "image/jpeg" }) });
  $("frame").max = state.frames.length - 1;
  if (state.frames.length === 1) {
    $("drop").hidden = true;
    $("canvas").hidden = $("another").hidden = false;
    $("download").disabled = false;
    await show(0);
  } else if (state.frames.length === 2) {
    $("player").hidden = false;
  }
  report();
}

function reset(name) {
  stop();
  Object.assign(state, { file: name, frames: [], at: 0, complete: true });
  for (const id of ["error", "canvas", "player", "another"]) $(id).hidden = true;
  $("download").disabled = true;
  $("drop").hidden = false;
  $("classes").replaceChildren();
  $("status").textContent = "No image yet.";
}

function showError(text) {
  $("error").textContent = text;
  $("error").hidden = false;
  if (!state.frames.length) $("status").textContent = "No result.";
}

async function show(at) {
  const frame = state.frames[at];
  if (!frame) return;
  state.at = at;
  frame.bitmap ??= await createImageBitmap(frame.image);
  if (state.frames[state.at] !== frame) return;
  for (const each of state.frames) {
    if (each !== frame) each.bitmap = null;
  }
  draw(frame);
  $("frame").value = at;
  $("time").textContent = frame.time_s === undefined ? "" : `${frame.time_s.toFixed(2)} s`;
  report();
}

function draw(frame) {
  const canvas = $("canvas");
  const pen = canvas.getContext("2d");
  canvas.width = frame.width;
  canvas.height = frame.height;
  pen.drawImage(frame.bitmap, 0, 0);
  const line = Math.max(1.5, (frame.width + frame.height) * 0.0018);
  const size = Math.max(11, (frame.width + frame.height) * 0.013);
  pen.lineWidth = line;
  pen.font = `600 ${size}px system-ui, sans-serif`;
  pen.textBaseline = "middle";
  const found = chosen(frame);
  const tabs = [];
  for (const each of found) tabs.push(place(each, pen, frame, tabs, line, size));
  const colours = found.map((each) => state.model.colours[each.class_id]);
  const weakestFirst = [...found.keys()].reverse();
  for (const at of weakestFirst) {
    const [left, top, right, bottom] = found[at].xyxy;
    pen.strokeStyle = colours[at];
    pen.strokeRect(left, top, right - left, bottom - top);
  }
  for (const at of weakestFirst) {
    const tab = tabs[at];
    pen.fillStyle = colours[at];
    pen.fillRect(tab.x, tab.y, tab.wide, tab.high);
    pen.fillStyle = dark(colours[at]) ? "#fff" : "#000";
    pen.fillText(tab.text, tab.x + size * 0.3, tab.y + tab.high / 2);
  }
}

// Position of a box's label: above, inside or below the box, at its left or right edge, clear of the labels of better boxes.
function place(each, pen, frame, taken, line, size) {
  const [left, top, right, bottom] = each.xyxy;
  const text = `${each.name} ${each.score.toFixed(2)}`;
  const wide = pen.measureText(text).width + size * 0.6;
  const high = size * 1.4;
  const tabs = [top - high, top, bottom, bottom - high].flatMap((y) =>
    [left - line / 2, right + line / 2 - wide].map((x) => ({
      x: Math.max(0, Math.min(x, frame.width - wide)), y: Math.max(0, Math.min(y, frame.height - high)), wide, high, text,
    })),
  );
  const apart = (a, b) => a.x >= b.x + b.wide || b.x >= a.x + a.wide || a.y >= b.y + b.high || b.y >= a.y + a.high;
  return tabs.find((tab) => taken.every((other) => apart(tab, other))) ?? tabs[0];
}

function dark(colour) {
  const [red, green, blue] = [1, 3, 5].map((at) => (parseInt(colour.slice(at, at + 2), 16) / 255) ** 2.2);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.45;
}

function report() {
  const frame = state.frames[state.at];
  if (!frame) return;
  const counts = new Map();
  for (const each of chosen(frame)) counts.set(each.class_id, (counts.get(each.class_id) ?? 0) + 1);
  const found = [...counts.values()].reduce((sum, count) => sum + count, 0);
  const where = state.frames.length > 1 ? ` in frame ${state.at + 1} of ${state.frames.length}` : "";
  const cut = state.complete ? "" : `; only the first ${state.frames.length} frames were processed`;
  const [best] = frame.classes ?? [];
  const text = best ? best.name : `${found || "No"} ${found === 1 ? "object" : "objects"}`;
  $("status").textContent = `${text}${where}${cut}.`;
  const figures = best ? frame.classes.map((each) => [each.class_id, each.score.toFixed(3)]) : [...counts].sort((a, b) => b[1] - a[1]);
  const rows = figures.map(([id, count]) => {
    const row = document.createElement("li");
    const [mark, name, number] = ["i", "span", "b"].map((tag) => row.appendChild(document.createElement(tag)));
    mark.style.background = state.model.colours[id];
    name.textContent = state.model.classes[id];
    number.textContent = count;
    return row;
  });
  $("classes").replaceChildren(...rows);
}

function stop() {
  clearTimeout(state.timer);
  state.timer = null;
  $("play").textContent = "Play";
}

async function step() {
  if (state.at + 1 >= state.frames.length) return stop();
  const [now, next] = [state.frames[state.at], state.frames[state.at + 1]];
  state.timer = setTimeout(step, Math.max(10, 1000 * (next.time_s - now.time_s)));
  await show(state.at + 1);
}

function download() {
  const frames = state.frames.map(({ image, bitmap, ...frame }) => (frame.classes ? frame : { ...frame, detections: chosen(frame) }));
  const report = { file: state.file, model: state.model.title, threshold: threshold(), complete: state.complete, frames };
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(report, null, 1)], { type: "application/json" }));
  link.download = `${state.file.replace(/\.[^.]*$/, "") || "detections"}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

$("file").addEventListener("change", (event) => upload(event.target.files[0]));
$("threshold").addEventListener("input", () => {
  $("value").textContent = threshold().toFixed(2);
  const frame = state.frames[state.at];
  if (frame?.bitmap) draw(frame), report();
});
$("frame").addEventListener("input", (event) => (stop(), show(Number(event.target.value))));
$("play").addEventListener("click", async () => {
  if (state.timer) return stop();
  $("play").textContent = "Pause";
  if (state.at + 1 >= state.frames.length) await show(0);
  await step();
});
$("another").addEventListener("click", () => (($("file").value = ""), $("file").click()));
$("download").addEventListener("click", download);
for (const kind of ["dragenter", "dragover"]) {
  $("stage").addEventListener(kind, (event) => (event.preventDefault(), $("stage").classList.add("over")));
}
for (const kind of ["dragleave", "drop"]) $("stage").addEventListener(kind, () => $("stage").classList.remove("over"));
for (const kind of ["dragover", "drop"]) window.addEventListener(kind, (event) => event.preventDefault());
$("stage").addEventListener("drop", (event) => upload(event.dataTransfer.files[0]));
$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value.trim());
  start().catch((error) => showError(error.message));
});
start().catch((error) => showError(error.message));
