"""The threads of BLAS, which numpy and scipy call."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController


def one_thread(when: bool = True) -> AbstractContextManager[Any]:
    """BLAS with one thread inside this, if `when`.

    For many small matrices one is best: where something else runs on the machine, two that wait for each other took
    forty times as long (the survey of a small ResNet, two cores, OpenBLAS).
    """
    return _controller().limit(limits=1, user_api="blas") if when else nullcontext()


@cache
def _controller() -> Any:
    return ThreadpoolController()
