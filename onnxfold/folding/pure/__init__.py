"""The core in Python and numpy, for machines where the compiled one could not be built: the same functions, the same
results to the last bit, more time.

Every file stands for the one of the same name in ``csrc/core/`` and does the same arithmetic in the same order, so an
edit of one is an edit of both; ``tests/folding/test_pure.py`` compares them.
"""

from .solve import cluster
from .solve import ward_merges as ward

__all__ = ["cluster", "ward"]
