// The RoPE dial: one pair enlarged, all pairs small with their parts of the score, and the score as
// a curve over the distance.

function render({ model, el }) {
  const data = model.get("data");
  const last = data.positions;
  const pairs = data.q.map((_, i) => i);
  const most = Math.max(...pairs.map((i) => data.q[i][0] * data.k[i][0]), 1e-6); // the largest part of the score that a pair can have
  const reach = Math.max(...data.q.map(([length]) => length), ...data.k.map(([length]) => length), 1e-6);
  const { controls, body, announce } = frame(el, model.get("label"));
  const stops = [];
  let moving = false;
  let lines = {}; // the curves drawn last, with the state that they belong to

  const positions = Array.from({ length: last + 1 }, (_, at) => at);
  const bases = data.bases.map((base) => [base, withCommas(base)]);
  const factors = data.factors.map((factor) => [factor, factor === 1 ? "none" : `by ${factor}`]);
  controls.classList.add("dial-controls");
  controls.append(
    slider(model, "query_position", { label: "query position", values: positions }),
    slider(model, "key_position", { label: "key position", values: positions }),
    both(),
  );
  if (bases.length > 1) controls.append(choice(model, "base", { label: "base", options: bases }));
  if (factors.length > 1) {
    controls.append(choice(model, "scaling", { label: "NTK-aware scaling", options: factors }));
  }

  const result = h("p", { class: "dial-result" });
  const big = s("svg", { class: "dial-big", role: "img", viewBox: "-120 -120 240 240" });
  const reading = h("div", { class: "dial-reading" });
  const group = uid();
  const rows = pairs.map((pair) => {
    const input = h("input", { type: "radio", name: group });
    input.addEventListener("change", () => setTrait(model, "pair", pair));
    const small = s("svg", { viewBox: "-60 -60 120 120", "aria-hidden": "true" });
    const speed = h("span", { class: "note" });
    const bar = s("path", { class: "dial-bar" });
    const value = h("span", { class: "dial-value" });
    const middle = s("path", { class: "dial-zero", d: "M0 0V20" });
    const bars = s("svg", { class: "dial-bars", viewBox: "-50 0 100 20", preserveAspectRatio: "none", "aria-hidden": "true" });
    bars.append(bar, middle);
    const name = h("span", { class: "dial-name" }, h("b", {}, `pair ${pair}`), speed);
    return { input, small, speed, bar, value, node: h("label", {}, input, small, name, bars, value) };
  });
  const list = h(
    "fieldset",
    { class: "dial-pairs" },
    h("legend", {}, "What each pair adds to the score; choose one to enlarge it"),
    ...rows.map(({ node }) => node),
  );
  const curve = chart(230, paint, { left: 36, top: 32 });
  const key = h(
    "p",
    { class: "note dial-key" },
    h("span", { class: "dial-whole" }),
    "score ",
    h("span", { class: "dial-part" }),
    h("span", { class: "dial-which" }),
  );
  body.append(
    result,
    h("div", { class: "dial-top" }, h("div", { class: "dial-one" }, big, reading), list),
    key,
    curve.node,
  );

  /** A slider that moves query and key by the same number of tokens. */
  function both() {
    const id = uid();
    const input = h("input", { id, type: "range", min: 0, step: 1 });
    const shown = h("output", { for: id });
    input.addEventListener("input", () => {
      const [m, n] = [model.get("query_position"), model.get("key_position")];
      const by = Number(input.value) - Math.min(m, n);
      moving = true; // draw once, when both have moved
      model.set("query_position", m + by);
      moving = false;
      model.set("key_position", n + by);
      model.save_changes();
    });
    stops.push(
      watch(model, ["query_position", "key_position"], () => {
        const [m, n] = [model.get("query_position"), model.get("key_position")];
        input.max = last - Math.abs(m - n);
        input.disabled = Number(input.max) === 0; // no room to move both
        input.value = Math.min(m, n);
        shown.textContent = `${m} and ${n}`;
        input.setAttribute("aria-valuetext", `query ${m}, key ${n}`);
      }),
    );
    return h("div", { class: "control slider" }, h("label", { for: id }, "both together"), input, shown);
  }

  /** The row of a table for the base and the scaling shown: angles per token, or tokens per turn. */
  const at = (table) => table[data.bases.indexOf(model.get("base"))][data.factors.indexOf(model.get("scaling"))];

  /** The arrow of a pair at a position. */
  function turned([length, angle], position, step) {
    const direction = angle + position * step;
    return [length * Math.cos(direction), length * Math.sin(direction)];
  }

  /** A pair's part of the score. */
  function share(pair, m, n, step) {
    const [q, k] = [turned(data.q[pair], m, step), turned(data.k[pair], n, step)];
    return q[0] * k[0] + q[1] * k[1];
  }

  /** The angle from the key's arrow to the query's, in degrees from -180 to 180. */
  function between(pair, m, n, step) {
    const angle = data.q[pair][1] - data.k[pair][1] + (m - n) * step;
    return (Math.atan2(Math.sin(angle), Math.cos(angle)) * 180) / Math.PI;
  }

  /** The arrows of a pair in a circle, with names on the enlarged one. */
  function hands(pair, m, n, step, radius, named) {
    const unit = (radius * 0.94) / reach;
    const point = (vector, position) => turned(vector, position, step).map((x, i) => (i ? -x : x) * unit);
    const [q, k] = [point(data.q[pair], m), point(data.k[pair], n)];
    const [q0, k0] = [point(data.q[pair], 0), point(data.k[pair], 0)];
    const width = named ? 4 : 6;
    const parts = [s("circle", { class: "dial-rim", r: radius }), seen(pair, n, step, radius, width)];
    if (named) {
      const from = Math.atan2(k[1], k[0]);
      const to = from - (between(pair, m, n, step) * Math.PI) / 180;
      const [a, b] = [from, to].map((angle) => `${34 * Math.cos(angle)} ${34 * Math.sin(angle)}`);
      parts.push(
        s("path", { class: "dial-rim", d: `M${-radius} 0H${radius}M0 ${-radius}V${radius}` }),
        s("path", { class: "dial-wedge", d: `M0 0L${a}A34 34 0 0 ${to < from ? 0 : 1} ${b}Z` }),
        s("path", { class: "dial-start q", d: `M0 0L${q0}` }),
        s("path", { class: "dial-start k", d: `M0 0L${k0}` }),
      );
    }
    parts.push(hand(k, "k", width), hand(q, "q", width));
    if (named) {
      const side = between(pair, m, n, step) < 0 ? -1 : 1;
      parts.push(tag(q, "q", side), tag(k, "k", -side));
    }
    return parts;
  }

  /** Directions of the query's arrow relative to the key's at the distances of training. */
  function seen(pair, n, step, radius, width) {
    if (!data.trained) return null;
    const sweep = data.trained * data.steps[data.bases.indexOf(model.get("base"))][0][pair];
    const options = { class: "dial-seen", "stroke-width": width };
    if (sweep >= 2 * Math.PI) return s("circle", { ...options, r: radius });
    const from = data.q[pair][1] + n * step;
    const [a, b] = [from, from + sweep].map((angle) => `${radius * Math.cos(angle)} ${-radius * Math.sin(angle)}`);
    return s("path", { ...options, d: `M${a}A${radius} ${radius} 0 ${sweep > Math.PI ? 1 : 0} 0 ${b}` });
  }

  /** An arrow from the centre: the query's ends in a triangle, the key's in a disc. */
  function hand([x, y], role, width) {
    const length = Math.hypot(x, y);
    if (length < 1) return null;
    const [u, v] = [x / length, y / length];
    const head = Math.min(3.2 * width, length);
    const [bx, by] = [x - u * head, y - v * head];
    const line = s("path", { class: `dial-line ${role}`, "stroke-width": width, d: `M0 0L${bx} ${by}` });
    const [sx, sy] = [(-v * head) / 2, (u * head) / 2];
    const end =
      role === "q"
        ? s("path", { class: "dial-head q", d: `M${x} ${y}L${bx + sx} ${by + sy}L${bx - sx} ${by - sy}Z` })
        : s("circle", { class: "dial-head k", cx: x - (u * head) / 2, cy: y - (v * head) / 2, r: head / 2 });
    return s("g", {}, line, end);
  }

  /** The name of an arrow next to its tip, on the side away from the other arrow. */
  function tag([x, y], name, side) {
    const length = Math.max(Math.hypot(x, y), 1);
    const [u, v] = [x / length, y / length];
    const [tx, ty] = [x + u * 4 + side * v * 13, y + v * 4 - side * u * 13];
    return s("text", { class: "dial-tag", x: tx, y: ty, "text-anchor": "middle", "dominant-baseline": "middle" }, name);
  }

  /** The score over all distances, and the enlarged pair's part of it. */
  function paint(area) {
    const steps = at(data.steps);
    const pair = model.get("pair");
    const [m, n] = [model.get("query_position"), model.get("key_position")];
    const total = pairs.reduce((sum, i) => sum + data.q[i][0] * data.k[i][0], 0);
    const top = Math.max(Math.ceil(total), 1);
    const x = scale([-last, last], [area.left, area.right]);
    const y = scale([-top, top], [area.bottom, area.top]);
    const score = (distance) => pairs.reduce((sum, i) => sum + share(i, distance, 0, steps[i]), 0);
    const line = (value) => {
      let d = "";
      for (let i = -4 * last; i <= 4 * last; i++) {
        d += `${d ? "L" : "M"}${x(i / 4).toFixed(1)} ${y(value(i / 4)).toFixed(1)}`;
      }
      return d;
    };
    const drawn = [area.right, pair, ...steps].join();
    if (lines.drawn !== drawn) {
      const part = line((distance) => share(pair, distance, 0, steps[pair]));
      lines = { drawn, score: line(score), part };
    }
    const marks = [-last, -last / 2, 0, last / 2, last].map((tick) => [tick, fixed(tick, 0)]);
    const [cx, cy] = [x(m - n), y(score(m - n))];
    const band = data.trained
      ? [
          s("rect", { class: "dial-band", x: x(0), y: area.top, width: x(data.trained) - x(0), height: area.bottom - area.top }),
        ]
      : [];
    return [
      ...band,
      ...axes(area, {
        x,
        y,
        xTicks: marks,
        yTicks: [-top, 0, top].map((tick) => [tick, fixed(tick, 0)]),
        xLabel: "distance: query position − key position",
      }),
      s("text", { x: x(0) - 8, y: area.top - 8, "text-anchor": "end" }, "← key after query"),
      s("text", { x: x(0) + 8, y: area.top - 8 }, "key before query →"),
      s("path", { class: "rule", d: `M${x(0)} ${area.top - 18}V${area.bottom}` }),
      s("path", { class: "dial-curve-part", d: lines.part }),
      s("path", { class: "dial-curve", d: lines.score }),
      s("path", { class: "dial-drop", d: `M${cx} ${cy}V${area.bottom}` }),
      s("circle", { class: "dial-now part", cx, cy: y(share(pair, m - n, 0, steps[pair])), r: 4 }),
      s("circle", { class: "dial-now", cx, cy, r: 6 }),
    ];
  }

  function draw() {
    if (moving) return;
    const [m, n, pair] = [model.get("query_position"), model.get("key_position"), model.get("pair")];
    const steps = at(data.steps);
    const turns = at(data.turns);
    const shares = pairs.map((i) => share(i, m, n, steps[i]));
    const score = shares.reduce((sum, part) => sum + part, 0);
    result.replaceChildren(
      h("span", {}, "distance ", h("b", { class: "dial-distance" }, fixed(m - n, 0)), h("span", { class: "note" }, ` = ${m} − ${n}`)),
      h("span", {}, "score ", h("b", { class: "dial-score" }, fixed(score))),
    );
    rows.forEach(({ input, small, speed, bar, value }, i) => {
      input.checked = i === pair;
      small.replaceChildren(...hands(i, m, n, steps[i], 54, false).filter(Boolean));
      speed.textContent = `${turns[i]} tokens a turn`;
      bar.setAttribute("d", `M0 3H${(48 * shares[i]) / most}V17H0Z`);
      value.textContent = fixed(shares[i]);
    });
    big.replaceChildren(...hands(pair, m, n, steps[pair], 104, true).filter(Boolean));
    const made = [m, n].map((position) => fixed((position * steps[pair]) / (2 * Math.PI)));
    const angle = fixed(between(pair, m, n, steps[pair]), 0);
    reading.replaceChildren(
      h("p", {}, h("b", {}, `Pair ${pair}`), `: angle from k to q ${angle}°`),
      h("p", {}, `q has made ${made[0]} turns, k ${made[1]}`),
      h("p", { class: "note" }, `Thin lines: the arrows at position 0.${data.trained ? ` Thick rim: where q has been, seen from k, at distances up to ${data.trained}.` : ""}`),
    );
    big.setAttribute("aria-label", `Pair ${pair}: the query has made ${made[0]} turns, the key ${made[1]}; angle from key to query ${angle} degrees.`);
    key.querySelector(".dial-which").textContent = `pair ${pair} alone${data.trained ? `; shaded: distances up to ${data.trained}, as in training` : ""}`;
    curve.node.setAttribute("aria-label", `The score over the distance; ${fixed(score)} at ${fixed(m - n, 0)}.`);
    curve.draw();
    announce(`Query at ${m}, key at ${n}, distance ${fixed(m - n, 0)}: score ${fixed(score)}. Pair ${pair} adds ${fixed(shares[pair])}.`);
  }

  stops.push(watch(model, ["query_position", "key_position", "pair", "base", "scaling"], draw));
  return () => stops.forEach((stop) => stop());
}
