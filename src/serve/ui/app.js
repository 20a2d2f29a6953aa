/* Takes a picture, makes it small, asks the server, shows five bars. */
"use strict";

const SIDE_MAX = 1024; // pixels of the longest side that leave the browser
const POLL_MS = 5000;
const BACKOFF_MS_MIN = 500;
const BACKOFF_MS_MAX = 5000;
const PATIENCE_MS = 30000;

const $ = (id) => document.getElementById(id);

const state = {
  picture: null, // a Blob, as it is sent
  owed: false, // the picture has no answer yet, for want of a server
  asking: null, // the AbortController of the request in flight
  turn: 0, // of the latest picture: older answers are dropped
  backoff: BACKOFF_MS_MIN,
  timer: 0,
  modelsKnown: false,
};

/* The connection. */

function showConnection(kind, text) {
  const connection = $("connection");
  if (connection.dataset.state === kind && $("connection-text").textContent === text) return;
  connection.dataset.state = kind;
  $("connection-text").textContent = text;
}

function pollIn(ms) {
  clearTimeout(state.timer);
  if (!document.hidden) state.timer = setTimeout(poll, ms);
}

async function isReady() {
  const waiting = new AbortController();
  const timer = setTimeout(() => waiting.abort(), POLL_MS);
  try {
    return (await fetch("/readyz", { cache: "no-store", signal: waiting.signal })).ok;
  } catch {
    return false;
  } finally {
    clearTimeout(timer);
  }
}

async function poll() {
  if (await isReady()) {
    state.backoff = BACKOFF_MS_MIN;
    showConnection("good", "Ready");
    pollIn(POLL_MS);
    if (!state.modelsKnown) loadModels();
    if (state.owed && !state.asking) ask();
  } else {
    showConnection("bad", "No connection");
    pollIn(state.backoff);
    state.backoff = Math.min(state.backoff * 2, BACKOFF_MS_MAX);
  }
}

function lost() {
  showConnection("bad", "No connection");
  pollIn(state.backoff);
}

async function loadModels() {
  try {
    const response = await fetch("/api/models");
    if (!response.ok) return;
    const { models } = await response.json();
    const chosen = $("model").value;
    $("model").replaceChildren(...models.map(({ name }) => new Option(name, name)));
    if (models.some(({ name }) => name === chosen)) $("model").value = chosen;
    $("model-row").hidden = models.length < 2;
    state.modelsKnown = true;
  } catch {
    lost();
  }
}

/* The picture. */

function canvasToBlob(canvas) {
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.9));
}

/* Only a picture that is too large is made anew; one that the browser cannot
 * read goes as it is, for the server to judge. */
async function makeSmall(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    return file;
  }
  const scale = SIDE_MAX / Math.max(bitmap.width, bitmap.height);
  if (scale >= 1 && /^image\/(jpeg|png)$/.test(file.type)) {
    bitmap.close();
    return file;
  }
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * Math.min(scale, 1)));
  canvas.height = Math.max(1, Math.round(bitmap.height * Math.min(scale, 1)));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return (await canvasToBlob(canvas)) || file;
}

function showPreview(blob) {
  const preview = $("preview");
  const before = preview.src;
  preview.src = URL.createObjectURL(blob);
  preview.alt = "The picture that was sent";
  preview.hidden = false;
  preview.onerror = () => {
    preview.hidden = true;
  };
  $("hint").hidden = true;
  if (before) URL.revokeObjectURL(before);
}

async function take(file) {
  if (!file) return;
  const turn = ++state.turn;
  say("Reading the picture");
  const small = await makeSmall(file);
  if (turn !== state.turn) return;
  state.picture = small;
  showPreview(small);
  ask();
}

/* The answer. */

function say(text, bad = false) {
  $("message").textContent = text;
  $("message").classList.toggle("bad", bad);
}

function showLabels(predictions) {
  const items = predictions.map(({ label, confidence }) => {
    const item = document.createElement("li");
    const bar = document.createElement("span");
    const name = document.createElement("span");
    const percent = document.createElement("span");
    bar.className = "bar";
    bar.ariaHidden = "true";
    name.className = "name";
    name.textContent = label.replace(/^n\d{8} /, "");
    name.title = label;
    percent.className = "percent";
    percent.textContent = `${(confidence * 100).toFixed(1)} %`;
    item.append(bar, name, percent);
    requestAnimationFrame(() => {
      bar.style.transform = `scaleX(${confidence})`;
    });
    return item;
  });
  $("labels").replaceChildren(...items);
  $("labels").classList.remove("stale");
}

function size(bytes) {
  return bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

function showTiming(header, ms, bytes) {
  const parts = [...(header || "").matchAll(/([a-z]+);dur=([\d.]+)/g)].map(
    ([, name, dur]) => `${name} ${Number(dur).toFixed(1)}`,
  );
  $("timing").textContent = [`${size(bytes)}, ${ms.toFixed(0)} ms in all`, ...parts].join(" · ");
}

async function sentenceOf(response) {
  try {
    return (await response.json()).error || response.statusText;
  } catch {
    return response.statusText;
  }
}

async function request(signal) {
  const model = $("model").value;
  const query = model ? `?model=${encodeURIComponent(model)}` : "";
  return fetch(`/api/classify${query}`, {
    method: "POST",
    headers: { "Content-Type": state.picture.type || "application/octet-stream" },
    body: state.picture,
    signal,
  });
}

function failed(sentence, retry) {
  say(sentence, true);
  $("labels").replaceChildren();
  $("timing").textContent = "";
  $("retry").hidden = !retry;
}

function owe(sentence) {
  state.owed = true;
  failed(`${sentence}. The picture is sent again when the server answers.`, true);
}

async function receive(response, from) {
  const bytes = state.picture.size;
  if (response.ok) {
    const predictions = await response.json();
    say("");
    showLabels(predictions);
    showTiming(response.headers.get("Server-Timing"), performance.now() - from, bytes);
    showConnection("good", "Ready");
  } else if (response.status === 503) {
    owe("The server is busy");
    pollIn(1000 * Number(response.headers.get("Retry-After") || 1));
  } else {
    failed(`The picture was not taken: ${await sentenceOf(response)}.`, false);
    if (response.status === 404) loadModels();
  }
}

async function ask() {
  if (!state.picture) return;
  if (state.asking) state.asking.abort();
  const asking = new AbortController();
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    asking.abort();
  }, PATIENCE_MS);
  state.asking = asking;
  state.owed = false;
  $("retry").hidden = true;
  $("labels").classList.add("stale");
  say("Looking");
  const from = performance.now();
  try {
    await receive(await request(asking.signal), from);
  } catch {
    if (asking.signal.aborted && !late) return; // a newer picture has taken its place
    owe("The server cannot be reached");
    lost();
  } finally {
    clearTimeout(timer);
    if (state.asking === asking) state.asking = null;
  }
}

/* Ways in. */

function pictureOf(transfer) {
  return [...transfer.files].find(({ type }) => type.startsWith("image/")) || transfer.files[0];
}

for (const id of ["take", "choose"]) {
  $(id).addEventListener("change", (event) => {
    take(event.target.files[0]);
    event.target.value = ""; // so that the same picture can be chosen again
  });
}

addEventListener("paste", (event) => {
  if (event.clipboardData && event.clipboardData.files.length) take(pictureOf(event.clipboardData));
});

addEventListener("dragover", (event) => {
  event.preventDefault();
  $("stage").classList.add("over");
});

addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) $("stage").classList.remove("over");
});

addEventListener("drop", (event) => {
  event.preventDefault();
  $("stage").classList.remove("over");
  if (event.dataTransfer) take(pictureOf(event.dataTransfer));
});

$("retry").addEventListener("click", ask);
$("model").addEventListener("change", ask);
addEventListener("online", () => pollIn(0));
document.addEventListener("visibilitychange", () => {
  clearTimeout(state.timer);
  if (!document.hidden) poll();
});

poll();
