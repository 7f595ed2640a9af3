"""What every refusal has in common, and the exit codes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import main, snapshot

Refused = Callable[..., str]
DONE, FAILED, REQUEST, MODEL, NOTHING = range(5)


def refusing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run the command line on bad input: the line that it ends with, after all checks."""

    def run(code: int, *arguments: object, says: str | tuple[str, ...] = ()) -> str:
        before = snapshot(tmp_path)
        assert main([str(a) for a in arguments]) == code
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err.startswith("onnxfold: ") and shown.err.endswith("\n") and shown.err.count("\n") == 1
        assert "Traceback" not in shown.err and len(shown.err) > 30
        for word in (says,) if isinstance(says, str) else says:
            assert word in shown.err, shown.err
        assert snapshot(tmp_path) == before
        return shown.err

    return run
