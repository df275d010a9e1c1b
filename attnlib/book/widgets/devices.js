// Who holds what: a box for each rank with a picture of its part of the cache. All cases are looked up.

const PARAMETERS = ["variant", "ranks", "split", "rank"];
const [GUTTER, CELL, GAP, ROW, TOP] = [14, 4, 4, 12, 13]; // of a picture, in its units

function render({ model, el }) {
  const data = model.get("data");
  const { controls, body, announce } = frame(el, model.get("label"));
  el.classList.add("devices");
  const traits = () => Object.fromEntries(PARAMETERS.map((name) => [name, model.get(name)]));

  controls.append(
    choice(model, "variant", { label: "variant", options: data.variants }),
    choice(model, "ranks", { label: "ranks (devices)", options: data.ranks.map((n) => [n, n]) }),
    choice(model, "split", { label: "the layer is split", options: data.splits }),
  );

  const answer = h("p", { class: "answer" });
  const clash = h("p", { class: "clash" });
  const key = h("p", { class: "note" });
  const boxes = choice(model, "rank", { label: "Choose a rank", options: [...Array(data.ranks.at(-1)).keys()].map((r) => [r, ""]) });
  boxes.classList.add("boxes");
  const ranks = Array.from(boxes.querySelectorAll("label"), (label, r) => {
    const [input, box] = label.children;
    box.id = uid();
    input.setAttribute("aria-label", `rank ${r}`);
    input.setAttribute("aria-describedby", box.id);
    return { label, box };
  });
  const chosen = h("p", { class: "chosen" });
  const numbers = h("tbody");
  const sent = h("p");
  const engines = h("p");
  const heading = (text) => h("p", { class: "heading" }, text);
  const does = h("div", {}, heading("What engines do"), engines);
  const address = inAddress(model, { anchor: "device-split", all: PARAMETERS, announce, parameters: traits, recall });
  body.append(
    answer,
    clash,
    key,
    boxes,
    chosen,
    h(
      "div",
      { class: "below" },
      h("section", {}, heading("The cache of this layer"), h("table", { class: "numbers" }, numbers)),
      h("section", {}, heading("What is sent per new token"), sent, does),
    ),
    address.node ?? "",
  );

  let said = []; // sentences, in order

  /** What a rank holds, in words. */
  function words(variant, [queries, heads, sequences, positions]) {
    const stored = variant === "latent" ? "the latent" : inWords(heads, "KV head", letter);
    return { queries: inWords(queries, "query head"), stored, where: `${inWords(sequences, "sequence")}, ${inWords(positions, "position")}` };
  }

  /** The box of one rank: its title, its heads, and the cache with its part filled. */
  function drawBox({ label, box }, variant, one, r, same) {
    const { queries, stored } = words(variant, one);
    const [empty, copy] = [!one[4], one[5] !== r];
    label.classList.toggle("same", same);
    const from = copy ? ["copy of ", h("i", {}, "rank "), one[5]] : ["empty"]; // no room for "rank" on a phone
    const mark = copy || empty ? h("b", { class: "held" }, ...from) : null;
    box.replaceChildren(
      h("span", { class: "title" }, h("b", {}, `rank ${r}`), " ", mark),
      h("span", {}, queries),
      " ", // so that a screen reader makes a pause
      h("span", {}, empty ? "no sequence" : stored),
      picture(variant, one, copy),
      h("span", {}, `${withCommas(one[4])} bytes`),
    );
  }

  /** A cell of a picture, for the text that explains it. */
  function swatch(kind) {
    const slash = kind === "copy" ? s("path", { class: "slash", d: "M1 11l10 -10" }) : null;
    return s("svg", { class: "swatch", "aria-hidden": "true", viewBox: "0 0 12 12" }, s("path", { class: kind, d: "M1 1h10v10h-10z" }), slash);
  }

  /** The whole cache as frames, a block for each sequence, and filled cells where the rank stores entries. */
  /** The first words of a choice, such as the name of the variant. */
  function called(variant) {
    return Object.fromEntries(data.variants)[variant].split(":")[0];
  }

  function picture(variant, [, heads, sequences, positions, bytes], copy) {
    const height = (ROW * data.numbers[variant]) / Math.min(...Object.values(data.numbers));
    const tall = data.rows[variant] * height;
    const block = data.positions * CELL;
    const x = (at) => GUTTER + at * (block + GAP);
    const paths = { frame: "", [copy ? "copy" : "own"]: "", slash: "" };
    for (let at = 0; at < data.sequences; at++) {
      paths.frame += `M${x(at) - 0.5} ${TOP - 0.5}h${block + 1}v${tall + 1}h${-block - 1}z`;
      for (const head of sequences.includes(at) ? heads : "") {
        for (const position of positions) {
          const [left, top, high] = [x(at) + position * CELL + 0.5, TOP + head * height + 0.5, height - 1];
          paths[copy ? "copy" : "own"] += `M${left} ${top}h${CELL - 1}v${high}h${1 - CELL}z`;
          if (copy) paths.slash += `M${left} ${top + high}l${CELL - 1} ${-Math.min(high, 11)}`;
        }
      }
    }
    const names = variant === "latent" ? [] : [...heads].map((head) => s("text", { x: 1, y: TOP + head * height + 10 }, letter(head)));
    const above = Array.from({ length: data.sequences }, (_, at) => s("text", { x: x(at) + block / 2, y: 9, "text-anchor": "middle" }, `seq ${at}`));
    return s("svg", { "aria-hidden": "true", viewBox: `0 0 ${x(data.sequences) - GAP + 2} ${TOP + tall + 2}` }, ...Object.entries(paths).map(([kind, d]) => s("path", { class: kind, d })), ...(bytes ? names : []), ...above);
  }

  function draw() {
    const state = traits();
    const { variant, split, rank } = state;
    const N = state.ranks;
    if (rank >= N) {
      setTrait(model, "rank", N - 1); // draws again
      return;
    }
    const now = data.cases[variant][split][N];
    const full = Math.max(...now.ranks.map((one) => one[4]));
    const total = now.ranks.reduce((sum, one) => sum + one[4], 0);
    const empty = now.ranks.filter((one) => !one[4]).length;
    const share = now.once === full ? "the whole cache" : `1/${now.once / full} of the cache`;
    const times = now.copies === 1 ? "once" : `${now.copies} times`;
    const [how] = data.splits.find(([name]) => name === split)[1].split(" (");
    const each = N === 1 ? "one rank" : empty ? `each of ${N - empty} ranks in use` : `each of ${N} ranks`;
    answer.replaceChildren(`${called(variant)} ${how}: ${each} keeps `, h("b", {}, share), ". Every entry is stored ", h("b", {}, times), ".");
    const undivided = variant === "latent" ? "A latent has no heads that ranks could divide: it is on each of them." : `${data.rows[variant]} KV head${variant === "heads-1" ? "" : "s"} cannot be divided among ${N} ranks: ${variant === "heads-1" ? "it" : "each"} is on ${now.copies} of them.`;
    const unused = `${data.sequences} sequences cannot be divided among ${N} ranks: ranks ${N - empty} to ${N - 1} hold none and wait. With ${N} sequences or more, all would work.`;
    clash.hidden = !empty && now.copies === 1;
    clash.textContent = empty ? unused : now.copies > 1 ? undivided : "";
    const row = variant === "latent" ? "the row is the latent" : "rows are KV heads";
    key.replaceChildren(
      `Frames: the whole cache, a block for each sequence; columns are positions 0 to ${data.positions - 1}, ${row}. `,
      swatch("own"),
      "\u00a0stored on this rank.",
      ...(now.copies > 1 ? [" ", swatch("copy"), "\u00a0a copy: a rank with a lower number stores the same."] : []),
    );
    ranks.forEach((one, r) => {
      one.label.hidden = r >= N;
      if (r < N) drawBox(one, variant, now.ranks[r], r, r !== rank && now.copies > 1 && now.ranks[r][5] === now.ranks[rank][5]);
    });
    const mine = now.ranks[rank];
    const { queries, stored, where } = words(variant, mine);
    const others = now.ranks.map((_, r) => r).filter((r) => r !== rank && mine[4] && now.ranks[r][5] === mine[5]);
    const also = others.length ? ` The same entries are also on ${others.length === N - 1 && N > 2 ? "all other ranks" : inWords(others, "rank")} (dashed).` : N > 1 && mine[4] ? " No other rank has these entries." : "";
    const holds = mine[4] ? `and stores ${stored} of ${where}: ${withCommas(mine[4])} bytes.` : "but no sequence: 0 bytes.";
    chosen.replaceChildren(h("b", {}, `Rank ${rank}`), ` has ${queries} ${holds}${also}`);
    const why = data.sent[now.why];
    const rows = [
      ["each entry once", `${withCommas(now.once)} bytes`],
      [empty ? "on each rank in use" : "on each rank", `${withCommas(full)} bytes`],
      ["on all ranks together", `${withCommas(total)} bytes`],
      ["copies of each entry", now.copies],
      ["sent by each rank per token", `${withCommas(now.sent)} numbers`],
    ];
    numbers.replaceChildren(...rows.map(([name, value]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, value))));
    sent.textContent = why;
    const [what, links] = data.engines[now.engines];
    does.hidden = !what;
    engines.replaceChildren(what, ...links.flatMap(([name, href], i) => [i ? ", " : ` Source${links.length > 1 ? "s" : ""}: `, h("a", { href }, name)]), ".");
    const parts = [answer.textContent, clash.textContent, `${rows.map((pair) => pair.join(": ")).join(", ")}.`, chosen.textContent];
    announce(parts.filter((part, i) => part && part !== said[i]).join(" ")); // what has changed
    said = parts;
    address.remember();
  }

  /** The state that an address holds, as far as it is valid. */
  function recall(parameters) {
    const names = (options) => options.map(([name]) => name);
    const allowed = { variant: names(data.variants), ranks: data.ranks, split: names(data.splits), rank: ranks.map((_, r) => r) };
    const found = Object.entries(allowed).map(([name, values]) => [name, values.find((value) => String(value) === parameters.get(name))]);
    return Object.fromEntries(found.filter(([, value]) => value !== undefined));
  }

  address.restore();
  model.set("rank", Math.min(model.get("rank"), model.get("ranks") - 1)); // of an address by hand
  const stop = watch(model, PARAMETERS, draw);
  address.settle();
  return () => {
    address.stop();
    stop();
  };
}

/** The letter of a KV head. */
const letter = (head) => "ABCDEFGH"[head];

/** Numbers with their noun: "sequence 2", "KV heads A and B", "positions 0 to 7". */
function inWords(numbers, noun, name = String) {
  const [first, ...more] = Array.from(numbers, Number);
  const all = [first, ...more].map(name);
  if (!more.length) return `${noun} ${all[0]}`;
  const run = more.length > 1 && more.every((n, i) => n === first + i + 1);
  return `${noun}s ${run ? `${all[0]} to ${all.at(-1)}` : `${all.slice(0, -1).join(", ")} and ${all.at(-1)}`}`;
}
