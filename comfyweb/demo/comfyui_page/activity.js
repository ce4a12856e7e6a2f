// Tells the host that a person is here, and the page around this frame too. Real input only: what a script sends is
// not trusted, and an open page that nobody touches says nothing. The ComfyUI extension on real machines does the same.

const EVERY = 30000;
const parentOrigin = document.querySelector('meta[name="comfyweb-app-origin"]')?.content ?? "";
let last = -EVERY;

/** Send a message to the app's page, and to no other page that may have framed this one. */
export function tellParent(kind, more) {
  if (window.parent === window || parentOrigin === "") return;
  window.parent.postMessage({ source: "comfyweb", kind, ...more }, parentOrigin);
}

function seen(event) {
  if (!event.isTrusted || event.timeStamp - last < EVERY) return;
  if (event.type === "pointermove" && !document.hasFocus()) return;
  if (event.target instanceof Element && event.target.closest("[data-no-activity]")) return;
  last = event.timeStamp;
  tellParent("input", { type: event.type });
  fetch("/_host/activity", { method: "POST", keepalive: true }).catch(() => undefined);
}

for (const type of ["pointerdown", "pointermove", "keydown", "wheel", "touchstart"]) {
  window.addEventListener(type, seen, { capture: true, passive: true });
}
