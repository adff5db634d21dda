/* The data of the page, unpacked: see page_data.py for what is in it. */

const data = JSON.parse(find("data").textContent);
const AXES = Object.keys(data.axes);
const pooled = (place) => data.pool[place];

/** Outcome, simulated or real, letter and words of each mark, the worst first: see outcomes.py. */
const MARKS = data.marks.map(([outcome, simulated, letter, words]) => ({ outcome, simulated, letter, words }));
const markOf = (outcome, simulated = false) => MARKS.find((mark) => mark.outcome === outcome && mark.simulated === simulated);

/** One object for each cell: axes and outcome as words, measures as numbers or null. */
const cells = data.cells.map((values, place) => {
  const cell = { place, changes: [] };
  data.fields.forEach((field, index) => { cell[field] = values[index]; });
  for (const axis of AXES) cell[axis] = data.axes[axis][cell[axis]];
  cell.rank = cell.mark;
  cell.mark = MARKS[cell.rank];
  cell.outcome = cell.mark.outcome;
  cell.simulated = cell.mark.simulated;
  return cell;
});

const byName = new Map(cells.map((cell) => [`${cell.target}\n${cell.id}`, cell]));

const transitions = (data.comparison?.transitions ?? []).map(([name, place, id, target, check, before, after, detail]) => {
  const transition = { name, cell: cells[place] ?? null, id, target, check, before, after, detail };
  transition.cell?.changes.push(transition);
  return transition;
});

const WORSE = new Set(["regression", "aborted", "hollow", "vanished", "skipped", "slower", "larger", "other-tokens"]);

/** Whether a change is for the worse, the better, or neither. */
const direction = (name) => (WORSE.has(name) ? "worse" : name === "fixed" ? "better" : "");

/** The cell of a name; where a link has no target, the first with that id. */
function cellOf(id, target) {
  if (target) return byName.get(`${target}\n${id}`) ?? null;
  return cells.find((cell) => cell.id === id) ?? null;
}

/** A check of a cell as an object. */
function checkOf([name, outcome, took, evidence, message, findings, kind]) {
  return {
    name: data.checks[name],
    outcome: data.outcomes[outcome],
    seconds: took,
    evidence: pooled(evidence),
    message: message === undefined ? "" : pooled(message),
    findings: findings === undefined ? [] : pooled(findings).map(([where, expected, actual, hint, advice, address]) => (
      { where, expected, actual, hint, advice, address }
    )),
    kind: kind === undefined ? "" : pooled(kind),
  };
}

/** All that can be searched of a cell, in small letters; kept, because every keystroke asks again. */
function haystack(cell) {
  if (cell.text === undefined) {
    const inChecks = cell.checks.flatMap((check) => {
      const { name, outcome, message, kind, findings } = check.length > 4 ? checkOf(check) : { findings: [] };
      const found = findings.flatMap(({ where, actual, hint }) => [where, actual, hint]);
      return message === undefined ? [] : [name, outcome, message, kind, ...found];
    });
    const problems = cell.problems.map((place) => data.problems[place]);
    const words = [cell.id, ...AXES.map((axis) => cell[axis]), cell.mark.words, ...problems, ...inChecks];
    cell.text = [...new Set(words)].join("\n").toLowerCase();
  }
  return cell.text;
}
