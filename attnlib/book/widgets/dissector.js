// The headline dissector. Python computed every comparison; the page shows the one that the three
// switches choose, as two bars and as a product.

function render({ model, el }) {
  const { controls, body, announce } = frame(el, model.get("label"));
  const data = model.get("data");
  el.classList.add("dissector");
  const names = ["precision", "baseline", "layers"];
  const labels = { precision: "bits of a cached number", baseline: "V2 against", layers: "counted" };
  controls.append(...names.map((name) => choice(model, name, { label: labels[name], options: data.texts[name] })));

  const answer = h("p", { class: "answer" });
  const stamp = h("p", { class: "stamp" });
  const bars = h("ul", { class: "bars" });
  const rows = h("tbody");
  const caption = h("caption", { class: "note" }, "Where the ratio comes from");
  const sentence = h("p");
  const about = h("p", { class: "note" });
  const sources = data.sources.flatMap(([text, href], i) => [i ? "; " : "", h("a", { href }, text)]);
  body.append(
    answer,
    stamp,
    bars,
    h("table", { class: "numbers factors" }, caption, rows),
    sentence,
    about,
    h("p", { class: "note" }, `${data.caution} Sources: `, ...sources, "."),
  );

  /** A bar: whose cache, how it is counted, and how long it is in percent. */
  function bar(side, name, share, kind) {
    const counted = `${side.of}, ${side.bits} bits per number`;
    return h(
      "li",
      { "data-side": kind },
      h("span", {}, h("b", {}, name), ` (${counted})`),
      h("span", { class: "takes" }, `${side.numbers} numbers = ${side.bytes} bytes`),
      h("div", { class: "track", "aria-hidden": "true" }, h("div", { class: "fill", style: `width: ${share}%` })),
    );
  }

  function draw() {
    const state = data.states[names.map((name) => model.get(name)).join(" ")];
    const { mine, other, saving, ratio } = state;
    const [, who] = data.texts.baseline.find(([value]) => value === model.get("baseline"));
    const share = other ? (100 * mine.n_bytes) / other.n_bytes : 100;
    const parts = saving ? [h("strong", {}, `${saving} less`), ` cache per token: ${ratio} of it`] : ["Nothing to compare with"];
    answer.replaceChildren(...parts);
    stamp.textContent = state.headline ? `To one decimal this is the report’s ${data.headline}.` : `This is not the report’s ${data.headline}.`;
    bars.replaceChildren(bar(mine, data.own_name, share, "mine"), ...(other ? [bar(other, who, 100, "other")] : []));
    const product = state.factors.map(([, , factor]) => factor).join(" × ");
    rows.replaceChildren(
      ...state.factors.map((cells) => row(...cells)),
      ...(other ? [row("together", product, fixed(other.n_bytes / mine.n_bytes, 2))] : []),
    );
    rows.parentElement.hidden = !other;
    sentence.textContent = state.sentence;
    about.textContent = data.about[model.get("baseline")];
    announce(`${answer.textContent}. ${stamp.textContent} ${state.sentence}`);
  }

  const row = (name, counted, factor) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, counted), h("td", {}, factor));

  return watch(model, names, draw);
}
