"""What stands in for Python 3.11 behaves as it does."""

from __future__ import annotations

import json
import re

import pytest
from tiny import ROOT

from onnxfold.compat import StrEnum, add_note


class Color(StrEnum):
    RED = "red"


def test_members_are_their_strings() -> None:
    assert f"{Color.RED} {Color.RED:>5}" == "red   red" and str(Color.RED) == "red"
    assert Color("red") is Color.RED and Color.RED == "red" and json.dumps(Color.RED) == '"red"'
    with pytest.raises(ValueError, match="'blue' is not a valid Color"):
        Color("blue")


def test_notes_stay_with_their_error() -> None:
    error = ValueError("what")
    add_note(error, "where")
    add_note(error, "when")
    assert error.__notes__ == ["where", "when"]


def test_what_python_310_lacks_comes_from_compat() -> None:
    newer = re.compile(r"^\s*from (?:enum|typing) import .*\b(?:StrEnum|Self|Unpack|assert_never|NotRequired)\b", re.M)
    for file in (ROOT / "onnxfold").rglob("*.py"):
        assert file.name == "compat.py" or not newer.search(file.read_text(encoding="utf-8")), file
    assert newer.search("from enum import Enum, StrEnum\n")
