// Head sharing: query heads above, the KV heads they read below, and under them the cache of a
// few tokens, all blocks to the same scale.

const LEFT = 62; // pixels for the names of the rows
const RIGHT = 6;
const GAP = 0.09; // between boxes, as a share of one query head's place
const Y = { query: 18, box: 28, kv: 108, title: 182, cache: 192, row: 22, block: 18 };

function render({ model, el }) {
  const { controls, body, announce } = frame(el, model.get("label"));
  const data = model.get("data");
  const H = data.heads;
  const unshared = data.options[0].name; // the variant with as many KV heads as query heads
  let hovered = null; // the query head under the pointer

  const headline = h("p", { class: "share-headline" });
  const members = h("p", { class: "share-members" });
  const numbers = h("table", { class: "numbers" });
  const about = h("p", { class: "note" });
  const { node, draw: redraw } = chart(Y.cache + data.tokens * Y.row + 2, paint, { left: LEFT, right: RIGHT });
  node.classList.add("share");

  const sliders = [
    slider(model, "n_kv_heads", {
      label: "KV heads",
      values: data.options.map(({ kv }) => kv),
      format: (kv) => `${kv} (${data.options.find((other) => other.kv === kv).name})`,
    }),
    slider(model, "head", { label: "query head", values: Array.from({ length: H }, (_, head) => head) }),
  ];
  sliders.forEach((control) => control.classList.add("share-slider"));
  controls.append(...sliders);
  body.append(
    headline,
    members,
    node,
    numbers,
    about,
    h("p", { class: "note" }, "Point at the drawing to see a head's wire. Click or touch to choose the head."),
  );

  const option = () => data.options.find(({ kv }) => kv === model.get("n_kv_heads")) ?? data.options[0];
  const chosen = () => hovered ?? model.get("head");

  /** The query heads that read a KV head, first to last. */
  const readers = (kv) => option().reads.flatMap((j, head) => (j === kv ? [head] : []));

  /** The drawing. Boxes of one kind are one path, so many heads cost no more than few. */
  function paint({ left, right }) {
    const { kv: count, G, reads } = option();
    const unit = (right - left) / H; // width of one query head's place, and of one pair K, V
    const gap = Math.max(0.8, Math.min(6, unit * GAP));
    const on = reads[chosen()];
    const paths = {};
    const add = (kind, d) => (paths[kind] = (paths[kind] ?? "") + d);
    const box = (x, y, width, height) => `M${x} ${y}h${width}v${height}h${-width}z`;
    const pair = (kv, x, y, height) => {
      const width = unit / 2 - gap;
      const lit = kv === on ? " lit" : "";
      add(`k${lit}`, box(x + gap / 2, y, width, height));
      add(`v${lit}`, box(x + unit / 2 + gap / 2, y, width, height));
      if (lit) add("around", box(x - 0.5, y - 1.5, unit + 1, height + 3));
    };
    const texts = [];
    const text = (x, y, content, attributes = {}) => texts.push(s("text", { x, y, ...attributes }, content));
    const middle = { "text-anchor": "middle" };
    const bold = { ...middle, class: "lit" };

    const x = (head) => left + head * unit;
    const place = (kv) => left + (readers(kv).reduce((sum, head) => sum + head, 0) / G) * unit;
    for (let head = 0; head < H; head++) {
      const lit = reads[head] === on ? " lit" : "";
      add(`q${head === chosen() ? " chosen" : lit}`, box(x(head) + gap / 2, Y.query, unit - gap, Y.box));
      const ends = `M${x(head) + unit / 2} ${Y.query + Y.box}L${place(reads[head]) + unit / 2} ${Y.kv}`;
      add(`wire${head === chosen() ? " chosen" : lit}`, ends);
    }
    for (let kv = 0; kv < count; kv++) {
      pair(kv, place(kv), Y.kv, Y.box);
      for (let t = 0; t < data.tokens; t++) pair(kv, left + kv * unit, Y.cache + t * Y.row, Y.block);
    }

    // Numbers of heads, as many as fit, and always those of the chosen ones.
    const label = (at, all, pitch, where, y) => {
      const step = Math.ceil(24 / pitch);
      for (let i = 0; i < all; i++) {
        if (i === at) text(where(i) + unit / 2, y, i, bold);
        else if (i % step === 0 && Math.abs(i - at) * pitch >= 20) text(where(i) + unit / 2, y, i, middle);
      }
    };
    label(chosen(), H, unit, x, Y.query - 5);
    label(on, count, unit * G, place, Y.kv + Y.box + 14);
    if (unit / 2 - gap >= 14) {
      for (let kv = 0; kv < count; kv++) {
        text(place(kv) + unit / 4, Y.kv + 18, "K", middle);
        text(place(kv) + unit * 0.75, Y.kv + 18, "V", middle);
      }
    }
    text(0, Y.query + 12, "query");
    text(0, Y.query + 26, "heads");
    text(0, Y.kv + 12, "KV");
    text(0, Y.kv + 26, "heads");
    text(0, Y.title, `Cache of ${data.tokens === 1 ? "one token" : `${data.tokens} tokens`}, to scale; dashed: ${unshared}`);
    for (let t = 0; t < data.tokens; t++) text(0, Y.cache + t * Y.row + 13, `token ${t}`);
    if (G > 1) {
      const y = Y.cache + (data.tokens * Y.row) / 2 + 2;
      text(left + count * unit + 10, y, `${option().ratio} of ${unshared}’s cache`, { class: "lit" });
    }
    const dashed = box(left, Y.cache - 2, H * unit, data.tokens * Y.row);
    const order = ["wire", "wire lit", "wire chosen", "q", "q lit", "q chosen", "k", "v", "k lit", "v lit", "around"];
    return [
      s("path", { class: "whole", d: dashed }),
      ...order.filter((kind) => kind in paths).map((kind) => s("path", { class: kind, d: paths[kind] })),
      ...texts,
    ];
  }

  /** The query heads that share the chosen one's KV head, in words. */
  function group() {
    const head = chosen();
    const kv = option().reads[head];
    const all = readers(kv);
    if (all.length === 1) return `Query head ${head} has KV head ${kv} to itself.`;
    if (all.length === H) return `All ${H} query heads share KV head ${kv}.`;
    const others = all.length === 2 ? `${all[0]} and ${all[1]}` : `${all[0]} to ${all[all.length - 1]}`;
    return `Query heads ${others} share KV head ${kv}.`;
  }

  function title() {
    const { name, kv, G } = option();
    if (kv === H) return `${name}: each of ${H} query heads has its own KV head`;
    if (kv === 1) return `${name}: all ${H} query heads share one KV head`;
    return `${name} with ${kv} KV heads: each is shared by ${G} query heads`;
  }

  /** Show the head under the pointer, or else the chosen one. */
  function point() {
    members.textContent = group();
    redraw();
  }

  function draw() {
    const { kv, G, bytes, total, ratio } = option();
    const rows = [
      ["G, query heads per KV head", G],
      ["cache per token, one layer", `${withCommas(bytes)} bytes`],
      [`compared with ${unshared}`, ratio],
    ];
    if (data.layers > 1) rows.splice(2, 0, [`cache per token, ${data.layers} layers`, `${withCommas(total)} bytes`]);
    numbers.replaceChildren(
      h("tbody", {}, ...rows.map(([name, value]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, value)))),
    );
    const bytesEach = `${data.itemsize} byte${data.itemsize === 1 ? "" : "s"} per number (${data.dtype})`;
    about.textContent =
      `In each pair the left block is a key, the right one a value; ${data.head_dim} numbers each, ${bytesEach}.` +
      ` One token caches ${kv === 1 ? "one pair" : `${kv} pairs`} in each layer.`;
    headline.textContent = title();
    node.setAttribute("aria-label", `${title()}. ${group()}`);
    point();
    const compared = G === 1 ? `as ${unshared}` : `${ratio} of ${unshared}`;
    announce(`${title()}; ${withCommas(bytes)} bytes per token and layer, ${compared}. ${group()}`);
  }

  /** The query head under a pointer; in the cache, the first that reads the pair. */
  function headAt(event) {
    const area = node.getBoundingClientRect();
    const [, , width, height] = node.getAttribute("viewBox").split(" ").map(Number);
    const place = ((event.clientX - area.left) / area.width) * width - LEFT;
    const at = Math.floor((place * H) / (width - LEFT - RIGHT));
    if (at < 0 || at >= H) return null;
    if (((event.clientY - area.top) / area.height) * height < Y.kv + Y.box + 16) return at;
    return at < option().kv ? option().reads.indexOf(at) : null;
  }

  function hover(head) {
    if (head === hovered) return;
    hovered = head;
    point();
  }

  node.addEventListener("pointermove", (event) => event.pointerType === "mouse" && hover(headAt(event)));
  node.addEventListener("pointerleave", () => hover(null));
  node.addEventListener("click", (event) => {
    const head = headAt(event);
    if (head !== null) setTrait(model, "head", head);
  });
  return watch(model, ["n_kv_heads", "head"], draw);
}
