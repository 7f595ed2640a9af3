"""The widths of a plan, to be edited."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ...errors import RequestError
from ...options.parameters import mapping, shown
from ...options.width_plan import PlannedGroup, check_width, group_named

_HERE = "`plan.keep`"


class UnknownGroupError(RequestError, KeyError):
    """No group, and no layer that makes one, has this name."""

    def __str__(self) -> str:
        return str(self.args[0])


class Keep(Mapping[str, int]):
    """The channels that every group keeps, by the name of the group or of a layer that makes its channels.

    Widths are set like those of a dict, and checked: ``keep["conv1"] = 48``. There is one for every group, which cannot
    be removed. Without `groups` (of a plan that was written by hand) any name may be set; the model decides later.
    """

    def __init__(self, widths: Mapping[str, int], groups: Mapping[str, PlannedGroup]) -> None:
        self._widths, self._groups = dict(widths), groups

    def __getitem__(self, name: str) -> int:
        """Raises UnknownGroupError, a RequestError and a KeyError, which says what was meant."""
        return self._widths[self._group(name)]

    def __setitem__(self, name: str, keep: int) -> None:
        """Raises UnknownGroupError as above, and RequestError for a width that the group cannot have."""
        group = self._group(name) if self._groups else _text(name)
        check_width(group, keep, self._groups, _HERE)
        self._widths[group] = int(keep)

    def __iter__(self) -> Iterator[str]:
        return iter(self._widths)

    def __len__(self) -> int:
        return len(self._widths)

    def update(self, widths: Mapping[str, int]) -> None:
        """Set several widths, all or none. Raises as setting one does."""
        tried = Keep(self._widths, self._groups)
        for name, keep in mapping("plan.keep", widths).items():
            tried[name] = keep
        self._widths = tried._widths

    def __repr__(self) -> str:
        return repr(self._widths)

    def _group(self, name: str) -> str:
        if _text(name) in self._widths:
            return name
        try:
            return group_named(name, self._groups, _HERE)
        except RequestError as error:
            raise UnknownGroupError(str(error)) from None


def _text(name: object) -> str:
    """A name. Raises UnknownGroupError for anything else."""
    if not isinstance(name, str):
        raise UnknownGroupError(f"{_HERE} must have names for keys, not {shown(name)}")
    return name
