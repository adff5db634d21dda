/* What is shown, as one object that is written into the address behind the #, and read from there. */

const TEXTS = ["q", ...AXES, "hardware", "change", "problem", "sort", "fold", "cell", "of"];

const state = { outcome: new Set(), view: "matrix" };
const listeners = [];

/** Read the state from the address. */
function readState() {
  const given = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
  for (const key of TEXTS) state[key] = given.get(key) ?? "";
  state.outcome = new Set((given.get("outcome") ?? "").split(",").filter((name) => data.outcomes.includes(name)));
  state.view = given.get("view") === "table" ? "table" : "matrix";
}

function writeState(push) {
  const given = new URLSearchParams();
  for (const key of TEXTS) if (state[key]) given.set(key, state[key]);
  if (state.outcome.size) given.set("outcome", [...state.outcome].join(","));
  if (state.view !== "matrix") given.set("view", state.view);
  const hash = given.size || location.hash.includes("=") ? `#${given}` : location.hash;
  if (hash === location.hash) return;
  if (push) history.pushState(null, "", hash);
  else history.replaceState(null, "", hash);
}

/** Change parts of the state; `push` makes it a step that the browser's Back undoes. */
function change(parts, push = false) {
  Object.assign(state, parts);
  writeState(push);
  changed(Object.keys(parts));
}

/** Call `listener` with the names of what was changed, now and whenever something was. */
const whenChanged = (listener) => listeners.push(listener);

function changed(keys) {
  for (const listener of listeners) listener(keys);
}

/** Open the panel of a cell, as a step of its own. */
const open = (cell) => change({ cell: cell.id, of: data.axes.target.length > 1 ? cell.target : "" }, !state.cell);

/** The cell whose panel is open. */
const opened = () => (state.cell ? cellOf(state.cell, state.of) : null);

readState();
