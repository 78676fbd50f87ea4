// The form in which the token is entered. It is one that password managers fill in, and can reveal what was typed.

import { byId, say } from "./dom.js";

function reveal(shown) {
  byId("token").type = shown ? "text" : "password";
  const button = byId("reveal");
  say(button, shown ? "Hide" : "Show");
  button.setAttribute("aria-label", shown ? "Hide token" : "Show token");
  button.setAttribute("aria-pressed", String(shown));
}

/** The token that was entered, or null if it cannot be one: the person is told. */
function given() {
  const text = byId("token").value.trim();
  // A token must fit into a header.
  const fits = /^[\x21-\x7e]+$/.test(text);
  const wrong = text ? "A token has only letters, digits and punctuation, and no spaces." : "Enter a token.";
  say(byId("sign-in-problem"), fits ? "" : wrong);
  if (!fits) byId("token").focus();
  return fits ? text : null;
}

export function prepareSignIn(signIn) {
  byId("reveal").addEventListener("click", () => {
    reveal(byId("token").type === "password");
    byId("token").focus();
  });
  byId("sign-in-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const token = given();
    if (token === null) return;
    // A password manager keeps only what is in a password field.
    reveal(false);
    signIn(token);
  });
}

/** Empties the form once the token is accepted. */
export function forgetEntered() {
  byId("token").value = "";
  reveal(false);
}
