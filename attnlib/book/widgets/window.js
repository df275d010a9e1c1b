// The window explorer: one window layer's mask and the rows of its cache, then several layers. Masks
// and rows are looked up; the reach is the union of the masks' rows, layer by layer.

const PARAMETERS = ["window", "rule", "first", "pattern", "query"];
const CELL = 18; // of the mask, in units of its drawing
const EDGE = 34; // room for the mask's numbers
const GUTTER = 92; // pixels for the words beside the layers

function render({ model, el }) {
  const { tokens: T, masks, rings, firsts, rules, patterns } = model.get("data");
  const { controls, body, announce } = frame(el, model.get("label"));
  el.classList.add("window-explorer");
  const all = [...Array(T).keys()];
  const traits = () => Object.fromEntries(PARAMETERS.map((name) => [name, model.get(name)]));

  const why = h("small", { class: "why", id: uid() }, "a chunk sees no others");
  const keeps = choice(model, "first", { label: "first tokens kept", options: firsts.map((n) => [n, n]) });
  keeps.setAttribute("aria-describedby", why.id);
  keeps.append(why);
  const which = choice(model, "rule", { label: "a token sees", options: rules });
  which.classList.add("which");
  controls.append(
    slider(model, "window", { label: "window W", values: all.map((t) => t + 1), format: (W) => count(W, "token") }),
    which,
    keeps,
    dropdown(model, "pattern", { label: "layers", options: patterns }),
  );

  const [seenTitle, keptTitle, farTitle] = [1, 2, 3].map(() => h("p", { class: "heading" }));
  const side = EDGE + T * CELL + 2;
  const grid = s("svg", { "aria-hidden": "true", viewBox: `0 0 ${side} ${side}` });
  const cursor = h("div", { class: "mask", tabindex: 0, role: "slider", "aria-label": "query token", "aria-orientation": "vertical", "aria-valuemin": 0, "aria-valuemax": T - 1 }, grid);
  const key = h("p", { class: "note" });
  const rows = h("ol", { class: "rows" });
  const remark = h("p", { class: "note" });
  const layers = chart(306, paint, { left: GUTTER, right: 4, top: 22, bottom: 40 });
  layers.node.classList.add("layers");
  const cost = h("p", { class: "cost" });
  const address = inAddress(model, { anchor: "window-explorer", all: PARAMETERS, announce, parameters: traits, recall });
  body.append(
    h(
      "div",
      { class: "one" },
      h("section", {}, h("p", { class: "note" }, "1 · The mask of a window layer"), seenTitle, cursor, key, h("p", { class: "note" }, "Choose a query: click or touch its row, or press the arrow keys.")),
      h("section", {}, h("p", { class: "note" }, "2 · The cache of that layer: a ring of rows"), keptTitle, rows, remark),
    ),
    h(
      "section",
      {},
      h("p", { class: "note" }, "3 · The reach through the layers, and what it costs"),
      farTitle,
      cost,
      layers.node,
      h("p", { class: "note" }, "Read it downwards: each line is a look back in one layer, and the thick one leads to the farthest token. S: window layer; F: full layer, which sees everything before. Layer 0 is the first letter."),
    ),
    address.node ?? "",
  );

  let now; // all that is drawn
  let said = []; // sentences, in order

  /** Look up and follow what the state shows. */
  function compute() {
    const { window: W, rule, first, pattern, query } = traits();
    const kept = rule === "chunks" ? 0 : first;
    const near = masks[rule][kept][W - 1];
    const full = masks.sliding[0][T - 1];
    const sees = (mask, t) => all.filter((at) => mask[t * T + at] === "1");
    const held = rings[kept][W - 1].split(" ").map((word) => Array.from(word, (digit) => parseInt(digit, 36)));
    const [after, before] = [held[query], held[query - 1] ?? []];
    const written = after.findIndex((at, row) => at !== before[row]);
    const levels = [[query]]; // tokens that are reached, from the output down to the input
    const steps = []; // of each layer, the last one first: what each reached token sees
    for (let layer = pattern.length - 1; layer >= 0; layer--) {
      const looks = levels.at(-1).map((t) => [t, sees(pattern[layer] === "F" ? full : near, t)]);
      steps.push(looks);
      levels.push(all.filter((at) => looks.some(([, seen]) => seen.includes(at))));
    }
    const entries = [...pattern].reduce((sum, kind) => sum + (kind === "F" ? query + 1 : after.length), 0);
    return { W, rule, kept, pattern, query, near, sees, seen: sees(near, query), after, written, replaced: before[written], levels, steps, entries };
  }

  /** The mask: one path for each kind of cell, and a frame around the query's row. */
  function drawMask() {
    const { near, query, kept, W, rule } = now;
    const paths = { later: "", hidden: "", near: "", first: "", "near on": "", "first on": "", dots: "" };
    const place = (at) => EDGE + at * CELL;
    for (const t of all) {
      for (const at of all) {
        const kind = near[t * T + at] === "1" ? (at < kept ? "first" : "near") : at > t ? "later" : "hidden";
        const [x, y] = [place(at), place(t)];
        const on = t === query && ["first", "near"].includes(kind) ? " on" : "";
        paths[kind + on] += kind === "later" ? `M${x + 8} ${y + 9}h2` : `M${x + 1} ${y + 1}h16v16h-16z`;
        if (kind === "first") paths.dots += `M${x + 9} ${y + 5}l4 4l-4 4l-4 -4z`;
      }
    }
    grid.replaceChildren(
      ...Object.entries(paths).map(([kind, d]) => s("path", { class: kind, d })),
      s("rect", { class: "row", x: EDGE - 1, y: place(query) - 1, width: T * CELL + 2, height: CELL + 2 }),
      s("text", { x: place(T), y: 11, "text-anchor": "end" }, "key token →"),
      s("text", { x: 0, y: 11 }, "query ↓"),
      ...all.map((at) => s("text", { x: place(at) + 9, y: EDGE - 6, "text-anchor": "middle", class: at === query && "on" }, at)),
      ...all.map((t) => s("text", { x: EDGE - 6, y: place(t) + 13, "text-anchor": "end", class: t === query && "on" }, t)),
    );
    seenTitle.replaceChildren(`Token ${query} sees `, h("b", {}, count(now.seen.length, "token")), `: ${inWords(now.seen)}`);
    key.textContent = `Filled: seen${rule === "chunks" ? ` (its chunk, cut every ${W})` : ` (itself${W > 1 ? ` and the ${W - 1} before` : ""})`}.${kept ? " Diamond: first tokens." : ""} Empty: not seen. Dash: later.`;
    cursor.setAttribute("aria-valuenow", query);
    cursor.setAttribute("aria-valuetext", `token ${query} sees ${inWords(now.seen)}`);
  }

  /** The rows of one window layer's cache, and what was written last. */
  function drawRows() {
    const { after, written, replaced, query, kept, W, seen, pattern } = now;
    rows.replaceChildren(
      ...Array.from({ length: W + kept }, (_, row) => {
        const at = after[row];
        const kind = row < kept ? "first" : "near";
        const isSeen = seen.includes(at);
        const fresh = replaced === undefined ? "← new" : `← replaced token ${replaced}`;
        const words = at === undefined ? "" : isSeen ? (row < kept ? "kept for good" : "") : "not seen";
        const holds = at === undefined ? "empty" : `${row < kept ? "◆ " : ""}token ${at}`;
        const box = h("b", { class: isSeen ? kind : at === undefined && "empty" }, holds);
        return h("li", { class: row === written && "new" }, h("span", {}, `row ${row}`), box, h("span", {}, row === written ? fresh : words));
      }),
    );
    keptTitle.replaceChildren("It keeps ", h("b", {}, `${after.length} of ${count(query + 1, "token")}`), `. ${newest()}`);
    const stale = after.filter((at) => !seen.includes(at));
    remark.textContent = `${stale.length ? `${count(stale.length, "token")} of earlier chunks still kept, but hidden by the mask. ` : ""}${pattern.includes("S") ? "" : "Layer 0 is full and has no such ring: it keeps every token."}`;
  }

  /** What the last token did to the cache. */
  function newest() {
    const { query, replaced, written } = now;
    return replaced === undefined ? `Token ${query} filled row ${written}, which was empty.` : `Token ${query} replaced token ${replaced} in row ${written}.`;
  }

  /** The layers, the last one on top: tokens as boxes, those that are reached filled, and the looks back. */
  function paint({ left, right, top, bottom }) {
    const { levels, steps, pattern, kept, query } = now;
    const L = steps.length;
    const pitch = (right - left) / T;
    const x = (at) => left + (at + 0.5) * pitch;
    const y = (level) => top + (level * (bottom - top)) / L;
    const [w, half] = [Math.min(pitch - 3, 24), 8];
    const paths = { looks: "", far: "", out: "", near: "", first: "", dots: "" };
    let farthest = query;
    steps.forEach((looks, i) => {
      const line = (from, to) => `M${x(from).toFixed(1)} ${y(i) + half}L${x(to).toFixed(1)} ${y(i + 1) - half}`;
      for (const [t, seen] of looks) for (const at of seen) paths.looks += line(t, at);
      const [, seen] = looks.find(([t]) => t === farthest);
      paths.far += line(farthest, seen[0]);
      [farthest] = seen;
    });
    levels.forEach((level, i) => {
      for (const at of all) {
        const kind = level.includes(at) ? (at < kept ? "first" : "near") : "out";
        paths[kind] += `M${(x(at) - w / 2).toFixed(1)} ${y(i) - half}h${w.toFixed(1)}v${2 * half}h${-w.toFixed(1)}z`;
        if (kind === "first") paths.dots += `M${x(at).toFixed(1)} ${y(i) - 4}l4 4l-4 4l-4 -4z`;
      }
    });
    const words = levels.flatMap((level, i) => {
      const more = `${i === L ? "input, " : ""}${level.length - (levels[i - 1]?.length ?? 0)} more`;
      return [
        s("text", { x: 0, y: y(i) - 2, class: "on" }, count(level.length, "token")),
        s("text", { x: 0, y: y(i) + 11 }, i ? more : "output"),
        s("text", { x: 0, y: y(i - 0.5) + 4, class: "layer" }, i ? `layer ${L - i}: ${pattern[L - i]}` : ""),
      ];
    });
    const shown = pitch < 18 ? all.filter((at) => (query - at) % 2 === 0) : all;
    const numbers = shown.map((at) => s("text", { x: x(at), y: bottom + half + 14, "text-anchor": "middle", class: at === query && "on" }, at));
    return [
      ...Object.entries(paths).map(([kind, d]) => s("path", { class: kind, d })),
      s("rect", { class: "row", x: x(query) - w / 2 - 2, y: top - half - 2, width: w + 4, height: 2 * half + 4 }),
      ...words,
      ...numbers,
      s("text", { x: (left + right) / 2, y: bottom + half + 29, "text-anchor": "middle" }, "token"),
    ];
  }

  function draw() {
    now = compute();
    const { W, rule, kept, pattern, query, levels, entries } = now;
    keeps.disabled = rule === "chunks";
    why.classList.toggle("away", rule !== "chunks");
    drawMask();
    drawRows();
    layers.draw();
    const input = levels.at(-1);
    farTitle.replaceChildren(`Through ${count(pattern.length, "layer")}, the output of token ${query} draws on `, h("b", {}, count(input.length, "token")), `: ${inWords(input)}`);
    const counts = levels.map((level) => level.length).join(", ");
    layers.node.setAttribute("aria-label", `Layers ${pattern}: token ${query} reaches, from the output down to the input: ${counts} tokens. At the input: ${inWords(input)}.`);
    cost.replaceChildren(`The ${pattern.length === 1 ? "cache keeps" : "caches of all layers keep"} `, h("b", {}, `${entries} of ${count(pattern.length * (query + 1), "entry")}`), ".");
    const settings = [`Window of ${count(W, "token")}.`, rule === "chunks" ? "Chunks." : "Sliding.", `${count(kept, "first token")} kept.`, `Layers ${pattern}.`];
    const sentences = [`${seenTitle.textContent}.`, keptTitle.textContent, `${farTitle.textContent}; from the output down ${counts}.`, cost.textContent];
    const parts = [...settings, ...sentences];
    announce(parts.filter((part, i) => part !== said[i]).join(" ")); // what has changed
    said = parts;
    address.remember();
  }

  const choose = (t) => setTrait(model, "query", clamp(t, 0, T - 1));
  cursor.addEventListener("click", (event) => {
    const box = grid.getBoundingClientRect();
    choose(Math.floor((((event.clientY - box.top) / box.height) * side - EDGE) / CELL));
  });
  layers.node.addEventListener("click", (event) => {
    const box = layers.node.getBoundingClientRect();
    choose(Math.floor(((event.clientX - box.left - GUTTER) / (box.width - GUTTER - 4)) * T));
  });
  cursor.addEventListener("keydown", (event) => {
    const t = model.get("query");
    const steps = { ArrowUp: t - 1, ArrowLeft: t - 1, ArrowDown: t + 1, ArrowRight: t + 1, PageUp: t - 4, PageDown: t + 4, Home: 0, End: T - 1, " ": t };
    if (!(event.key in steps)) return;
    event.preventDefault();
    choose(steps[event.key]);
  });

  /** The state that an address holds, as far as it is valid. */
  function recall(parameters) {
    const allowed = { window: all.map((t) => t + 1), rule: rules.map(([rule]) => rule), first: firsts, pattern: patterns.map(([pattern]) => pattern), query: all };
    const found = Object.entries(allowed).map(([name, values]) => [name, values.find((value) => String(value) === parameters.get(name))]);
    return Object.fromEntries(found.filter(([, value]) => value !== undefined));
  }

  address.restore();
  const stop = watch(model, PARAMETERS, draw);
  address.settle();
  return () => {
    address.stop();
    stop();
  };
}

/** A number of things. */
function count(n, thing) {
  return n === 1 ? `1 ${thing}` : `${n} ${thing.replace(/y$/, "ie")}s`;
}

/** Token numbers in words, as `in_words` in window.py. */
function inWords(tokens) {
  const runs = [];
  for (const token of tokens) {
    if (runs.length && token === runs.at(-1).at(-1) + 1) runs.at(-1).push(token);
    else runs.push([token]);
  }
  const parts = runs.flatMap((run) => (run.length > 2 ? [`${run[0]} to ${run.at(-1)}`] : run.map(String)));
  const last = parts.pop();
  return parts.length ? `${parts.join(", ")} and ${last}` : last;
}
