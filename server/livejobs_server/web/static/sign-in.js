// @ts-check
/** Signing in by an API key. */

import { context } from "./context.js";
import { byId, setShown, setText } from "./dom.js";
import { showTheme } from "./theme-switch.js";

const query = new URLSearchParams(location.search);
const form = byId("sign-in", HTMLFormElement);
const problem = byId("problem", HTMLElement);

setText(
  byId("why", HTMLElement),
  query.has("used")
    ? "That link has been used before, or has run out. An API key works instead."
    : "See your jobs as they run.",
);
showTheme();
form.addEventListener("submit", (event) => {
  event.preventDefault();
  void signIn();
});

async function signIn() {
  const button = form.querySelector("button");
  if (button) button.disabled = true;
  setShown(problem, false);
  try {
    const key = new FormData(form).get("key");
    const response = await fetch(`${context.base}/v1/session`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ key }),
    });
    if (response.ok) {
      location.replace(context.base + next());
      return;
    }
    const answer = await response.json().catch(() => ({}));
    complain(answer.detail ?? `The server answered ${response.status}.`);
  } catch {
    complain("The server does not answer. Try again in a moment.");
  }
  if (button) button.disabled = false;
}

/** @param {string} words */
function complain(words) {
  setText(problem, words);
  setShown(problem, true);
  byId("key", HTMLInputElement).focus();
}

/** @returns {string} Where to go on: one of these pages, whatever the address says. */
function next() {
  const path = query.get("next") ?? "/";
  return /^\/(jobs\/[^/\\?#]+)?$/.test(path) ? path : "/";
}
