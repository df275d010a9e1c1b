// The scaling explorer: all scores, one query's weights, all queries' Jacobians, and a table.

const SCALE_NAMES = { "1": "none", "1/sqrt(D)": "1/√D", "1/D": "1/D" };
const score = (x) => fixed(x, Math.abs(x) < 10 ? 2 : 1);
const share = (x) => fixed(x, 3);
const ROWS = [
  ["largest score", score],
  ["lead over the second", score],
  ["largest weight", share],
  ["entropy, in nats", (x) => fixed(x, 2)],
  ["keys in use", (x) => fixed(x, 1)],
  ["norm of the Jacobian", share],
];

function render({ model, el }) {
  const { controls, body, announce } = frame(el, model.get("label"));
  const data = model.get("data");
  const { widths, scales, shown, keys, bars } = data;
  const columns = shown + 2; // of `tops` and `numbers`: the queries to choose from, mean, median
  const packed = ["bells", "tops", "weights", "numbers", "norms"].map((name) => unpack(data[name]));
  const [bells, tops, weights, numbers, norms] = packed;
  const bins = bells.length / widths.length;
  const normBins = norms.length / (widths.length * scales.length);
  let now;

  /** All that is drawn for the chosen width, scale and query. */
  function lookUp() {
    const query = model.get("query");
    const at = widths.indexOf(model.get("width"));
    const j = scales.indexOf(model.get("scale"));
    const state = at * scales.length + j;
    const sigma = data.sigma[at] * data.factors[at][j];
    const value = (i, column) =>
      i < 2
        ? (2 * tops[(2 * at + i) * columns + column] - 1) * data.sigmas * sigma
        : numbers[(4 * state + i - 2) * columns + column] * data.units[i - 2];
    const part = (all, i, size) => [...all.subarray(i * size, (i + 1) * size)];
    const rows = ROWS.map((_, i) => [query, shown, shown + 1].map((column) => value(i, column)));
    return {
      query,
      sigma,
      rows,
      bell: part(bells, at, bins),
      weights: part(weights, state * shown + query, bars),
      norms: part(norms, state, normBins),
      text: rows.map((values, i) => values.map(ROWS[i][1])),
    };
  }

  /** Bars on a base line, [left, right, top] each, as one path. */
  const apart = (name, edges, bottom) =>
    s("path", { class: name, d: edges.map(([from, to, top]) => `M${from} ${bottom}V${top}H${to}V${bottom}`).join("") });

  /** The same for bars that touch: one outline. */
  const outline = (name, edges, bottom) =>
    s("path", { class: name, d: `M${edges[0][0]} ${bottom}${edges.map(([, to, top]) => `V${top}H${to}`).join("")}V${bottom}Z` });

  /** The mark of the query chosen, its point at (x, y). */
  const mark = (x, y) => s("path", { class: "scaling-own", d: `M${x} ${y}l-5 -10h10z` });

  /** Lines of text that end at the right edge. */
  const notes = ({ right, top }, lines) =>
    lines.map((text, i) => s("text", { x: right, y: top + 26 + 16 * i, "text-anchor": "end" }, text));

  const room = { left: 48, right: 14, top: 20, bottom: 40 };

  const scores = chart(200, (place) => {
    const { left, right, top, bottom } = place;
    const { reach, edge } = data;
    const x = scale([-reach, reach], [left, right]);
    const y = scale([0, 1], [bottom, top + 10]);
    const at = (i) => x(clamp(((2 * i) / bins - 1) * edge * now.sigma, -reach, reach));
    const largest = clamp(now.rows[0][0], -reach, reach);
    const ticks = [-reach, -reach / 2, 0, reach / 2, reach];
    return [
      outline("scaling-all", now.bell.map((height, i) => [at(i), at(i + 1), y(height)]), bottom),
      ...axes(place, {
        x,
        y,
        xTicks: ticks.map((tick) => [tick, String(tick).replace("-", "−")]),
        xLabel: "score times scale",
        yLabel: "how many",
      }),
      s("path", { class: "scaling-sigma", d: `M${x(-now.sigma)} ${bottom}H${x(now.sigma)}` }),
      mark(x(largest), bottom),
      s("path", { class: "scaling-sigma", d: `M${left + 8} ${top + 22}h14` }),
      s("text", { x: left + 28, y: top + 26 }, `sigma ${fixed(now.sigma)}`),
      ...notes(place, [`query ${model.get("query")}: ${now.text[0][0]}`]),
      mark(right - 92, top + 27),
    ];
  }, room);

  const row = chart(200, (place) => {
    const { left, right, top, bottom } = place;
    const x = scale([0, bars], [left, right]);
    const y = scale([0, 1], [bottom, top + 10]);
    const edges = now.weights.map((weight, i) => [x(i + 0.12), x(i + 0.88), y(weight)]);
    const rest = clamp(1 - now.weights.reduce((sum, weight) => sum + weight, 0), 0, 1);
    const lines = [`largest ${now.text[2][0]}`, `${now.text[4][0]} keys in use`];
    if (bars < keys) lines.push(`the other ${keys - bars} together ${share(rest)}`);
    return [
      ...axes(place, {
        x,
        y,
        xTicks: [1, bars / 4, bars / 2, (3 * bars) / 4, bars].map((rank) => [rank - 0.5, fixed(rank, 0)]),
        yTicks: [0, 0.5, 1].map((tick) => [tick, fixed(tick, 1)]),
        xLabel: "keys, the largest weight first",
        yLabel: "weight",
      }),
      apart("scaling-row", edges.slice(1), bottom),
      apart("scaling-own", edges.slice(0, 1), bottom),
      ...notes(place, lines),
    ];
  }, room);

  const answers = chart(200, (place) => {
    const { left, right, top, bottom } = place;
    const x = scale([0, data.jacobian_edge], [left, right]);
    const y = scale([0, 1], [bottom, top + 10]);
    const at = (i) => x((i / normBins) * data.jacobian_edge);
    const [own, mean, median] = now.rows[5];
    const [ownText, meanText, medianText] = now.text[5];
    const sample = (name, i) => s("path", { class: name, d: `M${right - 118} ${top + 22 + 16 * i}h16` });
    return [
      outline("scaling-all", now.norms.map((height, i) => [at(i), at(i + 1), y(height)]), bottom),
      ...axes(place, {
        x,
        y,
        xTicks: [0, 0.2, 0.4, 0.6].map((tick) => [tick, fixed(tick, 1)]),
        yTicks: [0, 0.5, 1].map((tick) => [tick, `${100 * tick} %`]),
        xLabel: "norm of the Jacobian",
        yLabel: "share of the queries",
      }),
      s("path", { class: "scaling-mean", d: `M${x(mean)} ${bottom}V${top + 10}` }),
      s("path", { class: "scaling-median", d: `M${x(median)} ${bottom}V${top + 10}` }),
      mark(x(own), bottom),
      ...notes(place, [`mean ${meanText}`, `median ${medianText}`, `query ${now.query}: ${ownText}`]),
      sample("scaling-mean", 0),
      sample("scaling-median", 1),
      mark(right - 110, top + 59),
    ];
  }, room);

  const titles = {
    scores: `Scores of ${withCommas(data.queries)} queries and ${keys} keys`,
    answers: `Jacobian norms of the ${withCommas(data.queries)} queries`,
    numbers: (query) => `Query ${query}, and all ${withCommas(data.queries)} queries`,
    row: (query) => `${bars < keys ? `The ${bars} largest weights` : "Weights"} of query ${query}`,
  };
  const title = (text) => h("p", { class: "scaling-title" }, text);
  const rowTitle = title("");
  const numbersTitle = title("");
  const ownHead = h("th", { scope: "col" });
  const cells = ROWS.map(() => [h("td"), h("td"), h("td")]);
  const heads = [h("td"), ownHead, ...["mean", "median"].map((name) => h("th", { scope: "col" }, name))];
  const lines = ROWS.map(([name], i) => h("tr", {}, h("th", { scope: "row" }, name), ...cells[i]));
  const table = h("table", { class: "numbers scaling-numbers" }, h("thead", {}, h("tr", {}, ...heads)), h("tbody", {}, ...lines));

  const wide = slider(model, "width", { label: "width D", values: widths });
  wide.classList.add("scaling-width");
  const queries = Array.from({ length: shown }, (_, i) => [i, String(i)]);
  controls.append(
    wide,
    choice(model, "scale", { label: "scale", options: scales.map((name) => [name, SCALE_NAMES[name]]) }),
    choice(model, "query", { label: "query", options: queries }),
  );
  body.append(
    h(
      "div",
      { class: "scaling-panels" },
      h("div", {}, title(titles.scores), scores.node),
      h("div", {}, rowTitle, row.node),
      h("div", {}, title(titles.answers), answers.node),
      h("div", {}, numbersTitle, table),
    ),
  );

  function draw() {
    now = lookUp();
    const { query, text } = now;
    const sigma = fixed(now.sigma);
    cells.flat().forEach((cell, i) => {
      cell.textContent = text.flat()[i];
    });
    ownHead.textContent = `query ${query}`;
    rowTitle.textContent = titles.row(query);
    numbersTitle.textContent = titles.numbers(query);
    const labels = [
      [scores, `${titles.scores}: sigma ${sigma}, the largest of query ${query} is ${text[0][0]}`],
      [row, `${titles.row(query)}: the first is ${text[2][0]}; ${text[4][0]} of ${keys} keys in use`],
      [answers, `${titles.answers}: mean ${text[5][1]}, median ${text[5][2]}, query ${query} ${text[5][0]}`],
    ];
    for (const [panel, label] of labels) {
      panel.node.setAttribute("aria-label", label);
      panel.draw();
    }
    announce(
      `D = ${model.get("width")}, scale ${SCALE_NAMES[model.get("scale")]}: sigma ${sigma}. Query ${query}: ` +
        `largest weight ${text[2][0]}, ${text[4][0]} keys in use, Jacobian ${text[5][0]}. ` +
        `All queries: Jacobian mean ${text[5][1]}, median ${text[5][2]}.`,
    );
  }

  return watch(model, ["width", "scale", "query"], draw);
}
