// Scripts that can wait (_ext/book.py marks them) run when the page has been drawn, one after
// another, with room between them for what a reader does meanwhile.
(() => {
  const idle = () =>
    new Promise((done) =>
      window.requestIdleCallback ? requestIdleCallback(done, { timeout: 200 }) : setTimeout(done)
    );

  // A hidden page is never drawn, and goes on after a moment.
  const drawn = () =>
    new Promise((done) => {
      requestAnimationFrame(done);
      setTimeout(done, 200);
    });

  const run = (waiting) =>
    new Promise((done) => {
      const script = document.createElement("script");
      for (const { name, value } of waiting.attributes) {
        if (name !== "type" && name !== "data-defer") script.setAttribute(name, value);
      }
      script.addEventListener("load", done);
      script.addEventListener("error", done);
      waiting.replaceWith(script);
    });

  // Maths in pieces, top to bottom: a long chapter's formulas at once would block the page.
  const typeset = async () => {
    const blocks = document.querySelectorAll("article section > :not(section)");
    for (const block of blocks) {
      if (!block.matches(".math") && !block.querySelector(".math")) continue;
      await idle();
      await MathJax.typesetPromise([block]);
    }
    await MathJax.typesetPromise(); // what stands elsewhere
  };
  if (window.MathJax) window.MathJax.startup = { pageReady: typeset };

  document.addEventListener("DOMContentLoaded", async () => {
    await drawn();
    for (const waiting of document.querySelectorAll("script[data-defer]")) {
      await idle();
      await run(waiting);
    }
    // A formula that has not been set by now is to be read as TeX (book.css keeps it small).
    try {
      await window.MathJax?.startup?.promise;
    } finally {
      document.documentElement.classList.add("formulas-set");
    }
  });
})();
