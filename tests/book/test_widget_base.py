"""What all widgets share: two carriers, text that is the same each time, checked state."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from fnmatch import fnmatch
from html.parser import HTMLParser
from importlib.resources import files
from itertools import chain
from pathlib import Path
from types import ModuleType, SimpleNamespace

import guards
import nbformat
import pytest
import torch
import traitlets
from nbval.plugin import IPyNbCell, get_sanitize_patterns

import attnlib
from attnlib.book.widgets import AttentionHeatmap, Widget
from attnlib.book.widgets import base as shared
from attnlib.book.widgets.base import unpack
from tools import canonical

ROOT = Path(__file__).resolve().parents[2]
WIDGETS = Path(attnlib.book.widgets.__file__).parent
LIVE = "application/vnd.jupyter.widget-view+json"
CLASSES = [kind for kind in vars(attnlib.book.widgets).values() if isinstance(kind, type)]
CLASSES = [kind for kind in CLASSES if issubclass(kind, Widget) and kind is not Widget]
EVERY_CLASS = pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)


def heatmap(**options) -> AttentionHeatmap:
    weights = torch.tensor([[1.0, 0.0, 0.0], [0.25, 0.75, 0.0], [0.5, 0.25, 0.25]])
    return AttentionHeatmap(weights, options.pop("tokens", "abc"), **options)


class Page(HTMLParser):
    """The elements of a page, each as (tag, attributes, text right within it)."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict, list[str]]] = []
        self.open: list[tuple[str, dict, list[str]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), []))
        self.open.append(self.elements[-1])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if self.open:
            self.open[-1][2].append(data)

    def texts(self, tag: str) -> list[str]:
        return ["".join(text) for name, _, text in self.elements if name == tag]

    def state(self) -> dict:
        return json.loads(self.texts("script")[0])


# Two carriers


def test_jupyter_gets_both_carriers():
    widget = heatmap()
    data, _ = widget._repr_mimebundle_()
    assert data[LIVE]["model_id"] == widget.model_id
    assert data["text/html"] == widget.html()
    assert data["text/plain"] == repr(widget)


def test_colab_gets_the_live_carrier_alone(monkeypatch):
    # Colab shows every carrier that it gets: two would be two figures.
    enabled = []
    colab, output = ModuleType("google.colab"), ModuleType("google.colab.output")
    output.enable_custom_widget_manager = lambda *args: enabled.append(args)
    output._widgets = SimpleNamespace(_installed_url="https://manager.invalid")
    colab.output = output
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    monkeypatch.setitem(sys.modules, "google.colab.output", output)
    data, _ = heatmap()._repr_mimebundle_()
    assert set(data) == {LIVE, "text/plain"}


def test_live_module_and_script_of_the_page_are_one_code():
    for kind in CLASSES:
        code = (WIDGETS / "base.js").read_text(encoding="utf-8") + "\n"
        code += (WIDGETS / f"{kind.file}.js").read_text(encoding="utf-8")
        for part in shared.MORE.get(kind.file, ()):
            code += "\n" + (WIDGETS / f"{part}.js").read_text(encoding="utf-8")
        assert kind._esm == f"{code}\nexport default {{ render }};\n"
        assert code in shared.script(kind.file)


# Text that is the same each time


def test_equal_widgets_give_equal_text():
    one, two = heatmap(query=1), heatmap(query=1)
    assert one.model_id != two.model_id
    assert one.html() == two.html()
    assert repr(one) == repr(two) == "AttentionHeatmap('Who attends to whom')"


def test_text_of_the_page_has_no_address_and_no_random_name():
    for text in (heatmap().html(), repr(heatmap())):
        guards_of_text = [
            r"0x[0-9a-f]{6,}",
            r"[0-9a-f]{8}-[0-9a-f]{4}-",
            r"/home/|/root/|/tmp/",
        ]
        assert not any(re.search(pattern, text) for pattern in guards_of_text)
        assert heatmap().model_id not in text


def test_text_is_the_same_in_another_process():
    # Catches a set or a hash in the data, which PYTHONHASHSEED changes.
    code = (
        "import torch; from attnlib.book.widgets import AttentionHeatmap;"
        "print(AttentionHeatmap(torch.eye(3), 'abc').html())"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1


def test_what_the_reader_set_is_on_the_page():
    widget = heatmap()
    widget.query, widget.key = 1, 0
    state = Page(widget.html()).state()
    assert state == {"data": widget.data, "label": widget.label, **widget.state()}
    assert (state["query"], state["key"]) == (1, 0)


NASTY = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "]]>&amp;",
    '"\\u003c"',
    "\u2028\u2029",
    "\ud83d\ude42 ünï 中",
]


@pytest.mark.parametrize("nasty", NASTY, ids=ascii)
def test_text_of_a_reader_stays_text(nasty):
    widget = heatmap(tokens=[nasty, "b", "c"], label=f"On {nasty}")
    page = Page(widget.html())
    assert page.state()["data"]["queries"][0] == nasty
    assert page.state()["label"] == f"On {nasty}"
    assert page.texts("p")[0] == f"On {nasty}"
    assert nasty in page.texts("th")
    plain = Page(heatmap().html())
    assert [tag for tag, *_ in page.elements] == [tag for tag, *_ in plain.elements]
    assert page.open == []


def test_table_escapes_every_cell():
    text = shared.table(["<i>", "&"], [["<b>", "a<b"]], caption="<u>")
    assert not re.search("<[ibu]>", text)
    assert Page(text).texts("td") == ["a<b"]


def test_what_is_not_a_number_is_refused():
    widget = heatmap()
    widget.data = {**widget.data, "more": float("nan")}
    with pytest.raises(ValueError, match="Out of range float"):
        widget.html()


# Packed numbers


def test_pack_and_unpack():
    numbers = [0.0, 1.0, 0.5, 1 / 3, 1 / 65535]
    text = shared.pack(numbers)
    assert text == "u16:AAD//wCAVVUBAA=="  # little-endian, whatever the processor
    assert unpack(text) == pytest.approx(numbers, abs=0.5 / 65535)
    assert unpack(shared.pack([])) == []
    assert unpack(shared.pack_bytes([0, 255, 51])) == [0, 1, 0.2]


def test_pack_is_little_endian_on_every_processor(monkeypatch):
    class Swapped(shared.array):
        def byteswap(self):
            raise RuntimeError("swapped")

    monkeypatch.setattr(shared.sys, "byteorder", "big")
    monkeypatch.setattr(shared, "array", Swapped)
    with pytest.raises(RuntimeError, match="swapped"):
        shared.pack([0.5])


# State


def from_page(widget: Widget, name: str, value: object) -> None:
    """Set a trait as a message from a front end does."""
    widget.set_state({name: value})


@pytest.mark.parametrize(
    ("name", "value"), [("query", 3), ("query", -1), ("head", 1), ("layer", 7), ("key", 3)]
)
@pytest.mark.parametrize("take", [Widget.set_trait, from_page])
def test_bad_state_is_named_and_the_old_one_stays(name, value, take):
    widget = heatmap(query=1)
    before = widget.state()
    with pytest.raises(ValueError, match=rf"^{name} must be one of 0.*, got {value}$"):
        take(widget, name, value)
    assert widget.state() == before


def test_good_state_from_the_page_is_taken():
    widget = heatmap()
    widget.set_state({"query": 1, "key": 2})
    assert widget.state() == {"example": 0, "layer": 0, "head": 0, "query": 1, "key": 2}


@EVERY_CLASS
def test_every_state_trait_syncs_and_is_validated(kind):
    states = kind.class_traits(state=True)
    assert states
    for name, trait in states.items():
        assert trait.metadata.get("sync"), name
    validated = {
        name
        for value in vars(kind).values()
        if isinstance(value, traitlets.ValidateHandler)
        for name in value.trait_names
    }
    bounded = {name for name, trait in states.items() if isinstance(trait, traitlets.Bool)}
    assert set(states) == validated | bounded


@EVERY_CLASS
def test_names_of_traits_are_not_those_that_the_page_uses_itself(kind):
    assert not {"data", "label", "_esm", "_css"} & set(kind.class_traits(state=True))


# The package


def test_package_holds_every_script_and_style():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    patterns = json.loads(re.search(r'package-data\]\n"\*" = (\[.*\])', project)[1])
    found = [path for path in (WIDGETS).iterdir() if path.suffix in {".js", ".css"}]
    assert found
    for path in found:
        assert any(fnmatch(path.name, pattern) for pattern in patterns), path.name
        assert (files("attnlib.book.widgets") / path.name).is_file()
    named = {"base", *(kind.file for kind in CLASSES), *chain(*shared.MORE.values())}
    assert {path.stem for path in found} == named  # none is left over, none is missing


def test_every_widget_is_exported():
    modules = {path.stem for path in (WIDGETS).glob("*.py")}
    modules -= {"__init__", "base", *chain(*shared.MORE.values())}
    assert {kind.__module__.rpartition(".")[2] for kind in CLASSES} == modules
    exported = {kind.__name__ for kind in CLASSES} | {"Widget", "page_model"}
    assert exported == set(attnlib.book.widgets.__all__)


@EVERY_CLASS
def test_code_can_stand_in_a_page(kind):
    # A tag's end in the code would end the element; an address would be a call elsewhere.
    for code, tag in ((shared.script(kind.file), "script"), (kind._css, "style")):
        assert f"</{tag}" not in code.lower()
        assert "<!--" not in code
        addresses = set(re.findall(r"https?://[^\s\"'`)]+", code))
        assert addresses <= {"http://www.w3.org/2000/svg"}
        assert not re.search(r"@import|\bimport\(|\bfetch\(|XMLHttpRequest|\beval\(", code)


@EVERY_CLASS
def test_style_reaches_nothing_but_widgets(kind):
    text = re.sub(r"/\*.*?\*/", "", kind._css, flags=re.DOTALL)
    selectors = [part.strip() for part in re.findall(r"([^{}]+)\{", text)]
    for selector in selectors:
        if selector.startswith("@") or selector in {"from", "to"}:
            continue
        for part in re.split(r",(?![^(]*\))", selector):
            assert part.strip().startswith(".attnlib"), selector


def test_linter_knows_what_base_js_defines_and_widgets_use_all_of_it():
    """Catches a function that oxlint takes for undefined, and one that no widget uses."""
    config = (ROOT / ".oxlintrc.json").read_text(encoding="utf-8")
    config = json.loads(re.sub(r"(^|\s)//.*", "", config))
    base = (WIDGETS / "base.js").read_text(encoding="utf-8")
    defined = set(re.findall(r"^(?:const|class|function) (\w+)", base, re.M))
    known = set(config["overrides"][0]["globals"])
    others = [path for path in WIDGETS.glob("*.js") if path.name != "base.js"]
    code = "\n".join(path.read_text(encoding="utf-8") for path in others)
    assert known == {name for name in defined if re.search(rf"\b{name}\(", code)}
    for name in defined - known:  # used by base.js itself, or by the script of a page
        assert len(re.findall(rf"\b{name}\b", base)) > 1 or f"{name}(" in shared.script("dial")


# What is stored in chapters


def stored() -> list[tuple[str, str]]:
    """Return the stored text of every widget, with the chapter it stands in."""
    return [
        (path.stem, text)
        for path in sorted((ROOT / "chapters").glob("*.ipynb"))
        for _, cell in guards.cells(guards.load(path), "code")
        for text in guards.output_texts(cell)
        if 'class="attnlib-widget"' in text
    ]


def test_chapters_store_todays_code():
    found = stored()
    assert found
    for chapter, text in found:
        for tag, name in re.findall(r'<(script|style) data-attnlib="(\w+)">', text):
            make = {"script": shared.script_element, "style": shared.style_element}[tag]
            assert make(name) in text, f"{chapter}: {name}, `make normalise`"


def test_normal_form_replaces_yesterdays_code():
    # The guard "chapters are in canonical form" is what refuses a chapter with old code.
    widget = heatmap()
    old = widget.html().replace("function render(", "function yesterday(")
    assert old != widget.html()
    output = nbformat.v4.new_output("display_data", {"text/html": old, LIVE: {"model_id": "1"}})
    cell = nbformat.v4.new_code_cell("widget", outputs=[output], execution_count=1)
    text = nbformat.writes(nbformat.v4.new_notebook(cells=[cell]))
    new = canonical.canonical_text(text, "00-test")
    data = nbformat.reads(new, as_version=4).cells[0].outputs[0].data
    assert dict(data) == {"text/html": widget.html()}
    assert canonical.canonical_text(new, "00-test") == new


def sanitised(text: str) -> str:
    """Return what nbval compares, with the project's rules."""
    rules = (ROOT / "tests" / "nbval_sanitize.cfg").read_text(encoding="utf-8")
    notebook = SimpleNamespace(sanitize_patterns=dict(get_sanitize_patterns(rules)))
    return IPyNbCell.sanitize(SimpleNamespace(parent=notebook), text)


@pytest.mark.parametrize("kind", ["u16", "u8", "f16"])
def test_nbval_forgives_packed_numbers_and_nothing_beside_them(kind):
    text = heatmap().html()
    packed = re.search(r'"u16:[^"]*"', text)[0]
    text = text.replace(packed, f'"{kind}:AAAABBBB"')
    other = text.replace(f'"{kind}:AAAABBBB"', f'"{kind}:AAAA"')
    assert other != text
    assert sanitised(other) == sanitised(text)
    in_table = text.replace("<td>0.75</td>", "<td>0.74</td>")
    assert in_table != text
    assert sanitised(in_table) != sanitised(text)
    in_state = text.replace('"query":2', '"query":1')
    assert in_state != text
    assert sanitised(in_state) != sanitised(text)
