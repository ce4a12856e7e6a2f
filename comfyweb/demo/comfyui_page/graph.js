// The graph: wires between nodes, and moving, zooming and dragging by mouse, touch and keyboard.

const canvas = document.getElementById("canvas");
const world = document.getElementById("world");
const wires = document.getElementById("wires");
const narrow = matchMedia("(max-width: 700px)");
const LINKS = [
  ["n4", "MODEL", "n3", 0], ["n4", "CLIP", "n6", 0], ["n4", "CLIP", "n7", 0], ["n4", "VAE", "n8", 1],
  ["n6", "CONDITIONING", "n3", 1], ["n7", "CONDITIONING", "n3", 2], ["n5", "LATENT", "n3", 3],
  ["n3", "LATENT", "n8", 0], ["n8", "IMAGE", "n9", 0],
];
const COLUMN = ["n6", "n9", "n3"]; // what a phone shows first
const STEP = 60;
const view = { x: 0, y: 0, scale: 1 };
const pointers = new Map();
let dragged = null;

const paths = LINKS.map(([from, type, to]) => {
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.dataset.type = type;
  path.dataset.from = from;
  path.dataset.to = to;
  path.style.stroke = "var(--wire)";
  wires.append(path);
  return path;
});

function port(element, right) {
  const node = element.parentElement;
  return [node.offsetLeft + (right ? node.offsetWidth : 0), node.offsetTop + element.offsetTop + 11];
}

function drawWires() {
  LINKS.forEach(([from, type, to, index], at) => {
    const start = document.querySelector(`#${from} .out[data-type="${type}"]`);
    const end = document.querySelectorAll(`#${to} .in`)[index];
    const [x1, y1] = port(start, true);
    const [x2, y2] = port(end, false);
    const bend = Math.max(40, Math.min(160, Math.hypot(x2 - x1, y2 - y1) / 2));
    paths[at].setAttribute("d", `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`);
  });
}

function show() {
  world.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.scale})`;
  canvas.style.backgroundPosition = `${view.x}px ${view.y}px`;
  canvas.style.backgroundSize = `${24 * view.scale}px ${24 * view.scale}px`;
}

function box(ids) {
  const nodes = ids.map((id) => document.getElementById(id));
  const left = Math.min(...nodes.map((n) => n.offsetLeft));
  const top = Math.min(...nodes.map((n) => n.offsetTop));
  const right = Math.max(...nodes.map((n) => n.offsetLeft + n.offsetWidth));
  const bottom = Math.max(...nodes.map((n) => n.offsetTop + n.offsetHeight));
  return { left, top, width: right - left, height: bottom - top };
}

function fit(ids, { most = 1.2, fromTop = false } = {}) {
  const { left, top, width, height } = box(ids);
  const room = 24;
  const across = (canvas.clientWidth - 2 * room) / width;
  const down = fromTop ? most : (canvas.clientHeight - 2 * room) / height;
  view.scale = Math.min(most, across, down);
  view.x = (canvas.clientWidth - width * view.scale) / 2 - left * view.scale;
  view.y = fromTop ? 14 - top * view.scale : (canvas.clientHeight - height * view.scale) / 2 - top * view.scale;
  show();
}

function allNodes() {
  return [...document.querySelectorAll(".node")].map((node) => node.id);
}

function home() {
  if (narrow.matches) fit(COLUMN, { most: 1.05, fromTop: true });
  else fit(allNodes());
}

function zoom(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
  const scale = Math.min(3, Math.max(0.2, view.scale * factor));
  view.x = x - ((x - view.x) * scale) / view.scale;
  view.y = y - ((y - view.y) * scale) / view.scale;
  view.scale = scale;
  show();
}

function spread() {
  const [a, b] = [...pointers.values()];
  const { left, top } = canvas.getBoundingClientRect();
  return { size: Math.hypot(a.x - b.x, a.y - b.y), x: (a.x + b.x) / 2 - left, y: (a.y + b.y) / 2 - top };
}

function down(event) {
  if (event.target.closest("textarea, input, button, label, img")) return;
  dragged = event.target.tagName === "H2" && pointers.size === 0 ? event.target.parentElement : null;
  pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  canvas.setPointerCapture(event.pointerId);
  canvas.classList.add("dragged");
}

function move(event) {
  const before = pointers.get(event.pointerId);
  if (!before) return;
  const old = pointers.size === 2 ? spread() : null;
  pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  const [dx, dy] = [event.clientX - before.x, event.clientY - before.y];
  if (old) {
    const now = spread();
    view.x += now.x - old.x;
    view.y += now.y - old.y;
    zoom(now.size / Math.max(1, old.size), now.x, now.y);
  } else if (dragged) {
    dragged.style.left = `${dragged.offsetLeft + dx / view.scale}px`;
    dragged.style.top = `${dragged.offsetTop + dy / view.scale}px`;
    drawWires();
  } else {
    view.x += dx;
    view.y += dy;
    show();
  }
}

function up(event) {
  pointers.delete(event.pointerId);
  if (pointers.size === 0) {
    dragged = null;
    canvas.classList.remove("dragged");
  }
}

function key(event) {
  if (event.target !== canvas || event.ctrlKey || event.metaKey || event.altKey) return;
  const moves = { ArrowLeft: [STEP, 0], ArrowRight: [-STEP, 0], ArrowUp: [0, STEP], ArrowDown: [0, -STEP] };
  if (event.key in moves) {
    view.x += moves[event.key][0];
    view.y += moves[event.key][1];
    show();
  } else if (event.key === "+" || event.key === "=") zoom(1.2);
  else if (event.key === "-") zoom(1 / 1.2);
  else if (event.key === "0") fit(allNodes());
  else return;
  event.preventDefault();
}

/** Bring a node that got the focus into view: the browser would scroll the canvas, which has nothing to scroll. */
function reveal(event) {
  canvas.scrollTo(0, 0);
  if (event.target === canvas || !event.target.matches(":focus-visible")) return;
  const seen = canvas.getBoundingClientRect();
  const at = event.target.getBoundingClientRect();
  if (at.left < seen.left || at.right > seen.right) view.x += seen.left + seen.width / 2 - (at.left + at.width / 2);
  if (at.top < seen.top || at.bottom > seen.bottom) view.y += seen.top + seen.height / 2 - (at.top + at.height / 2);
  show();
}

/** Mark the node that runs, and the wires into it; none for null. */
export function mark(id) {
  for (const node of document.querySelectorAll(".node")) node.classList.toggle("runs", node.id === id);
  for (const path of paths) path.classList.toggle("flows", id !== null && path.dataset.to === id);
}

export function start() {
  canvas.addEventListener("pointerdown", down);
  canvas.addEventListener("pointermove", move);
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
  canvas.addEventListener("keydown", key);
  canvas.addEventListener("focusin", reveal);
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const { left, top } = canvas.getBoundingClientRect();
    zoom(Math.exp(-event.deltaY / 500), event.clientX - left, event.clientY - top);
  }, { passive: false });
  document.getElementById("closer").addEventListener("click", () => zoom(1.2));
  document.getElementById("farther").addEventListener("click", () => zoom(1 / 1.2));
  document.getElementById("all").addEventListener("click", () => fit(allNodes()));
  new ResizeObserver(() => { drawWires(); home(); }).observe(canvas);
}
