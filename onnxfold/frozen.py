"""Arrays inside frozen dataclasses: read-only too, also where these were pickled."""

from __future__ import annotations

from collections.abc import Mapping
from operator import is_
from types import MappingProxyType
from typing import Any

import numpy as np

_ROWS, _MAPPINGS = frozenset((tuple, list)), frozenset((dict, MappingProxyType))
_PLAIN = frozenset((int, float, bool, str, type(None)))  # most of what is held, and quickly told


def read_only(instance: object) -> None:
    """Make the arrays of a frozen dataclass read-only, those in its mappings, tuples and lists too: writing into one
    raises ValueError. To be called by its ``__post_init__``; one that is pickled is `Pickled` too.

    The instance gets views: nothing is copied, and who made an array may still write into it.
    """
    for name, value in vars(instance).items():
        if type(value) in _PLAIN:
            continue
        guarded = _guarded(value)
        if guarded is not value:
            object.__setattr__(instance, name, guarded)


class Pickled:
    """Base of frozen dataclasses that are pickled: arrays come out of that writable, and become read-only again."""

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
        read_only(self)


def _guarded(value: Any) -> Any:
    """`value` with read-only views in place of arrays; `value` itself where it holds none that can be written."""
    kind = type(value)
    if kind in _ROWS:
        parts = [part if type(part) in _PLAIN else _guarded(part) for part in value]
        return value if all(map(is_, parts, value)) else kind(parts)
    if kind in _MAPPINGS:
        items = {key: part if type(part) in _PLAIN else _guarded(part) for key, part in value.items()}
        return value if all(map(is_, items.values(), value.values())) else kind(items)
    if not isinstance(value, np.ndarray) or not value.flags.writeable:
        return value
    view = value.view()
    view.flags.writeable = False
    return view
