"""The page of a report: nothing in it comes from names, all of it is inside, and every reason has its page in docs/."""

from __future__ import annotations

import base64
import gzip
import json
import math
import os
import re
import sys
import threading
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from pages import HOSTILE, choice_page_of, fold_page_of, layers_page_of, sweep_page_of
from test_docs import anchors
from tiny import MODELS, ROOT

from onnxfold.analysis.pins import Refusal
from onnxfold.cli.calls import COMMAND_LINE, call
from onnxfold.cli.main import main
from onnxfold.passes.weight_sharing.distances import Pair
from onnxfold.report.group_report import GroupReport
from onnxfold.report.html import reasons
from onnxfold.report.html.curves import spark
from onnxfold.report.provenance import Provenance

pages = pytest.importorskip("onnxfold.report.html.page", reason="pages need the extra 'report'")
page = pages.page

LARGEST = 1_200_000
MAKERS = [fold_page_of, sweep_page_of, choice_page_of, layers_page_of]


class Seen(HTMLParser):
    """The elements of a page: tags with their attributes, and the text of scripts by their id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = dict(attrs).get("id") or "" if tag == "script" else ""

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts[self._inside] = self.scripts.get(self._inside, "") + data


@pytest.mark.parametrize("make", MAKERS, ids=lambda one: one.__name__)
def test_no_name_becomes_markup(make: Any) -> None:
    plain, hostile = (page(make(name)) for name in ("conv", HOSTILE))
    assert len(hostile) < LARGEST
    assert all(c.isprintable() or c == "\n" for c in hostile)
    kinds = [[(tag, sorted(attributes)) for tag, attributes in Seen(text).tags] for text in (plain, hostile)]
    assert (
        kinds[0] == kinds[1] and "</script>&lt;img" not in hostile and "49" not in hostile.replace("&#34;", "")[:2000]
    )


@pytest.mark.parametrize("make", MAKERS, ids=lambda one: one.__name__)
def test_the_report_is_inside(make: Any) -> None:
    report = make(HOSTILE)
    packed = Seen(page(report)).scripts["report"]
    assert gzip.decompress(base64.b64decode(packed)).decode() == report.to_json()


def test_nothing_is_asked_for() -> None:
    """No address outside the page, and a policy that would stop one."""
    seen = Seen(page(fold_page_of()))
    links = [a.get(name) or "" for _, a in seen.tags for name in ("href", "src") if a.get(name)]
    assert links and all(link.startswith(("#", "data:image/jpeg;base64,")) for link in links)
    policy = next(a["content"] for tag, a in seen.tags if tag == "meta" and a.get("http-equiv"))
    assert policy is not None and policy.startswith("default-src 'none';")


def test_tables_and_pictures_can_be_read_aloud() -> None:
    seen = Seen(page(fold_page_of()))
    assert all(a.get("alt") for tag, a in seen.tags if tag == "img")
    assert all(a.get("aria-label") for _, a in seen.tags if a.get("role") in ("img", "region"))
    fields = [a["id"] for tag, a in seen.tags if tag == "input"]
    assert fields and {a["for"] for tag, a in seen.tags if tag == "label"} == set(fields)


def test_large_reports_make_pages_that_are_not_too_large() -> None:
    group, layer = fold_page_of().groups[0], fold_page_of().layers[0]
    many = tuple(replace(group, name=f"{HOSTILE} {i}", producers=("x" * 60,) * 4) for i in range(1200))
    layers = tuple(replace(layer, name=f"{HOSTILE * 3} {i}") for i in range(400))
    text = page(replace(fold_page_of(), groups=many, layers=layers))
    assert len(text.encode()) < LARGEST and "more, which shrank less" in text


def test_many_layers_that_are_alike() -> None:
    pairs = tuple(
        Pair(f"{kind}/{'x' * 60}/{i}", f"{kind}/{'x' * 60}/{j}", math.sin(i * j), (kind, 8))
        for kind in range(6) for i in range(40) for j in range(i)
    )  # fmt: skip
    text = page(replace(layers_page_of(), pairs=pairs))
    assert len(text.encode()) < LARGEST and "more, which are further apart" in text


def test_reasons_have_pages() -> None:
    known = [value for value in vars(reasons).values() if isinstance(value, reasons.Topic)]
    assert len(known) > 5
    for one in known:
        file, _, anchor = one.page.partition("#")
        text = (ROOT / "docs" / file).read_text(encoding="utf-8")
        assert not anchor or anchor in anchors(text), one.page
    said = {
        kind: reasons.topic(kind).anchor for kind in ("a graph output", "no rule for Sum", "Softmax mixes this axis")
    }
    assert list(said.values()) == ["interface", "rule", "mixed"]
    assert reasons.topic("LayerNormalization mixes this axis") is reasons.STREAM
    assert reasons.topic("ReduceMean mixes this axis") is reasons.STREAM


def test_every_reason_links_to_its_page_of_the_documentation(monkeypatch: pytest.MonkeyPatch) -> None:
    """As mkdocs builds it, or in the repository; where the package names neither, the page is named without a link."""
    site, repository = {"Documentation": "https://docs.example/x/"}, {"Repository": "https://git.example/x"}
    assert reasons.address("a/b.md#c", {**repository, **site}) == "https://docs.example/x/a/b.html#c"
    assert reasons.address("a/b.md#c", repository) == "https://git.example/x/blob/HEAD/docs/a/b.md#c"
    assert reasons.address("a/b.md#c", {"Documentation": "javascript:alert(1)"}) == ""
    assert "use_directory_urls: false" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    refusal = Refusal("no rule for Sum", 8, ("s",))
    report = replace(fold_page_of(), refusals=(refusal, replace(refusal, kind="a graph output")))
    for links, count in ((site, 4), ({}, 0)):
        monkeypatch.setattr(reasons, "links", lambda links=links: links)
        seen = [a.get("href") or "" for tag, a in Seen(page(report)).tags if tag == "a"]
        assert sum(link.startswith("https://docs.example/x/") for link in seen) == count
        assert not count or "https://docs.example/x/adding-an-op.html" in seen


def test_a_curve_shows_what_was_chosen() -> None:
    group = GroupReport("g", 64, 32, 1, 0, 0.0, (), (), "", ((16, 0.5), (48, 0.1), (64, 0.0)))
    drawn = spark(group)
    assert drawn is not None and drawn.chosen == (48.0, 11.0) and "32 kept: 30 % expected" in drawn.said
    assert spark(replace(group, curve=())) is None and spark(replace(group, curve=((1, float("nan")),))) is None


def test_the_areas_are_those_of_the_layers() -> None:
    layers = fold_page_of().layers
    from onnxfold.report.html.treemap import treemap

    values = treemap(layers, "after")["data"][0]["values"][1:]
    assert [one["size"] for one in values] == [one.after for one in layers] and values[0]["removed"] == pytest.approx(
        0.4
    )
    assert values[0]["said"] == "conv/1 (conv): 100 \u2192 60 parameters, 40 % removed"


# the commands of a sweep ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("sweep in.onnx --at .9,.5 --seed 3 --report r.html -q", "--target-macs 0.5 --seed 3"),
        ("sweep --report=r.html in.onnx --calibration 'a b'", "--target-macs 0.5 --calibration 'a b'"),
        ("compare in.onnx b.onnx", "--target-macs 0.5 --seed 1"),
    ],
)
def test_the_command_of_a_point(given: str, made: str) -> None:
    report = replace(sweep_page_of(), provenance=Provenance(f"onnxfold {given}"))
    assert call(report, 0.5) == f"onnxfold in.onnx in-50.onnx {made}"
    assert call(replace(report, provenance=None), 0.5).endswith("--target-macs 0.5 --seed 1")


def test_a_page_from_python_shows_python() -> None:
    assert "onnxfold.fold(&#39;in.onnx&#39;, &#39;smaller.onnx&#39;, target_macs=0.7, seed=1)" in page(sweep_page_of())


def test_the_page_of_a_choice() -> None:
    """Every chain that was made, with what makes it; the one that failed says so, and what was left out says why."""
    text = page(choice_page_of(), COMMAND_LINE)
    for command in ("in-int8.onnx --ratio 0 --quantize int8", "in-fold-50-refine.onnx --target-macs 0.5 --refine"):
        assert f"<code>onnxfold in.onnx {command}</code>" in text
    assert "in-share-weights.onnx" not in text and text.count("failed its checks") == 2  # the card and the row
    assert "fold 90 %: expected to be worse" in text and "One of the models failed its checks" in text
    assert "INT8 (half the bytes, no visible loss)" in text and "fold 50 %, refine (twice as fast)" in text
    values = {name: rows for name, _, rows in choice_page_of().curves()}
    assert re.findall(r'data-spec="(\w+)"', text) == list(values) == ["bytes", "latency"]
    assert [one["label"] for one in values["bytes"] if one["best"]] == ["leave it", "INT8", "fold 50 %, INT8"]
    assert [one["label"] for one in values["latency"] if one["knee"]] == ["INT8", "fold 50 %, refine"]


# on the command line --------------------------------------------------------------------------------------------------

Capture = pytest.CaptureFixture[str]
MLP = str(MODELS / "digits_mlp.onnx")


def refused(capsys: Capture, *arguments: object) -> str:
    assert main([str(one) for one in arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1
    return shown.err


def test_a_page_of_a_run_and_of_its_json_are_one(tmp_path: Path) -> None:
    assert main([MLP, "--inspect", "-q", "--report", str(tmp_path / "r.html")]) == 0
    packed = Seen((tmp_path / "r.html").read_text(encoding="utf-8")).scripts["report"]
    (tmp_path / "r.json").write_bytes(gzip.decompress(base64.b64decode(packed)))
    assert json.loads((tmp_path / "r.json").read_text())["provenance"]["command"].startswith("onnxfold ")
    assert main(["report", str(tmp_path / "r.json"), str(tmp_path / "again.html")]) == 0
    assert (tmp_path / "again.html").read_bytes() == (tmp_path / "r.html").read_bytes()


@pytest.mark.parametrize("name", ["r", "r.txt", "r.json.gz"])
def test_other_endings_are_refused_before_the_work(
    tmp_path: Path, name: str, capsys: Capture, monkeypatch: Any
) -> None:
    monkeypatch.setattr("onnxfold.api.fold", lambda *_, **__: pytest.fail("worked before"))
    line = refused(capsys, MLP, tmp_path / "out.onnx", "--report", tmp_path / name)
    assert "the report is a .json or an .html file" in line and list(tmp_path.iterdir()) == []


def test_a_page_without_what_draws(tmp_path: Path, capsys: Capture, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "altair", None)
    monkeypatch.setattr("onnxfold.api.fold", lambda *_, **__: pytest.fail("worked before"))
    line = refused(capsys, MLP, tmp_path / "out.onnx", "--report", tmp_path / "r.html")
    assert "needs altair: pip install 'onnxfold[report]'" in line and list(tmp_path.iterdir()) == []


def test_a_page_is_never_written_over_its_source(tmp_path: Path, capsys: Capture) -> None:
    source = tmp_path / "r.html"  # a report in JSON, whatever its name
    source.write_text(fold_page_of().to_json(), encoding="utf-8")
    os.link(source, tmp_path / "same.html")
    for target in ("r.html", "same.html"):
        assert "would overwrite the report" in refused(capsys, "report", source, tmp_path / target)
    assert "the page is an .html file" in refused(capsys, "report", source, tmp_path / "r.json")
    assert "cannot read the report" in refused(capsys, "report", tmp_path / "none.json", tmp_path / "p.html")


def test_a_page_into_a_pipe_and_never_over_a_model(tmp_path: Path, capsys: Capture) -> None:
    pipe, found = tmp_path / "pipe.html", list[bytes]()
    os.mkfifo(pipe)
    reading = threading.Thread(target=lambda: found.append(pipe.read_bytes()), daemon=True)
    reading.start()
    assert main([MLP, "--inspect", "-q", "--report", str(pipe)]) == 0
    reading.join(20)
    assert found[0].startswith(b"<!DOCTYPE html>") and pipe.is_fifo()
    model = tmp_path / "model.html"
    model.write_bytes(Path(MLP).read_bytes())
    assert "would overwrite the model" in refused(capsys, model, "--inspect", "-q", "--report", model)
