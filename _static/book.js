// Paper is white: a page that is dark on the screen is printed in its light colours.
(() => {
  const page = document.documentElement;
  let onScreen = null; // the theme to come back to

  const print = (begins) => {
    if (begins && onScreen === null) {
      onScreen = page.dataset.theme;
      page.dataset.theme = "light";
    } else if (!begins && onScreen !== null) {
      page.dataset.theme = onScreen;
      onScreen = null;
    }
  };

  window.addEventListener("beforeprint", () => print(true));
  window.addEventListener("afterprint", () => print(false));
  window.matchMedia("print").addEventListener("change", (medium) => print(medium.matches));
})();

// Buttons of the theme that had their call in an attribute, which the page's policy stops.
document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-click]");
  if (button) window[button.dataset.click]?.();
});
