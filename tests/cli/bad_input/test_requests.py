"""Options that mean nothing or cannot be met: one clear line and exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest
from refusals import NOTHING, REQUEST, Refused
from tiny import fold, net, write

from onnxfold import RequestError

REQUESTS: dict[str, tuple[list[str], str]] = {
    "ratio 1": (["--ratio", "1.0"], "below 1"),
    "ratio -0.1": (["--ratio", "-0.1"], "at least 0 and below 1"),
    "ratio 1.5": (["--ratio", "1.5"], "at least 0 and below 1"),
    "ratio 30": (["--ratio", "30"], "a percentage like 30%, not '30'"),
    "ratio nan": (["--ratio", "nan"], "at least 0 and below 1"),
    "ratio inf": (["--ratio", "inf"], "at least 0 and below 1"),
    "ratio text": (["--ratio", "much"], "--ratio"),
    "params 0": (["--target-params", "0"], "above 0"),
    "macs nan": (["--target-macs", "nan"], "--target-macs must be a number above 0 and at most 1"),
    "unreachable": (["--target-macs", "0.001"], "cannot be reached"),
    "round to 0": (["--round-to", "0"], "--round-to"),
    "round to -8": (["--round-to", "-8", "--ratio", "0.5"], "--round-to"),
    "two budgets": (["--ratio", "0.5", "--target-macs", "0.5"], "not several"),
    "three budgets": (["--ratio", "0.5", "--target-macs", "0.5", "--target-params", "0.5"], "not several"),
    "bad regex": (["--include", "a(b"], "not a regular expression"),
    "bad regex to exclude": (["--exclude", "[z-a]"], "not a regular expression"),
    "unknown provider": (["--providers", "tpu"], "'tpu'"),
    "no provider": (["--providers", ""], "at least one provider"),
    "only commas": (["--providers", " , "], "at least one provider"),
    "shape without name": (["--input-shape", "1,3,8,8"], "NAME:D,D"),
    "shape of nothing": (["--input-shape", ":1,3,8,8"], "NAME:D,D"),
    "shape of text": (["--input-shape", "x:a,b"], "NAME:D,D"),
    "shape without numbers": (["--input-shape", "x:"], "NAME:D,D"),
    "unknown input": (["--input-shape", "z:1,3,8,8"], "its inputs are x"),
    "wrong rank": (["--input-shape", "x:1,3,8"], "4 dimensions"),
    "zero length": (["--input-shape", "x:0,3,8,8"], "positive"),
    "too long": (["--input-shape", "x:99999999999999999999,3,8,8"], "--input-shape must be"),
    "against the model": (["--input-shape", "x:1,4,8,8"], "axis 1"),
    "unknown option": (["--frobnicate"], "--frobnicate"),
    "shortened option": (["--rat", "0.5"], "--rat"),
    "unknown method": (["--method", "magic"], "magic"),
    "unknown recovery": (["--recovery", "magic"], "magic"),
    "bad seed": (["--seed", "-1", "--ratio", "0.5"], "--seed"),
    "bad threads": (["--threads", "-1", "--ratio", "0.5"], "--threads"),
    "one argument more": (["more.onnx"], "more.onnx"),
}


@pytest.mark.parametrize("what", REQUESTS)
def test_bad_request(refused: Refused, tmp_path: Path, what: str) -> None:
    options, says = REQUESTS[what]
    refused(REQUEST, write(tmp_path / "in.onnx"), tmp_path / "out.onnx", *options, says=says)


def test_no_arguments(refused: Refused) -> None:
    refused(REQUEST, says=("IN", "--help"))


def test_no_output(refused: Refused, tmp_path: Path) -> None:
    refused(REQUEST, write(tmp_path / "in.onnx"), says=("IN OUT", "--inspect"))


def test_include_that_matches_nothing(refused: Refused, tmp_path: Path) -> None:
    path = write(tmp_path / "in.onnx")
    refused(NOTHING, path, tmp_path / "out.onnx", "--include", "zebra", says=("--include", "--inspect"))
    refused(NOTHING, path, tmp_path / "out.onnx", "--exclude", ".", says="--exclude")


def test_group_ratio_that_matches_nothing(refused: Refused, tmp_path: Path) -> None:
    path = write(tmp_path / "in.onnx")
    given = ("--group-ratio", "zebra=0.5", "--group-ratio", ".=0.5")
    refused(REQUEST, path, tmp_path / "out.onnx", *given, says=("'zebra' in --group-ratio", "--inspect lists"))


@pytest.mark.parametrize("argument", ["method", "recovery", "clusterer"])
def test_library_refuses_unknown_words(argument: str) -> None:
    with pytest.raises(RequestError, match=f"`{argument}` must be one of .*'magic'"):
        fold(net(), ratio=0.5, **{argument: "magic"})
