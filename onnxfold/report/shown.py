"""What reports have in common in a prompt, a notebook and a data frame."""

from __future__ import annotations

import html
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..compat import Self
from ..errors import RequestError
from ..units import readable, visible
from .decode import decoded
from .json_text import from_text, to_text

if TYPE_CHECKING:
    import pandas

LONGEST = 120  # characters of a verdict in a prompt
Rows = Sequence[Mapping[str, Any]]


class Shown:
    """A report: short where it is printed, a table in a notebook and in pandas, a chart by Altair."""

    model: str

    @property
    @abstractmethod
    def verdict(self) -> str:
        """One line that says what was found."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The whole report as plain values (schema in docs/report.md); infinite and undefined numbers are None."""

    def to_json(self) -> str:
        """The same as text."""
        return to_text(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The report that `to_json` wrote, of this version or an earlier one. Raises RequestError."""
        return decoded(cls, from_text(text))

    @property
    def sign(self) -> str:
        """What stands before the name in a notebook: how it went, where it could go wrong."""
        return ""

    @abstractmethod
    def figures(self) -> Rows:
        """What is said at a glance: rows of texts, all with the same keys."""

    @abstractmethod
    def records(self) -> Rows:
        """The rows of `to_pandas`."""

    @abstractmethod
    def plot(self) -> Any:
        """A chart by Altair, which a notebook shows. Raises RequestError where the extra `report` is missing."""

    def to_pandas(self) -> pandas.DataFrame:
        """The groups of a fold, the rows of a sweep, the pairs of a ranking. Raises RequestError where pandas is
        missing."""
        try:
            import pandas
        except ImportError as error:
            raise RequestError("a data frame needs pandas: pip install pandas") from error
        return pandas.DataFrame.from_records([dict(row) for row in self.records()])

    def __repr__(self) -> str:
        verdict = readable(self.verdict)
        short = verdict if len(verdict) <= LONGEST else verdict[: LONGEST - 3] + "..."
        return f"<{type(self).__name__} of {visible(self.model)}: {short}>"

    def details(self) -> Sequence[tuple[str, Rows]]:
        """Tables that a notebook opens when they are asked for, by title; those without rows are left out."""
        return ()

    def _repr_html_(self) -> str:
        """For notebooks."""
        name, verdict = html.escape(visible(self.model)), html.escape(readable(self.verdict))
        title = f"<p>{html.escape(self.sign)}<strong>{name}</strong>: {verdict}</p>"
        more = (
            f"<details><summary>{html.escape(what)}</summary>{_table(rows)}</details>"
            for what, rows in self.details() if rows
        )  # fmt: skip
        return "".join((title, _table(self.figures()), *more))


def _table(rows: Rows) -> str:
    """Rows of texts as HTML, without columns in which there is nothing."""
    names = [name for name in (rows[0] if rows else ()) if any(row[name] != "" for row in rows)]
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    lines = ("".join(f"<td>{html.escape(visible(str(row[name])))}</td>" for name in names) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
