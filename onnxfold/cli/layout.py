"""How help is laid out: at the width of the terminal, examples with what they do beside them or below."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

NARROWEST, WIDEST = 24, 100  # columns: what is wider is hard to read
_BESIDE = 36  # columns that words beside a command need


class Layout(argparse.HelpFormatter):
    """Reflows the paragraphs of descriptions. Lines that begin with two spaces are examples: a command, and after two
    more spaces what it does. A usage may have several such lines."""

    def __init__(self, prog: str) -> None:
        columns = shutil.get_terminal_size().columns
        super().__init__(prog, max_help_position=27, width=max(NARROWEST, min(columns, WIDEST)))

    def start_section(self, heading: str | None) -> None:
        """As argparse does, of a heading that may take several lines."""
        super().start_section("\n".join(textwrap.wrap(heading, self._width - 1)) if heading else heading)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        blocks = [block.strip("\n").splitlines() for block in text.split("\n\n")]
        return "\n\n".join("\n".join(indent + line for line in _block(lines, width)) for lines in blocks)

    def _format_usage(self, usage: str | None, actions: object, groups: object, prefix: str | None) -> str:
        first, *others = str(usage).splitlines()
        lines = [f"  {line.strip()}" for line in (first, *others) if line.strip()]
        if len(lines) == 1:
            return "\n".join(textwrap.wrap(f"usage: {first}", self._width, subsequent_indent="  ")) + "\n\n"
        return "\n".join(["usage:", *_examples(lines, self._width)]) + "\n\n"


def _block(lines: Sequence[str], width: int) -> Iterable[str]:
    if all(line.startswith("  ") for line in lines):
        return _examples(lines, width)
    return textwrap.wrap(" ".join(line.strip() for line in lines), width)


def _examples(lines: Sequence[str], width: int) -> Iterator[str]:
    pairs = [(command, says.strip()) for command, _, says in (line.strip().partition("  ") for line in lines)]
    left = 2 + max(len(command) for command, _ in pairs) + 3
    wrap = partial(textwrap.wrap, break_on_hyphens=False)
    for command, says in pairs:
        begin = f"  {command}".ljust(left)
        if not says:
            yield begin.rstrip()
        elif width - left >= _BESIDE:
            yield from wrap(says, width, initial_indent=begin, subsequent_indent=" " * left)
        else:
            yield from wrap(command, width, initial_indent="  ", subsequent_indent="    ")
            yield from wrap(says, width, initial_indent="      ", subsequent_indent="      ")
