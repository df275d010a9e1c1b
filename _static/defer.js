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

  document.addEventListener("DOMContentLoaded", async () => {
    await drawn();
    for (const waiting of document.querySelectorAll("script[data-defer]")) {
      await idle();
      await run(waiting);
    }
  });
})();
