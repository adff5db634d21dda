/* The list of what changed since the baseline. */

const chosenChanges = new Set();

function drawChanges() {
  const shown = transitions.filter(({ name }) => !chosenChanges.size || chosenChanges.has(name));
  const heads = ["Change", "Cell", "Check", "Before → after", "Detail"].map((label) => element("th", { scope: "col" }, label));
  chunked(find("change-list"), heads, shown, ({ name, cell, id, check, before, after, detail }) => element("tr", { "data-row": cell?.place },
    element("td", { class: "nowrap" }, element("span", { class: `chip change ${direction(name)}` }, name)),
    element("td", {}, cell ? cellLink(cell) : element("span", { class: "mono" }, id)),
    element("td", { class: "mono" }, check),
    element("td", {}, `${before} → ${after}`),
    element("td", {}, element("small", {}, detail))));
}

/** Make buttons of the counts. */
function buildChanges() {
  if (!data.comparison) return;
  for (const item of find("change-names").children) {
    const { change: name } = item.dataset;
    const toggle = (event) => {
      if (!chosenChanges.delete(name)) chosenChanges.add(name);
      event.currentTarget.setAttribute("aria-pressed", chosenChanges.has(name));
      drawChanges();
    };
    const button = element("button", { type: "button", class: `chip change ${direction(name)}`, "aria-pressed": "false", click: toggle }, ...item.childNodes);
    item.removeAttribute("class");
    item.append(button);
  }
  drawChanges();
}
