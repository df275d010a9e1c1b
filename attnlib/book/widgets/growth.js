// One user's cache in each variant, as bars against the memory of one device.

function render({ model, el }) {
  const data = model.get("data");
  const { controls, body, announce } = frame(el, model.get("label"));
  el.classList.add("growth");
  const tokens = (n) => `${withCommas(n)} tokens`;
  controls.append(slider(model, "context", { label: "context", values: data.contexts, format: tokens }));

  const answer = h("p", { class: "answer" });
  const rows = data.variants.map(({ name, title, color, bytes, window }) => {
    const size = h("span", { class: "takes" });
    const fill = h("div", { class: "fill", style: `--color: ${color}` });
    const mark = h("div", { class: "brink" });
    const track = h("div", { class: "track", "aria-hidden": "true" }, fill, mark);
    const who = h("span", {}, h("b", {}, name), ` ${title}`);
    return { name, bytes, window, size, fill, mark, node: h("li", {}, who, size, track) };
  });
  const short = rows.filter(({ window }) => window).map(({ name, window }) => ` ${name} keeps the last ${withCommas(window)} tokens only.`);
  body.append(
    answer,
    h("ul", {}, ...rows.map(({ node }) => node)),
    h("p", { class: "note" }, `Layers and heads of ${data.name}; two bytes per number. The bars are to scale; the dashed line is ${data.memory_text}.${short.join("")}`),
  );

  const gib = (bytes) => {
    const value = bytes / data.GiB;
    return `${value < 10 ? value.toFixed(2) : withCommas(Math.round(value))} GiB`;
  };

  return watch(model, ["context"], () => {
    const context = model.get("context");
    const caches = rows.map(({ bytes, window }) => bytes * Math.min(context, window ?? Infinity));
    const full = Math.max(...caches, data.memory);
    rows.forEach(({ size, fill, mark }, i) => {
      const users = Math.floor(data.memory / caches[i]);
      size.textContent = `${gib(caches[i])}, ${users === 0 ? "does not fit" : `${withCommas(users)} user${users === 1 ? " fits" : "s fit"}`}`;
      fill.style.width = `${(100 * caches[i]) / full}%`;
      mark.style.left = `${(100 * data.memory) / full}%`;
    });
    const whole = caches.filter((_, i) => !rows[i].window); // those that keep every token
    const [largest, smallest] = [Math.max(...whole), Math.min(...whole)];
    const at = (value) => rows[caches.indexOf(value)].name;
    const text = `After ${tokens(context)}, one user’s cache takes ${gib(largest)} with ${at(largest)} and ${gib(smallest)} with ${at(smallest)}.`;
    answer.textContent = text;
    announce(text);
  });
}
