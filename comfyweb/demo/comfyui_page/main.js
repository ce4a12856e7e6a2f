// The page that stands in for ComfyUI's: one workflow, its queue over the websocket, its pictures.

import { tellParent } from "/page/activity.js";
import { mark, start } from "/page/graph.js";

const at = (id) => document.getElementById(id);
const client = crypto.randomUUID();
const LAST_WAIT = 10000;
let wait = 500;
let shown = null;

function workflow() {
  const seconds = at("seconds").value === "" ? {} : { seconds: Number(at("seconds").value) };
  const text = (words) => ({ class_type: "CLIPTextEncode", inputs: { text: words, clip: ["4", 1] } });
  return {
    3: { class_type: "KSampler", inputs: { seed: Number(at("seed").value), model: ["4", 0], positive: ["6", 0],
      negative: ["7", 0], latent_image: ["5", 0], ...seconds } },
    4: { class_type: "CheckpointLoaderSimple", inputs: { ckpt_name: "landscape.safetensors" } },
    5: { class_type: "EmptyLatentImage", inputs: { width: 512, height: 384, batch_size: 1 } },
    6: text(at("text").value),
    7: text(at("negative").value),
    8: { class_type: "VAEDecode", inputs: { samples: ["3", 0], vae: ["4", 2] } },
    9: { class_type: "SaveImage", inputs: { images: ["8", 0], filename_prefix: "comfyweb" } },
  };
}

function say(words, bad = false) {
  at("said").textContent = words;
  at("said").classList.toggle("bad", bad);
}

async function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body ?? {}) });
  if (answer.status === 401) throw new Error("Your session has ended. Open this machine from its control page again.");
  if (!answer.ok) {
    const said = await answer.json().catch(() => ({}));
    throw new Error(said.error?.message ?? `That did not work (${answer.status}).`);
  }
}

async function attempt(action) {
  try {
    await action();
  } catch (error) {
    say(error instanceof TypeError ? "The machine does not answer." : error.message, true);
  }
}

async function queue() {
  if (at("again").checked) at("seed").value = Math.floor(Math.random() * 2 ** 32);
  await post("/api/prompt", { prompt: workflow(), client_id: client });
  say("Queued.");
}

function setRemaining(remaining) {
  at("remaining").textContent = remaining;
  at("queue").classList.toggle("busy", remaining > 0);
  at("cancel").hidden = remaining === 0;
  tellParent("queue", { remaining });
}

function address({ filename, subfolder, type }) {
  return `/api/view?${new URLSearchParams({ filename, subfolder, type })}`;
}

function showPicture(image) {
  shown = image.filename;
  at("picture").src = address(image);
  at("picture").alt = `Picture ${image.filename}`;
  at("picture").hidden = false;
  at("empty").hidden = true;
  at("caption").textContent = image.filename;
  for (const button of document.querySelectorAll("#history button")) {
    button.setAttribute("aria-pressed", String(button.dataset.name === shown));
  }
}

async function showHistory() {
  const answer = await fetch("/api/jobs?limit=24");
  if (!answer.ok) return;
  const { jobs } = await answer.json();
  const images = jobs.filter((job) => job.status === "completed").map((job) => job.preview_output).filter(Boolean);
  if (images.length === 0) return;
  at("history").replaceChildren(...images.map((image) => {
    const [item, button, picture] = ["li", "button", "img"].map((name) => document.createElement(name));
    button.type = "button";
    button.dataset.name = image.filename;
    picture.src = address(image);
    picture.alt = `Show ${image.filename}`;
    button.append(picture);
    button.addEventListener("click", () => showPicture(image));
    item.append(button);
    return item;
  }));
  showPicture(images.find((image) => image.filename === shown) ?? images[0]);
}

const heard = {
  status: ({ status }) => setRemaining(status.exec_info.queue_remaining),
  execution_start: () => say("Running."),
  executing: ({ node }) => mark(node === null ? null : `n${node}`),
  progress: ({ value, max }) => { at("progress").value = (100 * value) / max; },
  executed: ({ output }) => { if (output.images?.length) showPicture(output.images[0]); },
  execution_success: () => { say("Done."); at("progress").value = 0; attempt(showHistory); },
  execution_interrupted: () => { say("Cancelled."); at("progress").value = 0; mark(null); },
};

function listen() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const socket = new WebSocket(`${scheme}://${location.host}/ws?clientId=${client}`);
  socket.addEventListener("open", () => { wait = 500; say(""); attempt(showHistory); });
  socket.addEventListener("message", (event) => {
    if (typeof event.data !== "string") return;
    const { type, data } = JSON.parse(event.data);
    heard[type]?.(data);
  });
  socket.addEventListener("close", () => {
    mark(null);
    say("Connection lost. Trying again.", true);
    setTimeout(listen, wait);
    wait = Math.min(2 * wait, LAST_WAIT);
  });
}

start();
listen();
at("run").addEventListener("click", () => attempt(queue));
at("cancel").addEventListener("click", () => attempt(async () => {
  await post("/api/queue", { clear: true });
  await post("/api/interrupt");
}));
at("idle").addEventListener("click", () => attempt(async () => {
  if (at("queue").classList.contains("busy")) {
    say("It is not idle while a prompt runs or waits.");
    return;
  }
  await post("/demo/idle");
  say("This machine now believes that it is idle: it stops in about 20 seconds unless somebody uses it.");
}));
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    attempt(queue);
  }
});
tellParent("ready", {});
