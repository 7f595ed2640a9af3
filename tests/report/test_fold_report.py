"""The report: plain JSON, every field documented, and tables that are readable on a narrow terminal."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alike import permuted_copy
from attending import cached
from rich.console import Console
from tiny import MODELS, ROOT, fold, net

from onnxfold import FoldReport, choose, compare, fuse, inspect, sweep
from onnxfold.analysis.costs import Size
from onnxfold.analysis.coverage import Coverage
from onnxfold.analysis.pins import Refusal
from onnxfold.evaluation.latency import Profiler
from onnxfold.evaluation.metrics import OutputError
from onnxfold.evaluation.quality import Deviation, Limit, Mark, Quality
from onnxfold.evaluation.verdict import Check, ProviderCheck, Status
from onnxfold.options.budget import Budget
from onnxfold.passes.sweep import SweepRow
from onnxfold.report.build import steps_note
from onnxfold.report.group_report import GroupReport
from onnxfold.report.saved import save
from onnxfold.report.sweep_report import SweepReport
from onnxfold.units import in_bytes, in_ms, in_percent, in_units

PAGE = re.split("## The report of a (?:sweep|choice)", (ROOT / "docs" / "report.md").read_text(encoding="utf-8"))
DOCUMENTED, SWEPT, CHOSEN = (set(re.findall(r"^\| `([^`]+)` \|", part, re.M)) for part in PAGE)


def keys(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            name = f"{path}.{key}" if path else key
            yield name
            yield from keys(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner, f"{path}[]")


@pytest.fixture(scope="module")
def reports() -> list[FoldReport]:
    """Actual reports of every kind."""
    proto = net()
    budgets: list[dict[str, Any]] = [{"ratio": 0.5}, {"target_params": 0.7}, {"target_macs": 0.7}, {"target_size": 0.7}]
    made = [fold(proto, **budget, latency=False).report for budget in budgets]
    made.append(fold(MODELS / "digits_mlp.onnx", round_to=1, latency=False).report)
    made.append(fold(MODELS / "digits_mlp.onnx", min_agreement=0.1, latency=False).report)
    made.append(fold(MODELS / "digits_mlp.onnx", ratio=0.5, latency=False, refine=True, steps=4).report)
    images = {"image": np.random.default_rng(0).standard_normal((16, 64)).astype(np.float32)}
    made.append(fold(MODELS / "digits_mlp.onnx", ratio=0.5, latency=False, calibration=images).report)
    made.append(fold(MODELS / "digits_mlp.onnx", ratio=0.5, latency=False, calibration=images, quantize=True).report)
    allow: dict[str, Any] = {"allow": ["fold", "fp16"], "target_size": 0.5}
    made.append(fold(MODELS / "digits_mlp.onnx", **allow, effort="fast", latency=False).report)
    made.append(fold(MODELS / "digits_mlp.onnx", metric=lambda _: 1.0, max_drop=0.5, latency=False).report)
    made.append(fold(cached(), ratio=0.5, round_to=1, effort="fast", latency=False, fold_heads=True).report)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Profiler, "latency", lambda *_: 0.5)
        made.append(fold(proto, target_latency=0.7, latency=False).report)
    made.append(fold(MODELS / "digits_mlp.onnx", ratio=0.5, effort="fast").report)
    made.append(fuse(permuted_copy(), effort="fast", latency=False).report)
    made.append(fuse(permuted_copy(), how=None, drop_blocks=1, effort="fast", latency=False).report)
    return [*made, inspect(proto), compare(proto, net(seed=1), latency=False)]


def test_every_field_is_documented(reports: list[FoldReport]) -> None:
    found = {key for report in reports for key in keys(json.loads(report.to_json()))}
    assert found - DOCUMENTED == set(), "fields that docs/report.md does not mention"
    assert DOCUMENTED - found == set(), "fields in docs/report.md that no report has"


def test_every_kind_of_report_is_read_back_and_has_a_page(reports: list[FoldReport]) -> None:
    for report in reports:
        back = FoldReport.from_json(report.to_json())
        assert back.to_json() == report.to_json()
    page = pytest.importorskip("onnxfold.report.html.page", reason="pages need the extra 'report'").page
    assert all(100_000 < len(page(report)) < 1_200_000 for report in reports)


def test_every_field_of_a_sweep_is_documented() -> None:
    report = sweep(net(), at=[0.8, 0.5, 0.01], effort="fast", metric=lambda _: 1.0)
    found = set(keys(json.loads(report.to_json())))
    assert found - SWEPT == set(), "fields that docs/report.md does not mention"
    assert SWEPT - found == set(), "fields in docs/report.md that no sweep has"


def test_every_field_of_a_choice_is_documented() -> None:
    report = choose(net(), at=[0.5], allow=["fold", "fp16"], effort="fast", metric=lambda _: 1.0)
    found = set(keys(json.loads(report.to_json())))
    hows = {key for key in found if re.match(r"(rows|advice)\[\]\.how\.", key)} | {"settings.allow", "seconds.quantize"}
    assert found - CHOSEN - SWEPT - hows == set(), "fields that docs/report.md does not mention"
    assert CHOSEN - found == set(), "fields in docs/report.md that no choice has"


def test_a_sweep_has_a_tick_only_where_the_row_at_the_knee_keeps_the_usual_limit() -> None:
    size = Size(100, 10, 10)
    rows = (
        SweepRow(0.9, size, 0.05, None, (), (), "", None, Mark.KEPT),
        SweepRow(0.5, size, 0.3, None, (), (), "", None, Mark.UNSURE),
    )

    def line(at: float | None, *problems: str) -> str:
        made = tuple(replace(row, problems=problems) for row in rows)
        console = Console(width=80, record=True, file=io.StringIO())
        SweepReport("m", {}, size, made, at, "crops").print(console)
        return console.export_text().splitlines()[3]

    assert line(0.9).startswith("✔") and line(0.5).startswith("!")
    assert line(None).startswith("! no budget stands out: choose by") and line(0.9, "NaN").startswith("✘")


def example(name: str = "conv", **check: Any) -> FoldReport:
    error = OutputError("logits", 0.25, 0.97, 12.04, 1.5, 0.875)
    exact = OutputError("boxes", 0.0, 1.0, math.inf, 0.0, None)
    providers = (
        ProviderCheck("CPUExecutionProvider", Status.OK, "", 12.5, 10.0, (error, exact)),
        ProviderCheck("CUDAExecutionProvider", Status.FAILED, "original: no device", None, None, ()),
    )
    quality = Quality((Deviation("logits", 0.08, 0.08),), 0.875, (0.8, 0.93), 64, "crops of two photographs", True)
    verdict = Check((), ("CUDA: original: no device",), providers, "random inputs (smooth noise)", quality)
    groups = (
        GroupReport(name, 64, 48, 1, 12, 0.125, ("conv", "bn"), ("next",), ""),
        GroupReport("features/block_with_a_very_long_name/that_exporters_like/conv2d_17/Conv2D", 1024, 1024, 32, 0, 0.0,
                    ("a",), ("b",), "too narrow for `round_to=64`"),
    )  # fmt: skip
    refusals = (Refusal("Softmax mixes this axis", 80, ("n1", "n2", "n3", "n4", "n5"), 12_800),)
    return FoldReport("in.onnx", "out.onnx", {"seed": 0}, Size(2_500_000, 170_730, 4_475_520),
                      Size(1_250_000, 96_610, 2_521_056), groups, refusals, replace(verdict, **check))  # fmt: skip


def shown(report: FoldReport, width: int = 80, verbose: bool = False) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    report.print(console, verbose)
    return console.export_text()


def test_json_has_no_infinities() -> None:
    def refuse(text: str) -> None:
        raise AssertionError(text)

    data = json.loads(example().to_json(), parse_constant=refuse)
    assert data["check"]["providers"][0]["outputs"][1]["sqnr_db"] is None
    assert data["schema"] == 1 and data["passed"] is True


def test_save(tmp_path: Path) -> None:
    save(example(), tmp_path / "r.json")
    assert (tmp_path / "r.json").read_text(encoding="utf-8") == example().to_json() + "\n"
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


def test_tables_fit_narrow_terminals() -> None:
    text = shown(example(), 80)
    assert max(map(len, text.splitlines())) <= 80
    for words in (
        r"file +2\.50 MB +1\.25 MB +-50\.0 %", r"parameters +171 k +96\.6 k +-43\.4 %",
        r"MACs +4\.48 M +2\.52 M +-43\.7 %",
        r"latency CPU +12\.5 ms +10\.0 ms +1\.25 x as fast", r"latency CUDA +failed",
        r"logits +25 % +0\.9700 +12\.0 dB +1\.5 +87\.5 %", r"boxes +0 % +1\.0000 +exact +0",
        r"conv +64 → 48 +3 +12 clusters +0\.125", r"Softmax mixes this axis +80 +12\.8 k\n +n1, n2, n3, n4, n5$",
        "1 group is unchanged: too narrow for `round_to=64`", "measured on random inputs",
    ):  # fmt: skip
        assert re.search(words, text, re.M), words + "\n" + text
    assert "…" not in text, "nothing is cut off"


def test_very_narrow_terminals_do_not_fail() -> None:
    for width in (20, 40, 60):
        assert "file" in shown(example(), width)


def test_names_are_no_markup() -> None:
    """Names in a model may look like rich's markup or emoji."""
    for name in ("[bold]x[/bold]", "[/]", "a[0]", ":smile:", "[red"):
        assert name in shown(example(name), 100)
        assert name in shown(replace(example(), model=name), 100)
        assert name in shown(example(notes=(name,)), 200, verbose=True)


def test_failed_verdict() -> None:
    report = example(problems=("output 'y' has NaN or infinite values, unlike the original",))
    assert report.verdict.startswith("failed: output 'y' has NaN")
    assert "✘ failed" in shown(report)
    assert json.loads(report.to_json())["passed"] is False


def test_unmeasured_verdict_gets_no_tick() -> None:
    failed = ProviderCheck("CUDAExecutionProvider", Status.FAILED, "no device", None, None, ())
    report = example(providers=(failed,), quality=None)
    assert "\n! file -50 %" in shown(report) and "✔" not in shown(report)


def test_marks_and_what_is_said_first() -> None:
    """A tick is for a limit that is kept on inputs that can be trusted; an error over what is usual is said first."""
    kept, over, blind = (
        example(quality=Quality((Deviation("logits", error, error),), None, None, 64, "crops", independent))
        for error, independent in ((0.1, True), (0.101, True), (0.01, False))
    )
    assert "\n✔ file -50 %" in shown(kept, 200) and "output error 10 % on 64 crops" in kept.verdict
    assert "\n! output error 10 % on 64 crops, file -50 %" in shown(over, 200)
    assert (
        "\n! file -50 %" in shown(blind, 200)
        and "which say little about real ones" in blind.verdict
        and blind.verdict.endswith("; pass `calibration` for an error you can rely on")
    )
    assert [json.loads(one.to_json())["mark"] for one in (kept, over, blind)] == ["kept", "unsure", "unsure"]


@pytest.mark.parametrize(("error", "problem"), [(0.05, ""), (0.051, "max_error=0.05"), (1.02, "is lost: error 102 %")])
def test_limits_that_are_broken_and_outputs_that_are_lost_fail(error: float, problem: str) -> None:
    check = example().check
    assert check is not None
    limit = Limit(0.05, given=True, parameter="max_error=0.05")
    found = check.judged(Quality((Deviation("logits", error, error),), None, None, 64, "crops", True), limit, False)
    assert found.passed is not bool(problem) and problem in " ".join(found.problems)


def test_long_lists_are_cut_unless_verbose() -> None:
    groups = tuple(GroupReport(f"group {i:02}", 64, 64 - i, 1, 3, 0.1, ("a",), ("b",), "") for i in range(40))
    report = replace(example(), groups=groups)
    assert "and 15 more (-v lists all)" in shown(report) and "group 01" not in shown(report)
    assert "more" not in shown(report, verbose=True) and "group 01" in shown(report, verbose=True)
    assert "n4, n5" in shown(report, verbose=True)


def test_clusters_are_shown_where_there_are_any() -> None:
    some = [GroupReport(name, 8, 4, 1, n, 0.1, ("a",), ("b",), "") for name, n in (("clustered", 4), ("chosen", 0))]
    both, one = (shown(replace(example(), groups=groups)) for groups in (tuple(some), (some[1],)))
    assert "merged into" in both and "4 clusters" in both and "merge error" in both
    assert "merged into" not in one and "merge error" not in one and "8 → 4" in one


def test_inspection_shows_no_empty_tables() -> None:
    text = shown(inspect(net()))
    assert "2 groups with 32 channels" in text and "latency" not in text and "merge error" not in text
    compared = shown(compare(net(), net(), latency=False))
    assert "group" not in compared and "kept as it is" not in compared


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (999, "999"), (1000, "1.00 k"), (9999, "10.0 k"), (99_949, "99.9 k"), (123_456, "123 k"),
     (999_999, "1000 k"), (25_600_000, "25.6 M"), (7_000_000_000, "7.00 G")],
)  # fmt: skip
def test_numbers(value: int, text: str) -> None:
    assert in_units(value) == text


def test_other_figures() -> None:
    assert (in_bytes(12), in_bytes(690_139), in_bytes(2_250_000_000)) == ("12 B", "690 kB", "2.25 GB")
    assert [in_ms(x) for x in (0.0931, 3.456, 45.67, 1234.5)] == ["0.093 ms", "3.46 ms", "45.7 ms", "1234 ms"]
    assert [in_percent(x) for x in (0, 0.00123, 0.05, 0.5, 2.0, math.inf)] == [
        "0 %", "0.12 %", "5 %", "50 %", "200 %", "not finite",
    ]  # fmt: skip


def test_what_is_in_reach_is_said() -> None:
    inside = replace(example(), after=None, check=None, coverage=Coverage(0.75, 0.5))
    assert (
        inside.verdict
        == "2 groups with 1088 channels can be folded, which cover 75 % of the parameters and 50 % of the MACs"
    )
    assert replace(inside, before=Size(1, 1, 0)).verdict.endswith(", which cover 75 % of the parameters")
    assert replace(inside, coverage=None).verdict == "2 groups with 1088 channels can be folded"


@pytest.mark.parametrize(("budget", "said"), [
    (Budget.macs(0.8), "60 % of the MACs remain, well below `target_macs=0.8`"),
    (Budget.macs(0.65), ""), (Budget.params(0.6), "50 % of the parameters remain, well below `target_params=0.6`"),
    (Budget.ratio(0.5), ""),
])  # fmt: skip
def test_a_target_that_was_overshot_is_said(budget: Budget, said: str) -> None:
    before, after = Size(1000, 100, 10_000), Size(700, 50, 6_000)
    note = steps_note(budget, before, after)
    assert note.startswith(said) and bool(note) is bool(said)
