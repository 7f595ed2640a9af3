"""The pages of docs/ as a site: `mkdocs build --strict` refuses broken links and pages that nothing leads to. Lists are
lists, and nothing in the pages is loaded from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from test_docs import text
from tiny import ROOT

DOCS = ROOT / "docs"
PAGES = [page.relative_to(DOCS) for page in sorted(DOCS.rglob("*.md"))]
LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "link": "href"}
LOADS_NOTHING = {"canonical", "prev", "next"}  # kinds of <link> that only name a page
MOST_WORDS = 500  # of the README: what a stranger reads
ITEM = re.compile(r"^\s*(?:[*-]|\d+\.) ", re.MULTILINE)


class Page(HTMLParser):
    """What an HTML page loads from other hosts, and how many list items its article has."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.foreign: list[str] = []
        self.items = 0
        self._inside = False
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._inside |= tag == "article"
        self.items += tag == "li" and self._inside
        address = given.get(LOADING.get(tag, "")) or ""
        if re.match(r"(https?:)?//", address) and given.get("rel") not in LOADS_NOTHING:
            self.foreign.append(address)

    def handle_endtag(self, tag: str) -> None:
        self._inside &= tag != "article"


def items_in(page: str) -> int:
    """List items of a page in Markdown, outside of code. A number at the beginning of a line of prose is none."""
    count, prose = 0, False
    for line in re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL).splitlines():
        item = ITEM.match(line) is not None and not (prose and line.lstrip()[0].isdigit())
        count += item
        prose = bool(line.strip()) and not item and (prose or not line.startswith(" "))
    return count


def made(folder: Path) -> dict[Path, Page]:
    """The site that `mkdocs build --strict` puts into a folder, by the names of the pages in docs/."""
    # Not --quiet: it drops the warnings that --strict counts.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return {page.relative_to(folder).with_suffix(".md"): Page(text(page)) for page in folder.rglob("*.html")}


def test_the_site(tmp_path: Path) -> None:
    """One test, for the site takes seconds to make."""
    pytest.importorskip("material", reason="pip install '.[docs]'")
    built = made(tmp_path)
    assert set(PAGES) <= set(built)
    foreign = {str(name): page.foreign for name, page in built.items() if page.foreign}
    assert not foreign, "pages load these from elsewhere"
    styles = "".join(text(sheet) for sheet in tmp_path.rglob("*.css"))
    assert not re.findall(r"url\(\s*['\"]?(?:https?:)?//[^)]*", styles)
    broken = {
        str(page): items_in(text(DOCS / page)) for page in PAGES if built[page].items != items_in(text(DOCS / page))
    }
    assert not broken, "lists that are none in the site: an empty line before them is missing"


def test_foreign_things_are_seen() -> None:
    page = Page(
        '<link rel="stylesheet" href="https://a/b.css"><link rel="canonical" href="https://a/"><img src="c.png">'
        '<script src="//d/e.js"></script><a href="https://f">g</a><li>no<article><ul><li>yes</ul></article><li>no'
    )
    assert page.foreign == ["https://a/b.css", "//d/e.js"] and page.items == 1
    assert items_in("* a\n  b\n* c\n\nfell to 43\n81. So\n\n```\n* d\n```\n1. e\n2. f\n") == 4


def test_the_readme_is_short() -> None:
    assert len(text(ROOT / "README.md").split()) <= MOST_WORDS


def test_one_version_is_told_everywhere() -> None:
    version = re.search(r"^version = \"(.*)\"$", text(ROOT / "pyproject.toml"), re.MULTILINE)
    cited = re.search(r"^version: (.*)$", text(ROOT / "CITATION.cff"), re.MULTILINE)
    newest = re.search(r"^## (\S+)", text(ROOT / "CHANGELOG.md"), re.MULTILINE)
    assert version and cited and newest and version[1] == cited[1] == newest[1]
