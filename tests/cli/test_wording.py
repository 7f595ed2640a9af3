"""Messages name parameters; the command line shows its options in their place."""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from tiny import FAST, write

from onnxfold.analysis.costs import Size
from onnxfold.analysis.pins import Refusal
from onnxfold.cli import compare, fold, fuse, layers, sweep
from onnxfold.cli.main import main
from onnxfold.cli.output import _Console, announced
from onnxfold.cli.wording import OPTIONS, as_options
from onnxfold.options.parameters import PARAMETERS
from onnxfold.report.fold_report import FoldReport
from onnxfold.report.group_report import GroupReport
from onnxfold.report.sweep_report import SweepReport

COMMANDS = (compare, fold, fuse, layers, sweep)
ONLY_HERE = {
    "--report", "--verbose", "--quiet", "--help", "--version", "--top", "--json", "--plot", "--config",
    "--print-config", "--log-level",
}  # fmt: skip
"""Options that no function has a parameter for, because they say what the command line prints and writes."""


def actions() -> Iterator[argparse.Action]:
    """All options and arguments of all commands."""
    for command in COMMANDS:
        yield from command.parser()._actions


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("`max_error` must be above 0", "--max-error must be above 0"),
        ("give `calibration`", "give --calibration"),
        ("ask for more with `ratio=0.1`", "ask for more with --ratio 0.1"),
        ("`effort='fast'` makes no inputs", "--effort fast makes no inputs"),
        ("fold it without `quantize`, or `refine`", "fold it without --quantize, or --refine"),
        ("`quantize=True` needs samples", "--quantize needs samples"),
        ("`inspect` lists their names", "--inspect lists their names"),
        ("in `group_ratios`", "in --group-ratio"),
        ("`group_ratios={'mlp.*': 0.5, 'a': 0.1}`", "--group-ratio 'mlp.*=0.5' --group-ratio a=0.1"),
        ("`input_shapes` can fix it", "--input-shape can fix it"),
        ("`input_shapes={'x': (1, 3, 8, 8)}`", "--input-shape x:1,3,8,8"),
        ("`input_shapes={'x': (2,), 'y': [3]}`", "--input-shape x:2 --input-shape y:3"),
        ("`external_data` or `external_data=True`", "--save-as-external-data or --save-as-external-data"),
        ("with `align=False`", "with --no-align"),
        ("with `whole`", "with --whole-blocks"),
        ("give `how` or `how='mean'`", "give --fuse or --fuse mean"),
        ("`share=0.1`, `share=0.07`, `share`", "--share 10, --share 7, --share"),
        ("`drop_blocks='25%'`, `drop_blocks=3`", "--drop-blocks 25%, --drop-blocks 3"),
        ("give `output`, such as `output='small.onnx'`", "give OUT, such as small.onnx"),
        ("`at=[0.9, 0.7]`", "--at 0.9,0.7"),
        ("`providers=['cpu', 'cuda']`", "--providers cpu,cuda"),
        ("`include=['a', 'b|c']`", "--include a --include 'b|c'"),
        ("`calibration='my images'`", "--calibration 'my images'"),
        ("`preprocess='0.5:0.4:0.3,1,nhwc'`", "--preprocess 0.5:0.4:0.3,1,nhwc"),
        ("the layers' weights, `steps`, the model's `seed`", "the layers' weights, --steps, the model's --seed"),
    ],
)  # fmt: skip
def test_parameters_become_options(message: str, shown: str) -> None:
    assert as_options(message) == shown


@pytest.mark.parametrize(
    "message",
    [
        "output 'ratio' differs", "output '`ratio`' differs", "no group matches 'a `ratio` b'", "ratio=0.1",
        "`Softmax`", "run `pip install .` first", "`ratios`", "`ratio", "ratio`", "`ratio =0.1`", "`ratio=`",
        "`ratio=much`", "`ratio={[]: 1}`", "`quantize=False`", "`align=True`", "`model.ratio`", "",
    ],
)  # fmt: skip
def test_everything_else_stays(message: str) -> None:
    assert as_options(message) == message


def test_what_is_translated_once_stays() -> None:
    once = as_options("`share=0.1` of `samples`, `whole`, `group_ratios={'a': 0.1}`")
    assert as_options(once) == once


def test_every_option_has_a_parameter() -> None:
    there = {option for action in actions() for option in action.option_strings if option.startswith("--")}
    assert not ONLY_HERE - there
    assert there - ONLY_HERE == {option for option in OPTIONS.values() if option.startswith("--")}
    assert len(set(OPTIONS.values())) == len(OPTIONS)


def test_every_argument_has_a_name() -> None:
    named = {action.metavar for action in actions() if not action.option_strings}
    assert {option for option in OPTIONS.values() if not option.startswith("--")} <= named


def test_every_parameter_is_in_the_table() -> None:
    """What messages may name is what Python calls it; `inspect` is a function, and latencies are always measured."""
    assert set(OPTIONS) == {*PARAMETERS, "inspect"} - {"latency"}


def test_announced(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    announced("about 5 minutes: less with `effort='fast'`")
    assert "about 5 minutes: less with --effort fast" in capsys.readouterr().err


# what is printed ----------------------------------------------------------------------------------------------------


def shown(report: FoldReport | SweepReport, kind: type[Console]) -> str:
    file = io.StringIO()
    console = kind(file=file, width=100)
    report.print(console, verbose=True) if isinstance(report, FoldReport) else report.print(console)
    return " ".join(file.getvalue().split())


def test_messages_in_tables_name_options() -> None:
    groups = (GroupReport("`ratio`", 8, 8, 1, 0, 0.0, ("`seed`",), ("b",), "too narrow for `round_to=64`"),)
    refusals = (Refusal("a key-value cache (`fold_heads` allows its heads to change)", 4, ("`steps`",), 0),)
    report = FoldReport("`jobs`", "", {}, Size(1, 1, 1), None, groups, refusals, None)
    plain, worded = shown(report, Console), shown(report, _Console)
    for name in ("`ratio`", "`steps`", "`jobs`"):  # the model's own
        assert name in plain and name in worded
    assert "`round_to=64`" in plain and "(`fold_heads` allows" in plain and "--" not in plain
    assert "too narrow for --round-to 64" in worded and "(--fold-heads allows" in worded


def test_the_verdict_of_a_sweep_names_options() -> None:
    report = SweepReport("m", {}, Size(10, 10, 10), (), None, "your inputs", ("less with `effort='fast'`",))
    assert "less with --effort fast" in shown(report, _Console) and "`effort='fast'`" in shown(report, Console)


def test_columns_fit_what_is_shown() -> None:
    """Widths are those of the options, not of the parameters."""
    groups = (GroupReport("a", 8, 8, 1, 0, 0.0, ("a",), ("b",), "`external_data` `external_data`"),)
    report = FoldReport("m", "", {}, Size(1, 1, 1), None, groups, (), None)
    file = io.StringIO()
    report.print(_Console(file=file, width=200))
    assert "--save-as-external-data --save-as-external-data" in file.getvalue()


def test_reports_on_disk_name_parameters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, kept = write(tmp_path / "in.onnx"), tmp_path / "r.json"
    given = [path, tmp_path / "out.onnx", "--ratio", 0.5, "--refine", "--report", kept, *FAST]
    assert main([str(one) for one in given]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "--effort fast makes no inputs: pass --calibration or use --effort balanced" in said and "`" not in said
    verdict = json.loads(kept.read_text(encoding="utf-8"))["verdict"]
    assert "--" not in verdict
    assert "`effort='fast'` makes no inputs: pass `calibration` or use `effort='balanced'`" in verdict


def test_errors_name_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "in.onnx")
    assert main([str(path), str(tmp_path / "out.onnx"), "--include", "`ratio`", *FAST]) == 4
    assert main([str(path), str(tmp_path / "out.onnx"), "--group-ratio", "`ratio`=0.5", *FAST]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == "onnxfold: no group matches --include and --exclude: --inspect lists all groups"
    assert "no group matches the pattern '`ratio`' in --group-ratio: --inspect lists" in second
