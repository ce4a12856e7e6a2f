// Shows the state of the emulated cloud every second, and posts what the buttons say.
"use strict";

const byId = (id) => document.getElementById(id);
const SILENT = "The emulator doesn't answer.";
let shown = "";

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function machine(found) {
  const row = element("div", "", { class: "machine" });
  row.append(
    element("span", found.status, { class: "state", "data-state": found.status }),
    element("strong", found.name),
    element("span", found.zone),
    element("span", found.external_ip || "no address"),
  );
  if (found.terminates_at) row.append(element("span", `stops at the latest ${time(found.terminates_at)}`));
  return row;
}

function fault(found) {
  const often = found.until ? `until ${time(found.until)}` : found.times ? `${found.times} more` : "until cleared";
  return element("li", `${found.kind} at ${found.verb === "*" ? "every call" : found.verb}: ${often}`);
}

function operation(found) {
  const row = document.createElement("tr");
  const failed = found.error?.errors[0].code;
  row.append(
    element("td", time(found.insertTime)),
    element("td", found.operationType),
    failed ? element("td", failed, { class: "failed" }) : element("td", found.status),
    element("td", found.user),
  );
  return row;
}

const time = (said) => new Date(said).toLocaleTimeString();

function show(state) {
  const { now, ...rest } = state;
  const seen = JSON.stringify(rest);
  if (seen === shown) return;
  shown = seen;
  byId("machines").replaceChildren(...state.machines.map(machine));
  byId("faults").replaceChildren(...state.faults.map(fault));
  byId("operations").replaceChildren(...state.operations.map(operation));
}

async function call(method, path, body) {
  try {
    const headers = { "Content-Type": "application/json" };
    const answer = await fetch(`/control${path}`, { method, body, headers: body ? headers : {} });
    const said = await answer.json();
    if (answer.ok) show(said);
    if (!answer.ok) byId("said").textContent = said.error.message;
    else if (method !== "GET" || byId("said").textContent === SILENT) byId("said").textContent = "";
  } catch {
    byId("said").textContent = SILENT;
  }
}

document.addEventListener("click", (event) => {
  const { post, delete: gone, body } = event.target.dataset;
  if (post) call("POST", `/${post}`, body || "{}");
  if (gone) call("DELETE", `/${gone}`);
});

async function watch() {
  if (!document.hidden) await call("GET", "");
  setTimeout(watch, 1000);
}
watch();
