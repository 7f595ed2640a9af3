"""Writes the ONNX file of a transformer as exporters would (topology, names), of any size, in little memory.

    python benchmarks/write_transformer.py --family llama2-7b --style decomposed --dtype float16 OUT.onnx
    python benchmarks/write_transformer.py --family gpt2 --style fused --layers 2 --weights random OUT.onnx

Weights are drawn, not learned: `alike` (of low rank, neurons and heads in pairs, and noise, so that folding has
something to find) or `random`. They go to OUT.onnx.data, slab by slab. The same seed gives the same bytes, and the same
network in every style.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from onnx import TensorProto, helper
from transformer import PRESETS, Draw, Kind, Style, build

DTYPES = {
    name: TensorProto.DataType.Value(name.upper().removesuffix("32")) for name in ("float32", "float16", "bfloat16")
}
SIZES = ("layers", "hidden", "heads", "kv_heads", "head_dim", "mlp", "vocabulary", "positions", "experts")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--family", choices=PRESETS, required=True)
    parser.add_argument("--style", choices=[style.value for style in Style], default=Style.DECOMPOSED.value)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--weights", choices=[kind.value for kind in Kind], default=Kind.ALIKE.value)
    parser.add_argument("--noise", type=float, default=0.1, help="of alike weights, relative (default: 0.1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiny", action="store_true", help="two small layers")
    for size in SIZES:
        parser.add_argument(f"--{size.replace('_', '-')}", type=int, help="in place of the published size")
    asked = parser.parse_args()
    config = PRESETS[asked.family].tiny() if asked.tiny else PRESETS[asked.family]
    try:
        config = replace(config, **{size: getattr(asked, size) for size in SIZES if getattr(asked, size) is not None})
    except ValueError as error:
        parser.error(str(error))
    begin = time.perf_counter()
    network = build(config, Style(asked.style), helper.tensor_dtype_to_np_dtype(DTYPES[asked.dtype]))
    network.write(asked.output, Draw(Kind(asked.weights), asked.seed, noise=asked.noise))
    size = sum(stored.nbytes for stored in network.stored.values())
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{asked.output}: {size / 1e9:.2f} GB in {time.perf_counter() - begin:.0f} s, {most:.0f} MB at most")
    return 0


if __name__ == "__main__":
    sys.exit(main())
