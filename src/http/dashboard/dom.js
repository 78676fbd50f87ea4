// Writes to the page. Text of the gateway and of callers is inserted as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** An element with properties, `data-` and other attributes, and children; a string becomes a text node. */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name in element && !name.includes("-")) element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Text of the gateway or a caller, isolated from the writing direction around it. */
export const foreign = (text) => el("bdi", { className: "foreign" }, String(text));

/** Changes the text only if it differs, so that screen readers do not repeat it. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function mark(element, name, value) {
  if (element.dataset[name] !== String(value)) element.dataset[name] = value;
}

/** Announces a text to screen readers. */
export function announce(text) {
  say(byId("announcement"), text);
}

/** Updates the children of `parent` to match `items`. Keeps elements by key, so that focus and screen readers stay put. */
export function keep(parent, items, keyOf, make, update) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let next = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    let child = old.get(key);
    if (child) old.delete(key);
    else {
      child = make(item);
      child.dataset.key = key;
    }
    if (child === next) next = next.nextElementSibling;
    else parent.insertBefore(child, next);
    update(child, item);
  }
  for (const child of old.values()) child.remove();
}

/** An SVG for a chart of values over time. */
export function trend(className) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", className);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  return svg;
}

export function shape(svg, tag, attributes) {
  const part = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) part.setAttribute(name, value);
  svg.append(part);
  return part;
}

const clock = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const day = new Intl.DateTimeFormat([], { day: "numeric", month: "short" });

/** A local time, with the day unless it is today. */
export function time(at) {
  const date = new Date(at);
  if (Number.isNaN(date.valueOf())) return "–";
  const today = date.toDateString() === new Date().toDateString();
  return today ? clock.format(date) : `${day.format(date)}, ${clock.format(date)}`;
}

const whole = new Intl.DateTimeFormat([], { year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });

/** The name of the time zone in which times are shown. */
export const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;

/** A local date and time, whole, to be compared with others. */
export function dateTime(at) {
  const date = new Date(at);
  return Number.isNaN(date.valueOf()) ? "–" : whole.format(date);
}

/** The instant that a text names; none where it has no zone, so that nobody knows which it is. */
export function instant(text) {
  if (!/^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}.*(Z|[+-]\d{2}:?\d{2})$/.test(text ?? "")) return null;
  const date = new Date(text);
  return Number.isNaN(date.valueOf()) ? null : date;
}

/** A length of time; a number stays on the line of its unit. */
export function duration(seconds) {
  if (seconds < 60) return `${Math.round(seconds)}\u00a0s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}\u00a0min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)}\u00a0h ${Math.floor((seconds % 3600) / 60)}\u00a0min`;
  return `${Math.floor(seconds / 86400)}\u00a0d ${Math.floor((seconds % 86400) / 3600)}\u00a0h`;
}

export function bytes(count) {
  if (count < 1024) return `${count}\u00a0bytes`;
  if (count < 1024 * 1024) return `${(count / 1024).toFixed(1)}\u00a0KiB`;
  return `${(count / 1024 / 1024).toFixed(1)}\u00a0MiB`;
}

export const count = (number, one, many = `${one}s`) => `${number} ${number === 1 ? one : many}`;
