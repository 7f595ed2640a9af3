"""Fixtures that all tests share."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["N", 2], ids=["symbolic", "static"])
def batch(request: pytest.FixtureRequest) -> str | int:
    """What stands for N in the text of a test model."""
    return request.param
