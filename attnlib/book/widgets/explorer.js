// The cache explorer. Bytes are BigInt: exact, however large.

// Dashes of the line styles in appearance.py.
const DASHES = { "-": "", "--": "7 4", ":": "2 4", "-.": "8 3 2 3", "-..": "8 2 2 2 2 2" };

/** What a variant caches per token, in words. */
function stored({ latent, heads }, sizes) {
  if (latent.length) return latent.map(([word, name]) => `${word} ${sizes[name]}`).join(" + ");
  const count = sizes[heads] ?? heads;
  return `${withCommas(count)} KV head${count === 1 ? "" : "s"}`;
}

// The sizes that can be set, and their names in the address of the page.
const SIZES = {
  n_layers: "layers",
  n_heads: "heads",
  n_kv_heads: "kv_heads",
  head_dim: "width",
  v_head_dim: "value_width",
  kv_lora_rank: "latent",
  qk_rope_head_dim: "rotary",
};
const CHOICES = ["model", "context", "users", "bits", "memory", "unit"];
const NAMES = [...CHOICES, ...Object.keys(SIZES)];

function render({ model, el }) {
  const data = model.get("data");
  const { controls, body, announce } = frame(el, model.get("label"));
  el.classList.add("explorer");
  const limit = (name) => ({ min: 1, max: data.limits[name] });
  let quiet = false; // while several traits are being set at once

  function setAll(values) {
    quiet = true;
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    quiet = false;
    model.save_changes();
    draw();
  }

  /** A number field, with a slider over powers of two. */
  function power(name, { label, from, to, unit }) {
    const node = number(model, name, { label, ...limit(name) });
    const input = h("input", { type: "range", min: from, max: to, step: 1, "aria-label": `${label}, powers of two` });
    input.addEventListener("input", () => setTrait(model, name, 2 ** input.value));
    node.classList.add("power");
    node.firstChild.after(input);
    watch(model, [name], () => {
      input.value = Math.round(Math.log2(model.get(name)));
      input.setAttribute("aria-valuetext", `${withCommas(model.get(name))} ${unit}`);
    });
    return node;
  }

  // Controls.
  const list = h("select", { id: uid() }, ...[...Object.keys(data.models), data.own].map((name) => h("option", {}, name)));
  list.addEventListener("change", () => {
    setAll({ ...data.models[list.value]?.sizes, model: list.value });
    for (const [name, box] of Object.entries(boxes)) {
      const input = box.querySelector("input"); // the model's size replaces invalid input
      input.value = model.get(name);
      input.dispatchEvent(new Event("input"));
    }
    if (list.value === data.own) geometry.open = true;
  });
  const memory = number(model, "memory", { label: "memory for the cache", ...limit("memory") });
  const units = choice(model, "unit", { label: "unit of the memory", options: Object.keys(data.units).map((unit) => [unit, unit]) });
  units.firstChild.classList.add("spoken");
  memory.append(units);
  controls.append(
    h("div", { class: "control" }, h("label", { for: list.id }, "model"), list),
    power("context", { label: "context (tokens)", from: 10, to: 20, unit: "tokens" }),
    power("users", { label: "users at a time", from: 0, to: 10, unit: "users" }),
    dropdown(model, "bits", { label: "one number takes", options: data.formats }),
    memory,
  );

  // The sizes: a line that opens into fields.
  const summary = h("summary");
  const uneven = h("p", { class: "note", role: "alert" });
  const usedBy = (size) =>
    data.variants.filter(({ numbers }) => numbers.some(([, names]) => names.includes(size))).map(({ name }) => name).join(", ");
  const fields = {
    n_layers: "layers",
    n_heads: "query heads",
    n_kv_heads: `KV heads of ${usedBy("n_kv_heads")}`,
    head_dim: "head width",
    kv_lora_rank: `latent width of ${usedBy("kv_lora_rank")}`,
    qk_rope_head_dim: `rotary width of ${usedBy("qk_rope_head_dim")}`,
  };
  const boxes = Object.fromEntries(Object.entries(fields).map(([name, label]) => [name, number(model, name, { label, ...limit(name) })]));
  const geometry = h("details", { class: "geometry" }, summary, h("div", { class: "fields" }, ...Object.values(boxes)), uneven);
  geometry.addEventListener("input", (event) => {
    const sizes = data.models[model.get("model")]?.sizes;
    const changed = Object.keys(fields).filter((name) => sizes && sizes[name] !== model.get(name));
    const values = boxes.head_dim.contains(event.target) ? { v_head_dim: model.get("head_dim") } : {};
    if (changed.length) setAll({ ...values, model: data.own });
    else if (!sizes) setAll(values);
  });

  // The drawing.
  const answer = h("p", { class: "answer" });
  const rows = Object.fromEntries(
    data.variants.map(({ name, color }) => {
      const parts = { keeps: h("span"), own: h("span", { class: "own" }), size: h("span", { class: "takes" }) };
      parts.fill = h("div", { class: "fill", style: `--color: ${color}` }, h("div", { class: "over" }));
      parts.mark = h("div", { class: "brink" });
      parts.node = h(
        "li",
        { "data-variant": name },
        h("span", { class: "who" }, h("b", {}, name), " ", parts.keeps, " ", parts.own),
        parts.size,
        h("div", { class: "track", "aria-hidden": "true" }, parts.fill, parts.mark),
      );
      return [name, parts];
    }),
  );
  const roomName = h("p", { class: "room" });
  const cells = h("tbody");
  const tableNote = h("caption", { class: "note" });
  const heading = ["", "bytes per token", "bytes in all", "tokens that fit", "users that fit"];
  const assumed = h("p", { class: "note" });
  const growing = h("p", { class: "heading" });
  const growth = chart(270, paint, { left: 50, right: 58, top: 12, bottom: 40 });
  const address = inAddress(model, { anchor: "cache-explorer", all: [...CHOICES, ...Object.values(SIZES)], announce, parameters, recall });
  body.append(
    geometry,
    answer,
    h("div", { class: "bars" }, roomName, h("ul", {}, ...Object.values(rows).map(({ node }) => node))),
    h("table", { class: "numbers exact" }, tableNote, h("thead", {}, h("tr", {}, ...heading.map((text) => (text ? h("th", { scope: "col" }, text) : h("td"))))), cells),
    assumed,
    growing,
    growth.node,
    address.node,
  );

  let now; // everything shown, computed from the traits

  /** How many KV heads the query heads share. */
  const sharing = ({ n_heads, n_kv_heads }) => (n_kv_heads === 1 ? "one" : n_kv_heads === n_heads ? "all" : "some");

  function compute() {
    const get = Object.fromEntries(NAMES.map((name) => [name, model.get(name)]));
    const published = data.models[get.model];
    const own = published?.variant ?? data.sharing[sharing(get)];
    const bytes = BigInt(get.memory) * BigInt(data.units[get.unit]);
    const variants = data.variants.map((variant) => {
      const token = BigInt(get.n_layers * evaluate(variant.numbers, get) * get.bits); // in bits
      const cached = (tokens) => Math.min(tokens, variant.window ?? Infinity); // of that many seen
      const fit = (sequences) => (8n * bytes) / (token * BigInt(sequences));
      const longest = (sequences) => (fit(sequences) >= (variant.window ?? Infinity) ? Infinity : fit(sequences));
      return {
        ...variant,
        token: (token + 7n) / 8n,
        cache: (token * BigInt(cached(get.context)) * BigInt(get.users) + 7n) / 8n,
        at: (context) => (Number(token) * cached(context) * get.users) / 8,
        tokens: longest(1),
        users: fit(cached(get.context)),
        crossing: longest(get.users),
      };
    });
    return { ...get, published, own, bytes, variants };
  }

  function draw() {
    if (quiet) return;
    now = compute();
    const { GB, GiB } = data.units;
    const both = (bytes) => `${amount(bytes, GiB)} GiB = ${amount(bytes, GB)} GB`;
    const other = now.unit === "GB" ? "GiB" : "GB";
    const main = now.variants.find(({ name }) => name === now.own);
    const have = `${withCommas(now.memory)} ${now.unit}`;

    list.value = now.model;
    const widths = now.v_head_dim === now.head_dim ? "" : ` (values ${now.v_head_dim})`;
    summary.textContent = `${withCommas(now.n_layers)} layers, ${withCommas(now.n_heads)} query heads of width ${now.head_dim}${widths}`;
    uneven.textContent = now.n_heads % now.n_kv_heads ? `${withCommas(now.n_heads)} query heads cannot share ${withCommas(now.n_kv_heads)} KV heads evenly: attnlib would refuse such a layer.` : "";

    const users = `${withCommas(now.users)} user${now.users === 1 ? "" : "s"}`;
    const each = `${withCommas(now.context)} token${now.context === 1 ? "" : "s"}${now.users === 1 ? "" : " each"}`;
    const whose = now.published ? `${now.model} (${now.own})` : `Your geometry, as ${now.own},`;
    const few = main.users === 0n ? "not one" : `${main.cache > now.bytes ? "only " : ""}${withCommas(main.users)}`;
    const fits = `${few} such user${main.users < 2n ? " fits" : "s fit"}`;
    answer.replaceChildren(`${whose} keeps `, h("strong", {}, `${amount(main.cache, GiB)} GiB`), ` for ${users} with ${each}. In ${have}, `, h("strong", {}, fits), ".");

    // Bars: the largest fills the width, unless the memory is a little larger.
    const largest = Math.max(...now.variants.map(({ cache }) => Number(cache)));
    const room = Number(now.bytes);
    const full = room < 2.5 * largest ? Math.max(largest, room) : largest;
    const at = (100 * room) / full;
    for (const variant of now.variants) {
      const row = rows[variant.name];
      const share = (100 * Number(variant.cache)) / full;
      const over = variant.cache > now.bytes;
      row.keeps.textContent = stored(variant.stores, now);
      row.own.textContent = variant.name === now.own ? (now.published ? now.model : "your own") : "";
      row.size.textContent = both(variant.cache) + (over ? ", too large" : "");
      row.fill.style.width = `${share}%`;
      row.mark.hidden = at > 100;
      row.mark.style.left = `${at}%`;
      row.fill.firstChild.style.left = over ? `${(100 * at) / share}%` : "100%";
    }
    roomName.style.left = `${Math.min(at, 100)}%`;
    roomName.style.transform = `translateX(-${Math.min(at, 100)}%)`;
    roomName.textContent = `memory: ${have} = ${amount(now.bytes, data.units[other])} ${other}${at > 100 ? " →" : ""}`;

    tableNote.textContent = `To the byte. Tokens fit in one sequence, users with ${withCommas(now.context)} tokens each.`;
    cells.replaceChildren(
      ...now.variants.map(({ name, token, cache, tokens, users: n }) =>
        h("tr", { "data-variant": name, class: name === now.own && "own" }, h("th", { scope: "row" }, name), ...[token, cache, tokens, n].map((value) => h("td", {}, ...(value === Infinity ? ["any number"] : breakable(withCommas(value)))))),
      ),
    );
    assumed.textContent = now.published?.assumed ?? "";
    growing.textContent = `Cache of ${users} as the context grows (log scales; a dot: memory full)`;
    growth.draw();
    const full_at = now.variants.filter(({ crossing }) => crossing !== Infinity).map(({ name, crossing }) => `${name} ${withCommas(crossing)}`).join(", ");
    growth.node.setAttribute("aria-label", `Cache against context length for ${users}. The memory of ${have} is full at this many tokens a user: ${full_at}.`);
    announce(`${answer.textContent} ${now.variants.map(({ name, cache }) => `${name} ${amount(cache, GiB)} GiB`).join(", ")}.`);
    address.remember();
  }

  /** A number that may break after a comma, if it is too long for any row. */
  const breakable = (text) => (text.length < 16 ? [text] : text.split(/(?<=,)/).flatMap((part) => [part, h("wbr")]));

  /** One line per variant, the memory across them, and a mark where each line meets it. */
  function paint(place) {
    if (!now) return [];
    const { left, right, top, bottom } = place;
    const wide = right - left > 420;
    const low = 2 ** 10;
    const high = Math.max(2 ** 20, now.context);
    const room = Number(now.bytes);
    const ends = now.variants.map(({ at }) => at(high));
    const floor = Math.min(room, ...now.variants.map(({ at }) => at(low))) / 2;
    const x = scale([low, high], [left, right], { log: true });
    const y = scale([floor, 2 * Math.max(room, ...ends)], [bottom, top], { log: true });
    const ticks = (from, to, step) => Array.from({ length: 40 }, (_, i) => i * step).filter((i) => 2 ** i >= from && 2 ** i <= to);
    const binary = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB"];
    const beside = (at, before) => ({ x: at + (before ? -6 : 6), "text-anchor": before ? "end" : "start" });
    const bytes = (i) => `${2 ** (i % 10)} ${binary[Math.floor(i / 10)]}`;
    const nodes = axes(place, {
      x,
      y,
      xTicks: ticks(low, high, 1).filter((i) => (i - 10) % (wide ? 2 : 5) === 0).map((i) => [2 ** i, withCommas(2 ** i)]),
      yTicks: ticks(floor, 2 * Math.max(room, ...ends), 5).map((i) => [2 ** i, bytes(i)]),
      xLabel: "context length in tokens, each user",
    });
    const here = x(Math.max(now.context, low));
    nodes.push(
      s("path", { class: "limit", d: `M${left} ${y(room)}H${right}` }),
      s("path", { class: "present", d: `M${here} ${top}V${bottom}` }),
      s("text", { class: "meets", y: top + 8, ...beside(here, here > right - 70) }, withCommas(now.context)),
    );
    for (const { at, color, line, window } of now.variants) {
      const bend = window > low && window < high ? `L${x(window)} ${y(at(window))}` : "";
      nodes.push(s("path", { class: "line", d: `M${left} ${y(at(low))}${bend}L${right} ${y(at(high))}`, stroke: color, "stroke-dasharray": DASHES[line] }));
    }
    let last = Infinity;
    const named = [["memory", room], ...now.variants.map(({ name, at }) => [name, at(high)])];
    for (const [name, value] of named.sort((a, b) => a[1] - b[1])) {
      last = Math.min(y(value), last - 14); // names are at least one line apart
      nodes.push(s("text", { x: right + 5, y: last, "dominant-baseline": "middle" }, name));
    }
    const met = now.variants.filter(({ crossing }) => crossing >= low && crossing <= high).sort((a, b) => Number(a.crossing - b.crossing));
    met.forEach(({ name, color, crossing }, i) => {
      const px = x(Number(crossing));
      const above = i % 2 === 0; // neighbours on different sides
      const before = px > right - 60 || (above && px > left + 60);
      nodes.push(
        s("circle", { cx: px, cy: y(room), r: 4.5, fill: color, "data-variant": name }),
        s("text", { class: "meets", y: y(room) + (above ? -8 : 17), ...beside(px, before) }, withCommas(crossing)),
      );
    });
    return nodes;
  }

  function parameters() {
    const state = Object.fromEntries(CHOICES.map((name) => [name, model.get(name)]));
    if (!now.published) for (const [name, short] of Object.entries(SIZES)) state[short] = model.get(name);
    return state;
  }

  function recall(given) {
    const state = {};
    const choices = { model: [...Object.keys(data.models), data.own], unit: Object.keys(data.units) };
    for (const [name, values] of Object.entries(choices)) if (values.includes(given.get(name))) state[name] = given.get(name);
    const whole = (name, short, fits) => {
      const value = /^\d{1,9}$/.test(given.get(short) ?? "") ? Number(given.get(short)) : 0;
      if (fits(value)) state[name] = value;
    };
    whole("bits", "bits", (value) => data.formats.some(([bits]) => bits === value));
    const inside = (name) => (value) => value >= 1 && value <= data.limits[name];
    for (const name of ["context", "users", "memory"]) whole(name, name, inside(name));
    if (state.model === data.own) {
      for (const [name, short] of Object.entries(SIZES)) whole(name, short, inside(name));
      state.v_head_dim ??= state.head_dim ?? model.get("v_head_dim");
    } else Object.assign(state, data.models[state.model]?.sizes);
    geometry.open = state.model === data.own;
    return state;
  }

  address.restore();
  const stop = watch(model, NAMES, draw);
  address.settle();
  return () => {
    address.stop();
    stop();
  };
}
