// Elements whose text follows the time: reckoned here from timestamps, so that no second costs a message.
// A browser's clock may be wrong; <cw-clock now="seconds"> says what the server's says.

const Base = globalThis.HTMLElement ?? class {}; // the page is also rendered once where there is no browser
let offset = 0;
let timer;
const shown = new Set();

export const now = () => Date.now() + offset;

const tick = () => {
  for (const element of shown) element.render();
  timer = setTimeout(tick, 1000 - (now() % 1000));
};

/** An element that is rendered at once and with every second. */
export class Ticking extends Base {
  connectedCallback() {
    shown.add(this);
    this.render();
    timer ??= setTimeout(tick, 1000 - (now() % 1000));
  }
  disconnectedCallback() {
    shown.delete(this);
    if (shown.size) return;
    clearTimeout(timer);
    timer = undefined;
  }
  attributeChangedCallback() {
    if (this.isConnected) this.render();
  }
  /** The time an attribute names, in milliseconds; NaN when it is missing or no time. */
  time(name) {
    return Date.parse(this.getAttribute(name) ?? "");
  }
  /** The number an attribute holds; NaN when it is missing or none. */
  number(name) {
    return Number.parseFloat(this.getAttribute(name) ?? "");
  }
  show(text) {
    if (this.textContent !== text) this.textContent = text;
  }
}

/** 754 -> "12:34", 3754 -> "1:02:34" */
export const duration = (seconds) => {
  const whole = Math.max(0, Math.floor(seconds));
  const minutes = Math.floor(whole / 60) % 60;
  const hours = Math.floor(whole / 3600);
  const pad = (n) => String(n).padStart(2, "0");
  return hours ? `${hours}:${pad(minutes)}:${pad(whole % 60)}` : `${minutes}:${pad(whole % 60)}`;
};

class Clock extends Base {
  static observedAttributes = ["now"];
  attributeChangedCallback() {
    const server = Number.parseFloat(this.getAttribute("now") ?? "");
    if (server > 0) offset = server * 1000 - Date.now();
  }
}

class Elapsed extends Ticking {
  static observedAttributes = ["since"];
  render() {
    const since = this.time("since");
    this.show(Number.isNaN(since) ? "" : duration((now() - since) / 1000));
  }
}

/** Until the earlier of two times. */
class Left extends Ticking {
  static observedAttributes = ["until", "cap"];
  render() {
    const ends = Math.min(...["until", "cap"].map((name) => this.time(name)).filter((at) => !Number.isNaN(at)));
    this.show(Number.isFinite(ends) ? duration((ends - now() + 999) / 1000) : "");
  }
}

class Money extends Ticking {
  static observedAttributes = ["amount", "since", "rate", "currency"];
  worth() {
    return this.number("amount");
  }
  render() {
    const amount = this.worth();
    const currency = this.getAttribute("currency") || "USD";
    this.show(Number.isNaN(amount) ? "" : new Intl.NumberFormat("en-US", { style: "currency", currency }).format(amount));
  }
}

class Cost extends Money {
  worth() {
    return this.number("rate") * Math.max(0, (now() - this.time("since")) / 3600e3);
  }
}

/** A moment that has passed, in the reader's own time zone. */
class When extends Ticking {
  static observedAttributes = ["at"];
  render() {
    const at = this.time("at");
    if (Number.isNaN(at)) return this.show("");
    const today = new Date(now()).toDateString() === new Date(at).toDateString();
    const day = today ? {} : { weekday: "short", day: "numeric", month: "short" };
    this.show(new Date(at).toLocaleString([], { ...day, hour: "2-digit", minute: "2-digit" }));
  }
}

/** Due (its contents shown) from `ahead` seconds before the earlier of `until` and `cap`. */
class Due extends Ticking {
  static observedAttributes = ["until", "cap", "ahead"];
  render() {
    const ends = Math.min(...["until", "cap"].map((name) => this.time(name)).filter((at) => !Number.isNaN(at)));
    const left = (ends - now()) / 1000;
    this.toggleAttribute("data-due", left <= this.number("ahead") && left > -60);
  }
}

/** Which comes first, the idle stop (`until`) or the run's own end (`cap`), and whether an extension can win a minute. */
class Ends extends Ticking {
  static observedAttributes = ["until", "cap"];
  render() {
    const [until, cap] = ["until", "cap"].map((name) => this.time(name));
    const limit = !Number.isNaN(cap) && !(until <= cap);
    this.setAttribute("data-first", limit ? "limit" : "idle");
    this.toggleAttribute("data-room", !(cap - until < 60e3));
  }
}

/** A band that somebody put away comes back when it is about something else. */
class Band extends Base {
  static observedAttributes = ["code"];
  attributeChangedCallback(_, before, code) {
    if (before !== code) this.hidden = false;
  }
}

/** How far a start is. By the usual time where one is known, by its steps otherwise; never "done" before it is. */
class Progress extends Ticking {
  /** The part of its steps that is done. */
  done() {
    const steps = JSON.parse(this.getAttribute("steps") || "[]") ?? [];
    return steps.length ? steps.filter(({ state }) => state === "done").length / steps.length : 0;
  }
  static observedAttributes = ["began", "expected", "steps"];
  render() {
    const began = this.time("began");
    const elapsed = Number.isNaN(began) ? 0 : Math.max(0, (now() - began) / 1000);
    const expected = this.number("expected");
    const known = expected > 0;
    const percent = Math.min(99, Math.floor(100 * (known ? elapsed / expected : this.done())));
    if (!this.firstChild) {
      this.innerHTML = '<b class="percent"></b><i class="track"><i></i></i><span class="estimate"></span>';
      this.setAttribute("role", "progressbar");
      this.setAttribute("aria-label", "Start");
    }
    const [figure, track, words] = this.children;
    const late = known && elapsed > expected * 1.05;
    figure.textContent = `${percent} %`;
    track.firstChild.style.transform = `scaleX(${percent / 100})`;
    this.setAttribute("aria-valuenow", String(percent - (percent % 10)));
    const usual = known ? `usually ${duration(expected)}` : "no estimate yet: it learns from each start";
    words.textContent = `${duration(elapsed)} · ${late ? `longer than usual (${duration(expected)})` : usual}`;
  }
}

export const define = (elements) => {
  if (!globalThis.customElements) return;
  for (const [name, element] of Object.entries(elements)) {
    if (!customElements.get(name)) customElements.define(name, element);
  }
};

define({
  "cw-clock": Clock,
  "cw-elapsed": Elapsed,
  "cw-left": Left,
  "cw-money": Money,
  "cw-cost": Cost,
  "cw-when": When,
  "cw-due": Due,
  "cw-ends": Ends,
  "cw-band": Band,
  "cw-progress": Progress,
});
