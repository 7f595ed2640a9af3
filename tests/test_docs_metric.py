"""The worked example of docs/metric.md is what its command does."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from test_docs import block_after, text
from tiny import ROOT

PAGE = text(ROOT / "docs" / "metric.md")


def table(lines: Sequence[str]) -> dict[str, list[str]]:
    """Rows of tables by their names, as words."""
    return {words[0]: words[1:] for line in lines if (words := line.split()) and not line.startswith("─")}


def test_the_example_runs_as_shown(tmp_path: Path) -> None:
    (command,) = block_after("metric command", PAGE)
    (tmp_path / "models").symlink_to(ROOT / "models")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "90"}
    done = subprocess.run(
        [sys.executable, "-m", *shlex.split(command)], cwd=tmp_path, env=env, capture_output=True, encoding="utf-8",
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown, found = table(block_after("metric output", PAGE)), table(done.stdout.splitlines())
    assert found["file"][:2] == shown["file"][:2] and found["metric"][0] == shown["metric"][0], "the original"
    assert [name for name in shown if name.startswith("/")] == [name for name in found if name.startswith("/")]
    drop = -float(found["metric"][2])
    assert drop <= 0.5 and f"metric {found['metric'][1]} (was {found['metric'][0]})" in done.stdout
    assert percent(found["MACs"][-2]) < 0.6 * percent(shown["MACs"][-2]) < 0, "about as much goes as the page says"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["models", "smaller.onnx"]


def percent(cell: str) -> float:
    found = re.fullmatch(r"([+-]\d+\.\d)", cell)
    assert found, cell
    return float(found[1])
