"""Model files with something wrong in them: damaged bytes, strange messages; and child processes that read them.

`mutant` makes one from a file and a seed; `Runner` says what onnxfold does with it, also if the interpreter dies of it.
"""

from .damage import mutated
from .runner import Result, Runner
from .strange import mutate
from .variety import DATA, mutant

__all__ = ["DATA", "Result", "Runner", "mutant", "mutate", "mutated"]
