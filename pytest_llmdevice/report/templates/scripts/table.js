/* Cells as rows, sorted by any column. Rows are made as one scrolls to them. */

const CHUNK = 100;

/** A table whose rows are made `CHUNK` at a time: `heads` are its heading cells, `make` turns an item into a row. */
function chunked(container, heads, items, make) {
  const body = element("tbody");
  const end = element("tr", { class: "end" }, element("td", { colspan: heads.length }));
  let made = 0;
  const more = () => {
    end.remove();
    body.append(...items.slice(made, made + CHUNK).map(make));
    made = Math.min(items.length, made + CHUNK);
    if (made < items.length) {
      end.firstChild.textContent = `${whole.format(items.length - made)} more below`;
      body.append(end);
    }
  };
  more();
  container.replaceChildren(element("table", {}, element("thead", {}, element("tr", {}, heads)), body));
  container.scrollTop = 0;
  // Kept on the element, so that the one before it stops watching.
  container.watcher?.disconnect();
  container.watcher = new IntersectionObserver((entries) => {
    if (entries.some(({ isIntersecting }) => isIntersecting)) {
      more();
      container.watcher.unobserve(end);
      if (made < items.length) container.watcher.observe(end);
    }
  }, { root: container, rootMargin: "600px" });
  if (made < items.length) container.watcher.observe(end);
}

const TABLE = [
  { key: "id", label: "Cell" },
  { key: "outcome", label: "Outcome" },
  ...Object.entries(MEASURES).map(([key, { name, unit }]) => ({ key, label: `${name} (${unit})`, number: true })),
];

/** The cells that fit, in the order that the state asks for; what has no value comes last either way. */
function sorted() {
  const [key, down] = [state.sort.replace(/^-/, ""), state.sort.startsWith("-")];
  if (!TABLE.some((column) => column.key === key)) return fitting;
  const valueOf = (cell) => (key === "outcome" ? cell.rank : cell[key]);
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);
  const valued = fitting.filter((cell) => valueOf(cell) !== null);
  const ordered = valued.map((cell) => [valueOf(cell), cell]).sort((a, b) => compare(a[0], b[0]) * (down ? -1 : 1));
  return [...ordered.map(([, cell]) => cell), ...fitting.filter((cell) => valueOf(cell) === null)];
}

function columnHead({ key, label, number }) {
  const sort = state.sort.replace(/^-/, "") === key ? (state.sort.startsWith("-") ? "descending" : "ascending") : null;
  return element("th", { scope: "col", class: number ? "number" : null, "aria-sort": sort },
    element("button", { type: "button", "data-sort": key, click: () => change({ sort: sort === "ascending" ? `-${key}` : key }) }, label));
}

function cellRow(cell) {
  const shown = (key) => (cell[key] === null ? "" : inColumn(key, cell[key]));
  return element("tr", { "data-row": cell.place },
    element("td", {}, cellLink(cell)),
    element("td", {}, element("span", { class: "outcome" }, swatch(cell.mark), cell.mark.words)),
    Object.keys(MEASURES).map((key) => element("td", { class: "number" }, shown(key))));
}

/** A link that opens the panel of a cell. */
function cellLink(cell) {
  return element("a", { class: "cell mono", href: `#${new URLSearchParams({ cell: cell.id })}`, "data-cell": cell.id, "data-target": cell.target }, cell.id);
}

function drawTable() {
  const focused = document.activeElement?.dataset?.sort;
  chunked(find("table"), TABLE.map(columnHead), sorted(), cellRow);
  if (focused) find("table").querySelector(`[data-sort="${CSS.escape(focused)}"]`)?.focus();
}

function buildTable() {
  find("table").addEventListener("click", (event) => {
    const row = event.target.closest("[data-row]");
    if (row && !event.target.closest("a")) open(cells[row.dataset.row]);
  });
}
