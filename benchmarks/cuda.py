"""Before and after on an NVIDIA GPU, in float32 and float16; on the CPU alone where there is none.

    python benchmarks/cuda.py [--models NAME ...] [--macs 0.7] [--effort fast] [--rounds 50]

Every network is folded with widths for Tensor Cores (`--device cuda-fp16`), stored in float16 before and after, and
timed at batch 1, in turn, on every provider that there is. Then the original and the fold are compared on CUDA, as the
tool's own check does. Rows of a provider that is not there are left out, and that is said.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import onnx
from latency import ratio
from nets import options, parsed

import onnxfold
from onnxfold.errors import ExecutionError, OnnxFoldError
from onnxfold.model.model import load
from onnxfold.passes.quantization.half import in_half
from onnxfold.runtime.probe_inputs import index_limits, probe
from onnxfold.runtime.session import SHORT, Session, crashes, resolve_providers

NETWORKS = (
    "cifar10_resnet56_bn", "cifar10_resnet18w32_bn", "imagenet_mobilenetv2_1.0_224", "imagenet_squeezenet10_dc_fused",
    "cifar10_vit_d128_l6_fused",
)  # fmt: skip


def there() -> list[str]:
    """The providers to measure on; says where there is no CUDA."""
    found = resolve_providers(None)
    if SHORT["cuda"] not in found:
        print("no CUDA here: its rows are left out (install onnxruntime-gpu on a machine with an NVIDIA GPU)")
    return found


def crashed(proto: onnx.ModelProto, provider: str) -> bool:
    """Whether a model would end this process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(proto, path)
        return crashes(path, provider)


def rows(name: str, before: onnx.ModelProto, after: onnx.ModelProto, provider: str, rounds: int) -> None:
    """Latency after over before, in float32 and in float16."""
    limits = index_limits(load(before).graph)
    for kind, pair in (("float32", (before, after)), ("float16", (in_half(before), in_half(after)))):
        if any(crashed(proto, provider) for proto in pair):
            print(f"{name:34}{provider:24}{kind:9} onnxruntime crashes when it loads this", flush=True)
            continue
        try:
            old, new = (Session(proto.SerializeToString(), provider) for proto in pair)
            feeds = probe(old.inputs, batch=1, limits=limits)
            print(f"{name:34}{provider:24}{kind:9}{ratio(old, new, feeds, rounds):7.2f}", flush=True)
        except ExecutionError as error:
            print(f"{name:34}{provider:24}{kind:9} {error!s:.80}", flush=True)


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--models", nargs="+", default=list(NETWORKS))
    parser.add_argument("--macs", type=float, default=0.7)
    parser.add_argument("--effort", default="fast")
    parser.add_argument("--rounds", type=int, default=50)
    asked = parsed(parser)
    providers = there()
    print(f"{'':34}{'':24}{'':9}latency")
    for name in asked.models:
        path = asked.data / "models" / f"{name}.onnx"
        try:
            made = onnxfold.fold(path, target_macs=asked.macs, effort=asked.effort, device="cuda-fp16", latency=False)
        except OnnxFoldError as error:
            print(f"{name:34}{error}")
            continue
        for provider in providers:
            rows(name, onnx.load(path), made.model, provider, asked.rounds)
        check = onnxfold.compare(path, made.model, providers=providers, latency=False).check
        for done in () if check is None else check.providers:
            worst = max((one.relative_l2 for one in done.outputs), default=float("nan"))
            print(f"{name:34}{done.provider:24}check    {done.status}, error {100 * worst:.1f} %", flush=True)


if __name__ == "__main__":
    sys.exit(main())
