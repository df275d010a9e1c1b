// The headline dissector. Python computed every comparison; the page shows the one that is chosen,
// as two bars and as a product. DeepSeek-V2's headline has three switches, the others have a list
// of readings each.

function render({ model, el }) {
  const { controls, body, announce } = frame(el, model.get("label"));
  const data = model.get("data");
  el.classList.add("dissector");
  const names = ["precision", "baseline", "layers"];
  const labels = { precision: "bits of a cached number", baseline: "V2 against", layers: "counted" };
  const switches = names.map((name) => choice(model, name, { label: labels[name], options: data.texts[name] }));
  const chosen = () => data.headlines.find(({ name }) => name === model.get("headline"));

  // The list keeps its place and its focus; what follows it belongs to the headline.
  const list = dropdown(model, "headline", { label: "headline", options: data.headlines.map(({ name, text }) => [name, text]) });
  list.classList.add("headline");
  list.querySelector("select").addEventListener("change", () => {
    const { readings } = chosen();
    setTrait(model, "reading", readings.length ? readings[0].name : "");
  });
  const groups = {};
  for (const { name, readings } of data.headlines) {
    const options = readings.map((reading) => [reading.name, reading.text]);
    groups[name] = readings.length ? [choice(model, "reading", { label: "relative to what?", options })] : switches;
    if (readings.length) groups[name][0].classList.add("readings");
  }
  const own = h("div", { class: "own" });
  controls.append(list, own);

  const answer = h("p", { class: "answer" });
  const stamp = h("p", { class: "stamp" });
  const bars = h("ul", { class: "bars" });
  const rows = h("tbody");
  const caption = h("caption", { class: "note" }, "Where the ratio comes from");
  const sentence = h("p");
  const about = h("p", { class: "note" });
  const sources = h("p", { class: "note" });
  const more = h("div", { class: "more" });
  body.append(
    answer,
    stamp,
    bars,
    h("table", { class: "numbers factors" }, caption, rows),
    sentence,
    more,
    about,
    sources,
  );

  /** A bar: what it is of, how it is counted, and how long it is in percent. */
  function bar(side, share, kind) {
    const counted = [side.counted, side.precision, side.context].filter(Boolean).join("; ");
    return h(
      "li",
      { "data-side": kind },
      h("span", {}, h("b", {}, side.name), ` (${counted})`),
      h("span", { class: "takes" }, side.takes),
      h("div", { class: "track", "aria-hidden": "true" }, h("div", { class: "fill", style: `width: ${share}%` })),
    );
  }

  /** What the switches of DeepSeek-V2's headline choose, in the form of a reading. */
  function switched() {
    const state = data.states[names.map((name) => model.get(name)).join(" ")];
    const { mine, other, saving, ratio } = state;
    const [, who] = data.texts.baseline.find(([value]) => value === model.get("baseline"));
    return {
      ...state,
      mine: { ...mine, name: data.own_name },
      other: other && { ...other, name: who },
      strong: saving && `${saving} less`,
      rest: saving ? ` cache per token: ${ratio} of it` : "Nothing to compare with",
      stamp: state.headline ? `To one decimal this is the report’s ${data.headline}.` : `This is not the report’s ${data.headline}.`,
      total: other && fixed(other.n_bytes / mine.n_bytes, 2),
      about: data.about[model.get("baseline")],
      before: `${data.caution} Sources: `,
      links: data.sources,
    };
  }

  /** The reading that is chosen; the first, while the headline is newer than the reading. */
  function read() {
    const { readings, about: text, sources: links } = chosen();
    const reading = readings.find(({ name }) => name === model.get("reading")) ?? readings[0];
    return { ...reading, about: text, before: "Sources: ", links };
  }

  function draw() {
    const entry = chosen();
    const state = entry.readings.length ? read() : switched();
    const { mine, other } = state;
    const group = groups[entry.name];
    if (own.firstChild !== group[0]) own.replaceChildren(...group);
    answer.replaceChildren(...(state.strong ? [h("strong", {}, state.strong)] : []), state.rest);
    stamp.textContent = state.stamp;
    const most = other ? Math.max(mine.amount, other.amount) : mine.amount;
    const sides = other ? [[mine, "mine"], [other, "other"]] : [[mine, "mine"]];
    bars.replaceChildren(...sides.map(([side, kind]) => bar(side, (100 * side.amount) / most, kind)));
    const product = state.factors.map(([, , factor]) => factor).join(" × ");
    rows.replaceChildren(
      ...state.factors.map((cells) => row(...cells)),
      ...(other ? [row("together", product, state.total)] : []),
    );
    rows.parentElement.hidden = !other;
    sentence.textContent = state.sentence;
    more.replaceChildren(...(entry.table ? [listing(entry.table)] : []));
    about.textContent = state.about;
    const links = state.links.flatMap(([text, href], i) => [i ? "; " : "", h("a", { href }, text)]);
    sources.replaceChildren(state.before, ...links, ".");
    announce(`${answer.textContent}. ${state.stamp} ${state.sentence}`);
  }

  const row = (name, counted, factor) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, counted), h("td", {}, factor));

  /** A table that belongs to a headline as a whole. */
  function listing(table) {
    const head = table.head.map((text) => h("th", { scope: "col" }, text));
    const lines = table.rows.map(([name, ...cells]) => h("tr", {}, h("th", { scope: "row" }, name), ...cells.map((text) => h("td", {}, text))));
    return h("table", { class: "numbers ladder" }, h("caption", { class: "note" }, table.caption), h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...lines));
  }

  return watch(model, ["headline", "reading", ...names], draw);
}
