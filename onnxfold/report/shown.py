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

    def _repr_html_(self) -> str:
        """For notebooks."""
        rows = self.figures()
        heads = "".join(f"<th>{html.escape(name)}</th>" for name in (rows[0] if rows else ()))
        lines = ("".join(f"<td>{html.escape(visible(str(x)))}</td>" for x in row.values()) for row in rows)
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        title = f"<p><strong>{html.escape(visible(self.model))}</strong>: {html.escape(readable(self.verdict))}</p>"
        return f"{title}<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
