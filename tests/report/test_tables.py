"""How tables look on terminals of any width, with any names, and on those that show ASCII alone."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from pages import choice_page_of, fold_page_of, layers_page_of, sweep_page_of
from rich.console import Console, RenderableType

from onnxfold.analysis.costs import Size
from onnxfold.analysis.pins import Refusal
from onnxfold.evaluation.quality import Mark
from onnxfold.passes.weight_sharing.distances import Pair
from onnxfold.passes.weight_sharing.layers import Left
from onnxfold.report import render, wording
from onnxfold.report.fold_report import FoldReport
from onnxfold.report.group_report import GroupReport
from onnxfold.report.layers_report import LayersReport
from onnxfold.report.tables import Message, Name, Names, cut, new_table, prefix_of

LAYER = "/model/encoder/layer.{}/attention/self/query/MatMul"
NAMES = tuple(LAYER.format(number) for number in range(6))


def shown(what: RenderableType, width: int = 80, encoding: str = "utf-8") -> list[str]:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(file=file, width=width).print(what)
    file.seek(0)
    return [line.rstrip() for line in file.read().splitlines()]


def group(name: str, after: int = 64, note: str = "") -> GroupReport:
    return GroupReport(name, 64, after, 1, 0, 0.0, ("w",), ("v",), note)


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        (NAMES, "/model/encoder/"),  # not "layer.", which would leave numbers
        (("model.layers.a", "model.layers.b"), "model.layers."),
        (("/encoder", "/encoder/x"), ""),  # nothing would be left of the first
        (("/encoder/", "/encoder/x"), ""),
        (("/a/x", "/a/y"), ""),  # too short to be worth a word
        (("alone/in/its/column",), ""), ((), ""), (("", "/encoder/x"), ""),
    ],
)  # fmt: skip
def test_common_prefixes(names: tuple[str, ...], prefix: str) -> None:
    assert prefix_of(names) == prefix


@pytest.mark.parametrize("width", [4, 10, 17, 34])
def test_cut_names_keep_their_ends(width: int) -> None:
    text = cut("layer.0/attention/self/query/MatMul", width)
    assert len(text) <= width and "..." in text and (width < 10 or text.endswith("Mul"))
    assert len(cut("層" * 40, width)) <= width / 2 + 4  # two columns each
    assert cut("short", 5) == "short"


def test_groups_say_their_prefix_once_and_count_those_that_stay() -> None:
    found = [group(NAMES[0], 48), group(NAMES[1], 32), *(group(n, note="kept by the budget") for n in NAMES[2:5])]
    lines = shown(render.groups([*found, group(NAMES[5], note="excluded")], True, False))
    assert lines[0].split() == ["group", "/model/encoder/...", "channels", "weights"]
    assert lines[2].split() == ["layer.0/attention/self/query/MatMul", "64", "→", "48", "2"] and len(lines) == 5
    assert lines[4] == " 4 groups are unchanged: 3 kept by the budget, 1 excluded (-v lists them)"
    every = shown(render.groups([*found], True, True))
    assert len(every) == 7 and "kept by the budget" in every[-1]


@pytest.mark.parametrize("width", [80, 200])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_no_name_is_broken_in_two(width: int, encoding: str) -> None:
    long = tuple(f"/model/encoder/{'deep/' * 20}{name}[red]\x1b[31m層" for name in NAMES)
    groups = tuple(group(f"{name}", 48) for name in long)
    refusals = (Refusal("LayerNormalization mixes this axis", 8, long, 4),)
    report = FoldReport("m.onnx", "", {}, Size(1, 1, 1), None, groups, refusals, None)
    lines = shown(report.render(), width, encoding)
    assert max(map(len, lines)) <= width and "\x1b" not in "".join(lines)
    assert sum("layer" in line for line in lines) <= 1 + len(groups) + 2  # a line for each, and one for the reasons
    assert "and 5 more" in "".join(lines)
    assert encoding != "ascii" or "".join(lines).isascii()
    assert "[red]" in "".join(shown(report.render(verbose=True), width, encoding)).replace(" ", "")


def test_there_is_room_at_200_columns() -> None:
    found = (Refusal("LayerNormalization mixes this axis", 8, NAMES[:2], 4),)
    narrow, wide = (shown(render.Refusals(found, False), width) for width in (80, 200))
    assert len(narrow) == 4 and "and 1 more" in narrow[3]
    assert len(wide) == 3 and ", ".join(NAMES[:2]) in wide[2]


def test_pairs_of_layers_fit() -> None:
    pairs = tuple(Pair(one, other, 0.5, (1536, 384)) for one in NAMES for other in NAMES if one < other)
    report = LayersReport("m", "wasserstein", True, None, pairs, tuple(Left(n, "too small") for n in NAMES))
    file = io.StringIO()
    report.print(Console(file=file, width=80), 10)
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80 and "5 more pairs (-v lists all)" in file.getvalue()
    assert lines[2] == "6 layers of 1 shape: 15 pairs could share a weight, the nearest 0.5 apart"
    assert "0 is equal, 1 unrelated, 1.41 opposite" in file.getvalue()
    assert "layer /model/encoder/..." in lines[4]
    assert sum("0.5000" in line for line in lines) == 10 and "layer.0/at" in lines[6]


def test_signs_are_spelled_where_a_terminal_lacks_them() -> None:
    table = new_table("output", right=["max |Δ|"])
    table.add_row(Name("é"), "1")
    table.add_row(Names(["a", "é"], style=""), "2")
    assert shown(table, 80, "ascii") == [
        " output       max |diff|", "-------------------------", " \\xe9                  1",
        " a, \\xe9               2",
    ]  # fmt: skip
    assert replace(Name("x"), text="y").text == "y" and "Δ" in shown(table)[0]


@pytest.mark.parametrize("make", [fold_page_of, sweep_page_of, choice_page_of, layers_page_of])
def test_what_is_copied_from_a_terminal_can_be_searched(make: Any) -> None:
    """No blanks at the ends of lines, and none that only look like blanks."""
    file = io.StringIO()
    make().print(Console(file=file, width=80))
    lines = file.getvalue().splitlines()
    assert len(lines) > 8 and all(line == line.rstrip() for line in lines)
    assert " %" in file.getvalue() or make is layers_page_of
    assert not any(character in file.getvalue() for character in "\u00a0\u202f")


def test_what_stands_below_a_table_is_as_wide_as_the_terminal() -> None:
    report = fold_page_of().quantization
    assert report is not None
    report = replace(report, samples=512, synthetic=True, floats=())
    said = "3 nodes compute on integers; activation ranges from 512 synthetic inputs"
    assert f" {said}" in shown(render.quantization(report))
    assert max(map(len, shown(render.quantization(replace(report, floats=(("Softmax", 12),) * 3))))) <= 80


def test_an_error_in_fewer_bits_stands_beside_one_of_the_same_measure() -> None:
    report = fold_page_of().quantization
    assert report is not None and report.errors == (0.1, 0.2)
    assert str(report) == "in INT8, 2.00x as fast as in floats (relative L2 error there: 10 %)"
    judged = replace(report, judged_before=0.3, judged_after=0.4, latency_before_ms=None)
    assert judged.errors == (0.3, 0.4) and str(judged) == "in INT8 (output error in floats: 30 %)"
    assert any(line.split() == ["output", "error", "30", "%", "40", "%"] for line in shown(render.quantization(judged)))
    alone = replace(report, judged_before=0.0, judged_after=0.4, floats=())  # nothing was folded
    assert str(alone) == "in INT8" and len(shown(render.quantization(alone))) == 1


def test_the_table_of_outputs_says_on_how_many_inputs() -> None:
    check = fold_page_of().check
    assert check is not None and check.quality is not None
    quality = replace(check.quality, inputs="crops of two photographs")

    def said(samples: int, **more: Any) -> str:
        done = replace(check.providers[0], samples=samples)
        return wording.compared_on(replace(check, providers=(done,), inputs="noise", **{"quality": quality, **more}))

    assert said(16) == "measured on 16 of the 64 crops of two photographs"
    assert said(64) == "measured on 64 crops of two photographs"
    assert said(16, quality=replace(quality, inputs="256 samples of c.npz")) == (
        "measured on 16 of the 64 of 256 samples of c.npz"
    )
    assert said(8, quality=None) == "measured on noise" and said(0) == "measured on noise"


def test_peak_memory_is_a_row() -> None:
    before, after = Size(10, 10, 10, 55_300), Size(5, 5, 5, 13_800)
    check = fold_page_of().check
    assert check is not None
    rows = [line.split() for line in shown(render.sizes(before, after, check))]
    assert ["peak", "memory", "(est.)", "55.3", "kB", "13.8", "kB", "-75.0", "%"] in rows
    rows = [line.split() for line in shown(render.sizes(before, replace(after, peak_memory=None), check))]
    assert ["peak", "memory", "(est.)", "55.3", "kB", "-", "-"] in rows


@pytest.mark.parametrize("width", range(12, 40))
def test_no_line_begins_with_a_percent_sign(width: int) -> None:
    said = "output error 18 % on 128 crops, 95 % interval 90 to 98 %, file -77 %"
    lines = shown(Message(said), width)
    assert not any(line.startswith("%") or line != line.rstrip() for line in lines)
    assert " ".join(" ".join(lines).split()) == said


def test_a_choice_says_which_of_what_it_recommends_is_not_sure() -> None:
    report = choice_page_of()
    sound = replace(report, rows=tuple(row for row in report.rows if not row.problems))
    assert sound.meaning == "the recommended models are within the usual error limit"
    doubtful = tuple(replace(row, mark=Mark.UNSURE) if row.chain.refine else row for row in sound.rows)
    said = "above the usual error limit, or judged on weak inputs: fold 50 %, refine"
    assert replace(sound, rows=doubtful).meaning == said
    alone = replace(sound, rows=sound.rows[:1])
    assert alone.meaning == "nothing that was measured is worth more than the model as it is"
