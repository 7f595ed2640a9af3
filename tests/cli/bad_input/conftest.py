"""Refusals that every test of bad input checks."""

from __future__ import annotations

from pathlib import Path

import pytest
from refusals import Refused, refusing


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    return refusing(tmp_path, capsys)
