"""Preparation of features (ai.onnx.ml): samples pass; features do where nothing of their number is in an attribute."""

from __future__ import annotations

from collections.abc import Iterator

from .facts import Fact, Tie
from .node_view import NodeView
from .pointwise import others, same_axes
from .table import Rule

LEARNING = "ai.onnx.ml"


def per_feature(n: NodeView) -> Iterator[Fact]:
    """Scaler and Imputer: with lists in attributes, one number for each feature, the features stay."""
    lists = ("offset", "scale", "imputed_value_floats", "imputed_value_int64s")
    if all(len(n.attr(name) or ()) <= 1 for name in lists):
        yield from same_axes(n.x(), n.y())
    else:
        yield from others(n.x(), n.y(), n.x().rank - 1)


def normalizer(n: NodeView) -> Iterator[Fact]:
    """The features of a sample are divided by their norm."""
    yield from others(n.x(), n.y(), n.x().rank - 1)


def binarizer(n: NodeView) -> Iterator[Fact]:
    """Every element alone."""
    yield from same_axes(n.x(), n.y())


def feature_vectorizer(n: NodeView) -> Iterator[Fact]:
    """Inputs side by side, as many features of each as an attribute says: these stay."""
    y = n.y()
    for x in n.inputs:
        if x is not None and x.rank == y.rank:
            yield Tie(x.axis(0), y.axis(0))


RULES = (
    Rule(per_feature, ("Scaler", "Imputer"), domain=LEARNING),
    Rule(normalizer, ("Normalizer",), domain=LEARNING),
    Rule(binarizer, ("Binarizer",), domain=LEARNING),
    Rule(feature_vectorizer, ("FeatureVectorizer",), domain=LEARNING),
)
