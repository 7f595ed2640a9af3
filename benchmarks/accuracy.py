"""Top-1 on 2,000 CIFAR-10 test images after folding and pruning real ResNets, without any data.

    python benchmarks/accuracy.py [--data ../shared/data] [--images 2000] [--ratios .1 .25 .5] [--models NAME ...]

Every figure comes from this one run: plain fold, fold with closed-form recovery (Fold-AR where BatchNormalization is in
the graph, variance correction where it was fused), L1 and L2 pruning at the same widths (`--round-to 1`); once with the
inner groups of the residual blocks only, once with all groups. Needs the data folder described in the README.
"""

from __future__ import annotations

import time

import onnx
from nets import INNER, net, options, parsed

import onnxfold

MODELS = ("cifar10_resnet20_bn", "cifar10_resnet56_bn", "cifar10_resnet20_fused", "cifar10_resnet56_fused")
METHODS = {
    "plain fold": {"method": "fold", "recovery": "none"},
    "closed form": {"method": "fold", "recovery": "closed-form"},
    "L1": {"method": "prune-l1", "recovery": "none"},
    "L2": {"method": "prune-l2", "recovery": "none"},
}


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.1, 0.25, 0.5])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    asked = parsed(parser)
    print(f"{'':24}{'groups':8}{'ratio':>6}{'params':>8}" + "".join(f"{name:>13}" for name in METHODS))
    for name in asked.models:
        real = net(asked.data, name, asked.images)
        print(f"{name:24}dense{'':17}{real.top1(onnx.load(real.path)):>13.2f}", flush=True)
        for groups, include in (("inner", [INNER]), ("all", [])):
            for ratio in asked.ratios:
                row, share, begin = "", 1.0, time.perf_counter()
                for how in METHODS.values():
                    result = onnxfold.fold(real.path, ratio=ratio, round_to=1, include=include, latency=False, **how)
                    row += f"{real.top1(result.model):>13.2f}"
                    assert result.report.after is not None
                    share = result.report.after.parameters / result.report.before.parameters
                seconds = time.perf_counter() - begin
                print(f"{name:24}{groups:8}{ratio:>6.2f}{share:>8.2f}{row}   ({seconds:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
