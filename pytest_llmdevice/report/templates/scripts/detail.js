/* The panel of one cell. */

let shownCell = null;

/** Open, change or close the panel, as the state says. */
function drawDetail() {
  const panel = find("detail");
  const cell = opened();
  if (!cell) {
    shownCell = null;
    if (panel.open) panel.close();
    return;
  }
  if (cell === shownCell) return;
  shownCell = cell;
  const inside = element("div", { class: "inside" });
  panel.replaceChildren(bar(cell), inside);
  if (!panel.open) panel.showModal();
  // Now that it is open it has a width to draw for.
  inside.append(...sections(cell, inside.clientWidth - 48).filter(Boolean));
  panel.scrollTop = 0;
}

function bar(cell) {
  const place = fitting.indexOf(cell);
  const step = (by, label) => element("button", {
    type: "button", disabled: place < 0 || !fitting[place + by], click: () => { open(fitting[place + by]); find("detail").querySelector("button:not(:disabled)")?.focus(); },
  }, label);
  return element("div", { class: "bar" },
    element("span", {}, place < 0 ? "not in the filter" : `${whole.format(place + 1)} of ${whole.format(fitting.length)}`),
    step(-1, "Previous"), step(1, "Next"),
    element("button", { type: "button", class: "close", autofocus: true, click: () => find("detail").close() }, "Close"));
}

function sections(cell, width) {
  const planned = part("Machines", pooled(cell.more.planned), plannedTable, (cell.more.aborted ?? []).map(abortedLine));
  return [
    element("h2", { id: "detail-title", class: "mono" }, cell.id),
    element("div", { class: "state" },
      element("span", { class: "outcome" }, swatch(cell.mark), element("b", {}, cell.mark.words)),
      cell.simulated && element("span", { class: "badge simulated" }, "simulated, not hardware"),
      cell.more.seconds ? element("small", {}, `${seconds(cell.more.seconds)} in all`) : null),
    facts(cell),
    ...part("Since the baseline", cell.changes, changeLines),
    ...part("Conflicts", cell.more.conflicts ?? [], conflictLines),
    ...(cell.outcome === "skipped" ? planned : []),
    ...part("Checks", worstFirst(cell.checks), (checks) => element("div", {}, checks.map((check) => checkLine(check, cell.simulated)))),
    ...comparedSection(cell, width),
    ...memorySection(cell, width),
    ...part("New tokens, greedy", cell.more.tokens === undefined ? [] : pooled(cell.more.tokens), tokenLines),
    ...(cell.outcome === "skipped" ? [] : planned),
  ];
}

/** What did not pass before what did, each in the order in which it ran. */
const worstFirst = (checks) => {
  const passed = ([, outcome]) => data.outcomes[outcome] === "passed";
  return [...checks.filter((check) => !passed(check)), ...checks.filter(passed)];
};

function part(title, items, make, extra = []) {
  return items.length ? [element("h3", {}, title), make(items), ...extra] : [];
}

function facts(cell) {
  const [hardware, simulated, versions] = pooled(cell.more.environment);
  const run = data.runs[cell.more.run];
  const fact = (name, value, wide = false) => value && element("div", { class: wide ? "wide" : null }, element("dt", {}, name), element("dd", {}, value));
  return element("dl", { class: "facts" },
    AXES.map((axis) => fact(axis, cell[axis])),
    fact("hardware", hardware.replace(/:$/, ", of unknown name") || "unknown"),
    cell.simulated && fact("simulated", simulated || "yes"),
    fact("commit", run.commit),
    fact("run", run.started),
    fact("tensors", cell.more.devices === undefined ? "" : pooled(cell.more.devices), true),
    fact("versions", Object.entries(versions).map(([name, version]) => `${name} ${version}`).join(", "), true));
}

function changeLines(changes) {
  return element("ul", { class: "plain" }, changes.map(({ name, check, before, after, detail }) => element("li", {},
    element("span", { class: `chip change ${direction(name)}` }, name), " ",
    check && element("span", { class: "mono" }, `${check} `), `${before} → ${after}`, detail && element("small", {}, ` ${detail}`))));
}

function conflictLines(conflicts) {
  return element("ul", { class: "plain" }, conflicts.map(([check, why, samples]) => element("li", {},
    element("b", { class: "mono" }, check), `: ${why}`,
    element("ul", { class: "plain" }, samples.map(([outcome, words, machine, commit, started]) => element("li", {},
      element("span", { class: "outcome" }, swatch(markOf(outcome)), words), ` on ${[machine, commit, started].filter(Boolean).join(", ")}`))))));
}

function plannedTable(planned) {
  return element("table", {}, element("tbody", {}, planned.map(([run, verdict, cause, reason]) => element("tr", {},
    element("td", {}, data.runs[run].machine, element("br"), element("small", {}, data.runs[run].started)),
    element("td", {}, cause ? element("b", {}, cause) : verdict, reason && element("span", {}, `: ${reason}`))))));
}

function abortedLine(run) {
  return element("p", { class: "note" }, `The run of ${data.runs[run].started} was gone before this cell was finished.`);
}

function checkLine(packed, simulated) {
  const check = checkOf(packed);
  const evidence = Object.entries(check.evidence).map(([name, value]) => `${typeof value === "number" ? short(value) : value} ${name}`).join(", ");
  return element("div", { class: "check" },
    swatch(markOf(check.outcome, simulated && check.outcome !== "skipped")),
    element("span", { class: "name" }, check.name),
    element("span", { class: "evidence" }, [check.outcome === "passed" ? "" : markOf(check.outcome).words, check.kind, evidence].filter(Boolean).join(" · ")),
    element("span", { class: "number" }, seconds(check.seconds)),
    (check.message || check.findings.length > 0) && element("div", { class: "message" },
      check.message && element("p", {}, check.message), check.findings.map(findingBox)));
}

function findingBox({ where, expected, actual, hint, advice, address }) {
  return element("div", { class: "finding" },
    element("b", { class: "mono" }, where),
    element("dl", {}, element("dt", {}, "expected"), element("dd", { class: "mono" }, expected), element("dt", {}, "found"), element("dd", { class: "mono" }, actual)),
    hint && element("p", {}, element("b", { class: "mono" }, hint), advice && ` ${advice}`),
    address && element("p", {}, source(address)));
}

/** Each measure of the cell among the cells of the same kind of device, simulated ones apart from real ones. */
function comparedSection(cell, width) {
  const kind = cell.device.split(":")[0];
  const alike = cells.filter((other) => other !== cell && other.simulated === cell.simulated && other.device.split(":")[0] === kind);
  const own = Object.keys(MEASURES).filter((measure) => cell[measure] !== null);
  if (!own.length) return [];
  const each = width > 660 ? (width - 28) / 2 : width;
  return [element("h3", {}, `Among the other ${cell.simulated ? "simulated " : ""}cells on ${kind}`),
    element("div", { class: "compared" }, own.map((measure) => {
      const others = alike.map((other) => other[measure]).filter((value) => value !== null);
      const { name, tell, better } = MEASURES[measure];
      const less = others.filter((value) => value < cell[measure]).length;
      const rank = others.length ? `${whole.format(less)} of ${whole.format(others.length)} are ${better}` : "no other was measured";
      return element("figure", {}, element("figcaption", {}, element("span", {}, name, " ", element("b", {}, tell(cell[measure]))), element("span", {}, rank)),
        among(cell[measure], others, measure, each));
    }))];
}

function memorySection(cell, width) {
  const stages = [["load", cell.more.loadMemory], ["generate", cell.more.generateMemory]];
  const bars = stages.flatMap(([stage, place]) => (place === undefined ? [] : pooled(place)).map((memory) => [stage, memory]));
  if (!bars.length) return [];
  const most = Math.max(1, ...bars.flatMap(([, [, ...values]]) => values));
  return [element("h3", {}, "Memory"),
    element("div", { class: "memory" }, bars.map(([stage, memory]) => element("figure", {},
      element("figcaption", {}, `${stage}, ${memory[0]}: before ${bytes(memory[1])}, after ${bytes(memory[2])}, peak ${bytes(memory[3])}`),
      memoryBar(memory, most, width)))),
    element("div", { class: "keys" }, [["held", "held before"], ["after", "kept after"], ["peak", "at the peak only"]]
      .map(([name, label]) => element("span", {}, element("i", { class: name }), label)))];
}

function tokenLines(rows) {
  return element("div", { class: "tokens" }, rows.flatMap((row, place) => [element("span", {}, `prompt ${place + 1}`), element("code", {}, row.join(" "))]));
}

function buildDetail() {
  const panel = find("detail");
  panel.addEventListener("close", () => { if (state.cell) change({ cell: "", of: "" }); });
  panel.addEventListener("click", (event) => { if (event.target === panel) panel.close(); });
}
