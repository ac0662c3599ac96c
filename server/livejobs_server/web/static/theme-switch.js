// @ts-check
/** Light or dark: as the system is set, unless somebody chose here. */

import { byId, setAttribute, setText } from "./dom.js";

const KEY = "livejobs-theme";
const dark = matchMedia("(prefers-color-scheme: dark)");

/** Bring the button to life. */
export function showTheme() {
  const button = byId("theme", HTMLButtonElement);
  const draw = () => {
    const other = isDark() ? "Light" : "Dark";
    setText(button, other);
    setAttribute(button, "aria-label", `Switch to the ${other.toLowerCase()} theme`);
  };
  button.addEventListener("click", () => {
    choose(isDark() ? "light" : "dark");
    draw();
  });
  dark.addEventListener("change", draw);
  draw();
}

function isDark() {
  return (document.documentElement.dataset["theme"] ?? (dark.matches ? "dark" : "light")) === "dark";
}

/** @param {"light" | "dark"} theme */
function choose(theme) {
  const isTheSystems = (theme === "dark") === dark.matches;
  if (isTheSystems) {
    localStorage.removeItem(KEY);
    delete document.documentElement.dataset["theme"];
  } else {
    localStorage.setItem(KEY, theme);
    document.documentElement.dataset["theme"] = theme;
  }
}
