// As ComfyUI's scripts/app.js: the page itself. It loads the scripts of nodes, keeps a websocket, and queues jobs.

import { api } from "./api.js";

// Where a browser keeps other sites from their storage, ComfyUI's page ends here, and so does this one.
const client = (sessionStorage.clientId ??= crypto.randomUUID?.() ?? String(Math.random()));
const connection = document.getElementById("connection");
const extensions = [];
export const app = { registerExtension: (extension) => extensions.push(extension) };

function connect() {
  const socket = new WebSocket(`${location.origin.replace("http", "ws")}/ws?clientId=${client}`);
  socket.onopen = () => (connection.textContent = "connected");
  socket.onclose = () => {
    connection.textContent = "reconnecting";
    setTimeout(connect, 300);
  };
}

async function list() {
  const { jobs } = await (await api.fetchApi("/jobs")).json();
  const done = jobs.filter((job) => job.status === "completed").reverse();
  document.getElementById("done").replaceChildren(
    ...done.map((_, at) => Object.assign(document.createElement("li"), { textContent: `picture ${at + 1}` })),
  );
}

document.getElementById("run").addEventListener("click", async () => {
  const inputs = { seconds: Number(document.getElementById("seconds").value) };
  const body = JSON.stringify({ prompt: { 1: { class_type: "Wait", inputs } } });
  const answer = await api.fetchApi("/prompt", { method: "POST", body, headers: { "Content-Type": "application/json" } });
  if (!answer.ok) connection.textContent = (await answer.json()).error?.message ?? `refused (${answer.status})`;
});

connect();
setInterval(() => list().catch(() => undefined), 500);
for (const path of await (await api.fetchApi("/extensions")).json()) await import(path);
for (const extension of extensions) await extension.setup?.(app);
