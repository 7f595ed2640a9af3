"""The compiled core, also when the package runs from a source tree beside its installation.

``python -m onnxfold`` in a checkout imports the checkout, whose core is compiled only into the installation.
"""

from importlib.metadata import PackageNotFoundError, distribution

from .. import folding

try:
    from onnxfold.folding import _core as core
except ImportError:
    try:
        folding.__path__.append(str(distribution("onnxfold").locate_file("onnxfold/folding")))
    except PackageNotFoundError:
        raise ImportError("onnxfold is not installed: run `pip install .` in its folder first") from None
    from onnxfold.folding import _core as core

__all__ = ["core"]
