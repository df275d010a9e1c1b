// The attention heatmap. Rows are queries, columns are keys. Each cell is one pixel of a canvas that
// the browser enlarges, so that a thousand cells cost no more than one.

const SHADE = [27, 132, 201]; // equal contrast on white and on the dark page; opacity is the weight

function render({ model, el }) {
  const { controls, body, announce } = frame(el, model.get("label"));
  el.classList.add("heatmap");
  const map = h("canvas");
  const marks = s("svg", { preserveAspectRatio: "none", "aria-hidden": "true" });
  const cursor = h(
    "div",
    { class: "map", tabindex: 0, role: "slider", "aria-label": "query", "aria-orientation": "vertical" },
    map,
    marks,
  );
  const rowNames = h("div", { class: "names rows", "aria-hidden": "true" });
  const columnNames = h("div", { class: "names columns", "aria-hidden": "true" });
  const legend = h("p", { class: "note legend" });
  const heading = h("p", { class: "reading" });
  const answers = h("ol", { class: "answers" });
  const sum = h("p", { class: "sum" });
  const asked = h("p", { class: "note asked" });
  const strip = h("fieldset", { class: "strip" });
  const heads = h("fieldset", { class: "heads" });
  const headsLegend = h("legend");

  const sheet = h(
    "div",
    { class: "sheet" },
    h("p", { class: "axis along", "aria-hidden": "true" }, "key: answers →"),
    columnNames,
    h("p", { class: "axis down", "aria-hidden": "true" }, "query: asks →"),
    rowNames,
    cursor,
  );
  const side = h("div", { class: "side" }, heading, answers, sum, legend, asked);
  body.append(
    h("div", { class: "together" }, sheet, side),
    strip,
    heads,
    h("p", { class: "note" }, "Arrow keys, a click or a touch move the cursor: up and down the query, left and right the key."),
  );
  if (isLive(model) && model.get("data").asks) el.querySelector("figure").append(asking(model));

  let data, all; // of the text shown; all: the weights of all layers
  let layer, darkest; // the weights of the layer shown, and the largest of them
  let hovered; // [query, key] under the pointer; null where there is none
  let typed = null; // the reader's own text, once the page's model has read it
  let isLoading = false;

  /** The weight of a query on a key in the head shown. */
  const weight = (t, at) => layer[(model.get("head") * data.T + t) * data.S + at];
  const isHidden = (t, at) => data.hidden[t * data.S + at] === "1";

  /** Set up what all texts share, and show the first. */
  function begin() {
    const { layers, heads: names, examples = [], model: packed } = model.get("data");
    const group = uid();
    heads.hidden = names.length < 2;
    heads.replaceChildren(headsLegend, ...names.map((name, head) => picture(name, head, group)));
    load();
    const nodes = [];
    if (examples.length > 1) {
      const options = examples.map(({ name }, i) => [i, name]);
      nodes.push((examples.length > 5 ? dropdown : choice)(model, "example", { label: "text", options }));
    }
    if (packed) nodes.push(typing(model, packed, show, announce));
    if (layers.length > 8) {
      nodes.push(slider(model, "layer", { label: "show", values: [...layers.keys()], format: (i) => layers[i] }));
    } else if (layers.length > 1) {
      nodes.push(choice(model, "layer", { label: "show", options: layers.map((name, i) => [i, name]) }));
    }
    controls.replaceChildren(...nodes);
  }

  /** Show the reader's own text, with the cursor at its end. */
  function show(text, weights) {
    const { layers, heads: names, hidden } = model.get("data");
    const T = text.length;
    const isLater = (_, i) => Number(i % T > Math.floor(i / T));
    typed = {
      shape: [layers.length, names.length, T, T],
      weights,
      queries: text,
      keys: text,
      hidden: hidden && Array.from({ length: T * T }, isLater).join(""),
    };
    load(T - 1, null);
  }

  /** Set up names and hatching of the text shown, and keep the cursor within it. */
  function load(t = model.get("query"), at = model.get("key")) {
    const whole = model.get("data");
    data = { ...whole, ...(typed ?? whole.examples?.[model.get("example")]) };
    const [L, H, T, S] = data.shape;
    Object.assign(data, { L, H, T, S });
    data.repeats = new Set(data.keys).size < S; // then keys need their positions as well
    all = typed ? data.weights : expand(unpack(data.weights), data);
    hovered = [null, null];
    marks.setAttribute("viewBox", `0 0 ${S} ${T}`);
    el.style.setProperty("--rows", T);
    el.style.setProperty("--columns", S);
    el.style.setProperty("--shown", Math.min(S, 8));
    const lengths = [...data.queries, ...data.keys].map((name) => name.length);
    el.style.setProperty("--longest", Math.min(10, Math.max(...lengths)));
    el.classList.toggle("packed", Math.max(T, S) > 32);
    rowNames.replaceChildren(...data.queries.map((name) => h("span", {}, name)));
    columnNames.replaceChildren(...data.keys.map((name) => h("span", {}, name)));
    cursor.setAttribute("aria-valuemin", 1);
    cursor.setAttribute("aria-valuemax", T);
    const dense = Math.max(T, S) <= 12; // large cells have more lines
    let hatching = "";
    for (let y = 0; y < T; y++) {
      for (let x = 0; x < S; x++) {
        if (!isHidden(y, x)) continue;
        hatching += `M${x} ${y + 1}l1 -1`;
        if (dense) hatching += `M${x} ${y + 0.5}l.5 -.5M${x + 0.5} ${y + 1}l.5 -.5`;
      }
    }
    marks.replaceChildren(
      s("path", { class: "hatching", d: hatching }),
      s("rect", { class: "column", y: 0, width: 1, height: T }),
      s("rect", { class: "row", x: 0, width: S, height: 1 }),
      s("rect", { class: "cell", width: 1, height: 1 }),
    );
    const group = uid();
    strip.replaceChildren(
      h("legend", {}, data.same ? "Tokens, shaded by how much the query attends to them:" : "Queries:"),
      ...data.queries.map((name, i) => chip(name, i, group)),
    );
    isLoading = true; // the cursor must not be drawn before the heads are
    moveTo(t, at);
    isLoading = false;
    drawHeads();
  }

  /** A token in the strip: hovering previews its row and its column, a click selects them. */
  function chip(name, t, group) {
    const input = h("input", { type: "radio", name: group });
    input.addEventListener("change", () => select(t, model.get("key")));
    const onpointerenter = (event) => event.pointerType === "mouse" && hover(t, data.same ? t : null);
    const onpointerleave = () => hover(null, null);
    return h("label", { onpointerenter, onpointerleave }, input, h("span", {}, name));
  }

  /** A small picture of a head, to choose it. */
  function picture(name, head, group) {
    const input = h("input", { type: "radio", name: group, value: head });
    input.addEventListener("change", () => setTrait(model, "head", head));
    return h("label", {}, input, h("canvas", { "aria-hidden": "true" }), h("span", {}, name));
  }

  /** Draw all heads of the layer. */
  function drawHeads() {
    const size = data.H * data.T * data.S;
    layer = all.subarray(model.get("layer") * size, (model.get("layer") + 1) * size);
    darkest = layer.reduce((most, value) => Math.max(most, value), 0);
    const name = data.L > 1 ? `, ${data.layers[model.get("layer")]}` : "";
    headsLegend.textContent = `All heads${name}: choose one to enlarge it`;
    heads.querySelectorAll("canvas").forEach(paint);
    draw();
  }

  /** Paint a head of the layer, one pixel per weight; the largest of the layer is the darkest. */
  function paint(canvas, head) {
    const size = data.T * data.S;
    const weights = layer.subarray(head * size, (head + 1) * size);
    if (canvas.width !== data.S || canvas.height !== data.T) Object.assign(canvas, { width: data.S, height: data.T });
    const context = canvas.getContext("2d");
    const image = context.createImageData(data.S, data.T);
    const opacity = 255 / Math.max(darkest, 1e-6);
    for (let i = 0; i < weights.length; i++) {
      image.data.set(SHADE, 4 * i);
      image.data[4 * i + 3] = weights[i] * opacity;
    }
    context.putImageData(image, 0, 0);
  }

  /** Show the head and the cursor. */
  function draw() {
    if (isLoading) return;
    const head = clamp(model.get("head"), 0, data.H - 1);
    paint(map, head);
    heads.querySelectorAll("input").forEach((input, i) => {
      input.checked = i === head;
    });
    legend.replaceChildren(
      "0.00 ",
      h("span", { class: "scale" }),
      ` ${fixed(darkest)}${data.hidden ? ", hatched: hidden by the mask" : ""}`,
    );
    point();
    announce(words(model.get("query"), model.get("key")));
  }

  /** Show the cell under the pointer, or else the cursor. */
  function point() {
    const t = clamp(hovered[0] ?? model.get("query"), 0, data.T - 1);
    const at = hovered[0] === null && hovered[1] === null ? model.get("key") : hovered[1];
    const [, column, row, cell] = marks.children;
    row.setAttribute("y", t);
    for (const mark of [column, cell]) {
      mark.setAttribute("x", at ?? 0);
      mark.classList.toggle("away", at === null);
    }
    cell.setAttribute("y", t);
    rowNames.childNodes.forEach((name, i) => name.classList.toggle("on", i === t));
    columnNames.childNodes.forEach((name, i) => name.classList.toggle("on", i === at));
    strip.querySelectorAll("label").forEach((token, i) => {
      token.firstChild.checked = i === model.get("query");
      token.classList.toggle("on", i === t);
      if (data.same) token.style.setProperty("--share", `${100 * weight(t, i)}%`);
    });
    cursor.setAttribute("aria-valuenow", model.get("query") + 1);
    cursor.setAttribute("aria-valuetext", words(model.get("query"), model.get("key")));
    read(t, at);
  }

  /** The visible keys of a query, the largest weight first. */
  function order(t) {
    const seen = [...Array(data.S).keys()].filter((at) => !isHidden(t, at));
    return seen.sort((a, b) => weight(t, b) - weight(t, a) || a - b);
  }

  /** Write the row of a query next to the map. */
  function read(t, at) {
    const seen = order(t);
    const shown = seen.slice(0, 8); // --shown
    if (at !== null && !isHidden(t, at) && !shown.includes(at)) shown[7] = at;
    heading.replaceChildren(h("b", {}, data.queries[t]), ` (query ${t}) attends to`);
    answers.replaceChildren(
      ...shown.map((key) =>
        h(
          "li",
          { class: key === at && "on", "data-key": key },
          h("span", { class: "token" }, data.keys[key], data.repeats ? h("span", { class: "note" }, ` (${key})`) : null),
          h("span", { class: "bar", style: `--share: ${100 * weight(t, key)}%` }),
          h("span", { class: "value" }, fixed(weight(t, key))),
        ),
      ),
    );
    const total = seen.reduce((partial, key) => partial + weight(t, key), 0);
    const rest = seen.length - shown.length;
    const hidden = data.S - seen.length;
    sum.textContent = `sum of the row: ${fixed(total, 3)}`;
    const parts = [];
    if (rest > 0) parts.push(`${rest} more seen`);
    if (hidden > 0) parts.push(`${hidden} hidden`);
    if (parts.length) sum.append(h("span", { class: "note" }, ` (${parts.join(", ")})`));
    asked.textContent = "Choose a key as well, and here you read which queries give it most.";
    if (at !== null) {
      const askers = [...Array(data.T).keys()].filter((query) => !isHidden(query, at));
      askers.sort((a, b) => weight(b, at) - weight(a, at) || a - b);
      const text = askers.slice(0, 3).map((query) => `${fixed(weight(query, at))} from ${data.queries[query]}`);
      const state = isHidden(t, at) ? ` is hidden from ${data.queries[t]}; it` : "";
      asked.textContent = `As a key, ${data.keys[at]} (${at})${state} gets ${text.join(", ")}.`;
    }
  }

  /** The row of a query in a sentence. */
  function words(t, at) {
    const seen = order(t);
    const shown = at === null || isHidden(t, at) || seen.slice(0, 4).includes(at) ? seen.slice(0, 4) : [at, ...seen.slice(0, 3)];
    const list = shown.map((key) => `${data.keys[key]}: ${fixed(weight(t, key))}`).join(", ");
    const total = seen.reduce((partial, key) => partial + weight(t, key), 0);
    return `${data.queries[t]}, query ${t}, attends to ${list || "no key"}; sum ${fixed(total, 3)}`;
  }

  function hover(t, at) {
    if (t === hovered[0] && at === hovered[1]) return; // the same cell
    hovered = [t, at];
    point();
  }

  function moveTo(t, at) {
    model.set("query", clamp(t, 0, data.T - 1));
    model.set("key", at === null ? null : clamp(at, 0, data.S - 1));
  }

  function select(t, at) {
    moveTo(t, at);
    model.save_changes();
  }

  /** The cell under a pointer. */
  function cellAt(event) {
    const box = map.getBoundingClientRect();
    const t = Math.floor(((event.clientY - box.top) / box.height) * data.T);
    const at = Math.floor(((event.clientX - box.left) / box.width) * data.S);
    return [clamp(t, 0, data.T - 1), clamp(at, 0, data.S - 1)];
  }

  cursor.addEventListener("pointermove", (event) => event.pointerType === "mouse" && hover(...cellAt(event)));
  cursor.addEventListener("pointerleave", () => hover(null, null));
  cursor.addEventListener("click", (event) => {
    hovered = [null, null];
    select(...cellAt(event));
  });
  cursor.addEventListener("keydown", (event) => {
    const t = model.get("query");
    const at = model.get("key") ?? t;
    const steps = {
      ArrowUp: [t - 1, model.get("key")],
      ArrowDown: [t + 1, model.get("key")],
      ArrowLeft: [t, at - (model.get("key") !== null)],
      ArrowRight: [t, at + (model.get("key") !== null)],
      PageUp: [t - 10, model.get("key")],
      PageDown: [t + 10, model.get("key")],
      Home: [0, model.get("key")],
      End: [data.T - 1, model.get("key")],
      Escape: [t, null],
      " ": [t, model.get("key")], // otherwise the page would scroll
    };
    if (!(event.key in steps)) return;
    event.preventDefault();
    hovered = [null, null];
    select(...steps[event.key]);
  });

  const stops = [
    watch(model, ["data"], begin),
    follow(model, ["example"], () => load()),
    follow(model, ["layer"], drawHeads),
    follow(model, ["head", "query", "key"], draw),
  ];
  return () => stops.forEach((stop) => stop());
}

/** The weights (layers, H, T, S) of a text. Where those that its mask hides were left out, with zeros. */
function expand(numbers, { hidden, shape }) {
  const count = shape.reduce((product, size) => product * size);
  if (numbers.length === count) return numbers;
  const seen = [...hidden].flatMap((cell, i) => (cell === "0" ? [i] : []));
  const full = new Float32Array(count);
  numbers.forEach((weight, i) => {
    full[Math.floor(i / seen.length) * hidden.length + seen[i % seen.length]] = weight;
  });
  return full;
}

/** A field for the reader's own text, which the page's model reads at each key. */
function typing(model, packed, show, announce) {
  const [id, noteId] = [uid(), uid()];
  const run = pageModel(packed);
  const names = [...packed.vocabulary];
  const capitals = packed.vocabulary === packed.vocabulary.toUpperCase();
  const input = h("input", { id, type: "text", size: 32, autocomplete: "off", spellcheck: "false" });
  input.setAttribute("aria-describedby", noteId);
  input.classList.toggle("capitals", capitals);
  const expects = h("p", { class: "expects", id: noteId });
  const complaint = h("p", { class: "complaint", role: "alert" });

  /** The characters of the field, or null if the model does not know them all or they are too many. */
  const read = () => {
    const text = [...(capitals ? input.value.toUpperCase() : input.value).trim()];
    const isKnown = text.every((character) => names.includes(character));
    return isKnown && text.length >= 2 && text.length <= packed.longest ? text : null;
  };
  /** Let the model read the field, and say what it expects; return the text and its weights. */
  const answer = () => {
    const text = read();
    const { weights, next } = text ? run(text.map((character) => names.indexOf(character))) : {};
    input.setAttribute("aria-invalid", String(!text));
    complaint.textContent = text ? "" : packed.complaint;
    expects.textContent = text ? expectation(next, names) : "";
    return [text, weights];
  };
  const follows = () => {
    const given = model.get("text"); // in this view, in another one, or by Python
    if (given && given === read()?.join("")) return;
    input.value = given || model.get("data").queries.join("");
    const [text, weights] = answer();
    if (given && text) show(text, weights);
  };
  input.addEventListener("input", () => {
    const [text, weights] = answer();
    if (!text) return;
    show(text, weights);
    announce(expects.textContent);
    setTrait(model, "text", text.join(""));
  });
  watch(model, ["text"], follows);
  const label = h("label", { for: id }, "Your text");
  return h("div", { class: "control typing" }, label, input, expects, complaint);
}

/** What comes next: one token if the model is fairly sure, else its first three guesses. */
function expectation(next, names) {
  const order = [...next.keys()].sort((a, b) => next[b] - next[a]);
  const guesses = order.slice(0, next[order[0]] > 0.5 ? 1 : 3);
  const texts = guesses.map((token) => `${names[token]} (${fixed(100 * next[token], 0)}%)`);
  const last = texts.pop();
  return `Expected next: ${texts.length ? `${texts.join(", ")} or ` : ""}${last}.`;
}

/** With a kernel: a field for the reader's own sequence. */
function asking(model) {
  const id = uid();
  const input = h("input", { id, type: "text", size: 24, autocomplete: "off", spellcheck: "false", required: true });
  const answer = h("p", { class: "complaint", role: "alert" });
  const submit = (event) => {
    event.preventDefault();
    setTrait(model, "text", input.value);
  };
  watch(model, ["message"], () => {
    answer.textContent = model.get("message");
  });
  const label = h("label", { for: id }, "Another sequence");
  return h("form", { class: "control asking", onsubmit: submit }, label, input, h("button", {}, "Show"), answer);
}
