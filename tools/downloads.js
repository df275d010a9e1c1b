// Joins the built pages to one that can be printed: tools/downloads.py.
async (pages) => {
  const article = document.querySelector("article.bd-article");
  const key = (page) => page.replace(/\W+/g, "-");
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  // A page's article, with ids and links that hold in the whole.
  const take = async (page) => {
    const base = new URL(page, new URL(".", location.href));
    const other = new DOMParser().parseFromString(await (await fetch(base)).text(), "text/html");
    const section = other.querySelector("article.bd-article > section");
    const name = key(page);
    for (const element of section.querySelectorAll("[id]")) element.id = `${name}--${element.id}`;
    section.id = name;
    for (const link of section.querySelectorAll("a[href]")) {
      const target = new URL(link.getAttribute("href"), base);
      if (target.origin !== location.origin) continue;
      const inside = pages.find((one) => target.pathname.endsWith(`/${one}`));
      const there = inside ? key(inside) : null;
      if (there) link.setAttribute("href", target.hash ? `#${there}--${target.hash.slice(1)}` : `#${there}`);
      else link.replaceWith(...link.childNodes); // a file that paper does not have
    }
    for (const image of section.querySelectorAll("img[src]")) image.src = new URL(image.getAttribute("src"), base).href;
    for (const mark of section.querySelectorAll("a.headerlink, .copybtn")) mark.remove();
    return section;
  };

  // What a reader would open stands at the end of the chapter, and is named where it was.
  const unfold = (section) => {
    const end = make("section", { className: "answers", id: `${section.id}--answers` }, make("h2", { textContent: "Answers and solutions" }));
    let questions = 0;
    let exercise = "";
    const note = (what) => make("p", { className: "printed-question", textContent: `${what} at the end of the chapter.` });
    for (const element of section.querySelectorAll("h3, details:is(.option, .solution, .recall)")) {
      if (element.localName === "h3") {
        exercise = element.textContent.split(":")[0];
        continue;
      }
      const summary = element.querySelector(":scope > summary");
      const rest = [...element.childNodes].filter((node) => node !== summary);
      if (element.matches(".option")) {
        const first = !element.previousElementSibling?.matches(".printed-option");
        if (first) {
          questions += 1;
          end.append(make("h3", { textContent: `Question ${questions}` }));
          element.before(make("p", { className: "printed-question", textContent: `Question ${questions}; its answer stands at the end of the chapter.` }));
        }
        end.append(make("p", { className: "printed-choice" }, ...[...summary.childNodes].map((node) => node.cloneNode(true))), ...rest);
        element.replaceWith(make("p", { className: "printed-option" }, "☐ ", ...summary.childNodes));
      } else {
        const title = element.matches(".solution") ? `${exercise}: solution` : summary.textContent;
        end.append(make("h3", { textContent: title }), ...rest);
        if (element.matches(".solution")) element.replaceWith(note("Its solution stands"));
        else {
          if (!element.previousElementSibling?.matches(".printed-recall")) element.before(note("Answers stand"));
          element.replaceWith(make("p", { className: "printed-recall" }, ...summary.childNodes));
        }
      }
    }
    if (end.children.length > 1) section.append(end);
  };

  const sections = [];
  for (const page of pages) sections.push(await take(page));
  for (const section of sections) unfold(section);

  const list = make("ul");
  for (const section of sections) {
    for (const heading of section.querySelectorAll(":scope > h1, :scope > section > h2")) {
      const title = heading.textContent.trim();
      const link = make("a", { href: `#${heading.parentElement.id}` }, title);
      const item = make("li", { className: `level-${heading.localName}` }, link, make("span", { className: "dots" }), make("span", { className: "page", textContent: "000" }));
      list.append(item);
    }
  }
  const contents = make("nav", { className: "paper-contents" }, make("p", { className: "paper-contents-title", textContent: "Contents" }), list);

  document.title = sections[0].querySelector("h1").firstChild.textContent.trim();
  article.replaceChildren(sections[0], contents, ...sections.slice(1));
  // A script that was parsed does not run; one that is made does.
  for (const old of article.querySelectorAll("script:not([type='application/json'])")) {
    const script = document.createElement("script");
    for (const { name, value } of old.attributes) script.setAttribute(name, value);
    script.textContent = old.textContent;
    old.replaceWith(script);
  }
  for (const fold of article.querySelectorAll("details")) fold.open = fold.matches(".hide"); // their code is used later
  while (document.querySelector("script[data-defer]")) {
    await new Promise((done) => setTimeout(done, 50));
  }
  await document.fonts.ready;
  await Promise.all([...document.images].map((image) => image.decode().catch(() => {})));
}
