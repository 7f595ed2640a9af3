"""Pages in a real browser (Chromium of Debian): they draw, sort, search and copy, at both widths, dark and light, write
nothing to the console, and ask for nothing."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import MISSING, Browser, browsing
from pages import HOSTILE, choice_page_of, fold_page_of, layers_page_of, sweep_page_of

pages = pytest.importorskip("onnxfold.report.html.page", reason="pages need the extra 'report'")
pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"no {' and no '.join(MISSING)} here (apt-get install chromium-driver)"
)

MAKERS = {"fold": fold_page_of, "sweep": sweep_page_of, "choice": choice_page_of, "layers": layers_page_of}
MARKS = "svg.marks :is(path, rect, circle)"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages by the name of what they show; "hostile" is that of a fold with names that would be markup."""
    folder, reports = tmp_path_factory.mktemp("pages"), {name: make() for name, make in MAKERS.items()}
    for name, report in {**reports, "hostile": fold_page_of(HOSTILE)}.items():
        (folder / f"{name}.html").write_text(pages.page(report), encoding="utf-8")
    return {path.stem: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_draws_and_asks_for_nothing(browser: Browser, files: dict[str, Path], width: int, dark: bool) -> None:
    for name, path in files.items():
        browser.requests(), browser.console()
        browser.open(path, width, dark)
        counts = browser.run(
            f"return [...document.querySelectorAll('[data-chart]')].map(one => one.querySelectorAll({MARKS!r}).length)"
        )
        assert counts and min(counts) > 1, (name, counts)
        assert browser.console() == []
        asked = [one for one in browser.requests() if not one.startswith(("data:image/jpeg;", "chrome://"))]
        assert asked == [path.as_uri()]
        assert browser.run("return document.documentElement.scrollWidth") <= width, f"{name} is wider than the window"
        assert sum(_color(browser)) * (1 if dark else -1) < 384 * (1 if dark else -1)


def _color(browser: Browser) -> list[int]:
    """Red, green and blue of the background."""
    return [int(x) for x in re.findall(r"\d+", browser.run("return getComputedStyle(document.body).backgroundColor"))]


COLUMN = "return [...document.querySelectorAll('#groups-table tbody tr:not([hidden])')].map(r => r.cells[%d].%s)"


def test_tables_sort_and_search(browser: Browser, files: dict[str, Path]) -> None:
    browser.open(files["fold"])
    widths = COLUMN % (1, "dataset.value")
    before = [int(x) for x in browser.run(widths)]
    click = "document.querySelectorAll('#groups-table thead button')[1].click()"
    sort = "return document.querySelectorAll('#groups-table thead th')[1].ariaSort"
    assert browser.run(sort) == "none"
    browser.run(click)
    assert browser.run(sort) == "ascending" and [int(x) for x in browser.run(widths)] == sorted(before)
    browser.run(click)
    assert browser.run(sort) == "descending" and [int(x) for x in browser.run(widths)] == sorted(before)[::-1]
    search = "const f = document.querySelector('[data-find]'); f.value = %r; f.dispatchEvent(new Event('input'))"
    browser.run(search % "CONV3")
    assert browser.run(COLUMN % (0, "textContent")) == ["conv3"]
    assert browser.run("return document.querySelector('[data-found]').textContent") == "1 of 8"
    browser.run(search % "")
    assert len(browser.run(widths)) == len(before)


def test_keys_reach_everything(browser: Browser, files: dict[str, Path]) -> None:
    """Whatever answers to a click is a button, a link, a field or a summary, and can have the focus."""
    browser.open(files["fold"])
    focused = browser.run(
        "return [...document.querySelectorAll('button, a, input, summary, [tabindex]')].map(one => {"
        " one.closest('details')?.setAttribute('open', ''); one.focus(); return one === document.activeElement; })"
    )
    assert len(focused) > 20 and all(focused)


def test_names_do_nothing(browser: Browser, files: dict[str, Path]) -> None:
    browser.open(files["hostile"])
    assert browser.run("return document.querySelectorAll('img[onerror], [src=x]').length") == 0
    assert "onerror='alert(1)'" in browser.run("return document.querySelector('h1').textContent")
    assert "\\u202e\\x07" in browser.run("return document.querySelector('h1').textContent")


def test_the_json_is_saved_and_commands_are_copied(browser: Browser, files: dict[str, Path], tmp_path: Path) -> None:
    browser.devtools("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.open(files["sweep"])
    browser.run(
        "window.saved = null;"
        "URL.createObjectURL = blob => { blob.text().then(text => window.saved = text); return 'blob:x'; };"
        "HTMLAnchorElement.prototype.click = () => {}; document.getElementById('download').click()"
    )
    found: Any = None
    for _ in range(100):
        found = found or browser.run("return window.saved")
    assert json.loads(found)["recommended"] == 0.7
    calls = browser.run("return [...document.querySelectorAll('#rows code')].map(one => one.textContent)")
    assert len(calls) == 3 and all("target_macs" in one for one in calls)
    browser.run("document.querySelector('#rows [data-copy]').click()")
    for _ in range(100):
        if browser.run("return document.querySelector('#rows [data-copy]').textContent") == "Copied":
            break
    assert browser.run("return document.querySelector('#rows [data-copy]').textContent") == "Copied"


def test_it_prints(browser: Browser, files: dict[str, Path]) -> None:
    browser.open(files["fold"], dark=True)
    printed = browser.devtools("Page.printToPDF", printBackground=True)
    assert base64.b64decode(printed["data"]).startswith(b"%PDF")
    browser.devtools("Emulation.setEmulatedMedia", media="print", features=[])
    assert _color(browser) == [255, 255, 255]
    assert browser.run("return getComputedStyle(document.querySelector('nav')).display") == "none"
    browser.devtools("Emulation.setEmulatedMedia", media="")


def test_the_control(browser: Browser, tmp_path: Path) -> None:
    """The tests see errors and requests where there are some."""
    path = tmp_path / "bad.html"
    script = "document.documentElement.dataset.ready = 'yes'; nothing()"
    path.write_text(f"<p>x<img src=http://127.0.0.1:9/x.png><script>{script}</script>", encoding="utf-8")
    browser.requests(), browser.console()
    browser.open(path)
    assert any("nothing is not defined" in one for one in browser.console())
    assert "http://127.0.0.1:9/x.png" in browser.requests()
