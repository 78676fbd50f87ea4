// Starts the API browser: with a fresh Idempotency-Key for each payment, and with bodies as they are sent and came.

const KEY = "Idempotency-Key";
const dark = matchMedia("(prefers-color-scheme: dark)");

/** A new key. Needs no secure context, as a bridge in a local network has none. */
function freshKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** JSON on several lines. It is never parsed into numbers, which would turn 9.50 into 9.5. */
function indented(text) {
  try {
    JSON.parse(text);
  } catch {
    return text;
  }
  let depth = 0;
  let out = "";
  const line = () => `\n${"  ".repeat(depth)}`;
  for (const [token] of text.replace(/([{[])\s+([}\]])/g, "$1$2").matchAll(/"(?:[^"\\]|\\.)*"|\{\}|\[\]|[{}[\]:,]|[^\s{}[\]:,"]+/g)) {
    if (token === "{" || token === "[") {
      depth += 1;
      out += token + line();
    } else if (token === "}" || token === "]") {
      depth -= 1;
      out += line() + token;
    } else if (token === ",") out += token + line();
    else out += token === ":" ? ": " : token;
  }
  return out;
}

/** Shows a body of JSON as text. */
const asText = (Original, system) => (props) => {
  const { React, getComponent } = system;
  if (typeof props.content !== "string" || !/json/i.test(props.contentType ?? "")) return React.createElement(Original, props);
  return React.createElement("div", {}, React.createElement("h5", {}, "Response body"),
    React.createElement(getComponent("HighlightCode", true), { downloadable: true, canCopy: true, fileName: "response.json" }, indented(props.content)));
};

/** The operations with a key, as path and method. */
function withKey(document) {
  const isKey = (parameter) => parameter.name === KEY || parameter.$ref?.endsWith(`/${KEY}`);
  return Object.entries(document.paths).flatMap(([path, item]) => Object.entries(item)
    .filter(([, operation]) => operation.parameters?.some(isKey)).map(([method]) => [path, method]));
}

const fill = (specActions, place) => specActions.changeParam(place, KEY, "header", freshKey(), false);

/** After these answers the same key must be used again: the payment may be booked, or the same request may succeed. */
function isOpen(answer) {
  // The library wraps what is no success in an error.
  const { status } = answer.err?.response ?? answer;
  return !(status >= 200 && status < 500) || status === 409 || status === 429;
}

/** The operations that take a key. */
let places = [];

function bridge() {
  return {
    wrapComponents: { responseBody: asText },
    statePlugins: {
      spec: {
        wrapActions: {
          setResponse: (original, { specActions }) => (path, method, answer) => {
            const done = original(path, method, answer);
            const has = ([itsPath, itsMethod]) => itsPath === path && itsMethod === method.toLowerCase();
            if (places.some(has) && !isOpen(answer)) fill(specActions, [path, method]);
            return done;
          },
        },
      },
    },
  };
}

function dress() {
  document.documentElement.classList.toggle("dark-mode", dark.matches);
}

/** Names for controls that the library leaves without one, and a way to scroll by keyboard. */
const NAMES = [["#servers", "Server"], [".copy-to-clipboard button", "Copy"], [".body-param__text", "Request body"],
  [".examples-select-element", "Example"], [".content-type-wrapper select, select.content-type", "Media type"]];

function complete() {
  for (const [selector, name] of NAMES) {
    for (const control of document.querySelectorAll(selector)) {
      if (!control.hasAttribute("aria-label")) control.setAttribute("aria-label", name);
    }
  }
  for (const box of document.querySelectorAll("pre.microlight")) box.tabIndex = 0;
}

new MutationObserver(complete).observe(document.getElementById("browser"), { childList: true, subtree: true });
dress();
dark.addEventListener("change", dress);
const ui = SwaggerUIBundle({
  url: "../openapi.json",
  dom_id: "#browser",
  deepLinking: true,
  validatorUrl: null,
  syntaxHighlight: false,
  defaultModelsExpandDepth: 0,
  layout: "BaseLayout",
  presets: [SwaggerUIBundle.presets.apis],
  plugins: [bridge],
  onComplete: () => {
    places = withKey(ui.specSelectors.specJson().toJS());
    for (const place of places) fill(ui.specActions, place);
  },
});
