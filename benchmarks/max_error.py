"""Whether `--max-error` keeps its promise: the error of folded models on inputs that no step has seen.

    python benchmarks/max_error.py [--models NAME ...] [--max-error 0.1] [--effort balanced]

Fresh inputs are made like those that decided, with another seed: by deep inversion with `balanced`, random with `fast`
and where inversion is not possible. Where there are real images, the error on 256 of them stands beside.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from nets import net, options, parsed

import onnxfold
from onnxfold.calibration.samples import synthetic_extent
from onnxfold.calibration.synthetic.synthesize import Extent, synthesize
from onnxfold.errors import OnnxFoldError
from onnxfold.evaluation.candidates import Evaluator
from onnxfold.model.model import Model, load
from onnxfold.model.save import inline
from onnxfold.options.choices import Effort
from onnxfold.runtime.probe_inputs import DESCRIPTION, index_limits, probe
from onnxfold.runtime.session import Feeds, Session

MODELS = (
    "cifar10_resnet20_bn", "cifar10_resnet20_fused", "cifar10_resnet20_dynamo", "cifar10_resnet32pool_bn",
    "cifar10_resnet18w32_bn", "cifar10_simpnet300k_bn", "cifar10_simpnet300k_fused", "cifar10_squeezenet_bn",
    "cifar10_resnet_6blk_mlperftiny", "kws_dscnn_mlperftiny", "mnist8_cntk", "mnist_pytorch_original", "oww_embedding",
    "qonnx_espcn_subpixel_float", "simple_cnn", "super_resolution_zoo", "ultraface_RFB320", "vnn_cifar10_large",
    "vnn_cifar_wide_kw", "vnn_resnet_2b", "vnn_mnist-net_256x6",
)  # fmt: skip
FRESH = 32  # samples
ALLOWED = 1.3  # times the budget


def fresh(model: Model, effort: str, described: str) -> list[Feeds]:
    """Inputs that no step has seen, of the kind `described`."""
    session = Session(inline(model.proto, model.folder).SerializeToString())
    if effort == "fast" or described == DESCRIPTION:
        return [probe(session.inputs, batch=FRESH, seed=7, limits=index_limits(model.graph))]
    extent = synthetic_extent(model, Effort(effort), None)
    made = synthesize(model, Extent(count=FRESH, steps=extent.steps, seconds=extent.seconds), seed=7)
    if made.apart:
        return [{name: x[i] for name, x in made.feeds.items()} for i in range(FRESH)]
    whole = next(iter(made.feeds.values()))
    one = session.inputs[0].shape[0] if isinstance(session.inputs[0].shape[0], int) else len(whole)
    return [{n: x[a : a + one] for n, x in made.feeds.items()} for a in range(0, len(whole) - one + 1, one)]


def real(data: Path, name: str) -> list[Feeds]:
    """256 real images, if there are any for this network."""
    if name not in json.loads((data / "models.json").read_text()):
        return []
    images = net(data, name, 256).images
    source = Session((data / "models" / f"{name}.onnx").read_bytes()).inputs[0]
    step = source.shape[0] if isinstance(source.shape[0], int) else 128
    return [{source.name: images[a : a + step]} for a in range(0, len(images), step)]


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--max-error", type=float, default=0.1)
    parser.add_argument("--effort", default="balanced")
    asked = parsed(parser)
    kept = count = 0
    print(f"{'':34}{'MACs':>6}{'said':>8}{'fresh':>8}{'real':>8}")
    for name in asked.models:
        path, begin = asked.data / "models" / f"{name}.onnx", time.perf_counter()
        how: dict[str, Any] = {"max_error": asked.max_error, "effort": asked.effort, "latency": False}
        try:
            result = onnxfold.fold(path, **how)
        except OnnxFoldError as error:
            print(f"{name:34}{error}", flush=True)
            continue
        report, model = result.report, load(path)
        assert report.after is not None and report.check is not None
        described = report.check.inputs
        assert report.check.worst is not None
        said = report.check.worst.relative_l2
        unseen = fresh(model, asked.effort, described)
        found = Evaluator(model, lambda _, feeds=unseen: feeds).error(result.model)
        images = real(asked.data, name)
        truly = Evaluator(model, lambda _, feeds=images: feeds).error(result.model) if images else None
        count, kept = count + 1, kept + (found <= ALLOWED * asked.max_error)
        left = report.after.macs / report.before.macs
        shown = "-" if truly is None else f"{truly:.3f}"
        print(
            f"{name:34}{left:>6.2f}{said:>8.3f}{found:>8.3f}{shown:>8}   {described} "
            f"({time.perf_counter() - begin:.0f} s)", flush=True,
        )  # fmt: skip
    print(f"within {ALLOWED} times {asked.max_error}: {kept} of {count}")


if __name__ == "__main__":
    main()
