// Tells the host that a person is here, and the page around this one what ComfyUI does. Real input only: what a script
// sends is not trusted, moving the pointer proves nothing, and a page that nobody touches says nothing.

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const EVERY = 30000;
const EXECUTION = ["execution_start", "execution_success", "execution_error", "execution_interrupted"];
const CONNECTION = ["reconnecting", "reconnected"];
let origin = "";
let last = -EVERY;

/** Send a message to the app's page, and to no other page that may have framed this one. */
function tell(kind, more) {
  if (window.parent === window || origin === "") return;
  window.parent.postMessage({ source: "comfyweb", kind, ...more }, origin);
}

/** Learn which page that is. While the host doesn't know, nobody is told. */
async function learn() {
  try {
    const answer = await api.fetchApi("/comfyweb/app-origin", { cache: "no-store" });
    const found = answer.ok ? (await answer.json()).origin : "";
    origin = typeof found === "string" && /^https?:\/\/[^/?#\s]+$/.test(found) ? found : "";
  } catch {
    origin = "";
  }
}

function note(type) {
  tell("input", { type });
  fetch("/_host/activity", { method: "POST", keepalive: true }).catch(() => undefined);
  if (origin === "") learn();
}

function seen(event) {
  if (!event.isTrusted || event.timeStamp - last < EVERY) return;
  last = event.timeStamp;
  note(event.type);
}

for (const type of ["pointerdown", "keydown", "wheel"]) {
  window.addEventListener(type, seen, { capture: true, passive: true });
}

// An upload may take longer than the idle limit. One of which nothing comes any more is ended by nginx.
const fetchApi = api.fetchApi;
api.fetchApi = async function (path, options) {
  if (options?.method !== "POST" || !String(path).startsWith("/upload/")) return fetchApi.call(this, path, options);
  note("upload");
  const noting = setInterval(note, EVERY, "upload");
  try {
    return await fetchApi.call(this, path, options);
  } finally {
    clearInterval(noting);
  }
};

// ComfyUI sends an empty status when its connection breaks.
api.addEventListener("status", (event) => {
  const remaining = event.detail?.exec_info?.queue_remaining;
  if (typeof remaining === "number") tell("queue", { remaining });
});
for (const type of EXECUTION) {
  api.addEventListener(type, (event) => tell(type, { prompt_id: event.detail?.prompt_id }));
}
for (const type of CONNECTION) {
  api.addEventListener(type, () => tell(type));
}

app.registerExtension({
  name: "comfyweb.activity",
  async setup() {
    await learn();
    tell("ready");
  },
});
