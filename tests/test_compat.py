"""What stands in for Python 3.11 behaves as it does."""

from __future__ import annotations

import json

import pytest

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
