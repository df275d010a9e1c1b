// Five dials. Bits are BigInt: exact, however large. The same sums as cache_size in layers.py.

const PARAMETERS = ["a", "b", "context", "users", "memory", "owners", "kept", "width", "dtype", "scales", "devices", "split", "page"];
const GB = 10n ** 9n;

/** Entries of a part that are kept, in whole pages. */
function entries(part, tokens, page, everything) {
  const keeps = everything && !part.fixed && ["window", "chunk"].includes(part.keeps) ? "all" : part.keeps;
  if (keeps === "constant") return 1;
  let [first, last] = [0, tokens];
  if (keeps === "stride") last = Math.floor(tokens / part.size);
  if (keeps === "chunk") last = Math.min(tokens, part.size);
  if (keeps === "window") first = Math.max(0, tokens - part.size);
  return (Math.ceil(last / page) - Math.floor(first / page)) * page;
}

/** Heads that one of several devices holds; null if neither number divides the other. */
function held(heads, devices) {
  if (heads > 1 && heads % devices && devices % heads) return null;
  return Math.max(1, Math.floor(heads / devices));
}

/** Rounded up to whole bytes. */
const bytesOf = (bits) => (bits + 7n) / 8n;

/** What a model keeps: rows of the table, bits stored once, bits on the fullest device. */
function tally(entry, { tokens, users, owners, kept, width, dtype, scales, devices, split, page }) {
  const rows = [];
  let [once, fullest, clash] = [0n, 0n, null];
  for (const kind of entry.kinds) {
    const lent = owners === "own" ? [] : kind.lent;
    if (kind.borrows && !lent.length) rows.push({ kind, parts: [], borrowed: true, bits: 0n });
    for (const part of [...lent, ...kind.parts]) {
      if (width === "kv" && ["index", "state", "convolution"].includes(part.name)) continue;
      const n = entries(part, tokens, page, kept === "all");
      const each = (scales === "counted" ? part.bits : part.bare)[dtype];
      const all = BigInt(each) * BigInt(kind.layers);
      const bits = all * BigInt(n) * BigInt(part.heads) * BigInt(users);
      let [row, heads, here, sequences] = [all, part.heads, n, users];
      if (split === "heads") {
        heads = held(part.heads, devices);
        if (heads === null) {
          clash = part.heads;
          heads = part.heads;
        }
        if (part.name === "convolution") {
          const states = BigInt(held(kind.stateHeads, devices) ?? kind.stateHeads);
          row = (all * states + BigInt(kind.stateHeads) - 1n) / BigInt(kind.stateHeads);
        }
      } else if (split === "sequences") sequences = Math.ceil(users / devices);
      else if (part.keeps !== "constant") here = Math.ceil(n / (page * devices)) * page;
      const device = row * BigInt(here) * BigInt(heads) * BigInt(sequences);
      once += bits;
      fullest += device;
      const last = rows[rows.length - 1];
      const joins = last?.kind === kind && last.n === n && last.heads === 1 && part.heads === 1 && ["latent", "shared"].includes(last.parts[0].name) && part.name === "rotary";
      const found = joins ? last : { kind, parts: [], n, heads: part.heads, numbers: 0, each: 0, bits: 0n, device: 0n };
      found.parts.push(part);
      found.numbers += part.heads * part.width;
      found.each += part.heads * each;
      found.bits += bits;
      found.device += device;
      if (!joins) rows.push(found);
    }
  }
  return { rows, once, fullest, clash };
}

function render({ model, el }) {
  const data = model.get("data");
  const { controls, body, announce } = frame(el, model.get("label"));
  el.classList.add("dials");
  const names = Object.keys(data.models).map((name) => [name, name]);
  const limit = (name) => ({ min: 1, max: data.limits[name] });
  const dial = (title, ...nodes) => h("div", { class: "dial", role: "group", "aria-label": title }, h("p", { class: "title", "aria-hidden": "true" }, title), ...nodes);
  controls.append(
    dropdown(model, "a", { label: "model A", options: names }),
    dropdown(model, "b", { label: "model B", options: names }),
    number(model, "context", { label: "tokens of each user", ...limit("context") }),
    number(model, "users", { label: "users at a time", ...limit("users") }),
    number(model, "memory", { label: "memory of a device", unit: "GB", ...limit("memory") }),
    dropdown(model, "page", { label: "memory is reserved", options: data.pages }),
    dial("1 · who owns", choice(model, "owners", { label: "layers counted", options: data.owners })),
    dial("2 · how long", choice(model, "kept", { label: "entries counted", options: data.kept })),
    dial("3 · how wide", choice(model, "width", { label: "numbers counted", options: data.width })),
    dial("4 · how many bits", dropdown(model, "dtype", { label: "numbers are stored", options: data.formats }), choice(model, "scales", { label: "scales", options: data.scales })),
    dial("5 · how many copies", slider(model, "devices", { label: "devices", values: data.devices }), choice(model, "split", { label: "they share layers", options: data.splits })),
  );

  const answer = h("p", { class: "answer" });
  const wrong = h("p", { class: "wrong" });
  const sides = ["a", "b"].map((side) => {
    const parts = { title: h("p", { class: "heading" }), fill: h("div", { class: "fill" }), takes: h("p", { class: "takes" }), rows: h("tbody"), note: h("p", { class: "note" }) };
    const heads = ["", "entries", "numbers", "bytes", "copies", "GB"];
    parts.node = h(
      "section",
      { "data-side": side, "aria-label": `model ${side.toUpperCase()}` },
      parts.title,
      parts.takes,
      h("div", { class: "track", "aria-hidden": "true" }, parts.fill),
      h("table", { class: "numbers" }, h("thead", {}, h("tr", {}, ...heads.map((text) => (text ? h("th", { scope: "col" }, text) : h("td"))))), parts.rows),
      parts.note,
    );
    return [side, parts];
  });
  const address = inAddress(model, { anchor: "cache-dials", all: PARAMETERS, announce, parameters: () => Object.fromEntries(PARAMETERS.map((name) => [name, model.get(name)])), recall });
  body.append(
    answer,
    wrong,
    h("div", { class: "sides" }, ...sides.map(([, { node }]) => node)),
    h("p", { class: "note" }, "Entries are those of one layer and one user, numbers and bytes those of one entry. The last column adds up all layers and users, each number once; copies are on top of that."),
    address.node,
  );

  /** Everything shown about one model. */
  function compute(side) {
    const get = Object.fromEntries(PARAMETERS.map((name) => [name, model.get(name)]));
    const name = get[side];
    const entry = data.models[name];
    const state = { ...get, tokens: get.context };
    const found = tally(entry, state);
    const right = tally(entry, { ...state, owners: "own", kept: "kept", width: "all", scales: "counted" });
    const memory = 8n * BigInt(get.memory) * GB;
    const fits = (change) => tally(entry, { ...state, ...change }).fullest <= memory;
    return { name, entry, ...found, right, tokens: most((tokens) => fits({ tokens }), 2 ** 40), users: most((users) => fits({ users }), 2 ** 30) };
  }

  /** The largest whole number that passes, 0 if 1 does not, Infinity if `end` does. */
  function most(passes, end) {
    if (!passes(1)) return 0;
    if (passes(end)) return Infinity;
    let [low, high] = [1, end];
    while (high - low > 1) {
      const middle = Math.floor((low + high) / 2);
      if (passes(middle)) low = middle;
      else high = middle;
    }
    return low;
  }

  const inGB = (bits) => amount(bytesOf(bits), GB);
  const ratio = (x, y) => (y === 0n ? "" : fixed(Number((1000n * x) / y) / 1000, 2));
  const some = (n, what) => (n === Infinity ? `any number of ${what}` : withCommas(n));

  function draw() {
    const devices = model.get("devices");
    const both = Object.fromEntries(sides.map(([side]) => [side, compute(side)]));
    const largest = Math.max(...Object.values(both).map(({ fullest }) => Number(fullest)), 1);
    const on = devices === 1 ? "" : ` on each of ${devices} devices`;
    for (const [side, parts] of sides) {
      const now = both[side];
      const copies = ratio(now.fullest * BigInt(devices), now.once);
      parts.title.textContent = `${side.toUpperCase()}: ${now.name}`;
      parts.takes.textContent = now.clash
        ? `${devices} devices cannot share ${now.clash} heads: neither number divides the other.`
        : `${inGB(now.fullest)} GB${on} (${withCommas(bytesOf(now.fullest))} bytes)${devices > 1 ? `, ${copies} copies of a number` : ""}. In ${withCommas(model.get("memory"))} GB a device: ${some(now.tokens, "tokens")}${now.tokens === Infinity ? "" : " tokens each"}, or ${some(now.users, "users")}${now.users === Infinity ? "" : " users"}.`;
      parts.fill.style.width = `${now.clash ? 0 : (100 * Number(now.fullest)) / largest}%`;
      parts.rows.replaceChildren(...now.rows.map((found) => line(found, devices)));
      const { entry } = now;
      const link = entry.links[0] ? h("a", { href: entry.links[0] }, entry.source) : entry.source;
      parts.note.replaceChildren(entry.note ? `${entry.note} ` : "", "Source: ", link, entry.read ? `, read ${entry.read}.` : ".");
    }
    const { a, b } = both;
    const compared = a.fullest >= b.fullest ? [a, b] : [b, a];
    answer.replaceChildren(
      `${a.name} keeps `,
      h("strong", {}, `${inGB(a.fullest)} GB`),
      `${on}, ${b.name} `,
      h("strong", {}, `${inGB(b.fullest)} GB`),
      compared[0].name === compared[1].name ? "." : `: ${compared[0].name} keeps ${ratio(compared[0].fullest, compared[1].fullest)} times as much.`,
    );
    const off = [a, b].filter(({ fullest, right }) => fullest !== right.fullest).map(({ name, fullest, right }) => `${name} is off by a factor of ${fullest >= right.fullest ? ratio(fullest, right.fullest) : `1/${ratio(right.fullest, fullest)}`}`);
    const turned = model.get("owners") !== "own" || model.get("kept") !== "kept" || model.get("width") !== "all" || model.get("scales") !== "counted";
    wrong.textContent = turned ? `A dial is turned to a common mistake: ${[...new Set(off)].join(", ") || "these two models do not mind"}.` : "";
    wrong.hidden = !turned;
    announce(`${answer.textContent} ${wrong.textContent}`);
    address.remember();
  }

  /** One row of a model's table. */
  function line({ kind, parts, n, numbers, each, bits, device, borrowed }, devices) {
    const layers = `${withCommas(kind.layers)} ${kind.name} layer${kind.layers === 1 ? "" : "s"}`.replace("  ", " ");
    if (borrowed) return h("tr", {}, h("th", { scope: "row" }, `${layers}: read ${kind.borrows}`), h("td", { colspan: 4 }, "own none"), h("td", {}, "0"));
    const [{ keeps, size }] = parts;
    const stores = parts.map(({ name }) => data.words[name]).join(" + ");
    const rule = { window: ` (last ${withCommas(size)})`, chunk: ` (chunk of ${withCommas(size)})`, stride: ` (1 per ${withCommas(size)})` }[keeps] ?? "";
    const bytes = each % 8 ? fixed(each / 8, 1) : withCommas(each / 8);
    const copies = ratio(device * BigInt(devices), bits);
    return h("tr", {}, h("th", { scope: "row" }, `${layers}: ${stores}${rule}`), ...[withCommas(n), withCommas(numbers), bytes, copies, inGB(bits)].map((text) => h("td", {}, text)));
  }

  /** The state that an address holds, as far as it is valid. */
  function recall(parameters) {
    const allowed = { a: names, b: names, owners: data.owners, kept: data.kept, width: data.width, dtype: data.formats, scales: data.scales, split: data.splits };
    const state = {};
    for (const [name, options] of Object.entries(allowed)) if (options.some(([value]) => value === parameters.get(name))) state[name] = parameters.get(name);
    const whole = (name) => (/^\d{1,9}$/.test(parameters.get(name) ?? "") ? Number(parameters.get(name)) : 0);
    if (data.devices.includes(whole("devices"))) state.devices = whole("devices");
    if (data.pages.some(([value]) => value === whole("page"))) state.page = whole("page");
    for (const [name, most_] of Object.entries(data.limits)) if (whole(name) >= 1 && whole(name) <= most_) state[name] = whole(name);
    return state;
  }

  address.restore();
  const stop = watch(model, PARAMETERS, draw);
  address.settle();
  return () => {
    address.stop();
    stop();
  };
}
