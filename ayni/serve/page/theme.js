// Runs before the first paint, so that a chosen theme does not flash; without a choice the system's holds.
try {
  const chosen = localStorage.getItem("ayni.theme");
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
} catch {
  // Storage is blocked: the system's theme holds.
}
