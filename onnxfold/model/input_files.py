"""Files that are read: ordinary ones only. A pipe would be waited for without end, and a device has no end."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_KINDS = (
    (stat.S_ISFIFO, "a pipe (FIFO)"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"), (stat.S_ISDIR, "a folder"),
)  # fmt: skip


def no_file(path: Path) -> str:
    """What `path` is, links followed, in place of an ordinary file: "a socket"; '' for a file.

    It is looked at and not opened: opening a pipe would wait for who writes to it. Raises OSError.
    """
    mode = os.stat(path).st_mode
    if stat.S_ISREG(mode):
        return ""
    return next((kind for is_one, kind in _KINDS if is_one(mode)), "not a regular file")
