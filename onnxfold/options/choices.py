"""The choices that have names: how channels are chosen, merges repaired, layers compared, time spent."""

from __future__ import annotations

from enum import Enum

from ..compat import StrEnum


class Clusterer(Enum):
    """Who does the clustering."""

    NATIVE = "native"
    """The compiled core: Hartigan's k-means in Gram space."""

    SKLEARN = "sklearn"
    """scikit-learn's KMeans with ten restarts: the reference, much slower."""


class Method(Enum):
    """How channels are chosen."""

    AUTO = "auto"
    """With samples, for groups whose consumers are linear, second-order selection; with the user's own, merging where
    that leaves less measured error. Else folding."""

    SECOND_ORDER = "second-order"
    """Those go whose consumers can be refitted with the least error (block Optimal Brain Surgeon; needs samples)."""

    FUNCTIONAL_FOLD = "functional-fold"
    """k-means clusters of what channels do for their consumers on samples are merged."""

    FOLD = "fold"
    """k-means clusters of weights are merged."""

    PRUNE_L1 = "prune-l1"
    """Channels with the smallest sum of absolute producing weights are dropped."""

    PRUNE_L2 = "prune-l2"
    """Channels with the smallest producing weights by Euclidean norm are dropped."""

    @property
    def needs_samples(self) -> bool:
        """Whether it means nothing without samples."""
        return self in (Method.SECOND_ORDER, Method.FUNCTIONAL_FOLD)

    @property
    def prunes_by_weights(self) -> bool:
        """Whether channels are dropped by the size of their weights."""
        return self in (Method.PRUNE_L1, Method.PRUNE_L2)


class Distance(Enum):
    """How the distance of two layers is measured."""

    EUCLIDEAN = "euclidean"
    MANHATTAN = "manhattan"
    COSINE = "cosine"
    CKA = "cka"
    COVARIANCE = "covariance"
    SPECTRUM = "spectrum"
    KL = "kl"
    WASSERSTEIN = "wasserstein"
    EARTH_MOVER = "earth-mover"

    ACTIVATIONS = "activations"
    """Linear CKA between what the layers give; needs samples."""

    REFIT = "refit"
    """The error that one weight for both leaves at their outputs after least squares; needs samples."""

    @property
    def sampled(self) -> bool:
        """Whether it needs samples, not weights alone."""
        return self in (Distance.ACTIVATIONS, Distance.REFIT)

    @property
    def scale(self) -> str:
        """How to read it, for people."""
        if self in (Distance.EUCLIDEAN, Distance.WASSERSTEIN):
            return "0 is equal, 1 unrelated, 1.41 opposite"
        if self is Distance.COSINE:
            return "0 is equal, 1 unrelated, 2 opposite"
        if self is Distance.REFIT:
            return "0: one weight can serve both without an error"
        return "0 is equal, with no upper limit" if self is Distance.KL else "0 is equal, 1 the most"


DEFAULT_DISTANCE = Distance.WASSERSTEIN


class Fusion(Enum):
    """How the shared weight comes about (O'Neill, Ver Steeg, Galstyan, arXiv 2007.14917)."""

    MEAN = "mean"
    """The mean of the layers' weights."""

    MIX = "mix"
    """Every number from one of the layers, by lot."""

    FREEZE = "freeze"
    """One layer's weights serve all: the one nearest to the others."""


class Recovery(Enum):
    """How much is repaired."""

    AUTO = "auto"
    """Least squares where samples can be had, else closed form."""

    NONE = "none"
    """The plain merge."""

    CLOSED_FORM = "closed-form"
    """From weights alone: Fold-AR where BatchNormalization is in the graph, else variance correction."""

    STATISTICS = "statistics"
    """With samples: means and variances of what the consumers give are restored (REPAIR)."""

    LEAST_SQUARES = "least-squares"
    """With samples: the consumers are refitted to the original's outputs."""


class Effort(Enum):
    """How much time may be spent."""

    FAST = "fast"
    """Seconds: weights only, no samples."""

    BALANCED = "balanced"
    """A few minutes at most: up to 512 synthetic samples, or the user's."""

    BEST = "best"
    """The same, descending up to ten times as long."""


class Quantization(StrEnum):
    """How the numbers of a result are stored; the values are those of reports."""

    INT8 = "int8"
    """Weights and activations in 8 bits, ranges of activations from samples (static)."""

    DYNAMIC = "int8-dynamic"
    """Weights of matrix products in 8 bits; ranges of activations are found anew in every run."""

    WEIGHTS8 = "int8-weights"
    """Weights alone in 8 bits, activations stay floats."""

    WEIGHTS4 = "int4"
    """Weights alone in 4 bits, activations stay floats."""

    HALF = "fp16"
    """Weights and activations in float16; inputs and outputs keep their types."""

    @property
    def sampled(self) -> bool:
        """Whether it needs samples."""
        return self is Quantization.INT8

    @property
    def label(self) -> str:
        """What people call it."""
        return _LABELS[self]


_LABELS = {
    Quantization.INT8: "INT8", Quantization.DYNAMIC: "dynamic INT8", Quantization.WEIGHTS8: "INT8 weights",
    Quantization.WEIGHTS4: "INT4 weights", Quantization.HALF: "float16",
}  # fmt: skip


class Step(StrEnum):
    """A step that a search for the best chain may take; the values are those of reports."""

    FOLD = "fold"
    """Channels are merged or removed."""

    REFINE = "refine"
    """A fold is trained on what the original says."""

    INT8 = "int8"
    DYNAMIC = "int8-dynamic"
    WEIGHTS8 = "int8-weights"
    WEIGHTS4 = "int4"
    HALF = "fp16"
    """These are kinds of `Quantization`."""

    SHARE = "share"
    """Layers share weights."""

    DROP = "drop"
    """Residual blocks go."""


METRIC_TIMEOUT = 600.0  # seconds that the user's own measure may take for one model, by default
LATENCY_TIMEOUT = 300.0  # seconds that a command that measures latency may take for one model, by default
SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4)  # of the MACs, by default
