"""External links: their form, offline. `make links` asks whether they still lead somewhere."""

from __future__ import annotations

import re
from collections import defaultdict
from urllib.parse import parse_qsl, urlsplit

import pytest

from tools import links

LINKS = links.collect()

ARXIV = re.compile(r"https://arxiv\.org/abs/\d{4}\.\d{4,5}")
# Versions of one paper, where a page compares what they say.
COMPARED = {f"https://arxiv.org/abs/2502.14837v{n}" for n in (1, 2)}
TRACKERS = re.compile(r"utm_\w+|fbclid|gclid|igshid|mc_[ce]id|ref|ref_src|si|source", re.I)
SHORTENERS = {"bit.ly", "goo.gl", "lnkd.in", "t.co", "tinyurl.com", "www.google.com"}
MOVING_LINE = re.compile(r"/blob/(?!v?\d+(?:\.\d+)+/|[0-9a-f]{7,40}/)[^#]*#L\d")


def complaints(link: str) -> list[str]:
    """Return what is wrong with the form of a link."""
    if re.search(r"\s", link):
        return ["has a space"]
    parts = urlsplit(link)
    host = parts.hostname or ""
    found = []
    if parts.scheme != "https":
        found.append("is not https")
    if "." not in host or parts.netloc != host:
        found.append("has no plain host")
    if host in SHORTENERS:
        found.append("hides where it leads")
    if any(TRACKERS.fullmatch(name) for name, _ in parse_qsl(parts.query, True)):
        found.append("tells where the reader comes from")
    if (
        "arxiv" in host and not ARXIV.fullmatch(link) and link not in COMPARED
    ) or host == "ar5iv.org":
        found.append("is not https://arxiv.org/abs/NUMBER, without version")
    if host == "dx.doi.org":
        found.append("is not https://doi.org/...")
    if host == "github.com":
        if MOVING_LINE.search(link):
            found.append("names a line of a branch, which moves: name a commit")
        if parts.path.endswith((".git", "/")) and parts.path != "/":
            found.append("ends in .git or a slash")
    return found


def page(link: str) -> str:
    """Return the same for all spellings of a page's address."""
    parts = urlsplit(link)
    host = (parts.hostname or "").removeprefix("www.").removeprefix("docs.")
    path = re.sub(r"/(?:index\.html?)?$", "", parts.path)
    return f"{host}{path}?{parts.query}".lower()


def spelt_twice(all_links: list[str]) -> list[list[str]]:
    """Return the links that lead to one page by different addresses, fragments left aside."""
    pages = defaultdict(set)
    for link in all_links:
        pages[page(link)].add(link.partition("#")[0])
    return [sorted(group) for group in pages.values() if len(group) > 1]


def test_links_are_well_formed():
    found = [
        f"{link} {complaint}: {', '.join(places)}"
        for link, places in LINKS.items()
        for complaint in complaints(link)
    ]
    assert not found, "\n".join(found)


def test_a_page_has_one_address():
    assert spelt_twice(list(LINKS)) == []


def test_links_of_all_kinds_are_collected():
    """Catches a collector that finds nothing."""
    places = {place for where in LINKS.values() for place in where}
    kinds = {place.partition("/")[0].partition(".")[0] for place in places}
    assert {"bibliography", "names", "chapters", "attnlib"} <= kinds
    assert any(place.startswith("attnlib/models.json") for place in places)
    assert any(place.startswith("attnlib/book/museum/catalogue.py") for place in places)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[a](https://a.org/b_(c)) and [d](https://e.org 'x').", {"https://a.org/b_(c)"}),
        ("See https://a.org/b, or <https://c.org/>.", {"https://a.org/b", "https://c.org/"}),
        ("[a](https://a.org/x y)", {"https://a.org/x y"}),
        ('<a href="https://a.org/x">', {"https://a.org/x"}),
        ("[here](#there), [there](names.md)", set()),
    ],
)
def test_links_are_found_in_a_text(text, wanted):
    assert wanted <= links.found_in(text)
    assert bool(wanted) == bool(links.found_in(text))


@pytest.mark.parametrize(
    ("link", "complaint"),
    [
        ("http://example.org/", "not https"),
        ("https://example.org/a b", "space"),
        ("https://me@example.org/", "plain host"),
        ("https://example.org/?utm_source=x", "comes from"),
        ("https://bit.ly/abc", "hides"),
        ("https://arxiv.org/pdf/1706.03762", "arxiv.org/abs"),
        ("https://arxiv.org/abs/1706.03762v5", "arxiv.org/abs"),
        ("https://www.arxiv.org/abs/1706.03762", "arxiv.org/abs"),
        ("https://dx.doi.org/10.1145/1498765.1498785", "doi.org"),
        ("https://github.com/o/n/blob/main/a.py#L10", "a line of a branch"),
        ("https://github.com/o/n.git", ".git"),
    ],
)
def test_a_link_of_bad_form_is_noticed(link, complaint):
    assert any(complaint in found for found in complaints(link))


@pytest.mark.parametrize(
    "link",
    [
        "https://arxiv.org/abs/1706.03762",
        "https://github.com/o/n/blob/v5.2.0/a.py#L10-L20",
        "https://github.com/o/n/blob/0123abc/a.py#L10",
        "https://github.com/o/n/blob/main/a.py",
        "https://example.org/?page=2#part",
    ],
)
def test_a_link_of_good_form_is_left_in_peace(link):
    assert complaints(link) == []


def test_two_spellings_of_a_page_are_noticed():
    assert spelt_twice(["https://a.org/b", "https://www.a.org/b/", "https://a.org/c"])
    assert spelt_twice(["https://a.org/b#c", "https://a.org/b#d"]) == []


def test_linkcheck_notices_what_leads_nowhere():
    """A host that cannot exist is reported, whether there is a network or not."""
    assert "https://a.invalid/" in links.broken(["https://a.invalid/"])


def test_a_doi_is_asked_where_robots_may():
    assert links.asked("https://doi.org/10.1/x") == "https://doi.org/api/handles/10.1/x"
