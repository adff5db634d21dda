/* Loads and memory by model and by quantization, of the cells that fit the filter. */

const PLOTS = [["load", "model"], ["memory", "model"], ["load", "quantization"], ["memory", "quantization"]];

/** The cells that were measured; where some ran on real hardware, only those. */
function measured() {
  const ran = fitting.filter((cell) => cell.outcome !== "skipped" && (cell.load !== null || cell.memory !== null));
  const real = ran.filter((cell) => !cell.simulated);
  return { chosen: real.length ? real : ran, simulated: real.length === 0, left: real.length ? ran.length - real.length : 0 };
}

function drawMeasures() {
  const { chosen, simulated, left } = measured();
  const lead = chosen.length === 0 ? "Nothing was measured in the cells that fit the filter."
    : `${plural(chosen.length, "cell")}${simulated ? ", all simulated: the numbers are those of the processor that stood in" : " on real hardware"}${left ? `; ${whole.format(left)} simulated are left out` : ""}. The box holds the middle half, the line all of them; the number is the median. Memory is what a cell added at its peak.`;
  find("measures-lead").textContent = lead;
  const figures = PLOTS.map(([measure, axis]) => {
    const groups = data.axes[axis]
      .map((value) => [value, chosen.filter((cell) => cell[axis] === value && cell[measure] !== null).map((cell) => cell[measure])])
      .filter(([, values]) => values.length);
    const figure = element("figure", { class: "plot" }, element("figcaption", {}, `${MEASURES[measure].name} by ${axis}`));
    return [figure, groups, measure];
  }).filter(([, groups]) => groups.length);
  find("plots").replaceChildren(...figures.map(([figure]) => figure));
  for (const [figure, groups, measure] of figures) figure.append(boxes(groups, measure, Math.max(280, figure.clientWidth)));
}
