"""Proof that `axe.violations`, which judges every page in test_pages.py, can fail."""

from __future__ import annotations

import pytest
from axe import ALLOWED, STATES, violations
from visits import Reader

HEAD = """<!doctype html><html lang="en"><head><title>Sample</title><style>
body { background: #fff; color: #222; }
@media (prefers-color-scheme: dark) {
  body { background: #111; color: #eee; }
  .dim { color: #333; }
}
button { height: 24px; }
.crowd { display: none; }
@media (max-width: 400px) { .crowd { display: block; } }
.crowd button { height: 12px; padding: 0; width: 12px; }
.ground { background: #777; }
.attnlib-widget div { position: relative; }
.attnlib-widget i { background: #444; height: 2em; left: 0; position: absolute; top: 0; width: 9em; }
.attnlib-widget span { position: relative; }
</style></head><body><main><h1>Sample</h1>"""  # noqa: E501

BROKEN = f"""{HEAD}
<p>Black on white, judged for all of its kind.</p>
<div class="ground"><p>The same letters on another ground.</p></div>
<p class="dim">Grey on black, in the dark only.</p>
<p>Black on white, <a href="#x" style="color: #333; text-decoration: none">a link like text</a>.
</p>
<details><summary>more</summary><button id="folded"></button></details>
<div class="crowd"><button>a</button><button>b</button></div>
<div class="highlight"><pre><span class="k" style="color: #ddd">def</span> f</pre></div>
<div class="attnlib-widget"><figure>
<div><span>first</span></div><div><i></i><span>on a bar</span></div></figure></div>
<table><tr><th></th><th>named</th></tr><tr><td>1</td><td>2</td></tr></table>
</main></body></html>"""

SOUND = f"""{HEAD}
<p>Black on white, and <a href="#x" style="color: inherit">a link</a>.</p>
<details><summary>more</summary><button>named</button></details>
<table><tr><th><math><mi>d</mi></math></th><th>n</th></tr>
<tr><td>1</td><td>2</td></tr></table>
</main></body></html>"""

# Each in the states that show it and judge its kind of fault, and in no other.
CAUGHT = {
    ("color-contrast", "another ground"): [0, 1, 2, 3],
    ("color-contrast", "Grey on black"): [1, 2],
    ("link-in-text-block", "a link like text"): [0, 3],
    ("color-contrast", "on a bar"): [0, 3],
    ("button-name", "folded"): [1, 3],
    ("target-size", "<button>a<"): [3],
    ("color-contrast", ">def<"): [0, 3],
    ("empty-table-header", "<th></th>"): [1, 3],
}


@pytest.fixture
def sample(chromium, tmp_path):
    """A reader of two samples, a broken one and a sound one."""
    (tmp_path / "broken.html").write_text(BROKEN, encoding="utf-8")
    (tmp_path / "sound.html").write_text(SOUND, encoding="utf-8")
    reader = Reader(chromium, tmp_path.as_uri() + "/")
    yield reader
    reader.close()


def test_a_broken_page_is_caught(sample):
    found = violations(sample.open("broken.html"))
    for (rule, element), states in CAUGHT.items():
        about = [line for line in found if f": {rule} at" in line and element in line]
        names = [line.partition(":")[0] for line in about]
        assert names == [STATES[i].name for i in states], (rule, element, found)


def test_a_sound_page_passes(sample):
    assert violations(sample.open("sound.html")) == []


def test_what_is_allowed_has_a_reason():
    assert all(len(allowance.reason) > 40 for allowance in ALLOWED)
