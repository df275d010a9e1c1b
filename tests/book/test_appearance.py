"""How variants look: names and colours of the registry, in every picture and widget."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text

import attnlib.book
from attnlib.bench import results
from attnlib.book import plots
from attnlib.book.appearance import (
    LINES,
    MARKERS,
    appearance_of,
    appearances,
    variants_json,
)
from attnlib.book.widgets import CacheExplorer, HeadlineDissector, HeadSharing, ModelPlane
from attnlib.costs import Geometry, kv_cache_bytes
from attnlib.models import MODELS
from attnlib.variants import VARIANTS, register, unregister

BOOK = Path(attnlib.book.__file__).parent
TOY, WINDOW = "Toy", 1024


@pytest.fixture
def toy():
    """A fifth variant: grouped-query attention in which each query sees 1,024 keys."""
    variant = replace(
        VARIANTS["GQA"],
        name=TOY,
        title="Toy attention",
        color="#8a6d00",
        applies=lambda geometry: geometry.window == WINDOW,
        geometry=lambda sizes: replace(
            sizes.heads(sizes.n_kv_heads), window=WINDOW, n_window_layers=1
        ),
    )
    yield register(variant)
    unregister(TOY)


def test_names_titles_and_colours_are_the_registrys_in_its_order():
    assert [(a.name, a.title, a.color) for a in appearances().values()] == [
        (variant.name, variant.title, variant.color) for variant in VARIANTS.values()
    ]
    assert variants_json()[1] == {
        "name": "GQA",
        "title": "Grouped-query attention",
        "color": "#009E73",
        "marker": "s",
        "line": "--",
    }


def test_variants_differ_without_colour():
    """Catches two variants with one marker, which readers without colour cannot tell apart."""
    looks = list(appearances().values())
    assert len({look.marker for look in looks}) == len(looks)
    assert len({look.line for look in looks}) == len(looks)


def test_a_label_begins_with_a_variants_name():
    assert appearance_of("GQA") == appearance_of("GQA, 8 KV heads") == appearances()["GQA"]
    with pytest.raises(ValueError, match=r"must begin with one of MHA, .*, got 'GQA-8'"):
        appearance_of("GQA-8")


def test_names_are_looked_up_when_a_picture_is_drawn(toy):
    """Catches a table made at import, which a variant registered later is missing from."""
    assert list(appearances())[-1] == TOY
    assert appearance_of("Toy, small").color == toy.color
    unregister(TOY)
    assert TOY not in appearances()
    register(toy)


# A further variant in every picture that compares variants


class Runs:
    """Losses as the quality lab stores them, of a variant and of the toy."""

    runs = (SimpleNamespace(losses=[(0, 5.0), (100, 4.0), (200, 3.0)]),)
    sizes = MappingProxyType({name: {"cache_bytes": 64} for name in ("MHA", TOY)})

    def losses(self, name: str, at: int = -1) -> list[float]:
        return [3.0 - at / 10, 3.2 - at / 10] if name == TOY else [3.5, 3.8]

    def select(self, name: str) -> list:
        return [SimpleNamespace(cpu_seconds=0.1)]


def costs() -> dict[str, float]:
    return {name: 2.0 + place for place, name in enumerate(VARIANTS)}


def rows() -> list:
    stored = results.load_run("cpu-float32").select("decode", threads=1)
    return stored + [replace(row, variant=TOY) for row in stored if row.variant == "GQA"]


PICTURES = {
    "two_prices": lambda: plots.two_prices(costs(), costs(), ("KiB", "MFLOP")),
    "serving": lambda: plots.serving({"MHA": {1: 9.0, 2: 8.0}, TOY: {1: 9.0}}),
    "variants": lambda: plots.variants(costs()),
    "rooflines": lambda: plots.rooflines(
        {"machine": plots.Roof(10.0, 40.0, {"decode": costs()})}
    ),
    "step_times": lambda: plots.step_times(rows()),
    "loss_over_training": lambda: plots.loss_over_training(Runs(), ["MHA", TOY]),
    "loss_beside_costs": lambda: plots.loss_beside_costs(Runs(), ["MHA", TOY]),
    "paired_differences": lambda: plots.paired_differences({"": {TOY: [0.1, 0.3]}}),
}


def drawn(figure: Figure) -> tuple[set[str], set[str]]:
    """Return the colours of the lines and areas of a figure, and its texts."""
    figure.canvas.draw()  # which makes the labels of ticks
    texts = {text.get_text().strip() for text in figure.findobj(Text)}
    colors = {to_hex(line.get_color()) for line in figure.findobj(Line2D)}
    colors |= {to_hex(patch.get_edgecolor()) for patch in figure.findobj(Patch)}
    colors |= {to_hex(patch.get_facecolor()) for patch in figure.findobj(Patch)}
    return colors, texts


@pytest.mark.parametrize("name", PICTURES)
def test_a_further_variant_is_in_every_picture_that_compares_variants(toy, name):
    """Catches a table of names or of colours in a picture."""
    colors, texts = drawn(PICTURES[name]())
    assert toy.color in colors
    assert any(text.startswith(TOY) for text in texts)


@pytest.mark.parametrize(
    "name", sorted(PICTURES.keys() - {"two_prices", "variants", "rooflines"})
)
def test_a_picture_refuses_a_variant_that_is_not_registered(name):
    with pytest.raises(ValueError, match=f"must begin with one of MHA, .*, got '{TOY}'"):
        PICTURES[name]()


# A further variant in every widget that compares variants


def test_a_further_variant_is_in_the_explorer(toy):
    explorer = CacheExplorer({"Llama-3 8B": MODELS["Llama-3 8B"].geometry})
    found = {variant["name"]: variant for variant in explorer.data["variants"]}
    assert list(found) == list(VARIANTS)
    assert (found[TOY]["color"], found[TOY]["window"]) == (toy.color, WINDOW)
    assert found[TOY]["marker"] not in {v["marker"] for v in explorer.data["variants"][:-1]}
    row = re.search(rf"<tr><th[^>]*>Llama-3 8B, {TOY}</th>(.*?)</tr>", explorer.fallback())[1]
    llama = MODELS["Llama-3 8B"].geometry
    windowed = replace(llama, window=WINDOW, n_window_layers=llama.n_layers)
    cache = kv_cache_bytes(windowed, 8192, batch_size=32)
    cells = re.findall("<td>(.*?)</td>", row)
    assert cells[:2] == [f"{kv_cache_bytes(llama, 1):,}", f"{cache:,}"]
    assert cells[-2:] == ["any number", f"{80 * 10**9 * 32 // cache:,}"]


def test_a_further_variant_is_in_the_plane(toy):
    model = MODELS["Llama-3 8B"]
    windowed = replace(model.geometry, window=WINDOW, n_window_layers=32)
    plane = ModelPlane({"x": model, "y": replace(model, geometry=windowed)})
    assert plane.shown == [variant["name"] for variant in plane.data["variants"]]
    assert plane.data["variants"][-1]["color"] == toy.color
    assert [entry["variant"] for entry in plane.data["models"]] == ["GQA", TOY]
    plane.shown = [TOY, "MHA"]
    assert plane.shown == ["MHA", TOY]


def test_widgets_of_given_models_name_them_as_the_registry_does():
    assert HeadSharing(8, 4).data["options"][0]["name"] == "MHA"
    assert HeadlineDissector().data["own_name"] == "DeepSeek-V2, MLA"


# No second table of variants


def code_of(path: Path) -> str:
    """Return a script or a style sheet without its comments."""
    text = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.sub(r"^\s*//.*|\s//\s.*", "", text, flags=re.MULTILINE)


SCRIPTS = [*sorted(BOOK.glob("widgets/*.js")), *sorted(BOOK.glob("widgets/*.css"))]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_no_script_and_no_style_names_a_variant(path):
    """Catches a variant that JavaScript or CSS knows, which a further one would lack."""
    assert not re.findall(rf"\b({'|'.join(VARIANTS)})\b", code_of(path), re.IGNORECASE)
    for variant in VARIANTS.values():
        wanted = set() if path.name == "base.css" else {variant.color.lower()}
        assert not wanted & set(re.findall(r"#[0-9a-f]{6}", code_of(path).lower()))


MODULES = [*sorted(BOOK.glob("plots/*.py")), *sorted(BOOK.glob("widgets/*.py"))]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_picture_and_no_widget_compares_with_a_variants_name(path):
    """Catches ``== "MLA"`` and a table by names."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    literals = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert not literals & set(VARIANTS)


def test_geometry_of_the_toy_is_its_own(toy):
    assert Geometry(1, 8, 2, 16, window=WINDOW, n_window_layers=1).variant == TOY
    assert Geometry(1, 8, 2, 16).variant == "GQA"
    assert len(MARKERS) >= len(VARIANTS) and len(LINES) >= 4
