"""Whether a verdict can be trusted: the error that a run claims beside the error on real inputs that nothing has seen.

    python benchmarks/trust.py [--models NAME ...] [--jsonl FILE] [--limit E ...]

Every network is folded without data, by default and with `--max-error 0.05`, and measured on real inputs (256 pictures,
texts or words). A claim is kept where the true error is at most 1.3 times the claim, or 1.3 times the limit. With
`--jsonl` a run goes on where it stopped, and every row is kept.
"""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from nets import net, options, parsed

import onnxfold
from onnxfold.errors import OnnxFoldError
from onnxfold.evaluation.candidates import Evaluator
from onnxfold.model.model import Model, load
from onnxfold.options.budget import DEFAULT_MAX_ERROR
from onnxfold.runtime.session import Feeds, Session

ALLOWED = 1.3  # times the claim, or the limit
COUNT = 256
CLASSIFIERS = (
    "cifar10_resnet20_bn", "cifar10_resnet20_fused", "cifar10_resnet56_fused", "cifar10_simpnet300k_fused",
    "cifar10_densenet40_12_bn", "cifar10_squeezenet_bn", "cifar10_resnet18w32_bn", "cifar10_resnet_6blk_mlperftiny",
    "cifar10_vit_d128_l6_fused", "vit_2_6_cifar10", "vnn_resnet_2b", "vnn_cifar_wide_kw",
    "imagenet_mobilenetv1_0.5_160", "imagenet_mobilenetv2_1.0_224", "imagenet_squeezenet10_dc_fused",
)  # fmt: skip
DETECTORS = {"ultraface_RFB320": (127.0, 128.0, False), "retinaface_mbnet0.25": (117.0, 1.0, True)}  # less, over, BGR
LANGUAGE = "stories260K_dynamo"
LARGER = ("effnet_lite0", "minilm_l6", "ppocr4_rec")
ALL = (*CLASSIFIERS, *DETECTORS, LANGUAGE, *LARGER)


def real(data: Path, name: str, model: Model) -> list[Feeds]:
    """Real inputs that nothing has seen."""
    if name in LARGER:
        return _cut(_larger(data, name), 16)
    if name == LANGUAGE:
        with np.load(data / "language" / "stories_test.npz") as texts:
            return _cut({Session.of(model).inputs[0].name: next(iter(texts.values()))[:, :64].astype(np.int64)}, 16)
    source = Session.of(model).inputs[0]
    step = source.shape[0] if isinstance(source.shape[0], int) else 64
    if name in DETECTORS:
        sides = [side if isinstance(side, int) else 128 for side in source.shape[2:]]
        return _cut({source.name: _photographs(data, sides, *DETECTORS[name])}, step)
    return _cut({source.name: net(data, name, COUNT).images}, step)


def _cut(feeds: Feeds, step: int) -> list[Feeds]:
    count = min(COUNT, *(len(x) for x in feeds.values()))
    return [{n: x[a : a + step] for n, x in feeds.items()} for a in range(0, count - step + 1, step)]


def _larger(data: Path, name: str) -> Feeds:
    """The inputs of larger/evaluate.py."""
    spec = importlib.util.spec_from_file_location("evaluate", data / "larger" / "evaluate.py")
    assert spec is not None and spec.loader is not None
    theirs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(theirs)
    if name == "effnet_lite0":
        x, _, calibrating = theirs.photographs()
        return {"image": x[~calibrating]}
    made: Feeds = theirs.tokens("test") if name == "minilm_l6" else theirs.words("test")[0]
    return made


def _photographs(data: Path, sides: list[int], less: float, over: float, blue_first: bool) -> Any:
    from PIL import Image

    files = sorted((data / "imagenet").glob("*.jpg"))[:64]
    size = (sides[1], sides[0])
    x = np.stack([np.asarray(Image.open(f).convert("RGB").resize(size), np.float32) for f in files])
    x = x[..., ::-1] if blue_first else x
    return np.ascontiguousarray(((x - less) / over).transpose(0, 3, 1, 2))


def row(data: Path, name: str, limit: float | None) -> dict[str, Any]:
    """One run: what it claims, and what is true."""
    folder = data / ("larger" if name in LARGER else "models")
    path, begin = folder / f"{name}.onnx", time.perf_counter()
    found: dict[str, Any] = {"model": name, "limit": limit}
    try:
        result = onnxfold.fold(path, max_error=limit, latency=False)
    except OnnxFoldError as error:
        return {**found, "said": str(error), "seconds": time.perf_counter() - begin}
    report, model = result.report, load(path)
    assert report.after is not None and report.check is not None and report.check.quality is not None
    quality, feeds = report.check.quality, real(data, name, model)
    truly = Evaluator(model, lambda _: feeds)
    return {
        **found, "claim": quality.error, "inputs": quality.inputs, "mark": str(report.check.mark),
        "true": truly.error(result.model), "agreement": truly.agreement(result.model),
        "macs": report.after.macs / max(1, report.before.macs),
        "parameters": report.after.parameters / report.before.parameters, "seconds": time.perf_counter() - begin,
    }  # fmt: skip


def kept(one: dict[str, Any]) -> bool:
    """Whether a claim is to be trusted: nothing was written, the mark said so, or the true error is near the claim."""
    if "claim" not in one:
        return True
    allowed = max(one["claim"], one["limit"] or DEFAULT_MAX_ERROR)
    return bool(one["true"] <= ALLOWED * allowed)


def table(rows: Iterable[dict[str, Any]]) -> Iterable[str]:
    """The rows in Markdown."""
    yield "| network | limit | claim | true | true / claim | MACs left | parameters left | mark |"
    yield "|---|---|---|---|---|---|---|---|"
    for one in rows:
        limit = one["limit"] or DEFAULT_MAX_ERROR
        if "claim" not in one:
            yield f"| {one['model']} | {limit:g} | not folded | | | | | |"
            continue
        ratio = one["true"] / one["claim"] if one["claim"] else float("nan")
        yield (
            f"| {one['model']} | {limit:g} | {one['claim']:.3f} | {one['true']:.3f} | {ratio:.2f} | "
            f"{one['macs']:.2f} | {one['parameters']:.2f} | {one['mark']} |"
        )


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--models", nargs="+", default=list(ALL))
    parser.add_argument("--limit", nargs="+", type=float, default=[DEFAULT_MAX_ERROR, 0.05])
    parser.add_argument("--jsonl", type=Path)
    asked = parsed(parser)
    rows = list[dict[str, Any]]()
    if asked.jsonl is not None and asked.jsonl.exists():
        rows = [json.loads(line) for line in asked.jsonl.read_text().splitlines()]
    there = {(one["model"], one["limit"]) for one in rows}
    for name in asked.models:
        for limit in asked.limit:
            wanted = None if limit == DEFAULT_MAX_ERROR else limit
            if (name, wanted) in there:
                continue
            rows.append(row(asked.data, name, wanted))
            print(json.dumps(rows[-1]), flush=True)
            if asked.jsonl is not None:
                with asked.jsonl.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    print("\n".join(table(rows)))
    for limit in (None, 0.05):
        mine = [one for one in rows if one["limit"] == limit]
        folded = sum("claim" in one for one in mine)
        print(
            f"limit {limit or DEFAULT_MAX_ERROR:g}: {sum(map(kept, mine))} of {len(mine)} to be trusted, {folded} fold"
        )


if __name__ == "__main__":
    main()
