// @ts-check
// Loaded before the page is drawn, so that it never flashes in the other theme. Not a module: those
// wait until the page has been read.
(() => {
  const chosen = localStorage.getItem("livejobs-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset["theme"] = chosen;
})();
