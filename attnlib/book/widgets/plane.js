// The plane of models. Each mark is a point with one or more models; the page looks up what
// Python counted, divides a cache by its tokens, and draws.

const R = 6; // radius of a mark, in pixels
// Shapes of the markers in appearance.py.
const SHAPES = {
  o: `M${-R} 0a${R} ${R} 0 1 0 ${2 * R} 0a${R} ${R} 0 1 0 ${-2 * R} 0z`,
  s: `M${-R + 1} ${-R + 1}h${2 * R - 2}v${2 * R - 2}h${2 - 2 * R}z`,
  "^": `M0 ${-R - 1}L${R + 1} ${R}H${-R - 1}z`,
  D: `M0 ${-R - 2}L${R + 2} 0L0 ${R + 2}L${-R - 2} 0z`,
  v: `M0 ${R + 1}L${R + 1} ${-R}H${-R - 1}z`,
  P: "M-2 -6h4v4h4v4h-4v4h-4v-4h-4v-4h4z",
  X: "M0 -3L3 -6L6 -3L3 0L6 3L3 6L0 3L-3 6L-6 3L-3 0L-6 -3L-3 -6z",
  p: "M0 -7L6.7 -2.2L4.1 5.7H-4.1L-6.7 -2.2z",
};
const NEAR = 40; // pixels within which a pointer means a mark
const TRAITS = ["x", "y", "context", "queries", "form", "family", "from_year", "to_year", "ridge", "shown"];

const BYTES = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** Bytes in the largest binary unit in which they are at least 1. */
function readableBytes(bytes) {
  const power = Math.max(0, Math.min(BYTES.length - 1, Math.floor(Math.log2(bytes) / 10)));
  const value = bytes / 2 ** (10 * power);
  const digits = power === 0 || Number.isInteger(value) ? 0 : value < 100 ? 1 : 0;
  return `${fixed(value, digits)} ${BYTES[power]}`;
}

/** A count with one letter for thousands, millions or billions. */
function readableCount(n) {
  const step = [[1e9, "B"], [1e6, "M"], [1e3, "k"]].find(([size]) => n >= size) ?? [1, ""];
  const value = n / step[0];
  return `${fixed(value, Number.isInteger(value) || value >= 100 ? 0 : 1)}${step[1]}`;
}

// How each measure is scaled, labelled along an axis, and written.
const AXES = {
  bytes: { base: 4, tick: readableBytes, write: (v) => `${withCommas(Math.round(v))} bytes` },
  read: { base: 4, tick: readableBytes, write: (v) => `${withCommas(Math.round(v))} bytes` },
  longest: { base: 4, tick: readableBytes, write: (v) => `${withCommas(v)} bytes` },
  intensity: { base: 2, tick: String, write: (v) => `${v}` },
  params: { base: 10, tick: readableCount, write: withCommas },
  year: { tick: String, write: (v) => String(Math.round(v)) },
};

function render({ model, el }) {
  const { controls, body, announce } = frame(el, model.get("label"));
  const data = model.get("data");
  const { machine } = data;
  el.classList.add("plane");
  const names = data.models.map(({ name }) => name);
  const variants = Object.fromEntries(data.variants.map((variant) => [variant.name, variant]));
  // Within a year, variants are side by side.
  const lanes = Object.fromEntries(data.variants.map(({ name }, i) => [name, (0.72 / data.variants.length) * (i - (data.variants.length - 1) / 2)]));
  let hovered = null; // the point under the pointer
  let points = []; // the points shown, each with its models
  let rest = []; // values of the models that are filtered out
  let places = []; // the points in pixels

  // A model's value on each measure.
  const cachedBy = (entry) => (model.get("form") === "naive" && entry.naive) || entry;
  const atContext = (values) => values[data.contexts.indexOf(model.get("context"))];
  const measures = {
    bytes: (entry) => atContext(cachedBy(entry).cache) / model.get("context"),
    read: (entry) => atContext(cachedBy(entry).read) / model.get("context"),
    longest: (entry) => cachedBy(entry).longest,
    intensity: (entry) => {
      const found = cachedBy(entry).intensity[data.queries.indexOf(model.get("queries"))];
      return Array.isArray(found) ? atContext(found) : found; // where layers differ, it depends on the context
    },
    params: (entry) => entry.params,
    year: (entry) => entry.year + lanes[entry.variant],
  };
  const domains = {};
  for (const name of Object.keys(measures)) domains[name] = domain(name);

  /** The range of an axis, wide enough for all contexts, query tokens and forms, so that it never moves. */
  function domain(name) {
    if (name === "year") return [data.years[0] - 0.5, data.years[data.years.length - 1] + 0.5];
    const all = data.models.flatMap((entry) => {
      const kinds = [entry, entry.naive].filter(Boolean);
      const column = { bytes: "cache", read: "read" }[name];
      if (column) return kinds.flatMap((kind) => kind[column].map((bytes, i) => bytes / data.contexts[i]));
      return (name === "params" ? [entry.params] : kinds.flatMap((kind) => kind[name]?.flat?.() ?? kind[name])).filter(Boolean);
    });
    if (name === "intensity" && machine) all.push(machine.intensity);
    return all.length ? [Math.min(...all) / 1.5, Math.max(...all) * 1.5] : [1, 2];
  }

  // Controls.
  const options = Object.entries(data.measures);
  const axisControl = (name, other, label) => {
    const id = uid();
    const input = h("select", { id }, ...options.map(([, text]) => h("option", {}, text)));
    input.addEventListener("change", () => {
      const [value] = options[input.selectedIndex];
      if (value === model.get(other)) model.set(other, model.get(name)); // swap the two
      setTrait(model, name, value);
    });
    watch(model, [name], () => (input.selectedIndex = options.findIndex(([value]) => value === model.get(name))));
    return h("div", { class: "control" }, h("label", { for: id }, label), input);
  };
  const mark = (name, attributes = {}) =>
    s("path", { class: "mark", "data-variant": name, style: `--color: ${variants[name].color}`, d: SHAPES[variants[name].marker], ...attributes });
  const legend = h(
    "fieldset",
    { class: "control legend" },
    h("legend", {}, "show"),
    ...data.variants.map(({ name }) => {
      const size = 2 * R + 6;
      const picture = s("svg", { viewBox: `${-size / 2} ${-size / 2} ${size} ${size}`, width: size, height: size, "aria-hidden": "true" }, mark(name));
      const count = data.models.filter((entry) => entry.variant === name).length;
      const input = h("input", { type: "checkbox" });
      input.addEventListener("change", () => {
        const shown = data.variants.map((variant) => variant.name);
        setTrait(model, "shown", shown.filter((other) => (other === name ? input.checked : model.get("shown").includes(other))));
      });
      watch(model, ["shown"], () => {
        input.checked = model.get("shown").includes(name);
      });
      return h("label", { class: "check" }, input, picture, h("span", {}, `${name} (${count})`));
    }),
  );
  const year = (name, label) => slider(model, name, { label, values: data.years });
  const found = h("select", { id: uid() });
  const gone = h("option");
  found.addEventListener("change", () => setTrait(model, "model", found.value));
  const ridgeBox = h("input", { type: "checkbox" });
  ridgeBox.addEventListener("change", () => setTrait(model, "ridge", ridgeBox.checked));
  watch(model, ["ridge"], () => {
    ridgeBox.checked = model.get("ridge");
  });
  const latent = data.variants.filter(({ name }) => data.models.some(({ variant, naive }) => naive && variant === name)).map(({ name }) => name);
  controls.append(
    axisControl("x", "y", "across"),
    axisControl("y", "x", "up"),
    slider(model, "context", { label: "tokens kept", values: data.contexts, format: withCommas }),
    slider(model, "queries", { label: "query tokens in a step", values: data.queries }),
    legend,
    h("div", { class: "years" }, year("from_year", "from"), year("to_year", "to")),
    dropdown(model, "family", { label: "family", options: [data.all, ...data.families].map((name) => [name, name]) }),
    machine ? h("label", { class: "check" }, ridgeBox, h("span", {}, `${machine.name}’s ridge point`)) : "",
    latent.length ? choice(model, "form", { label: `${latent.join(", ")} caches`, options: Object.entries(data.forms) }) : "",
    h("div", { class: "control" }, h("label", { for: found.id }, "model"), found),
  );

  // The drawing, which is one stop of the Tab key, and the text below it.
  const { node, draw: redraw } = chart(400, paint, { left: 62, right: 14, top: 26, bottom: 40 });
  node.removeAttribute("role");
  node.setAttribute("aria-hidden", "true");
  const cursor = h("div", { class: "field", tabindex: 0, role: "slider", "aria-label": "point of the plane", "aria-valuemin": 1 }, node);
  const heading = h("p", { class: "reading" });
  const list = h("ul", { class: "found" });
  const about = h("p", { class: "note" });
  const sources = (parts) => parts.map(([text, href]) => (href ? h("a", { href }, text) : text));
  const line = machine ? h("p", { class: "note" }, `${machine.text} Source: `, ...sources(machine.source)) : null;
  body.append(
    cursor,
    heading,
    list,
    about,
    h("p", { class: "note" }, `${data.meaning} ${data.left_out}`),
    line,
    h("p", { class: "note" }, "Left and right arrow go through the points by what is across, up and down by what is up; a click or a touch chooses the nearest, and once more the next one under it."),
  );

  const passes = (entry) =>
    model.get("shown").includes(entry.variant) &&
    entry.year >= model.get("from_year") &&
    entry.year <= model.get("to_year") &&
    (model.get("family") === data.all || model.get("family") === entry.family);

  /** Group all models by their points. */
  function place() {
    const [ofX, ofY] = [measures[model.get("x")], measures[model.get("y")]];
    const at = new Map();
    rest = [];
    for (const entry of data.models) {
      const [x, y] = [ofX(entry), ofY(entry)];
      if (x === null || y === null) continue;
      if (!passes(entry)) rest.push([x, y]);
      else if (at.has(`${x} ${y}`)) at.get(`${x} ${y}`).models.push(entry);
      else at.set(`${x} ${y}`, { x, y, models: [entry] });
    }
    points = [...at.values()].sort((a, b) => a.x - b.x || a.y - b.y);
  }

  /** The point of the chosen model; undefined if a filter or an axis leaves it out. */
  const chosen = () => points.find(({ models }) => models.some(({ name }) => name === model.get("model")));

  /** The ticks of an axis. */
  function ticks(name, length, room) {
    const [low, high] = domains[name];
    const { base, tick } = AXES[name];
    if (!base) return data.years.map((value) => [value, tick(value)]);
    const all = [];
    for (let value = base ** Math.ceil(Math.log(low) / Math.log(base) - 1e-9); value <= high; value *= base) all.push(value);
    const every = Math.ceil((all.length * room) / length);
    return all.filter((_, i) => i % every === 0).map((value) => [value, tick(value)]);
  }

  function paint(area) {
    const { left, right, top, bottom } = area;
    const [acrossName, upName] = [model.get("x"), model.get("y")];
    const x = scale(domains[acrossName], [left, right], { log: acrossName !== "year" });
    const y = scale(domains[upName], [bottom, top], { log: upName !== "year" });
    places = points.map((point) => [x(point.x), y(point.y)]);
    const label = (name) => `${data.measures[name]}${name === "year" ? "" : " (log scale)"}`;
    const nodes = axes(area, {
      x,
      y,
      xTicks: ticks(acrossName, right - left, 58),
      yTicks: ticks(upName, bottom - top, 24),
      xLabel: `${label(acrossName)} →`,
      yLabel: "",
    });
    nodes.push(s("text", { x: 0, y: 12 }, `↑ ${label(upName)}`));
    nodes.push(...ridge(area, x, y));
    for (const [vx, vy] of rest) nodes.push(s("circle", { class: "away", cx: x(vx), cy: y(vy), r: 2 }));
    const single = points.filter(({ models }) => models.length === 1);
    const several = points.filter(({ models }) => models.length > 1); // on top, larger, with their number
    for (const point of [...single, ...several]) {
      const { length } = point.models;
      const [px, py] = places[points.indexOf(point)];
      const transform = `translate(${px} ${py})${length > 1 ? " scale(1.4)" : ""}`;
      for (const kind of new Set(point.models.map(({ variant }) => variant))) nodes.push(mark(kind, { transform, "data-at": points.indexOf(point) }));
      if (length > 1) nodes.push(s("text", { class: "many", x: px, y: py + 4 }, length));
    }
    for (const point of new Set([chosen(), hovered])) {
      const i = points.indexOf(point);
      if (i >= 0) nodes.push(...named(point, places[i], area));
    }
    return nodes;
  }

  /** The machine's ridge point as a line, if FLOPs per byte are on an axis. */
  function ridge({ left, right, top, bottom }, x, y) {
    if (!machine || !model.get("ridge")) return [];
    const text = `${machine.name}: ${fixed(machine.intensity, 0)}`;
    if (model.get("y") === "intensity") {
      const at = y(machine.intensity);
      const wide = right - left > 420;
      const label = wide ? `${text} FLOPs per byte; above it the arithmetic takes longer than the reading` : text;
      return [s("path", { class: "ridge", d: `M${left} ${at}H${right}` }), s("text", { class: "halo", x: right, y: at - 5, "text-anchor": "end" }, label)];
    }
    if (model.get("x") !== "intensity") return [];
    const at = x(machine.intensity);
    return [s("path", { class: "ridge", d: `M${at} ${top}V${bottom}` }), s("text", { class: "halo", x: at - 5, y: top + 8, "text-anchor": "end" }, text)];
  }

  /** A ring around a point, with its name next to it inside the plot. */
  function named(point, [px, py], { left, right, top }) {
    const more = point.models.length - 1;
    const name = first(point).name + (more ? ` and ${more} more` : "");
    const needs = 14 + 7 * name.length; // pixels, about
    const before = px > (left + right) / 2 || (px + needs > right && px > needs);
    const under = py < top + 24;
    return [
      s("circle", { class: "ring", cx: px, cy: py, r: R + 5 }),
      s("text", { class: "halo name", x: px + (before ? -14 : 14), y: py + (under ? 18 : 4), "text-anchor": before ? "end" : "start" }, name),
    ];
  }

  /** The model that names a point: the chosen one, if it is among the point's models. */
  const first = ({ models }) => models.find(({ name }) => name === model.get("model")) ?? models[0];

  /** The text about a model, in parts. */
  function facts(entry) {
    const { longest } = cachedBy(entry);
    const intensity = measures.intensity(entry);
    const context = withCommas(model.get("context"));
    const each = AXES.bytes.write(measures.bytes(entry));
    const flops = `${intensity} FLOP${intensity === 1 ? "" : "s"}`;
    const mean = entry.mean ? `, the mean over ${context} tokens,` : "";
    const long = entry.max_context === null ? "" : ` At its longest context, ${withCommas(entry.max_context)} tokens, the cache takes ${readableBytes(longest)}.`;
    const words = `${entry.sizes}. A token takes ${each} of cache${mean} and a decode step does ${flops} for each byte that it reads.`;
    const size = entry.params === null ? "" : ` The attention has ${withCommas(entry.params)} parameters.`;
    return { words, more: `${long}${size}`, note: entry.note ? ` ${entry.note}` : "" };
  }

  const title = (entry) => `${entry.name} (${entry.year}, ${entry.variant})`;

  /** A point in words, for screen readers. */
  function spoken(point) {
    const others = point.models.filter((entry) => entry !== first(point)).map(title);
    const together = others.length ? ` At the same point: ${others.join(", ")}.` : "";
    return `${title(first(point))}: ${facts(first(point)).words}${together}`;
  }

  /** Write the models of the chosen point; for one under the pointer, its name is enough. */
  function read() {
    const point = chosen();
    if (!point) {
      const why = points.length ? "is not among the models shown" : "is filtered out, like all others";
      heading.textContent = `${model.get("model")} ${why}.`;
      list.replaceChildren();
      return;
    }
    const values = [point.x, point.y].map((value, i) => {
      const name = model.get("xy"[i]);
      return `${data.measures[name]} ${AXES[name].write(value)}`;
    });
    const many = point.models.length === 1 ? "One model" : `${point.models.length} models`;
    heading.textContent = `${many} at this point: ${values.join(", ")}`;
    const inOrder = [first(point), ...point.models.filter((entry) => entry !== first(point))];
    list.replaceChildren(
      ...inOrder.map((entry) => {
        const { words, more, note } = facts(entry);
        return h("li", {}, h("b", {}, title(entry)), `: ${words}${more}${note} `, h("span", { class: "source" }, "Source: ", ...sources(entry.source)));
      }),
    );
  }

  function draw() {
    hovered = null;
    place();
    const shown = data.models.filter(passes);
    const here = points.reduce((sum, { models }) => sum + models.length, 0);
    const without = shown.length - here;
    const lack = [model.get("x"), model.get("y")].includes("longest") ? "no published longest context" : "layers that differ, or an unknown width: their parameters are not counted";
    const missing = without ? ` ${without} more ${without === 1 ? "has" : "have"} ${lack}.` : "";
    const beside = [model.get("x"), model.get("y")].includes("year") ? " Within a year the variants stand side by side." : "";
    about.textContent = `${here} of ${data.models.length} models at ${points.length} points; a number in a mark says how many are there.${rest.length ? " Small dots: filtered out." : ""}${missing}${beside}`;
    ridgeBox.disabled = ![model.get("x"), model.get("y")].includes("intensity");
    found.replaceChildren(...shown.map(({ name }) => h("option", {}, name)));
    choose();
  }

  function choose() {
    hovered = null;
    const name = model.get("model");
    gone.remove(); // a model that is filtered out stays in the list while it is chosen
    found.value = name;
    if (found.value !== name) {
      gone.textContent = name;
      found.prepend(gone);
      found.value = name;
    }
    const at = chosen();
    cursor.setAttribute("aria-valuemax", Math.max(1, points.length));
    cursor.setAttribute("aria-valuenow", at ? points.indexOf(at) + 1 : 1);
    cursor.setAttribute("aria-valuetext", at ? spoken(at) : `${name} is not shown`);
    read();
    redraw();
    announce(`${at ? spoken(at) : heading.textContent} ${about.textContent}`);
  }

  /** Move the cursor through the points in the order of an axis. */
  function step(axis, by) {
    if (!points.length) return;
    const other = axis === "x" ? "y" : "x";
    const order = [...points].sort((a, b) => a[axis] - b[axis] || a[other] - b[other]);
    const at = order.indexOf(chosen());
    const next = at < 0 ? (by < 0 ? order.length - 1 : 0) : clamp(at + by, 0, order.length - 1);
    if (next !== at) setTrait(model, "model", order[next].models[0].name);
  }

  /** The points near a pointer, the nearest first. */
  function pointsAt(event) {
    const box = node.getBoundingClientRect();
    const [px, py] = [event.clientX - box.left, event.clientY - box.top];
    const near = points.map((point, i) => ({ point, away: Math.hypot(places[i][0] - px, places[i][1] - py) }));
    return near.filter(({ away }) => away < NEAR).sort((a, b) => a.away - b.away);
  }

  function hover(at) {
    if (at === hovered) return;
    hovered = at;
    redraw();
  }

  cursor.addEventListener("pointermove", (event) => event.pointerType === "mouse" && hover(pointsAt(event)[0]?.point ?? null));
  cursor.addEventListener("pointerleave", () => hover(null));
  cursor.addEventListener("click", (event) => {
    const near = pointsAt(event);
    const under = near.filter(({ away }) => away <= R + 2); // marks may overlap
    const again = under.findIndex(({ point }) => point === chosen());
    const next = again < 0 ? near[0] : under[(again + 1) % under.length];
    if (!next) return;
    if (next.point === chosen()) choose();
    else setTrait(model, "model", next.point.models[0].name);
  });
  cursor.addEventListener("keydown", (event) => {
    const steps = {
      ArrowLeft: ["x", -1],
      ArrowRight: ["x", 1],
      ArrowDown: ["y", -1],
      ArrowUp: ["y", 1],
      PageDown: ["x", -10],
      PageUp: ["x", 10],
      Home: ["x", -names.length],
      End: ["x", names.length],
    };
    if (!(event.key in steps)) return;
    event.preventDefault();
    step(...steps[event.key]);
  });

  const pushes = [
    follow(model, ["from_year"], () => model.get("from_year") > model.get("to_year") && setTrait(model, "to_year", model.get("from_year"))),
    follow(model, ["to_year"], () => model.get("from_year") > model.get("to_year") && setTrait(model, "from_year", model.get("to_year"))),
  ];
  const stops = [watch(model, TRAITS, draw), follow(model, ["model"], choose), ...pushes];
  return () => stops.forEach((stop) => stop());
}
