"""Top-1 of folded networks before and after refinement, with synthetic inputs and with 512 real ones.

    python benchmarks/refine.py [--models NAME ...] [--rows ROW ...] [--inputs synthetic real] [--steps N]

Rows are those of recovery.py: "inner .50" keeps half of the channels in the inner group of every residual block, "MACs
.50" plans all groups for half of the MACs. The fold is the tool's own, recovery included; refinement starts from it.
The test images are not used for anything but the figures shown. `--store FILE` appends a JSON line for each.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nets import INNER, Net, net, options, parsed
from planned import planned

from onnxfold.options.budget import Aim, Budget
from onnxfold.options.choices import Effort
from onnxfold.passes.distillation.block_targets import Counterparts
from onnxfold.passes.distillation.channel_maps import maps_of
from onnxfold.passes.distillation.schedule import extent
from onnxfold.passes.distillation.train import TrainSettings, refine, refined
from onnxfold.progress import on_terminal

ROWS = {
    "cifar10_resnet20_bn": ("inner .75", "inner .50", "inner .25"),
    "cifar10_resnet56_bn": ("MACs .50",),
}
REAL = 512


def measured(real: Net, row: str, inputs: str, steps: int | None, effort: str) -> dict[str, Any]:
    """One row: top-1 before and after, and how refinement went."""
    kind, share = row.split()
    inner = kind == "inner"
    own = real.unlabeled if inputs == "real" else None
    given = {"calibration": own, "samples": REAL, "include": [INNER] if inner else [], "round_to": 1, "effort": effort}
    with planned(real.path, on_terminal, training=True, **given) as work:
        model, samples = work.model, work.samples
        assert samples is not None
        begin = time.perf_counter()
        folded = work.decide(Budget(Aim.RATIO, 1 - float(share)) if inner else Budget(Aim.MACS, float(share)))
        took = time.perf_counter() - begin
        pairs = Counterparts(maps_of(work.analysis, folded.merges))
    done, batch = extent(model, Effort(effort), None, steps)
    result = refine(model, folded.proto, samples, TrainSettings(done, batch), pairs, on_terminal)
    after = refined(folded.proto, result.arrays, None) if result.improved else folded.proto
    return {
        "network": real.name, "row": row, "inputs": inputs, "samples": sum(map(_length, samples.fit)),
        "steps": len(result.losses), "batch": batch, "blocks": result.blocks, "folded": real.top1(folded.proto),
        "refined": real.top1(after), "error before": result.before, "error after": result.after, "note": result.note,
        "seconds to fold": round(took), "seconds to refine": round(result.seconds),
    }  # fmt: skip


def _length(feed: Any) -> int:
    return len(next(iter(feed.values())))


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--models", nargs="+", default=list(ROWS))
    parser.add_argument("--rows", nargs="+", help="only these")
    parser.add_argument("--inputs", nargs="+", choices=["synthetic", "real"], default=["synthetic", "real"])
    parser.add_argument("--steps", type=int, help="of refinement (default: by effort)")
    parser.add_argument("--effort", default="balanced")
    parser.add_argument("--store", type=Path, help="a file to append the figures to, a JSON object a line")
    asked = parsed(parser)
    print(f"{'':20}{'':10}{'inputs':>10}{'steps':>7}{'folded':>8}{'refined':>9}{'error':>16}{'seconds':>9}")
    for name in asked.models:
        real = net(asked.data, name, asked.images, REAL)
        for row in _rows(name, asked.rows):
            for inputs in asked.inputs:
                one = measured(real, row, inputs, asked.steps, asked.effort)
                errors = f"{one['error before']:.3f} -> {one['error after']:.3f}"
                print(
                    f"{name.split('_', 1)[1]:20}{row:10}{inputs:>10}{one['steps']:>7}{one['folded']:>8.2f}"
                    f"{one['refined']:>9.2f}{errors:>16}{one['seconds to refine']:>9} {one['note']}",
                    flush=True,
                )
                if asked.store:
                    with asked.store.open("a") as file:
                        file.write(json.dumps(one) + "\n")


def _rows(name: str, only: Sequence[str] | None) -> list[str]:
    return [row for row in ROWS.get(name, ("MACs .50",)) if not only or row in only]


if __name__ == "__main__":
    main()
