"""Arrays inside frozen dataclasses: read-only too."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np


def read_only(instance: object) -> None:
    """Make the arrays of a frozen dataclass read-only, those in its mappings, tuples and lists too: writing into one
    raises ValueError. To be called by its ``__post_init__``, and by ``__setstate__`` where it is pickled.

    The instance gets views: nothing is copied, and who made an array may still write into it.
    """
    for name, value in vars(instance).items():
        guarded = _guarded(value)
        if guarded is not value:
            object.__setattr__(instance, name, guarded)


def _guarded(value: Any) -> Any:
    """`value` with read-only views in place of arrays; `value` itself where it holds none that can be written."""
    if isinstance(value, np.ndarray):
        if not value.flags.writeable:
            return value
        view = value.view()
        view.flags.writeable = False
        return view
    kind = type(value)
    if kind in (tuple, list):
        parts = [_guarded(part) for part in value]
        return value if all(new is old for new, old in zip(parts, value, strict=True)) else kind(parts)
    if kind in (dict, MappingProxyType):
        items = {key: _guarded(part) for key, part in value.items()}
        return value if all(items[key] is part for key, part in value.items()) else kind(items)
    return value
