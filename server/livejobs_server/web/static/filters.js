// @ts-check
/** The form above the list: what is looked for, kept in the page's address. */

import { context } from "./context.js";
import { byId, setShown, setText } from "./dom.js";
import { NO_FILTERS } from "./listing.js";

/** @typedef {import("./listing.js").Filters} Filters */
/** @typedef {import("./listing.js").Listing} Listing */

/** After the last key, before the server is asked. */
const TYPING_MS = 250;

/**
 * Bring the form to life, filled in as the page's address says.
 *
 * @param {Listing} listing
 */
export function showFilters(listing) {
  const form = byId("filters", HTMLFormElement);
  fill(form, filtersOf(new URLSearchParams(location.search)));
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const apply = () => {
    clearTimeout(timer);
    const filters = filtersOf(new FormData(form));
    remember(filters);
    showClear(filters);
    listing.setFilters(filters);
  };
  showClear(filtersOf(new FormData(form)));
  form.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(apply, TYPING_MS);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    apply();
  });
  // The fields are empty only after this event.
  form.addEventListener("reset", () => setTimeout(apply));
  if (context.isAdmin) showWhose(listing);
}

/** @param {Listing} listing */
function showWhose(listing) {
  const whose = byId("whose", HTMLElement);
  setShown(whose, true);
  whose.addEventListener("change", (event) => {
    if (!(event.target instanceof HTMLInputElement)) return;
    listing.setWhose(event.target.value);
    const title = event.target.value === "all" ? "Everybody’s jobs" : "Your jobs";
    setText(byId("jobs-title", HTMLElement), title);
  });
}

/**
 * @param {FormData | URLSearchParams} fields
 * @returns {Filters}
 */
export function filtersOf(fields) {
  /** @param {string} name */
  const text = (name) => String(fields.get(name) ?? "").trim();
  return { q: text("q"), status: text("status"), task: text("task"), tag: text("tag") };
}

/**
 * @param {HTMLFormElement} form
 * @param {Filters} filters
 */
function fill(form, filters) {
  for (const [name, value] of Object.entries(filters)) {
    const field = form.elements.namedItem(name);
    if (field instanceof HTMLInputElement || field instanceof HTMLSelectElement)
      field.value = value;
  }
}

/** @param {Filters} filters */
function remember(filters) {
  const set = Object.entries(filters).filter(([, value]) => value !== "");
  const query = set.length > 0 ? `?${new URLSearchParams(set)}` : "";
  history.replaceState(null, "", location.pathname + query + location.hash);
}

/** @param {Filters} filters */
function showClear(filters) {
  const isSet = Object.values({ ...NO_FILTERS, ...filters }).some((value) => value !== "");
  setShown(byId("clear", HTMLElement), isSet);
}
