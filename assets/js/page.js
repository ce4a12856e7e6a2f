// What the machine's page does in the browser by itself; loaded with that page only.

import "./clock.js";
import { openTab } from "./frame.js";

// React makes an element of whatever these name.
export const Clock = "cw-clock";
export const Elapsed = "cw-elapsed";
export const Left = "cw-left";
export const Cost = "cw-cost";
export const Money = "cw-money";
export const When = "cw-when";
export const Due = "cw-due";
export const Ends = "cw-ends";
export const Band = "cw-band";
export const Progress = "cw-progress";
export const Frame = "comfy-frame";

const say = (words) => {
  const line = document.getElementById("said-here");
  if (line) line.textContent = words;
};

// Buttons say in the markup what they open and close, so that dialogs need no state and no round trip.
const clicked = ({ target }) => {
  const button = target.closest?.("[data-opens], [data-closes], [data-opens-tab], [data-dismisses]");
  if (!button) return;
  const inside = button.closest("dialog, [popover]");
  if (inside?.matches("[popover]")) inside.hidePopover();
  else if (button.dataset.closes !== undefined) inside?.close();
  if (button.dataset.opens) document.getElementById(button.dataset.opens)?.showModal();
  if (button.dataset.dismisses !== undefined) button.closest("cw-band").hidden = true;
  if (button.dataset.opensTab !== undefined) openTab(say);
};

if (globalThis.document) {
  document.addEventListener("click", clicked);
  // Another tab of this browser logged out, or logged in while this one is out. Nothing else is worth losing ComfyUI for.
  window.addEventListener("storage", ({ key, newValue }) => {
    if (key !== "auth-token") return;
    if (!newValue || document.querySelector('.page[data-phase="logged-out"]')) location.reload();
  });
}
