// Five dials. Bits are BigInt: exact, however large. The same sums as cache_size in layers.py.

const PARAMETERS = ["a", "b", "context", "users", "memory", "owners", "kept", "width", "dtype", "scales", "devices", "split", "page"];
const GB = 10n ** 9n;
const MOST = 2 ** 50; // a cache that grows at all has filled every memory before

/** Entries of a part that are kept, in whole pages. */
function entries({ keeps, size }, tokens, page) {
  if (keeps === "constant") return 1;
  let [first, last] = [0, tokens];
  if (keeps === "stride") last = Math.floor(tokens / size);
  if (keeps === "chunk") last = Math.min(tokens, size);
  if (keeps === "window") first = Math.max(0, tokens - size);
  return (Math.ceil(last / page) - Math.floor(first / page)) * page;
}

/** Heads that one of several devices holds; null if neither number divides the other. */
function held(heads, devices) {
  if (heads > 1 && heads % devices && devices % heads) return null;
  return Math.max(1, Math.floor(heads / devices));
}

/** Rounded up to whole bytes. */
const bytesOf = (bits) => (bits + 7n) / 8n;

/** The parts that are counted: each with its kind of layers, its bits, and the heads on a device. */
function partsOf(entry, { owners, kept, width, dtype, scales, devices, split }) {
  return entry.kinds.flatMap((kind) => {
    const parts = [...(owners === "own" ? [] : kind.lent), ...kind.parts];
    const used = width === "kv" ? parts.filter(({ name }) => !["index", "state", "convolution"].includes(name)) : parts;
    return used.map((part) => {
      const widened = kept === "all" && !part.fixed && ["window", "chunk"].includes(part.keeps);
      const each = (scales === "counted" ? part.bits : part.bare)[dtype];
      const heads = split === "heads" ? held(part.heads, devices) : part.heads;
      const layers = BigInt(each * kind.layers); // bits of one head's entry, in all layers
      return { kind, part, widened, rule: widened ? { keeps: "all" } : part, each, clash: heads === null, layers, share: layers * BigInt(heads ?? part.heads) };
    });
  });
}

/** Bits of one part on the device that holds most. */
function onDevice({ rule, share }, { tokens, users, devices, split, page }) {
  let n = entries(rule, tokens, page);
  if (split === "positions" && rule.keeps !== "constant") n = Math.ceil(n / (page * devices)) * page;
  return share * BigInt(n) * BigInt(split === "sequences" ? Math.ceil(users / devices) : users);
}

/** Bits of all parts on the device that holds most. */
const heaviest = (parts, state) => parts.reduce((sum, one) => sum + onDevice(one, state), 0n);

/**
 * What a model keeps: rows of the table, bits stored once, bits on the fullest device, bits with
 * copies, whether all devices hold as much, and heads that the devices cannot share.
 */
function tally(entry, state) {
  const { tokens, users, owners, devices, split, page } = state;
  const parts = partsOf(entry, state);
  const sum = { rows: [], once: 0n, fullest: 0n, copied: 0n, even: split !== "sequences" || users % devices === 0 };
  for (const kind of entry.kinds) {
    if (kind.borrows && owners === "own") sum.rows.push({ kind, parts: [], borrowed: true });
    for (const { part, widened, rule, each, layers, ...one } of parts.filter((other) => other.kind === kind)) {
      const n = entries(rule, tokens, page);
      const bits = layers * BigInt(n) * BigInt(part.heads) * BigInt(users);
      const device = onDevice({ rule, ...one }, state);
      const inEach = split === "heads" || (split === "positions" && rule.keeps === "constant");
      const stored = inEach ? device * BigInt(devices) : bits;
      if (split === "positions" && !inEach && n % (page * devices)) sum.even = false;
      sum.once += bits;
      sum.fullest += device;
      sum.copied += stored;
      const last = sum.rows[sum.rows.length - 1];
      const joins = last?.kind === kind && last.n === n && last.heads === 1 && part.heads === 1 && ["latent", "shared"].includes(last.parts[0].name) && part.name === "rotary";
      const found = joins ? last : { kind, parts: [], widened, n, heads: part.heads, numbers: 0, each: 0, bits: 0n, device: 0n, stored: 0n };
      found.parts.push(part);
      found.numbers += part.heads * part.width;
      found.each += part.heads * each;
      found.bits += bits;
      found.device += device;
      found.stored += stored;
      if (!joins) sum.rows.push(found);
    }
  }
  return { ...sum, parts, clash: parts.find(({ clash }) => clash)?.part.heads ?? null };
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

/** A number of things, in the singular if it is 1. */
const count = (n, thing) => `${withCommas(n)} ${thing}${n === 1 ? "" : "s"}`;

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
    number(model, "context", { label: "tokens per user", ...limit("context") }),
    number(model, "users", { label: "users at a time", ...limit("users") }),
    number(model, "memory", { label: "cache memory per device", unit: "GB", ...limit("memory") }),
    dropdown(model, "page", { label: "memory is reserved", options: data.pages }),
    h(
      "div",
      { class: "five" },
      dial("1 · who owns", choice(model, "owners", { label: "layers counted", options: data.owners })),
      dial("2 · how long", choice(model, "kept", { label: "entries counted", options: data.kept })),
      dial("3 · how wide", choice(model, "width", { label: "numbers counted", options: data.width })),
      dial("4 · how many bits", dropdown(model, "dtype", { label: "number format", options: data.formats }), choice(model, "scales", { label: "scales", options: data.scales })),
      dial("5 · how many copies", slider(model, "devices", { label: "devices", values: data.devices }), choice(model, "split", { label: "the cache is split", options: data.splits })),
    ),
  );

  const answer = h("p", { class: "answer" });
  const wrong = h("p", { class: "wrong" });
  const note = h("p", { class: "note" });
  const sides = ["a", "b"].map((side) => {
    const parts = { title: h("p", { class: "heading", id: uid() }), fill: h("div", { class: "fill" }), takes: h("p", { class: "takes" }), room: h("p", { class: "takes" }), rows: h("tbody"), last: h("th", { scope: "col", role: "columnheader" }), note: h("p", { class: "note" }) };
    const heads = ["entries", "numbers", "bytes", "copies"].map((text) => h("th", { scope: "col", role: "columnheader" }, text));
    parts.node = h(
      "section",
      { "data-side": side, "aria-labelledby": parts.title.id },
      parts.title,
      parts.takes,
      h("div", { class: "track", "aria-hidden": "true" }, parts.fill),
      parts.room,
      // The roles are those of a table, which narrow pages lay out in another way.
      h("table", { class: "numbers", role: "table" }, h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, h("th", { class: "name", scope: "col", role: "columnheader" }, "what is stored"), ...heads, parts.last)), parts.rows),
      parts.note,
    );
    parts.rows.setAttribute("role", "rowgroup");
    return [side, parts];
  });
  const traits = () => Object.fromEntries(PARAMETERS.map((name) => [name, model.get(name)]));
  const address = inAddress(model, { anchor: "cache-dials", all: PARAMETERS, announce, parameters: traits, recall });
  body.append(answer, wrong, h("div", { class: "sides" }, ...sides.map(([, { node }]) => node)), note, address.node);

  /** Everything shown about one model. */
  function compute(side, get) {
    const name = get[side];
    const entry = data.models[name];
    const state = { ...get, tokens: get.context };
    const found = tally(entry, state);
    const right = partsOf(entry, { ...state, owners: "own", kept: "kept", width: "all", scales: "counted" });
    const memory = 8n * BigInt(get.memory) * GB;
    const fits = (change) => !found.clash && heaviest(found.parts, { ...state, ...change }) <= memory;
    return { name, entry, ...found, right: heaviest(right, state), tokens: most((tokens) => fits({ tokens }), MOST), users: most((users) => fits({ users }), MOST) };
  }

  const inGB = (bits) => amount(bytesOf(bits), GB);
  const holds = ({ clash, name, fullest }, on) => (clash ? [`the ${clash} heads of ${name} cannot be divided among the devices`] : [`${name} keeps `, h("strong", {}, `${inGB(fullest)} GB`), on]);

  /** How one model's bytes compare with the other's. */
  function comparison(a, b) {
    if (a.clash || b.clash || a.name === b.name) return ".";
    const [more, less] = a.fullest >= b.fullest ? [a, b] : [b, a];
    if (more.fullest === less.fullest) return ": the same.";
    return less.fullest ? `: ${more.name} keeps ${amount(more.fullest, less.fullest)} times as much.` : ".";
  }

  /** What a wrong dial does to a model's bytes. */
  function mistake({ name, fullest, right }) {
    if (fullest === right) return `${name} is not affected`;
    const times = amount(fullest, right);
    return `${name} comes out ${times === "1.00" ? `a little too ${fullest > right ? "large" : "small"}` : `at ${times} times its real size`}`;
  }

  let said = "";

  function draw() {
    const get = traits();
    const { devices } = get;
    const both = sides.map(([side]) => compute(side, get));
    const [a, b] = both;
    const largest = Math.max(...both.map(({ clash, fullest }) => (clash ? 0 : Number(fullest))), 1);
    const on = ({ even }) => (devices === 1 ? "" : ` on ${even ? "each" : "the fullest"} of ${devices} devices`);
    const each = (users, tokens) => `${count(users, "user")} with ${count(tokens, "token")}${users === 1 ? "" : " each"}`;
    sides.forEach(([side, parts], i) => {
      const now = both[i];
      const { entry, clash } = now;
      const copies = amount(now.copied, now.once || 1n);
      const stored = devices === 1 ? "" : copies === "1.00" ? " Each number is stored once." : ` Each number is stored ${copies} times on average.`;
      parts.title.textContent = `${side.toUpperCase()}: ${now.name}`;
      parts.takes.textContent = clash ? `${devices} devices cannot share ${clash} heads: neither number divides the other.` : `${withCommas(bytesOf(now.fullest))} bytes${on(now)}.${stored}`;
      parts.room.textContent = clash ? "" : room(now, get);
      parts.fill.style.width = `${clash ? 0 : (100 * Number(now.fullest)) / largest}%`;
      parts.last.textContent = devices === 1 ? "GB" : "GB per device";
      parts.rows.replaceChildren(...now.rows.map((found) => line(found, clash)));
      const link = entry.links[0] ? h("a", { href: entry.links[0] }, entry.source) : entry.source;
      const format = get.dtype === data.served && entry.stored ? `The makers’ code stores it in the format ${entry.stored}. ` : "";
      parts.note.replaceChildren(format, entry.note ? `${entry.note} ` : "", "Source: ", link, entry.read ? `, read ${entry.read}.` : ".");
    });
    const once = a.name === b.name;
    const alike = on(a) === on(b) && !a.clash && !b.clash;
    const second = alike ? holds(b, "") : holds(b, on(b));
    answer.replaceChildren(`For ${each(get.users, get.context)}, `, ...holds(a, on(a)), ...(once ? [] : [", and ", ...second]), comparison(a, b));
    const turned = [["1", get.owners !== "own"], ["2", get.kept !== "kept"], ["3", get.width !== "all"], ["4", get.scales !== "counted"]].filter(([, is]) => is).map(([place]) => place);
    const which = turned.length === 1 ? `Dial ${turned[0]} is set to a common mistake` : `Dials ${turned.slice(0, -1).join(", ")} and ${turned.at(-1)} are set to common mistakes`;
    const effects = [...new Set(both.filter(({ clash }) => !clash).map(mistake))].join("; ");
    wrong.textContent = turned.length ? `${which}${effects && `: ${effects}`}.` : "";
    wrong.hidden = !turned.length;
    note.textContent = remarks(both, devices);
    const now = `${answer.textContent} ${wrong.textContent}`;
    announce(now === said ? both.map(({ name }, i) => `${name}: ${sides[i][1].room.textContent}`).join(" ") : now);
    said = now;
    address.remember();
  }

  /** What the memory of each device would hold, in words. */
  function room({ tokens, users }, get) {
    const memory = `${withCommas(get.memory)} GB${get.devices === 1 ? "" : " on each device"} would `;
    const many = (n, thing) => (n === Infinity ? `any number of ${thing}s` : count(n, thing));
    const whose = get.users === 1 ? "one user" : `each of ${withCommas(get.users)} users`;
    const long = `${count(get.context, "token")}${users > 1 ? " each" : ""}`;
    if (!tokens && !users) return `${memory}not hold one user with ${long}.`;
    if (!users) return `${memory}hold ${many(tokens, "token")} of ${whose}, but no user with ${long}.`;
    if (!tokens) return `${memory}hold ${many(users, "user")} with ${long}, but not one token of ${whose}.`;
    return `${memory}hold ${many(tokens, "token")} of ${whose}, or ${many(users, "user")} with ${long}.`;
  }

  /** How to read the columns, and the words in this state's rows. */
  function remarks(both, devices) {
    const shown = new Set(both.flatMap(({ rows }) => rows.flatMap(({ parts }) => parts.map(({ name }) => name))));
    return [
      "Entries are those of one layer and one user, numbers and bytes those of one entry.",
      `GB are those of all these layers and all users${devices === 1 ? "" : ", on the device that holds most"}.`,
      "Copies tell how many devices store the same number.",
      ...(shown.has("shared") ? ["A shared vector is key and value at once."] : []),
      ...(shown.has("state") ? ["A state is stored in float32 in every format."] : []),
      ...(shown.has("convolution") ? ["What a convolution keeps is stored in bfloat16 in every format."] : []),
    ].join(" ");
  }

  /** One row of a model's table. */
  function line({ kind, parts, widened, n, numbers, each, bits, device, stored, borrowed }, clash) {
    const one = kind.layers === 1;
    const layers = kind.name.includes(",") ? `${count(kind.layers, "layer")} (${kind.name})` : count(kind.layers, `${kind.name} layer`.trim());
    const row = (text, ...cells) => h("tr", { role: "row" }, h("th", { class: "name", scope: "row", role: "rowheader" }, text), ...cells.map((cell) => h("td", { role: "cell" }, cell)));
    if (borrowed) return row(`${layers}: read${one ? "s" : ""} the cache of the ${kind.borrows} layers`, "0", "0", "0", "–", clash ? "–" : "0");
    const [{ keeps, size }] = parts;
    const what = parts.map(({ name }) => data.words[name]).join(" + ");
    const rules = { window: ` (last ${count(size, "token")})`, chunk: ` (chunk of ${count(size, "token")})`, stride: size === 1 ? "" : ` (1 per ${count(size, "token")})` };
    const rule = widened ? " (every token)" : (rules[keeps] ?? "");
    const bytes = each % 8 ? fixed(each / 8, 1) : withCommas(each / 8);
    const gb = inGB(device);
    return row(`${layers}: ${what}${rule}`, withCommas(n), withCommas(numbers), bytes, clash ? "–" : amount(stored, bits || 1n), clash ? "–" : device && gb === "0.0000" ? "< 0.0001" : gb);
  }

  /** The state that an address holds, as far as it is valid. */
  function recall(parameters) {
    const allowed = { a: names, b: names, owners: data.owners, kept: data.kept, width: data.width, dtype: data.formats, scales: data.scales, split: data.splits };
    const state = {};
    for (const [name, options] of Object.entries(allowed)) if (options.some(([value]) => value === parameters.get(name))) state[name] = parameters.get(name);
    const whole = (name) => (/^\d{1,9}$/.test(parameters.get(name) ?? "") ? Number(parameters.get(name)) : 0);
    if (data.devices.includes(whole("devices"))) state.devices = whole("devices");
    if (data.pages.some(([value]) => value === whole("page"))) state.page = whole("page");
    for (const [name, end] of Object.entries(data.limits)) if (whole(name) >= 1 && whole(name) <= end) state[name] = whole(name);
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
