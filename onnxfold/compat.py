"""What Python 3.11 brought and 3.10 lacks."""

from __future__ import annotations

import sys

from typing_extensions import Self, Unpack

if sys.version_info >= (3, 11):
    from enum import StrEnum
else:
    from enum import Enum

    class StrEnum(str, Enum):
        """Members are strings, and print as such."""

        __str__ = str.__str__
        __format__ = str.__format__


__all__ = ["Self", "StrEnum", "Unpack", "add_note"]


def add_note(error: BaseException, note: str) -> None:
    """A line for the end of a traceback; 3.10 keeps it and does not print it."""
    if sys.version_info >= (3, 11):
        error.add_note(note)
    else:
        error.__notes__ = [*getattr(error, "__notes__", []), note]
