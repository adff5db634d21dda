/* Making elements. Data only ever becomes text or an attribute, never markup. */

/** An element with attributes and children; a child that is null is left out, a string is text. */
function element(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** The same for a picture. */
function drawn(name, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(key, value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** An address as a link where it is http or https, as text otherwise. */
function source(address) {
  const isWeb = /^https?:\/\/\S+$/.test(address);
  if (!isWeb) return element("span", { class: "mono" }, address);
  return element("a", { href: address, rel: "noopener noreferrer", target: "_blank" }, address);
}

/** An outcome as a letter in its colour. */
function swatch({ outcome, simulated, letter }) {
  return element("span", { class: `swatch ${outcome}${simulated ? " simulated" : ""}`, "aria-hidden": "true" }, letter);
}

const find = (id) => document.getElementById(id);
