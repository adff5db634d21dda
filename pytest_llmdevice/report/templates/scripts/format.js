/* Numbers as people read them, alike in every locale. */

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

/** A number with three significant digits. */
function short(value) {
  if (value !== 0 && Math.abs(value) < 0.001) return value.toExponential(1);
  return new Intl.NumberFormat("en-US", { maximumSignificantDigits: 3 }).format(value);
}

/** The same with its last zeros, for numbers one below the other. */
const aligned = (value) => (Math.abs(value) >= 1000 ? whole.format(value) : value.toPrecision(3));

/** Bytes, in the unit that suits them. */
function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let place = 0;
  while (Math.abs(value) >= 1024 && place < units.length - 1) {
    value /= 1024;
    place += 1;
  }
  return `${place === 0 ? value : value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} ${units[place]}`;
}

/** Seconds, in the unit that suits them. */
function seconds(value) {
  if (value < 1e-3) return `${(value * 1e6).toFixed(0)} µs`;
  if (value < 1) return `${(value * 1e3).toFixed(value < 0.01 ? 2 : value < 0.1 ? 1 : 0)} ms`;
  return value < 120 ? `${value.toFixed(2)} s` : `${(value / 60).toFixed(1)} min`;
}

/** A count with its word. */
function plural(count, word) {
  return `${whole.format(count)} ${word}${count === 1 ? "" : "s"}`;
}

/** What can be measured of a cell. `unit` and `scale` make a column whose numbers can be compared at a glance. */
const MEASURES = {
  load: { name: "Load", unit: "s", scale: 1, digits: 3, tell: seconds, better: "faster" },
  first: { name: "First token", unit: "ms", scale: 1e3, digits: 1, tell: seconds, better: "faster" },
  speed: { name: "Speed", unit: "tokens/s", scale: 1, digits: 1, tell: (value) => `${short(value)} tokens/s`, better: "slower" },
  memory: { name: "Peak memory", unit: "MiB", scale: 2 ** -20, digits: 2, tell: bytes, better: "smaller" },
};

/** A measure in the unit of its column. */
function inColumn(measure, value) {
  const { scale, digits } = MEASURES[measure];
  return (value * scale).toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}
