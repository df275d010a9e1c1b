// Shared by all widgets: a figure's frame, its controls, and its synchronisation with Python.
//
// A widget's own file follows this one in the same module and defines `render({ model, el })`.
// `model` is anywidget's if there is a kernel; on a page without one, `mount` makes a `StaticModel`.

/** A model without a kernel: values, and listeners for their changes. */
class StaticModel {
  constructor(values) {
    this.values = values;
    this.listeners = {};
  }

  get(name) {
    return this.values[name];
  }

  set(name, value) {
    if (this.values[name] === value) return;
    this.values[name] = value;
    for (const listener of this.listeners[`change:${name}`] ?? []) listener();
  }

  on(event, listener) {
    (this.listeners[event] ??= []).push(listener);
  }

  off(event, listener) {
    this.listeners[event] = (this.listeners[event] ?? []).filter((other) => other !== listener);
  }

  save_changes() {}
}

/** Whether the model is connected to a kernel. */
const isLive = (model) => !(model instanceof StaticModel);

/** Draw a widget, and fold the table for pages without scripts below it. */
function mount(render, script) {
  const root = script.parentElement;
  const fallback = root.querySelector(".attnlib-fallback");
  const el = root.insertBefore(h("div"), fallback);
  try {
    const values = JSON.parse(root.querySelector('script[type="application/json"]').text);
    render({ model: new StaticModel(values), el });
    fallback.tabIndex = 0; // so that a wide table scrolls by keys as well
    el.append(h("details", { class: "as-table" }, h("summary", {}, "As a table"), fallback));
  } catch (error) {
    el.remove(); // the table has the same content
    throw error;
  }
}

/** Set a trait, here and in Python. */
function setTrait(model, name, value) {
  model.set(name, value);
  model.save_changes();
}

/** Call `draw` now and whenever one of the traits changes; return a function that stops it. */
function watch(model, names, draw) {
  draw();
  return follow(model, names, draw);
}

/** Call `draw` whenever one of the traits changes; return a function that stops it. */
function follow(model, names, draw) {
  for (const name of names) model.on(`change:${name}`, draw);
  return () => names.forEach((name) => model.off(`change:${name}`, draw));
}

/** Make an element: h("p", { class: "note", onclick: act }, "text", child, ...). */
function h(tag, attributes = {}, ...children) {
  return build(document.createElement(tag), attributes, children);
}

/** Make an SVG element in the same way. */
function s(tag, attributes = {}, ...children) {
  return build(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

/** A unique id for an element. */
const uid = () => `attnlib-${Math.random().toString(36).slice(2, 10)}`;

/**
 * Make a figure's title, its places for controls and for the drawing, and its screen-reader text.
 *
 * Key presses other than Tab stop here: JupyterLab would take arrows for its own commands.
 */
function frame(el, title) {
  el.classList.add("attnlib");
  const controls = h("div", { class: "controls" });
  const body = h("div", { class: "body" });
  const status = h("p", { class: "spoken", role: "status" });
  const caption = h("figcaption", {}, title);
  el.replaceChildren(h("figure", {}, caption, controls, body, status));
  el.addEventListener("keydown", (event) => event.key !== "Tab" && event.stopPropagation());
  el.dataset.lmSuppressShortcuts = "true"; // for a JupyterLab that handles keys while capturing
  let timer = 0;
  let first = true;
  const announce = (text) => {
    if (first) first = false; // nothing is announced when a page opens
    else {
      clearTimeout(timer); // while a key is pressed, only the last text is announced
      timer = setTimeout(() => {
        status.textContent = text;
      }, 250);
    }
  };
  return { controls, body, caption, announce };
}

/** A slider over a list of values, bound to a trait that is one of them. */
function slider(model, name, { label, values, format = String }) {
  const id = uid();
  const input = h("input", { id, type: "range", min: 0, max: values.length - 1, step: 1 });
  const shown = h("output", { for: id, "aria-live": "off" }); // the figure announces it
  input.addEventListener("input", () => setTrait(model, name, values[input.value]));
  watch(model, [name], () => {
    input.value = values.indexOf(model.get(name));
    shown.textContent = format(model.get(name));
    input.setAttribute("aria-valuetext", shown.textContent);
  });
  return h("div", { class: "control slider" }, h("label", { for: id }, label), input, shown);
}

/** A row of radio buttons, [value, text] each, bound to a trait. */
function choice(model, name, { label, options }) {
  const group = uid();
  const inputs = options.map(([value, text]) => {
    const input = h("input", { type: "radio", name: group });
    input.addEventListener("change", () => setTrait(model, name, value));
    return { value, input, node: h("label", {}, input, h("span", {}, text)) };
  });
  watch(model, [name], () => {
    for (const { value, input } of inputs) input.checked = value === model.get(name);
  });
  const nodes = inputs.map(({ node }) => node);
  return h("fieldset", { class: "control choice" }, h("legend", {}, label), ...nodes);
}

/** A drop-down list of [value, text], bound to a trait. */
function dropdown(model, name, { label, options }) {
  const id = uid();
  const rows = options.map(([, text]) => h("option", {}, text));
  const input = h("select", { id }, ...rows);
  input.addEventListener("change", () => setTrait(model, name, options[input.selectedIndex][0]));
  watch(model, [name], () => {
    input.selectedIndex = options.findIndex(([value]) => value === model.get(name));
  });
  return h("div", { class: "control" }, h("label", { for: id }, label), input);
}

/** An integer within limits, bound to a trait; invalid input is marked and not set. */
function number(model, name, { label, min, max, unit = "" }) {
  const id = uid();
  const input = h("input", { id, type: "number", min, max, step: 1, inputmode: "numeric" });
  const message = h("span", { class: "complaint", role: "alert" });
  const mark = (valid) => {
    input.setAttribute("aria-invalid", String(!valid));
    message.textContent = valid ? "" : `a whole number from ${withCommas(min)} to ${withCommas(max)}`;
  };
  input.addEventListener("input", () => {
    const value = Number(input.value);
    const valid = input.value !== "" && Number.isInteger(value) && value >= min && value <= max;
    mark(valid);
    if (valid) setTrait(model, name, value);
  });
  watch(model, [name], () => {
    if (Number(input.value) !== model.get(name)) input.value = model.get(name);
    mark(true); // the trait's own value is always valid
  });
  const unitNode = unit && h("span", { class: "unit" }, unit);
  const nodes = [h("label", { for: id }, label), input, unitNode || null, message];
  return h("div", { class: "control number" }, ...nodes);
}

/**
 * A chart as wide as its container: `paint` gets the plot's edges in pixels and returns SVG nodes.
 * Call the result's `draw` when the numbers have changed, and give its `node` an aria-label.
 */
function chart(height, paint, { left = 48, right = 12, top = 14, bottom = 36 } = {}) {
  const node = s("svg", { role: "img", width: "100%", height });
  let width = 0;
  const draw = () => {
    if (width < 1) return;
    node.setAttribute("viewBox", `0 0 ${width} ${height}`);
    node.replaceChildren(...paint({ left, right: width - right, top, bottom: height - bottom }));
  };
  new ResizeObserver(([entry]) => {
    if (Math.abs(entry.contentRect.width - width) < 1) return;
    width = entry.contentRect.width;
    draw();
  }).observe(node);
  return { node, draw };
}

/** A function from data to pixels, linear or logarithmic. */
function scale([low, high], [from, to], { log = false } = {}) {
  const f = log ? Math.log2 : Number;
  return (x) => from + ((f(x) - f(low)) / (f(high) - f(low))) * (to - from);
}

/** Axes of a chart: ticks are [value, text]; labels name the quantity and its unit. */
function axes({ left, right, top, bottom }, { x, y, xTicks = [], yTicks = [], xLabel, yLabel }) {
  const end = { "text-anchor": "end", "dominant-baseline": "middle" };
  return [
    s("path", { class: "frame", d: `M${left} ${top}V${bottom}H${right}` }),
    ...xTicks.flatMap(([value, text]) => [
      s("path", { class: "frame", d: `M${x(value)} ${bottom}v4` }),
      s("text", { x: x(value), y: bottom + 16, "text-anchor": "middle" }, text),
    ]),
    ...yTicks.flatMap(([value, text]) => [
      s("path", { class: "rule", d: `M${left} ${y(value)}H${right}` }),
      s("text", { x: left - 6, y: y(value), ...end }, text),
    ]),
    s("text", { x: (left + right) / 2, y: bottom + 32, "text-anchor": "middle" }, xLabel ?? ""),
    s("text", { x: 0, y: top - 4 }, yLabel ?? ""), // above the axis, so that it is horizontal
  ];
}

/** Numbers in 0 to 1 from a text that `pack` or `pack_bytes` in base.py returned. */
function unpack(text) {
  const [kind, code] = text.split(":");
  const bytes = atob(code);
  if (kind === "u8") return Float32Array.from(bytes, (byte) => byte.charCodeAt(0) / 255);
  const numbers = new Float32Array(bytes.length / 2);
  for (let i = 0; i < numbers.length; i++) {
    numbers[i] = (bytes.charCodeAt(2 * i) + 256 * bytes.charCodeAt(2 * i + 1)) / 65535;
  }
  return numbers;
}

/** Keep a number within limits. */
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** An integer with commas, like Python's f"{n:,}". */
const withCommas = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, ",");

/** A number with a fixed number of decimals, and a typographic minus. */
const fixed = (x, digits = 2) => x.toFixed(digits).replace(/^-(0\.0*)$/, "$1").replace("-", "−");

/** The value of a polynomial [[factor, [name, ...]], ...] for named sizes. */
function evaluate(polynomial, sizes) {
  const term = ([factor, names]) => names.reduce((product, name) => product * sizes[name], factor);
  return polynomial.reduce((sum, part) => sum + term(part), 0);
}

/** Bytes in a unit of so many bytes, as `amount` in explorer.py. */
function amount(bytes, unit) {
  const size = BigInt(unit);
  const digits = 10n * bytes >= size ? 2 : 4;
  const power = 10n ** BigInt(digits);
  const parts = (2n * bytes * power + size) / (2n * size); // rounded half up
  return `${withCommas(parts / power)}.${String(parts % power).padStart(digits, "0")}`;
}

/**
 * Keep the reader's choices in the address of the page, where there is no kernel.
 *
 * `parameters` returns what belongs there, of the names `all`; `recall` turns the address's
 * parameters into values of traits. The result's `node` has a button that copies the link.
 */
function inAddress(model, { anchor, all, announce, parameters, recall }) {
  const words = "Copy link to this state";
  const link = h("button", { type: "button", onclick: copy }, words);
  const shown = h("input", { type: "text", readonly: true, "aria-label": "link to this state", hidden: true });
  let timer = 0;
  let settled = false; // nothing is stored before the reader has changed something

  function address() {
    const url = new URL(location.href);
    for (const name of all) url.searchParams.delete(name);
    for (const [name, value] of Object.entries(parameters())) url.searchParams.set(name, value);
    url.hash = anchor;
    return url.href;
  }

  function remember() {
    if (isLive(model) || !settled) return;
    clearTimeout(timer);
    timer = setTimeout(() => {
      if (!link.isConnected) return; // the figure is gone
      try {
        history.replaceState(history.state, "", address());
      } catch {
        // some browsers refuse this for pages on disk; the button works all the same
      }
    }, 300);
    shown.hidden = true;
    link.textContent = words;
  }

  async function copy() {
    try {
      await navigator.clipboard.writeText(address());
      link.textContent = "Copied";
      announce("Link copied.");
    } catch {
      shown.hidden = false; // no permission to write the clipboard: show the link instead
      shown.value = address();
      shown.focus();
      shown.select();
    }
  }

  return {
    node: isLive(model) ? null : h("p", { class: "link" }, link, shown),
    remember,
    restore() {
      if (isLive(model)) return;
      for (const [name, value] of Object.entries(recall(new URLSearchParams(location.search)))) model.set(name, value);
    },
    settle() {
      settled = true;
    },
    stop: () => clearTimeout(timer),
  };
}
