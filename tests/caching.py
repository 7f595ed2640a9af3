"""Which transformers of the tests have key-value caches."""

from __future__ import annotations

from transformer import Config, Style

CACHED = (Style.OPSET23_3D, Style.FUSED)  # LLaMA with keys and values among inputs and outputs: their heads are kept


def cached(config: Config, style: Style) -> bool:
    """Whether keys and values are among the inputs and outputs."""
    return config.cache or (config.gated and style in CACHED)
