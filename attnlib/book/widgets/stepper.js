// The MLA stepper. Each form of the decode step is a list of products, drawn as rows: two matrices and
// their result to one scale, and the FLOPs. The last step shows tiles of small matrices instead.

function render({ model, el }) {
  const { controls, body, announce } = frame(el, model.get("label"));
  el.classList.add("stepper");
  const { forms, sizes, rotation, tokens } = model.get("data");
  const names = [...forms, rotation].map(({ name }) => name);
  const numbers = Object.fromEntries(
    ["w_q", "w_uk", "rotations", "products"].map((part) => [part, unpackSigned(rotation[part])]),
  );

  const move = (by) => () => setTrait(model, "step", clamp(model.get("step") + by, 0, names.length - 1));
  const back = h("button", { type: "button", onclick: move(-1) }, "← Previous");
  const next = h("button", { type: "button", onclick: move(1) }, "Next →");
  const long = slider(model, "cached", { label: "cached tokens, S", values: tokens, format: withCommas });
  const far = slider(model, "distance", {
    label: "relative position",
    values: rotation.changes.map((_, d) => d),
    format: (d) => `${d} ${d === 1 ? "token" : "tokens"}`,
  });
  controls.append(
    choice(model, "step", { label: "step", options: names.map((name, i) => [i, `${i + 1} ${name}`]) }),
    h("div", { class: "control" }, back, next),
    long,
    far,
  );

  // One scale for all: the widest product of all forms fills the narrowest page.
  const length = (size) => (size === "S" ? sizes.kv_lora_rank / 2 : size);
  const widths = forms.flatMap(({ products }) =>
    products.map(({ matrices }) => matrices.reduce((sum, { columns }) => sum + length(columns), 0)),
  );
  el.style.setProperty("--units", Math.max(...widths));

  const refresh = []; // functions of the sizes that update the texts that depend on S
  const counting = (tag, attributes, text) => {
    const node = h(tag, attributes);
    refresh.push((here) => {
      node.textContent = text(here);
    });
    return node;
  };
  const flopsOf = ({ products }, here) => products.reduce((sum, { flops }) => sum + evaluate(flops, here), 0);
  const cost = (form, here) => {
    const [bytes, flops] = [evaluate(form.bytes, here), flopsOf(form, here)];
    const [whole, tenths] = fixed(flops / bytes, 1).split(".");
    return [withCommas(bytes), withCommas(flops), `${withCommas(whole)}.${tenths}`];
  };

  /** A matrix: its name, its rectangle, its size, and a note such as "cached". */
  function picture({ name, rows, columns, parts, note, shared }) {
    const upright = columns === "S" && rows !== 1;
    const boxes = parts.map(([part, classes]) => h("i", { class: classes, style: `flex: ${length(part)}` }));
    const cut = columns === "S" ? "cut crosswise" : rows === "S" ? "cut lengthwise" : "";
    const style = `--rows: ${length(rows)}; --columns: ${length(columns)}`;
    const box = h("div", { class: `sides ${upright ? "upright" : ""} ${cut}`, style }, ...boxes);
    const size = (side, here) => withCommas(side === "S" ? here.tokens : side);
    return h(
      "div",
      { class: "matrix" },
      h("span", {}, ...withSuperscripts(name)),
      h("div", { class: shared ? "one" : "stack" }, box),
      counting("span", { class: "size" }, (here) => `${size(rows, here)} × ${size(columns, here)}`),
      note ? h("span", { class: note === "cached" ? "size kept" : "size" }, ...withSuperscripts(note)) : null,
    );
  }

  /** A product: two matrices, their result, and its FLOPs. */
  function productRow({ name, flops, matrices: [a, b, result] }, i) {
    const grows = flops[0][1].includes("tokens");
    const words = [
      h("b", {}, `${i + 1}. ${name}`),
      counting("span", { class: "flops" }, (here) => `${withCommas(evaluate(flops, here))} FLOPs`),
      h("span", { class: "note" }, grows ? "grows with S" : "the same at every S"),
    ];
    const factors = [picture(a), h("span", {}, "·"), picture(b), h("span", {}, "="), picture(result)];
    return h("div", { class: "product" }, h("div", { class: "factors" }, ...factors), h("div", { class: "words" }, ...words));
  }

  const stages = forms.map(({ formula: [before, bracket, after], point, products }) => {
    const score = ["score = ", ...withSuperscripts(before), h("b", {}, ...withSuperscripts(bracket)), ...withSuperscripts(`${after} + rotary part`)];
    const formula = h("p", { class: "formula" }, h("span", {}, ...score), h("span", { class: "note" }, ...withSuperscripts(point)));
    return h("div", { class: "stage" }, formula, ...products.map(productRow));
  });
  const heads = [h("span", { class: "named" }, "one step of one layer"), "cache read, bytes", "FLOPs", "FLOPs per byte"];
  const lines = forms.map((form, i) => {
    const name = h("th", { scope: "row" }, `${i + 1}`, h("span", { class: "named" }, ` ${form.name}`));
    return h("tr", {}, name, ...[0, 1, 2].map((k) => counting("td", {}, (here) => cost(form, here)[k])));
  });
  const costs = h(
    "table",
    { class: "numbers costs" },
    h("thead", {}, h("tr", {}, ...heads.map((head) => h("th", { scope: "col" }, head)))),
    h("tbody", {}, ...lines),
  );
  const legend = counting("p", { class: "note" }, (here) =>
    `Sides are to scale, except S, which is cut short (it would be ${withCommas(Math.round(here.tokens / length("S")))} times as long), and vectors, which are drawn thicker. ` +
    `A stack: one for each of ${here.n_heads} heads. Striped: made from the cache in this step. Purple: latents. Blue, vermilion, green: queries, keys, values. Grey: weights.`,
  );
  const counted = h("div", {}, h("div", { class: "wide" }, costs), ...stages, legend);
  const blocked = h("div", {});
  body.append(counted, blocked);

  function drawForm(step) {
    const here = { ...sizes, tokens: model.get("cached") };
    for (const update of refresh) update(here);
    stages.forEach((stage, i) => {
      stage.hidden = i !== step;
    });
    lines.forEach((line, i) => {
      line.classList.toggle("on", i === step);
      if (i === step) line.setAttribute("aria-current", "step");
      else line.removeAttribute("aria-current");
    });
    const [bytes, flops, perByte] = cost(forms[step], here);
    announce(`Step ${step + 1}, ${forms[step].name}, ${withCommas(here.tokens)} cached tokens: ${bytes} bytes of cache, ${flops} FLOPs, ${perByte} FLOPs per byte`);
  }

  const [d_model, D, d_c] = rotation.shape;
  const part = (name, rows, columns, which = 0) =>
    numbers[name].slice(which * rows * columns, (which + 1) * rows * columns);
  const shown = (name, key, rows, columns) => {
    const tiles = tiled(part(key, rows, columns), rows, columns, rotation[key].limit);
    const size = h("span", { class: "size" }, `${rows} × ${columns}`);
    return { ...tiles, figure: h("div", { class: "matrix" }, h("span", {}, ...withSuperscripts(name)), tiles.node, size) };
  };
  const R = shown("R", "rotations", D, D);
  const product = shown("product", "products", d_model, d_c);
  const changed = h("span", { class: "flops" });
  const row = (middle, result, title, change, note) => {
    const signs = ["·", "·", "="].slice(middle ? 0 : 1).map((sign) => h("span", {}, sign));
    const factors = [shown("(W^Q)^T", "w_q", d_model, D), middle, shown("W^UK", "w_uk", D, d_c), result];
    const nodes = factors.filter(Boolean).flatMap(({ figure }, i) => (i ? [signs[i - 1], figure] : [figure]));
    const words = h("div", { class: "words" }, h("b", {}, title), change, h("span", { class: "note" }, note));
    return h("div", { class: "product tiled" }, h("div", { class: "factors" }, ...nodes), words);
  };
  blocked.append(
    h(
      "p",
      { class: "formula" },
      h("span", {}, "score = ", ...withSuperscripts("x^T (W^Q)^T "), h("b", {}, "R"), ...withSuperscripts(" W^UK c")),
      h("span", { class: "note" }, "With RoPE on these keys, a rotation R by the relative position comes in between."),
    ),
    row(R, product, "RoPE on these keys", changed, "The product differs at every distance, so no single carried query can serve all cached tokens."),
    row(
      null,
      shown("product", "products", d_model, d_c),
      "Decoupled: no position here",
      h("span", { class: "flops" }, "largest change: 0.00"),
      "One product for all tokens: the brackets may move. Position has its own numbers, in the rotary parts.",
    ),
    h(
      "p",
      { class: "note" },
      `A small head of random numbers: blue is positive, vermilion with a bar is negative, and strong colours are large numbers. The change is the largest one of the product's entries since relative position 0; up to ${rotation.changes.length - 1} tokens apart the entries reach ${fixed(rotation.products.limit)}.`,
    ),
  );

  function drawRotation() {
    const d = model.get("distance");
    R.paint(part("rotations", D, D, d));
    product.paint(part("products", d_model, d_c, d));
    const change = fixed(rotation.changes[d]);
    changed.textContent = `largest change: ${change}`;
    announce(`Relative position ${d}: the product with RoPE has changed by up to ${change}, without it by 0.00`);
  }

  function draw() {
    const step = model.get("step");
    const last = step === forms.length;
    back.setAttribute("aria-disabled", String(step === 0));
    next.setAttribute("aria-disabled", String(last));
    long.hidden = counted.hidden = last;
    far.hidden = blocked.hidden = !last;
    if (last) drawRotation();
    else drawForm(step);
  }

  return watch(model, ["step", "cached", "distance"], draw);
}

/** Numbers of both signs, packed by `signed` in stepper.py. */
const unpackSigned = ({ limit, packed }) => unpack(packed).map((share) => (2 * share - 1) * limit);

/** Text in which letters after ^ are superscripts. */
const withSuperscripts = (text) => text.split(/\^(\w+)/).map((part, i) => (i % 2 ? h("sup", {}, part) : part));

/** A small matrix as tiles, which `paint` repaints: hue and bar show the sign, opacity the size. */
function tiled(initial, rows, columns, limit) {
  const tiles = [...initial].map((_, i) => {
    const [x, y] = [18 * (i % columns), 18 * Math.floor(i / columns)];
    return [s("rect", { x, y, width: 18, height: 18 }), s("path", { d: `M${x + 6} ${y + 9}h6` })];
  });
  const paint = (values) =>
    tiles.forEach(([tile, bar], i) => {
      const share = Math.abs(values[i]) / limit;
      tile.setAttribute("fill", values[i] < 0 ? "var(--vermilion)" : "var(--blue)");
      tile.setAttribute("fill-opacity", share.toFixed(3));
      bar.setAttribute("stroke-opacity", values[i] < 0 && share > 0.02 ? 1 : 0);
    });
  paint(initial);
  const style = `width: calc(var(--tile) * ${columns})`;
  const node = s("svg", { class: "tiles", "aria-hidden": "true", style, viewBox: `0 0 ${18 * columns} ${18 * rows}` }, ...tiles.flat());
  return { node, paint };
}
