/* The heat map: a table whose rows and columns are the axes that differ, nested. */

const differing = (axes, fallback) => {
  const found = axes.filter((axis) => data.axes[axis].length > 1);
  return found.length ? found : [fallback];
};
const SHORT = { float32: "fp32", bfloat16: "bf16", float16: "fp16" };

/** How far the map can be folded: what is no axis of it any more shares a tile. */
const FOLDS = [[], ["strategy", "attention"], ["strategy", "attention", "quantization"]].map((folded) => ({
  rows: differing(["target", "model", "strategy", "attention"].filter((axis) => !folded.includes(axis)), "model"),
  columns: differing(["device", "dtype", "quantization"].filter((axis) => !folded.includes(axis)), "device"),
  folded: folded.filter((axis) => data.axes[axis].length > 1),
})).filter(({ folded }, place, all) => place === 0 || folded.length > all[place - 1].folded.length);

/** A map with fewer tiles than this part of its places is folded further, unless one asks for every cell. */
const DENSE = 0.5;

/** The lines, rows or columns, that some cells need, in the order of the axes: each a list of values. */
function lines(axes, shown) {
  const ranks = axes.map((axis) => new Map(data.axes[axis].map((value, place) => [value, place])));
  const found = new Map();
  for (const cell of shown) {
    const values = axes.map((axis) => cell[axis]);
    const key = values.join("\n");
    if (!found.has(key)) found.set(key, { key, values, order: values.map((value, level) => ranks[level].get(value)) });
  }
  return [...found.values()].sort((a, b) => {
    const level = a.order.findIndex((rank, place) => rank !== b.order[place]);
    return level < 0 ? 0 : a.order[level] - b.order[level];
  });
}

const begins = (all, place, level) => place === 0
  || all[place].values.slice(0, level + 1).some((value, index) => value !== all[place - 1].values[index]);

/** How many lines from `place` on share their values down to `level`. */
function span(all, place, level) {
  let end = place + 1;
  while (end < all.length && !begins(all, end, level)) end += 1;
  return end - place;
}

const keyOf = (axes, cell) => axes.map((axis) => cell[axis]).join("\n");

/** The fold that the state asks for, or the least that leaves no large holes. */
function chosenFold() {
  if (FOLDS[state.fold]) return FOLDS[state.fold];
  const tiles = (axes) => new Set(fitting.map((cell) => keyOf(axes, cell))).size;
  return FOLDS.find(({ rows, columns }) => tiles([...rows, ...columns]) >= DENSE * tiles(rows) * tiles(columns)) ?? FOLDS.at(-1);
}

/** Draw the cells that fit, amid the others of their rows and columns. */
function drawMatrix() {
  const { rows: down, columns: across, folded } = chosenFold();
  const rows = lines(down, fitting);
  const columns = lines(across, fitting);
  find("fold").value = state.fold;
  if (!fitting.length) {
    find("grid").replaceChildren(element("p", { class: "lead" }, "No cell fits the filter."));
    return;
  }
  const fits = new Set(fitting);
  const tiles = Map.groupBy(cells, (cell) => `${keyOf(down, cell)}\n\n${keyOf(across, cell)}`);
  const body = element("tbody");
  rows.forEach((row, place) => {
    const line = element("tr", { class: begins(rows, place, 0) ? "first" : null });
    down.forEach((axis, level) => {
      if (level === down.length - 1) line.append(rowHead(axis, row.values[level], level, 1, level > 0));
      else if (begins(rows, place, level)) line.append(rowHead(axis, row.values[level], level, span(rows, place, level), false));
    });
    columns.forEach((column) => {
      const found = tiles.get(`${row.key}\n\n${column.key}`) ?? [];
      const inside = found.filter((cell) => fits.has(cell));
      const shown = inside.length ? inside : found;
      line.append(shown.length ? tile(shown, inside.length > 0, folded.length > 0) : element("td"));
    });
    body.append(line);
  });
  const table = element("table", { role: "grid", "aria-label": "Matrix of cells", class: folded.length ? "folded" : null },
    head(down, across, columns), body);
  table.style.setProperty("--levels", down.length);
  find("grid").replaceChildren(table, explained(down, across, folded));
  const [first] = table.getElementsByClassName("tile");
  if (first) first.tabIndex = 0;
}

function rowHead(axis, value, level, rows, last) {
  return element("th", {
    scope: rows > 1 ? "rowgroup" : "row", rowspan: rows > 1 ? rows : null, title: `${axis} ${value}`,
    class: `level-${level}${last ? "" : " group"}`,
  }, value);
}

function head(down, across, columns) {
  return element("thead", {}, across.map((axis, level) => {
    const leaf = level === across.length - 1;
    const line = element("tr");
    if (level === 0) {
      line.append(...down.map((name, place) => element("th", { class: `corner level-${place}`, rowspan: across.length, scope: "col" }, name)));
    }
    columns.forEach(({ values }, place) => {
      if (!begins(columns, place, level)) return;
      const wide = span(columns, place, level);
      const label = axis === "dtype" ? SHORT[values[level]] ?? values[level] : values[level];
      line.append(element("th", {
        scope: wide > 1 ? "colgroup" : "col", colspan: wide, title: `${axis} ${values[level]}`,
        class: `${leaf ? "leaf" : ""}${level === 0 || (level === 1 && !leaf) ? " first" : ""}`,
      }, element("span", { class: leaf ? null : "stay" }, label, axis === "device" ? simulatedBadge(values[level]) : null)));
    });
    return line;
  }));
}

/** What a device's heading says where its cells ran on a simulated one. */
function simulatedBadge(device) {
  const ran = cells.filter((cell) => cell.device === device && cell.outcome !== "skipped");
  const simulated = ran.filter((cell) => cell.simulated).length;
  if (!simulated) return null;
  return element("span", { class: "badge simulated" }, simulated === ran.length ? "simulated" : "partly simulated");
}

/** The tile of some cells: the worst of them gives its letter and colour, and folded it says how many are like it. */
function tile(shown, fits, folded) {
  const { mark: worst } = shown.reduce((worse, cell) => (cell.rank < worse.rank ? cell : worse));
  const alike = shown.filter(({ mark }) => mark === worst).length;
  const names = [...new Set(shown.flatMap(({ changes }) => changes.map(({ name }) => name)))];
  const node = document.createElement("td");
  node.className = `tile ${worst.outcome}${worst.simulated ? " simulated" : ""}${fits ? "" : " dim"}${names.length ? " changed" : ""}`;
  node.setAttribute("role", "gridcell");
  node.setAttribute("aria-label", `${titleOf(shown)}: ${summed(shown)}${names.length ? `; ${names.join(", ")} since the baseline` : ""}`);
  node.tabIndex = -1;
  node.dataset.cells = shown.map(({ place }) => place).join(" ");
  node.textContent = worst.letter;
  if (folded) node.append(element("span", {}, alike < shown.length ? `${alike}/${shown.length}` : `${alike}`));
  return node;
}

const titleOf = (shown) => (shown.length === 1 ? shown[0].id : plural(shown.length, "cell"));

/** The outcomes of some cells in words. */
function summed(shown) {
  if (shown.length === 1) return shown[0].mark.words;
  const ordered = [...shown].sort((a, b) => a.rank - b.rank);
  return [...Map.groupBy(ordered, ({ mark }) => mark.words)].map(([words, alike]) => `${alike.length} ${words}`).join(", ");
}

/** What the map does not show: axes that do not differ, and those that are folded. */
function explained(down, across, folded) {
  const same = AXES.filter((axis) => data.axes[axis].length === 1 && axis !== "target" && ![...down, ...across].includes(axis));
  return element("p", { class: "fold" }, [
    folded.length > 0 && `Each tile holds the cells of every ${folded.join(" and ")}. Its letter is the worst outcome among them; 2/5 means that 2 of 5 have it. Open a tile to see them apart.`,
    same.length > 0 && ` The same in all cells: ${same.map((axis) => `${axis} ${data.axes[axis][0]}`).join(", ")}.`,
  ].filter(Boolean).join(""));
}

/** Open the panel of a tile's cell; where it holds several, narrow the filter to them. */
function openTile(node) {
  const [first, ...rest] = cellsOf(node);
  if (!rest.length) {
    open(first);
    return;
  }
  const { rows, columns } = chosenFold();
  change({ ...Object.fromEntries([...rows, ...columns].map((axis) => [axis, first[axis]])), fold: "" }, true);
  find("grid").querySelector(".tile")?.focus();
}

const cellsOf = (node) => node.dataset.cells.split(" ").map((place) => cells[place]);
const tileOf = (event) => event.target.closest?.("[data-cells]");

/** The nearest tile in a direction: empty places are passed over. */
function neighbour(node, [right, down]) {
  const { left, top, width, height } = node.getBoundingClientRect();
  const inLine = right
    ? [...node.parentElement.children]
    : [...node.closest("tbody").rows].map((row) => [...row.cells].find((cell) => Math.abs(cell.getBoundingClientRect().left - left) < 2 && cell.classList.contains("tile"))).filter(Boolean);
  const ahead = inLine.filter((other) => {
    if (!other.classList.contains("tile")) return false;
    const box = other.getBoundingClientRect();
    return right ? (box.left - left) * right > width / 2 : (box.top - top) * down > height / 2;
  });
  return right < 0 || down < 0 ? ahead.at(-1) : ahead[0];
}

const ARROWS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };

function focusTile(node) {
  for (const other of find("grid").querySelectorAll("[tabindex='0']")) other.tabIndex = -1;
  node.tabIndex = 0;
  node.focus({ preventScroll: true });
  revealTile(node);
}

/** Scroll the map so that the sticky heads do not cover the tile. */
function revealTile(node) {
  const grid = find("grid");
  const [box, frame] = [node.getBoundingClientRect(), grid.getBoundingClientRect()];
  const heads = [...node.parentElement.getElementsByTagName("th")];
  const left = Math.max(frame.left, ...heads.map((head) => head.getBoundingClientRect().right));
  const top = grid.querySelector("thead").getBoundingClientRect().bottom;
  if (box.left < left) grid.scrollLeft -= left - box.left;
  if (box.right > frame.right) grid.scrollLeft += box.right - frame.right;
  if (box.top < top) grid.scrollTop -= top - box.top;
  if (box.bottom > frame.bottom) grid.scrollTop += box.bottom - frame.bottom;
  node.scrollIntoView({ block: "nearest", inline: "nearest", behavior: "instant" });
}

function gridKeys(event) {
  const node = tileOf(event);
  if (!node) return;
  if (event.key === "Enter" || event.key === " ") openTile(node);
  else if (event.key === "Home" || event.key === "End") {
    const tiles = [...node.parentElement.getElementsByClassName("tile")];
    focusTile(event.key === "Home" ? tiles[0] : tiles.at(-1));
  } else if (ARROWS[event.key]) {
    const next = neighbour(node, ARROWS[event.key]);
    if (next) focusTile(next);
  } else return;
  event.preventDefault();
}

function showTip(event) {
  const node = tileOf(event);
  const tip = find("tip");
  tip.hidden = !node;
  if (!node) return;
  const shown = cellsOf(node);
  tip.replaceChildren(element("b", {}, titleOf(shown)), element("span", {}, summed(shown)), ...(shown.length === 1 ? tipLines(shown[0]) : []));
  const box = node.getBoundingClientRect();
  const below = box.bottom + 8 + tip.offsetHeight < innerHeight;
  tip.style.top = `${below ? box.bottom + 8 : box.top - 8 - tip.offsetHeight}px`;
  tip.style.left = `${Math.max(12, Math.min(box.left, innerWidth - tip.offsetWidth - 12))}px`;
}

/** Why the cell is not in order, and what has changed. */
function tipLines(cell) {
  const worst = cell.checks.find((check) => data.outcomes[check[1]] === cell.outcome && check.length > 4);
  const why = cell.outcome === "skipped" ? pooled(cell.more.planned).at(-1)?.[3] : worst && cell.outcome !== "passed" ? checkOf(worst).message : "";
  const changes = cell.changes.slice(0, 2).map(({ name, check, before, after }) => `${name}: ${check} ${before} → ${after}`);
  return [why, ...changes].filter(Boolean).map((line) => element("span", {}, line));
}

function buildMatrix() {
  find("fold").append(element("option", { value: "" }, "Folded to fit"),
    ...FOLDS.map(({ folded }, place) => element("option", { value: place }, place ? `Folded: ${folded.join(", ")}` : "Every cell")));
  find("fold").addEventListener("change", (event) => change({ fold: event.target.value }));
  find("fold").hidden = FOLDS.length < 2;
  const grid = find("grid");
  grid.addEventListener("click", (event) => tileOf(event) && openTile(tileOf(event)));
  grid.addEventListener("keydown", gridKeys);
  for (const name of ["mouseover", "focusin"]) grid.addEventListener(name, showTip);
  for (const name of ["mouseleave", "focusout", "scroll"]) grid.addEventListener(name, () => { find("tip").hidden = true; });
}
