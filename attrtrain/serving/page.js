"use strict";
// Names from the model and messages of the server go in as text only.

const find = (id) => document.getElementById(id);
const state = { file: null, url: "", boxes: [], chosen: 0, objects: [], limits: null, asking: null, drawable: false };
const SMALLEST = 4; // pixels of the screen: less is a click, not a box

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function tell(message) {
  find("error").textContent = message;
  find("error").hidden = !message;
}

async function start() {
  try {
    const model = await (await fetch("model")).json();
    state.limits = model.limits;
    find("category").append(...model.categories.map((name) => element("option", { value: name }, name)));
    find("kind").hidden = !model.categories.length;
    find("name").textContent = model.name;
    document.title = `${model.name} · attrtrain`;
    const map = model.metrics["val.map"];
    const score = typeof map === "number" ? ` Validation mAP ${map.toFixed(3)}.` : "";
    find("about").textContent = `${model.backbone}, ${model.attributes.length.toLocaleString("en")} attributes, crops of ${model.image_px} pixels.${score}${model.threshold_note ? ` Note: ${model.threshold_note}.` : ""}`;
  } catch {
    tell("The server does not answer. Is it still running?");
  }
}

function take(file) {
  if (!file) return;
  tell("");
  find("work").hidden = true;
  find("status").textContent = "";
  if (state.asking) state.asking.abort();
  if (state.limits && file.size > state.limits.bytes) {
    tell(`This file has ${(file.size / 1e6).toFixed(1)} MB; at most ${(state.limits.bytes / 1e6).toFixed(1)} MB are accepted.`);
    return;
  }
  if (state.url) URL.revokeObjectURL(state.url);
  Object.assign(state, { file, url: URL.createObjectURL(file), boxes: [], chosen: 0, objects: [], drawable: false });
  find("picture").src = state.url;
  ask(); // the server judges what is no picture, and says so
}

// Browsers do not show every picture that the server reads, and turn some that it leaves as they are: a box drawn there would lie elsewhere.
async function isShownAs(width, height) {
  const picture = find("picture");
  try {
    await picture.decode();
  } catch {
    return false;
  }
  return picture.naturalWidth === width && picture.naturalHeight === height;
}

async function ask() {
  if (state.asking) state.asking.abort();
  const asking = (state.asking = new AbortController());
  const form = new FormData();
  form.append("boxes", JSON.stringify(state.boxes));
  if (find("category").value) form.append("category", find("category").value);
  form.append("image", state.file, "picture");
  find("work").classList.add("waiting");
  find("status").textContent = "Looking …";
  try {
    const answer = await fetch("predict", { method: "POST", body: form, signal: asking.signal });
    const told = await answer.json();
    const drawable = answer.ok && await isShownAs(told.width, told.height);
    if (state.asking !== asking) return;
    find("status").textContent = "";
    if (answer.ok) {
      state.drawable = drawable;
      tell(drawable ? "" : `This browser shows the picture in another way than the server reads it, ${told.width} by ${told.height} pixels: give boxes as numbers instead of drawing them.`);
      state.objects = told.objects;
      find("work").hidden = false;
    } else {
      state.objects = [];
      tell(`That did not work: ${told.error.message}.`);
    }
  } catch (error) {
    if (error.name === "AbortError" || state.asking !== asking) return;
    find("status").textContent = "";
    state.objects = [];
    tell("The server does not answer. Is it still running?");
  }
  find("work").classList.remove("waiting");
  show();
}

function show() {
  const picture = find("picture"), stage = find("stage");
  for (const old of stage.querySelectorAll(".box")) old.remove();
  find("boxes").replaceChildren();
  state.boxes.forEach(([x, y, width, height], number) => {
    const box = element("div", { class: `box${number === state.chosen ? " chosen" : ""}`, "aria-hidden": "true" }, element("b", {}, String(number + 1)));
    const share = (value, whole) => `${(100 * value) / whole}%`;
    if (state.drawable) Object.assign(box.style, { left: share(x, picture.naturalWidth), top: share(y, picture.naturalHeight), width: share(width, picture.naturalWidth), height: share(height, picture.naturalHeight) });
    if (state.drawable) stage.append(box);
    const choose = element("button", { type: "button", "aria-pressed": String(number === state.chosen) }, `Box ${number + 1}`);
    choose.addEventListener("click", () => { state.chosen = number; show(); find("boxes").children[number].firstChild.focus(); });
    const remove = element("button", { type: "button", "aria-label": `Remove box ${number + 1}` }, "×");
    remove.addEventListener("click", () => {
      state.boxes.splice(number, 1);
      state.chosen = Math.max(0, Math.min(state.chosen, state.boxes.length - 1));
      state.objects = [];
      show();
      const next = find("boxes").children[state.chosen];
      (next ? next.firstChild : find("file")).focus();
      ask();
    });
    find("boxes").append(element("li", {}, choose, remove));
  });
  showAttributes();
}

function showAttributes() {
  const body = find("attributes").tBodies[0], chosen = state.objects[state.chosen];
  body.replaceChildren();
  if (!chosen) {
    find("which").textContent = "";
    return;
  }
  const present = chosen.attributes.filter((one) => one.present);
  const what = state.boxes.length ? `Box ${state.chosen + 1}: ${chosen.box.map((value) => +value.toFixed(1)).join(", ")}` : "The whole picture";
  find("which").textContent = `${what}. ${present.length} of ${chosen.attributes.length} attributes are present.`;
  for (const one of find("all").checked ? chosen.attributes : present) {
    const fill = element("i", { class: "fill" }), mark = element("i", { class: "prior" });
    fill.style.width = `${100 * one.score}%`;
    mark.style.left = `${100 * one.threshold}%`;
    const track = element("div", { class: "track", role: "img", "aria-label": `score ${one.score.toFixed(3)}, threshold ${one.threshold.toFixed(3)}` }, fill, mark);
    body.append(element("tr", { class: one.present ? "present" : "absent" },
      element("th", { scope: "row" }, one.name),
      element("td", { class: "bar" }, track),
      element("td", {}, one.score.toFixed(3)),
      element("td", {}, one.present ? "yes" : "no"),
    ));
  }
}

function add(box) {
  state.boxes.push(box);
  state.chosen = state.boxes.length - 1;
  state.objects = [];
  show();
  ask();
}

function startDrawing() {
  const stage = find("stage"), sketch = find("sketch"), picture = find("picture");
  let from = null;
  const at = (event) => {
    const frame = picture.getBoundingClientRect();
    const within = (value, most) => Math.min(Math.max(value, 0), most);
    return [within(event.clientX - frame.left, frame.width), within(event.clientY - frame.top, frame.height)];
  };
  const area = (event) => {
    const to = at(event);
    return [Math.min(from[0], to[0]), Math.min(from[1], to[1]), Math.abs(to[0] - from[0]), Math.abs(to[1] - from[1])];
  };
  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !state.drawable) return;
    from = at(event);
    stage.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  stage.addEventListener("pointermove", (event) => {
    if (!from) return;
    const [left, top, width, height] = area(event).map((value) => `${value}px`);
    Object.assign(sketch.style, { left, top, width, height });
    sketch.hidden = false;
  });
  stage.addEventListener("pointerup", (event) => {
    if (!from) return;
    const box = area(event), scale = picture.naturalWidth / picture.getBoundingClientRect().width;
    from = null;
    sketch.hidden = true;
    if (Math.min(box[2], box[3]) >= SMALLEST) add(box.map((value) => Math.round(value * scale * 10) / 10));
  });
  stage.addEventListener("pointercancel", () => { from = null; sketch.hidden = true; });
}

function startChoosing() {
  const drop = find("drop");
  find("file").addEventListener("change", (event) => take(event.target.files[0]));
  for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (event) => event.preventDefault()); // else the browser leaves the page
  drop.addEventListener("dragover", () => drop.classList.add("over"));
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => { drop.classList.remove("over"); find("file").files = event.dataTransfer.files; take(event.dataTransfer.files[0]); });
  find("numbers").addEventListener("submit", (event) => {
    event.preventDefault();
    const fields = ["x", "y", "width", "height"].map(find);
    const box = fields.map((field) => field.valueAsNumber);
    if (box.some(Number.isNaN)) { tell("Give four numbers: x, y, width and height in pixels."); fields[box.findIndex(Number.isNaN)].focus(); return; }
    add(box);
  });
  find("all").addEventListener("change", showAttributes);
  find("category").addEventListener("change", () => { if (state.file) ask(); });
}

startChoosing();
startDrawing();
start();
