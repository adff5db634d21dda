/* The form above the matrix, and which cells fit what it says. */

const count = (key) => cells.reduce((found, cell) => found.set(cell[key], (found.get(cell[key]) ?? 0) + 1), new Map());

let fitting = cells;

/** The cells that fit the state, in the order of the matrix. */
function filtered() {
  const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
  const axes = AXES.filter((axis) => state[axis]);
  return cells.filter((cell) => (
    (!state.outcome.size || state.outcome.has(cell.outcome))
    && axes.every((axis) => cell[axis] === state[axis])
    && (!state.hardware || (cell.outcome !== "skipped" && cell.simulated === (state.hardware === "simulated")))
    && (!state.problem || cell.problems.includes(state.problem - 1))
    && (!state.change || cell.changes.some(({ name }) => name === state.change || state.change === "any"))
    && words.every((word) => haystack(cell).includes(word))
  ));
}

/** A choice among values; not there at all where there is nothing to choose. */
function choice(key, every, options) {
  if (options.length < 2) return null;
  return element("select", { name: key, "aria-label": every, change: (event) => change({ [key]: event.target.value }) },
    element("option", { value: "" }, every),
    options.map(([value, label]) => element("option", { value }, label)));
}

function outcomeChips() {
  const counts = count("outcome");
  const toggle = (name) => {
    const outcome = new Set(state.outcome);
    if (!outcome.delete(name)) outcome.add(name);
    change({ outcome });
  };
  return element("div", { class: "chips", role: "group", "aria-label": "Outcomes" },
    data.order.filter((name) => counts.has(name))
      .map((name) => element("button", { type: "button", class: "chip", "data-outcome": name, click: () => toggle(name) },
        swatch(markOf(name)), markOf(name).words, element("b", {}, whole.format(counts.get(name))))));
}

function buildFilters() {
  const form = find("filters");
  const simulated = cells.some((cell) => cell.simulated);
  const search = element("input", {
    type: "search", name: "q", placeholder: "Search cells, messages, tensors", "aria-label": "Search", autocomplete: "off",
    spellcheck: "false", input: (event) => change({ q: event.target.value }),
  });
  const same = (values) => values.map((value) => [value, value]);
  form.append(...[
    search,
    ...AXES.map((axis) => choice(axis, `Any ${axis}`, same(data.axes[axis]))),
    simulated && choice("hardware", "Any hardware", [["real", "Real hardware"], ["simulated", "Simulated"]]),
    choice("problem", "Any problem", data.problems.map((name, place) => [`${place + 1}`, `${place + 1}. ${name}`])),
    data.comparison && choice("change", "Changed or not", [["any", "Any change"], ...same(data.comparison.names)]),
    element("button", { type: "button", class: "clear", click: clearFilters }, "Clear"),
    outcomeChips(),
  ].filter(Boolean));
  form.addEventListener("submit", (event) => event.preventDefault());
}

function clearFilters() {
  change({ ...Object.fromEntries(["q", ...AXES, "hardware", "change", "problem"].map((key) => [key, ""])), outcome: new Set() });
}

/** Make the form say what the state says. */
function showFilters() {
  for (const field of find("filters").querySelectorAll("input, select")) {
    if (field.value !== state[field.name]) field.value = state[field.name];
    field.classList.toggle("set", field.value !== "");
  }
  for (const chip of find("filters").querySelectorAll(".chip")) {
    chip.setAttribute("aria-pressed", state.outcome.has(chip.dataset.outcome));
  }
  const narrowed = fitting.length < cells.length;
  find("shown").textContent = narrowed
    ? `${whole.format(fitting.length)} of ${plural(cells.length, "cell")}` : plural(cells.length, "cell");
  find("filters").querySelector(".clear").hidden = !narrowed;
}
