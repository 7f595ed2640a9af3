"""What steps ask of the tensors that they take."""

from __future__ import annotations

from ..builder import Tensor


def any_tensor(x: Tensor) -> bool:
    return True


def image(x: Tensor) -> bool:
    """[batch, channels, height, width]"""
    return x.rank == 4 and x.channel == 1


def large_image(x: Tensor) -> bool:
    """An image whose pixels a 3 x 3 kernel finds without padding."""
    return image(x) and min(x.spatial) >= 3


def first(x: Tensor) -> bool:
    """Channels on axis 1, and something behind them."""
    return x.rank >= 3 and x.channel == 1


def last(x: Tensor) -> bool:
    """Channels on the last axis."""
    return x.channel == x.rank - 1


def long(x: Tensor) -> bool:
    """[batch, places, channels], or the same with more axes of places."""
    return last(x) and x.rank >= 3


def vector(x: Tensor) -> bool:
    """[batch, channels]"""
    return x.rank == 2
