"""Fixtures that all tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Synthetic inputs are kept for the session, and never in the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(params=["N", 2], ids=["symbolic", "static"])
def batch(request: pytest.FixtureRequest) -> str | int:
    """What stands for N in the text of a test model."""
    return request.param
