"""The threads of BLAS, which numpy and scipy call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

from threadpoolctl import ThreadpoolController

_lock = Lock()
_inside: list[Any] = []  # the limit that is set, once for every thread that is inside a block


@contextmanager
def one_thread(when: bool = True) -> Iterator[None]:
    """BLAS with one thread inside this block, if `when`; the limit ends when the last thread that set it has left.

    For many small matrices one is best: where something else runs on the machine, two that wait for each other took
    forty times as long (the sensitivity analysis of a small ResNet, two cores, OpenBLAS).
    """
    if not when:
        yield
        return
    with _lock:
        _inside.append(_inside[0] if _inside else _controller().limit(limits=1, user_api="blas"))
    try:
        yield
    finally:
        with _lock:
            limit = _inside.pop()
            if not _inside:
                limit.restore_original_limits()


@cache
def _controller() -> Any:
    return ThreadpoolController()
