"""Recovery of the same network, said in plain and in fused operators, gives the same result."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from transformer import NETS, Draw, Kind, Style, build, feeds

import onnxfold
from onnxfold.recovery import reconstruct as refit
from onnxfold.runtime.session import Session

SAME = 1e-4  # relative L2 of outputs, of models folded from activations that differ by 1e-6. Measured up to 1e-5
APART = 1e-3  # what branches that do not see their sum change. Measured 4e-3 and more


def recovered(net: str, style: Style, layers: int) -> NDArray[np.float32]:
    config = replace(NETS[net], layers=layers)
    proto = build(config, style).model(Draw(Kind.RANDOM))

    given = feeds(proto, config, 8, seed=3)
    done = onnxfold.fold(
        proto, ratio=0.5, round_to=1, latency=False, calibration=given, method="fold", recovery="least-squares",
        include=["mlp|intermediate"],
    )  # fmt: skip
    session = Session(done.model.SerializeToString())
    return session.run({i.name: given[i.name] for i in session.inputs})[0]


# one layer where biases of the next projections, or these themselves, are inside its attention, out of reach
@pytest.mark.parametrize(("net", "layers"), [("bert", 1), ("vit", 1), ("llama2", 2), ("llama3", 2), ("geglu", 2)])
def test_recovered_alike_in_both_styles(net: str, layers: int) -> None:
    plain, fused = (recovered(net, style, layers) for style in (Style.DECOMPOSED, Style.FUSED))
    assert np.linalg.norm(plain - fused) < SAME * np.linalg.norm(plain)


@pytest.mark.parametrize(("net", "layers"), [("llama2", 2), ("llama3", 2)])
def test_a_sum_that_is_not_seen_would_show(net: str, layers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = recovered(net, Style.DECOMPOSED, layers)
    monkeypatch.setattr(refit._Seen, "_sums", lambda *_: None)
    fused = recovered(net, Style.FUSED, layers)
    assert np.linalg.norm(plain - fused) > APART * np.linalg.norm(plain)
