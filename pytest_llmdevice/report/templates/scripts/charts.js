/* Plots, drawn at the width that they have. */

/** Round values that span `from` to `to`, about `wanted` of them. */
function ticks(from, to, wanted = 4) {
  const rough = (to - from) / wanted || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= rough);
  const found = [];
  for (let value = Math.ceil(from / step) * step; value <= to + step * 1e-9; value += step) found.push(value);
  return found;
}

/** The value below which `part` of `ordered` lies. */
function quantile(ordered, part) {
  const place = (ordered.length - 1) * part;
  const low = Math.floor(place);
  return ordered[low] + (ordered[Math.ceil(place)] - ordered[low]) * (place - low);
}

/** For each group a box from the first to the third quartile, its median, and a line over all values. */
function boxes(groups, measure, width) {
  const { scale, unit, name } = MEASURES[measure];
  const labels = Math.min(110, width * 0.3);
  const right = 46;
  const [line, foot] = [26, 42];
  const height = groups.length * line + foot;
  const ordered = groups.map(([label, values]) => [label, values.map((value) => value * scale).sort((a, b) => a - b)]);
  const most = Math.max(...ordered.map(([, values]) => values.at(-1))) || 1;
  const across = (value) => labels + (value / most) * (width - labels - right);
  const bottom = groups.length * line + 6;
  const description = `${name} in ${unit}: ${ordered.map(([label, values]) => `${label} median ${short(quantile(values, 0.5))}`).join(", ")}`;
  return drawn("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": description },
    ticks(0, most).map((value) => [
      drawn("line", { class: "axis", x1: across(value), x2: across(value), y1: 0, y2: bottom }),
      drawn("text", { x: across(value), y: bottom + 14, "text-anchor": "middle" }, short(value)),
    ]),
    drawn("text", { x: (labels + width - right) / 2, y: bottom + 32, "text-anchor": "middle" }, `${name} (${unit})`),
    ordered.map(([label, values], place) => {
      const middle = place * line + line / 2;
      const [low, quarter, median, upper, high] = [0, 0.25, 0.5, 0.75, 1].map((part) => across(quantile(values, part)));
      return drawn("g", {},
        drawn("title", {}, `${label}: median ${short(quantile(values, 0.5))} ${unit}, ${plural(values.length, "cell")}`),
        drawn("text", { class: "label", x: labels - 10, y: middle + 4, "text-anchor": "end" }, label.length > 16 ? `${label.slice(0, 15)}…` : label),
        drawn("line", { class: "whisker", x1: low, x2: high, y1: middle, y2: middle }),
        drawn("rect", { class: "box", x: quarter, y: middle - 7, width: Math.max(1, upper - quarter), height: 14, rx: 3 }),
        drawn("line", { class: "median", x1: median, x2: median, y1: middle - 7, y2: middle + 7 }),
        drawn("text", { x: width, y: middle + 4, "text-anchor": "end" }, aligned(quantile(values, 0.5))));
    }));
}

/** One value among others: how many of them are how large, and where it is. */
function among(value, others, measure, width) {
  const { scale, unit } = MEASURES[measure];
  const [bars, height, foot] = [Math.min(32, Math.max(8, Math.round(width / 12))), 54, 18];
  const all = [...others, value].map((each) => each * scale);
  const [from, most] = [Math.min(...all), Math.max(...all)];
  const to = most > from ? most : from * 1.1 || 1;
  const across = (each) => ((each * scale - from) / (to - from)) * (width - 8) + 4;
  const counts = new Array(bars).fill(0);
  for (const each of others) counts[Math.min(bars - 1, Math.floor(((each * scale - from) / (to - from)) * bars))] += 1;
  const highest = Math.max(1, ...counts);
  const step = (width - 8) / bars;
  return drawn("svg", { width, height: height + foot, viewBox: `0 0 ${width} ${height + foot}`, role: "img", "aria-label": `${short(value * scale)} ${unit} among ${plural(others.length, "other cell")}` },
    counts.map((found, place) => found > 0 && drawn("rect", {
      class: "bar", x: 4 + place * step, width: Math.max(1, step - 1.5), rx: 1.5,
      y: height - Math.max(2, (found / highest) * (height - 12)), height: Math.max(2, (found / highest) * (height - 12)),
    })),
    drawn("line", { class: "axis", x1: 0, x2: width, y1: height + 0.5, y2: height + 0.5 }),
    drawn("line", { class: "own-line", x1: across(value), x2: across(value), y1: 6, y2: height }),
    drawn("circle", { class: "own", cx: across(value), cy: 6, r: 4.5 }),
    drawn("text", { x: 0, y: height + 15 }, short(from)),
    drawn("text", { x: width, y: height + 15, "text-anchor": "end" }, `${short(to)} ${unit}`));
}

/** Bytes of one place: held before, added after, and what the peak had on top. */
function memoryBar([, before, after, peak], most, width) {
  const across = (value) => (value / most) * width;
  const top = Math.max(peak, after, before);
  const bar = (name, from, to) => to > from && drawn("rect", { class: name, x: across(from), y: 0, width: Math.max(1.5, across(to - from)), height: 16 });
  return drawn("svg", { width, height: 16, viewBox: `0 0 ${width} 16`, role: "img", "aria-label": `before ${bytes(before)}, after ${bytes(after)}, peak ${bytes(peak)}` },
    bar("peak", Math.max(before, after), top), bar("after", before, after), bar("held", 0, Math.min(before, Math.max(after, 0))));
}
