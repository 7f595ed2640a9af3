"""The core: compiled (`_core`) where it is, else in Python (`pure`), with the same results.

``python -m onnxfold`` in a checkout imports the checkout, whose core is compiled only into the installation: it is
looked for there too.
"""

from __future__ import annotations

from importlib.metadata import distribution
from typing import TYPE_CHECKING, Any, Protocol

from .. import folding

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Core(Protocol):
    """What both cores offer; see ``_core.pyi``."""

    def cluster(
        self, gram: NDArray[Any], k: int, seed: int, restarts: int, sweeps: int, perturbations: int, threads: int
    ) -> tuple[NDArray[Any], float, int]: ...

    def ward(self, gram: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]: ...


def _compiled() -> Core:
    """The compiled core. One that is there and does not load raises ImportError, none at all ModuleNotFoundError."""
    try:
        import onnxfold.folding._core as core
    except ModuleNotFoundError:
        folding.__path__.append(str(distribution("onnxfold").locate_file("onnxfold/folding")))
        import onnxfold.folding._core as core
    return core


def _found() -> tuple[Core, str]:
    """(the core, its name)."""
    try:
        return _compiled(), "C++"
    except ModuleNotFoundError:  # nor where onnxfold is installed, or it is not (PackageNotFoundError)
        from . import pure

        return pure, "Python (slower)"


core, NAME = _found()
"""What clusters, and in what language it is written."""
