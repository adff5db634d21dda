/* Puts the parts together. */

const FILTERING = new Set(["q", "outcome", "hardware", "change", "problem", ...AXES]);

function draw(keys) {
  const filtering = keys.some((key) => FILTERING.has(key));
  if (filtering) {
    fitting = filtered();
    showFilters();
  }
  const table = state.view === "table";
  if (filtering || keys.includes("view")) {
    find("grid").hidden = table;
    find("table").hidden = !table;
    find("fold").parentElement.hidden = table;
    for (const button of document.querySelectorAll("[data-view]")) button.setAttribute("aria-pressed", button.dataset.view === state.view);
  }
  if (table && keys.some((key) => FILTERING.has(key) || key === "view" || key === "sort")) drawTable();
  if (!table && (filtering || keys.includes("view") || keys.includes("fold"))) drawMatrix();
  if (filtering) later(drawMeasures);
  if (filtering || keys.includes("cell")) drawDetail();
}

const waiting = new Map();

/** Do something once the page has been painted; what waits already is not done twice. */
function later(task) {
  if (waiting.has(task)) return;
  waiting.set(task, requestAnimationFrame(() => setTimeout(() => {
    waiting.delete(task);
    task();
  })));
}

function followLinks(event) {
  const link = event.target.closest("a[data-cell]");
  const more = event.target.closest("[data-problem]");
  const jump = event.target.closest(".jumps a");
  if (link) {
    const cell = cellOf(link.dataset.cell, link.dataset.target);
    if (cell) open(cell);
  } else if (more) {
    clearFilters();
    change({ problem: more.dataset.problem });
    find("matrix").scrollIntoView();
  } else if (jump) {
    // Without this the filter behind the # would be lost.
    document.querySelector(jump.getAttribute("href")).scrollIntoView();
  } else return;
  event.preventDefault();
}

for (const share of document.querySelectorAll(".share")) share.style.flexGrow = share.dataset.count;
for (const button of document.querySelectorAll("[data-view]")) button.addEventListener("click", () => change({ view: button.dataset.view }));
document.documentElement.classList.add("scripted");
document.addEventListener("click", followLinks);
addEventListener("popstate", () => {
  readState();
  draw([...FILTERING, "view", "sort", "cell"]);
});
addEventListener("resize", () => later(drawMeasures));
buildFilters();
buildMatrix();
buildTable();
buildChanges();
buildDetail();
whenChanged(draw);
draw([...FILTERING, "view", "sort", "cell"]);
document.documentElement.dataset.ready = "yes";
