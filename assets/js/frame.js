// <comfy-frame run origin embed site why phase>: ComfyUI inside the page. It is opened with a one-use ticket and, for one run at
// one address, never again: a status change must not cost anybody an unsaved workflow. While nobody knows how the machine
// is (comfyweb has just been restarted, say) the frame is kept, hidden.

import { define } from "./clock.js";

const Base = globalThis.HTMLElement ?? class {};
const RENEW_MS = 20 * 60e3;
const WATCH_MS = 30e3;
const KEEP_ALIVE_MS = 30e3;
const SHORTEST_WAIT_MS = 1e3;
const LONGEST_WAIT_MS = 30e3;
const LONGEST_LOAD_MS = 20e3;
// ComfyUI's page is large, and on a slow line takes its time. To begin again would only make it longer.
const LONGEST_SLOW_LOAD_MS = 180e3;
const LONGEST_GREETING_MS = 3e3;
const AFTERWARDS = "afterwards";
// Where a ComfyUI has greeted this browser before: when it doesn't there, it has not come up.
const GREETED_AT = "comfyui-greeted-at";
const USABLE = ["ready", "draining"];
const UNKNOWN = ["fault"];
// All that ComfyUI needs, but not the page around it: a node's script could put a false login in its place.
const SANDBOX =
  "allow-scripts allow-same-origin allow-forms allow-popups allow-popups-to-escape-sandbox allow-downloads allow-modals allow-pointer-lock";
const ALLOW = "clipboard-read; clipboard-write; fullscreen; autoplay; microphone; camera";

/** Ask our own REST API. Rejects with words for a person; `status` is 0 when nothing answered. */
const ask = async (path) => {
  let response;
  try {
    response = await fetch(path, {
      method: "POST",
      headers: { Authorization: `Bearer ${localStorage.getItem("auth-token") ?? ""}` },
      credentials: "omit",
      signal: AbortSignal.timeout(15e3),
    });
  } catch {
    throw Object.assign(new Error("comfyweb cannot be reached."), { status: 0 });
  }
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  throw Object.assign(new Error(answer.error ?? answer.detail ?? `comfyweb answered ${response.status}.`), {
    status: response.status,
  });
};

/** A fresh one-use address of ComfyUI's gate. */
const ticket = async () => {
  const url = new URL((await ask("/api/comfyui/ticket")).url);
  if (!["https:", "http:"].includes(url.protocol)) throw new Error("comfyweb gave an address that is none.");
  return url.href;
};

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** Whether this browser reaches ComfyUI's gate: of a frame that shows the browser's error page nothing can be seen. */
const reaches = async (origin) => {
  try {
    const signal = AbortSignal.timeout(15e3);
    await fetch(new URL("/_host/health", origin), { mode: "no-cors", credentials: "omit", cache: "no-store", signal });
    return true;
  } catch {
    return false;
  }
};

/** Open ComfyUI in a tab of its own. The tab is opened within the click, or browsers would block it. */
export const openTab = async (say) => {
  const tab = window.open("about:blank", "_blank");
  if (!tab) return say("The browser did not allow a new tab.");
  tab.opener = null;
  try {
    tab.location.replace(await ticket());
  } catch (error) {
    tab.close();
    say(error.message);
  }
};

class ComfyFrame extends Base {
  static observedAttributes = ["run", "origin", "embed", "phase"];
  #life;
  #shows = "";
  #settling = false;
  #renewed = 0;
  #kept = 0;
  #greeted = () => {};

  connectedCallback() {
    this.#settle();
  }
  disconnectedCallback() {
    this.#close();
  }
  attributeChangedCallback() {
    // Attributes come one by one: look once, when all of them are there.
    if (this.#settling) return;
    this.#settling = true;
    queueMicrotask(() => {
      this.#settling = false;
      if (this.isConnected) this.#settle();
    });
  }

  #settle() {
    const phase = this.getAttribute("phase");
    if (UNKNOWN.includes(phase)) return;
    const [run, origin, embed] = ["run", "origin", "embed"].map((name) => this.getAttribute(name));
    const wanted = USABLE.includes(phase) && run && origin ? [run, origin, embed].join(" ") : "";
    if (wanted === this.#shows) return;
    this.#close();
    this.#shows = wanted;
    if (wanted) this.#open();
  }

  #close() {
    this.#life?.abort();
    this.#life = undefined;
    this.#shows = "";
    this.#renewed = 0;
    this.replaceChildren();
  }

  #open() {
    const life = (this.#life = new AbortController());
    const { signal } = life;
    for (const kind of ["pointerdown", "keydown"]) {
      document.addEventListener(kind, (event) => event.isTrusted && this.#keepAlive(), { signal, passive: true });
    }
    if (this.getAttribute("embed") === "no") return this.#apart();
    this.#words("Opening ComfyUI…");
    this.#load(signal);
    const watch = setInterval(() => this.#renewIfOld(), WATCH_MS);
    signal.addEventListener("abort", () => clearInterval(watch));
    // Timers of a sleeping laptop and of a hidden tab stand still: look again as soon as somebody does.
    document.addEventListener("visibilitychange", () => document.hidden || this.#renewIfOld(), { signal });
    window.addEventListener("online", () => this.#renewIfOld(), { signal });
    window.addEventListener("message", (event) => this.#heard(event), { signal });
  }

  /** Words over the frame's place, with what can be done about them: `[label, run]` each. */
  #words(text, ...actions) {
    const cover = document.createElement("div");
    cover.className = "cover";
    const line = document.createElement("p");
    line.textContent = text;
    cover.append(line);
    for (const [index, [label, run]] of actions.entries()) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = index ? "button quiet" : "button accent";
      button.textContent = label;
      button.addEventListener("click", run);
      cover.append(button);
    }
    this.#uncover();
    this.append(cover);
    return cover;
  }

  #uncover() {
    this.querySelector(".cover")?.remove();
  }

  #apart() {
    const why = this.getAttribute("why") || "Your browser would not show ComfyUI inside this page.";
    this.#words(why, ["Open ComfyUI in its own tab", () => this.#openTab()]);
  }

  #openTab() {
    openTab((words) => {
      const line = this.querySelector(".cover p");
      if (line) line.textContent = words;
    });
  }

  /** Until ComfyUI is there: each attempt with a ticket of its own, less and less often, or when somebody asks. */
  async #load(signal) {
    for (let failures = 0; !signal.aborted; failures += 1) {
      const wait = Math.min(LONGEST_WAIT_MS, SHORTEST_WAIT_MS * 2 ** failures);
      try {
        const [url, reachable] = await Promise.all([ticket(), reaches(this.getAttribute("origin"))]);
        if (signal.aborted) return;
        this.#renewed = Date.now();
        if (await this.#shown(url, reachable, wait, signal)) return;
      } catch (error) {
        if (signal.aborted) return;
        this.#words(`ComfyUI could not be opened. ${error.message}`);
        if (error.status === 401 || error.status === 403) return;
        await sleep(wait);
      }
    }
  }

  /** Show the frame. False when it was in vain, once it is time for another attempt. */
  async #shown(url, reachable, wait, signal) {
    this.querySelector("iframe")?.remove();
    const iframe = this.#iframe(url);
    const greeted = new Promise((done) => (this.#greeted = () => done(true)));
    const loaded = new Promise((done) => iframe.addEventListener("load", done, { once: true }));
    // A ComfyUI without our extension greets nobody: then that it can be reached has to do, before and after.
    const reached = loaded.then(async () => (await reaches(this.getAttribute("origin"))) && (reachable || AFTERWARDS));
    this.append(iframe);
    let there = await Promise.race([greeted, reached, sleep(LONGEST_LOAD_MS).then(() => false)]);
    if (!there && !signal.aborted && (await reaches(this.getAttribute("origin"))) && !signal.aborted) {
      this.#words("ComfyUI is reached, and still loads. The first time takes longer.", [
        "Open in a tab",
        () => this.#openTab(),
      ]);
      there = await Promise.race([greeted, reached, sleep(LONGEST_SLOW_LOAD_MS).then(() => false)]);
    }
    if (there === AFTERWARDS) {
      // It was the browser's error page that loaded, unless ComfyUI came into reach in between: then it greets.
      there = await Promise.race([greeted, sleep(LONGEST_GREETING_MS).then(() => false)]);
      if (!there) return false;
    }
    if (!there && !signal.aborted) {
      let again;
      const asked = new Promise((done) => (again = done));
      this.#words(
        "ComfyUI cannot be reached from this browser just now.",
        [
          "Try again",
          () => {
            this.#words("Opening ComfyUI…");
            again(false);
          },
        ],
        ["Open in a tab", () => this.#openTab()],
      );
      const pause = sleep(SHORTEST_WAIT_MS).then(() => Promise.race([asked, sleep(wait - SHORTEST_WAIT_MS)]));
      const late = reached.then((yes) => yes === true || new Promise(() => {}));
      there = await Promise.race([greeted, late, pause]);
    }
    if (there && !signal.aborted) {
      this.#uncover();
      this.#doubt(greeted, signal);
      if (document.activeElement === document.body) iframe.focus();
    }
    return there;
  }

  /**
   * Tell of a ComfyUI that loads and doesn't come up: in a browser that keeps the storage of other sites from it, or when
   * the network changed while it loaded.
   */
  async #doubt(greeted, signal) {
    const ofAnotherSite = this.getAttribute("site") === "cross";
    if (!ofAnotherSite && localStorage.getItem(GREETED_AT) !== this.getAttribute("origin")) return;
    const up = greeted.then(() => true);
    if ((await Promise.race([up, sleep(LONGEST_LOAD_MS)])) || signal.aborted) return;
    const again = ["Try again", () => this.#again()];
    const show = ["Show it all the same", () => this.#believe()];
    if (ofAnotherSite) {
      this.#words(
        "ComfyUI has not come up inside this page. Its name belongs to another site than this page's, and this browser " +
          "seems to block the storage of other sites. In a tab of its own it works.",
        ["Open ComfyUI in its own tab", () => this.#openTab()],
        again,
        show,
      );
    } else this.#words("ComfyUI has not come up yet, though it can be reached.", again, show);
    if ((await up) && !signal.aborted) this.#uncover();
  }

  #again() {
    this.#close();
    this.#settle();
  }

  /** Somebody sees that it works: it greets nobody any more. */
  #believe() {
    localStorage.removeItem(GREETED_AT);
    this.#uncover();
  }

  #iframe(url) {
    const iframe = document.createElement("iframe");
    iframe.title = "ComfyUI";
    iframe.allow = ALLOW;
    iframe.sandbox = SANDBOX;
    iframe.referrerPolicy = "no-referrer";
    iframe.src = url;
    return iframe;
  }

  #renewIfOld() {
    if (this.#renewed && Date.now() - this.#renewed >= RENEW_MS) this.#renew();
  }

  /** A new cookie beside the open frame. A failure is tried again at the next look. */
  async #renew() {
    const before = this.#renewed;
    this.#renewed = Date.now();
    try {
      await fetch(await ticket(), { mode: "no-cors", credentials: "include", cache: "no-store" });
    } catch {
      this.#renewed = before;
    }
  }

  #keepAlive() {
    if (this.getAttribute("phase") !== "ready" || Date.now() - this.#kept < KEEP_ALIVE_MS) return;
    this.#kept = Date.now();
    ask("/api/instance/keep-alive").catch(() => {}); // the next input asks again; the bar shows what is true
  }

  #heard(event) {
    const iframe = this.querySelector("iframe");
    if (!iframe || event.source !== iframe.contentWindow) return;
    if (event.origin !== new URL(this.getAttribute("origin")).origin || event.data?.source !== "comfyweb") return;
    if (event.data.kind === "ready") {
      localStorage.setItem(GREETED_AT, event.origin);
      this.#greeted();
    }
    if (event.data.kind === "input") {
      this.#keepAlive();
      for (const open of document.querySelectorAll(":popover-open")) open.hidePopover();
    }
  }
}

define({ "comfy-frame": ComfyFrame });
