// The block walk: a table of scores whose blocks of keys are read one after another, and what a query
// keeps in between. Or the blocks as parts, each by itself, and their merge. All numbers are looked up.

const STATE = ["block_size", "query", "read", "order", "view"];
const SUMS = ["ℓ", "o, 1st", "o, 2nd"];

function render({ model, el }) {
  const { scores, values, walks, parts, sizes, orders, views } = model.get("data");
  const { controls, body, announce } = frame(el, model.get("label"));
  el.classList.add("block-walk");
  const [S, all] = [values.length, [...values.keys()]];

  const sides = choice(model, "order", { label: "read", options: orders });
  const view = choice(model, "view", { label: "blocks", options: views });
  view.classList.add("view");
  controls.append(
    view,
    choice(model, "block_size", { label: "keys in a block", options: sizes.map((n) => [n, n]) }),
    sides,
  );

  // The steps: buttons, and arrow keys on them and on the table.
  const step = (text, to) => h("button", { type: "button", onclick: () => go(to()) }, text);
  const buttons = [step("First", () => 0), step("← Back", () => now.i - 1), step("Next →", () => now.i + 1), step("Last", () => S)];
  const where = h("b", { class: "where" });
  const steps = h("div", { class: "steps", role: "group", "aria-label": "blocks" }, ...buttons, where);

  const group = uid();
  const heads = h("tr");
  const radios = scores.map((_, query) => h("input", { type: "radio", name: group, onchange: () => setTrait(model, "query", query) }));
  const named = (name) => h("th", { scope: "row" }, name);
  const cells = (row) => row.map((x) => h("td", {}, x === null ? "–" : fixed(x, 1)));
  const rows = scores.map((row, query) => {
    const name = h("th", { scope: "row" }, h("label", {}, radios[query], `query ${query}`));
    const choose = () => {
      radios[query].focus(); // so that arrow keys go on from here
      setTrait(model, "query", query);
    };
    return h("tr", { class: "query", onclick: choose }, name, ...cells(row));
  });
  const weights = h("tr", { class: "weights" }, named("exp(s−m)"), ...cells(all));
  const pairs = [0, 1].map((i) => h("tr", { class: "values" }, named(i ? "2nd" : "value 1st"), ...cells(values.map((pair) => pair[i]))));
  const grid = h(
    "table",
    { class: "scores", "aria-label": "scores by query and key, and values" },
    h("thead", {}, heads, h("tr", {}, named("key"), ...all.map((key) => h("th", { scope: "col" }, key)))),
    h("tbody", {}, ...rows, weights, ...pairs),
  );
  const legend = h("p", { class: "note" });
  const what = h("p", { class: "what" });
  const below = h("div", { class: "below" });
  const address = inAddress(model, { anchor: "block-walk", all: STATE, announce, parameters: () => Object.fromEntries(STATE.map((name) => [name, model.get(name)])), recall });
  const reader = h("div", {}, steps, grid);
  body.append(reader, legend, what, below, address.node ?? "");

  let now; // the state, and what belongs to it
  let said = [];

  function compute() {
    const [size, query, read, order, kind] = STATE.map((name) => model.get(name));
    const n = S / size;
    const i = Math.ceil(read / size) - 1; // the present block, in the order of reading
    const starts = all.slice(0, n).map((block) => size * (order === "left" || kind === "parts" ? block : n - 1 - block));
    const blocks = starts.map((start) => all.slice(start, start + size)); // in the order of reading
    const walk = walks[order][size][query];
    return { size, query, isWalk: kind === "walk", n, i, blocks, walk, isLast: i === n - 1, at: walk[i], before: walk[i - 1] };
  }

  /** The table: which keys were read, which are read now, and which are not yet. */
  function drawScores() {
    const { size, query, isWalk, n, i, blocks, at } = now;
    const state = (block) => (!isWalk || block === i ? "now" : block < i ? "done" : "later");
    const blockOf = all.map((key) => blocks.findIndex((block) => block.includes(key)));
    const across = all.filter((key) => key % size === 0).map((key) => blockOf[key]); // from the left
    const mark = { now: isWalk ? "▼ " : "", done: "✓ ", later: "" };
    const spoken = { now: isWalk ? ", read now" : "", done: ", already read", later: ", not yet read" };
    const unit = isWalk ? "block" : "part";
    heads.replaceChildren(
      named(unit),
      ...across.map((block) => h("th", { scope: "colgroup", colspan: size, class: `${state(block)} from to`, "aria-label": `${unit} ${block + 1}${spoken[state(block)]}` }, `${mark[state(block)]}${block + 1}`)),
    );
    const max = scores[query].findIndex((score, key) => score !== null && score === at.m && blockOf[key] <= i);
    for (const row of grid.tBodies[0].rows) {
      all.forEach((key) => {
        const cell = row.cells[key + 1];
        const edges = `${key % size === 0 ? "from" : ""} ${key % size === size - 1 ? "to" : ""}`;
        cell.className = `${state(blockOf[key])} ${edges} ${cell.textContent === "–" ? "masked" : ""} ${isWalk && row === rows[query] && key === max ? "max" : ""}`;
      });
    }
    rows.forEach((row, j) => row.classList.toggle("on", j === query));
    radios[query].checked = true;
    all.forEach((key) => {
      weights.cells[key + 1].textContent = blockOf[key] === i ? fixed(at.weights[blocks[i].indexOf(key)], 2) : "";
    });
    weights.hidden = !isWalk;
    const hidden = scores.flat().includes(null) ? " –: hidden by the causal mask." : "";
    legend.textContent = isWalk
      ? `▼ framed: read now. ✓: read, no longer needed. Dashed: not yet read. Boxed: m, the largest score so far.${hidden} Choose a query: click its row, or press ↑ ↓; a block: ← →.`
      : `Each frame is a part, computed by itself.${hidden} Choose a query: click its row, or press ↑ ↓.`;
    where.textContent = isWalk ? `block ${i + 1} of ${n}: ${inWords(blocks[i])}` : `${n} ${n === 1 ? "part" : "parts"} of ${size} ${size === 1 ? "key" : "keys"}`;
    buttons.forEach((button, j) => {
      button.hidden = !isWalk;
      button.setAttribute("aria-disabled", String(j < 2 ? i === 0 : i === n - 1));
    });
  }

  /** What the present block did to m, l and o, in words. */
  function happened() {
    const { at, before, i } = now;
    const old = before?.m ?? null;
    if (at.largest === null) return `The mask hides this block from query ${now.query}: ${old === null ? "nothing was seen yet, and m stays −∞" : "m, ℓ and o stay as they are"}.`;
    if (old === null) return `${i ? "The first block that is seen" : "The first block"}: its largest score, ${fixed(at.m, 1)}, is the first m, and its sums are the first ℓ and o.`;
    if (at.m > old) return `The new largest score ${fixed(at.m, 1)} is larger than ${fixed(old, 1)}: what was added up shrinks, times exp(${fixed(old, 1)}\u00a0−\u00a0${at.m < 0 ? `(${fixed(at.m, 1)})` : fixed(at.m, 1)})\u00a0=\u00a0${fixed(at.shrink, 3)}.`;
    return `No score here is larger than ${fixed(old, 1)}: m stays, nothing shrinks, and the block is just added.`;
  }

  function drawWalk() {
    const { at, before, query, isLast, blocks, i } = now;
    const [old, factor] = [before?.m ?? null, before?.m == null ? "" : `× ${fixed(at.shrink, 3)}`];
    const ledger = tableOf("ledger", ["kept", "before", "shrinks", "this block", "after"], [
      ["m", score(old), "", `max ${score(at.largest)}`, `= ${score(at.m)}`],
      ...SUMS.map((name, j) => [name, fixed(before?.after[j] ?? 0, 3), factor, plus(at.added[j]), `= ${fixed(at.after[j], 3)}`]),
    ]);
    ledger.classList.toggle("shrunk", at.m !== old && old !== null);
    const keys = blocks.slice(0, i + 1).flat().sort((a, b) => a - b);
    const target = now.walk.at(-1).softmax;
    const line = (name, numbers) => [name, ...numbers.map((x) => fixed(x, 3))];
    const results = tableOf("results", ["output", "1st", "2nd"], [
      line("o / ℓ", at.out),
      line(`softmax over ${isLast ? `all ${S} keys` : inWords(keys)}`, at.softmax),
      ...(isLast ? [] : [line(`in the end, all ${S} keys`, target)]),
    ]);
    const same = isLast
      ? "Equal: all keys are read, and o / ℓ is the ordinary softmax's output."
      : "Equal: exact for the keys read so far.";
    below.replaceChildren(
      h("section", {}, ledger, h("p", { class: "note" }, `m: the largest score. ℓ: the sum of exp(s − m). o: the sum of exp(s − m) × value. Between blocks, query ${query} keeps only these 4 numbers.`)),
      h("section", {}, results, h("p", { class: "same" }, same)),
    );
    what.textContent = happened();
    const m = `m ${score(at.m)}, ℓ ${fixed(at.after[0], 3)}, o ${pair(at.after.slice(1))}.`;
    return [`Query ${query}, ${where.textContent}.`, what.textContent, m, `Output ${pair(at.out)}.`, same];
  }

  function drawParts() {
    const { query, size, blocks, n } = now;
    const { parts: each, lse, merged, softmax, mean } = parts[size][query];
    const line = (name, log, out, share) => [name, log, ...out.map((x) => fixed(x, 3)), share];
    const list = tableOf("parts", ["part", "log-sum-exp", "output 1st", "2nd", "share"], [
      ...each.map((part, i) => (part.lse === null ? [inWords(blocks[i]), "−∞", "–", "–", "0.000"] : line(inWords(blocks[i]), fixed(part.lse, 3), part.out, fixed(part.share, 3)))),
      line("merged", fixed(lse, 3), merged, "1.000"),
      line("softmax", "", softmax, ""),
      line("plain mean", "", mean, mean.join() === merged.join() ? "" : "✗ wrong"),
    ]);
    each.forEach(({ share }, i) => {
      list.tBodies[0].rows[i].lastChild.append(h("i", { class: "fill", style: `width: ${(2.5 * share).toFixed(2)}rem` }));
    });
    list.tBodies[0].rows[n].classList.add("total");
    below.replaceChildren(h("section", {}, list, h("p", { class: "note" }, `A part's share is exp(its log-sum-exp − ${fixed(lse, 3)}). Merged: the sum of share × output. The plain mean counts all parts alike.`)));
    const most = each.reduce((best, { share }, i) => (share > each[best].share ? i : best), 0);
    const isEven = each.every(({ share }) => share === each[0].share);
    what.textContent = isEven
      ? `${n === 1 ? "The only part has everything" : "All parts have the same share"}, so the plain mean is right as well.`
      : `Merged by their shares, the parts give the softmax. ${inWords(blocks[most], "Key")} ${size === 1 ? "weighs" : "weigh"} most, ${fixed(each[most].share, 3)}; the plain mean ${mean.join() === merged.join() ? "agrees by chance" : "is wrong"}.`;
    return [`Query ${query}, ${where.textContent}.`, what.textContent, `Merged output ${pair(merged)}.`, `Plain mean ${pair(mean)}.`];
  }

  function draw() {
    now = compute();
    sides.hidden = !now.isWalk;
    drawScores();
    const sentences = now.isWalk ? drawWalk() : drawParts();
    announce(sentences.filter((text, i) => i < 2 || text !== said[i]).join(" ")); // the step, and what has changed
    said = sentences;
    address.remember();
  }

  const go = (i) => setTrait(model, "read", now.size * (clamp(i, 0, now.n - 1) + 1));
  reader.addEventListener("keydown", (event) => {
    const to = { ArrowLeft: now.i - 1, ArrowRight: now.i + 1, Home: 0, End: S };
    if (!(event.key in to) || !now.isWalk || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault(); // a radio button would take them for up and down
    go(to[event.key]);
  });

  /** The state that an address holds, as far as it is valid. */
  function recall(parameters) {
    const names = (options) => options.map(([name]) => name);
    const allowed = { block_size: sizes, query: [...scores.keys()], read: all.map((key) => key + 1), order: names(orders), view: names(views) };
    const found = Object.entries(allowed).map(([name, options]) => [name, options.find((option) => String(option) === parameters.get(name))]);
    return Object.fromEntries(found.filter(([, value]) => value !== undefined));
  }

  address.restore();
  const stop = watch(model, STATE, draw);
  address.settle();
  return () => {
    address.stop();
    stop();
  };
}

const score = (m) => (m === null ? "−∞" : fixed(m, 1));
const plus = (x) => `${x < 0 ? "−" : "+"} ${fixed(Math.abs(x), 3)}`;
const pair = (numbers) => numbers.map((x) => fixed(x, 3)).join(" and ");

/** The keys of a block in words, as `in_words` in blocks.py. */
function inWords(keys, word = "key") {
  return keys.length === 1 ? `${word} ${keys[0]}` : `${word}s ${keys[0]} ${keys.length === 2 ? "and" : "to"} ${keys.at(-1)}`;
}

/** A table whose first column names its rows. */
function tableOf(kind, head, rows) {
  const top = head.map((text) => h("th", { scope: "col" }, text));
  const lines = rows.map(([name, ...cells]) => h("tr", {}, h("th", { scope: "row" }, name), ...cells.map((text) => h("td", {}, text))));
  return h("table", { class: `numbers ${kind}` }, h("thead", {}, h("tr", {}, ...top)), h("tbody", {}, ...lines));
}
