"""Writes the ONNX files that peers.py measures: architectures of torchvision, timm and transformers by name, with sizes
that make them small and random weights.

    VENV/bin/python benchmarks/peers_nets.py FOLDER [--only PATTERN] [--list]

Needs a Python with torch, torchvision, timm, transformers and onnxscript; onnxfold is not needed. Files that are there
are kept. What cannot be exported gets a text file that says why. Torch is imported only where a network is built.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import resource
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import tomllib

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, eq=False)
class Peer:
    """One architecture: the `library` that has it, its `name` there and its `kind`; `changes` to the library's defaults
    that make it small; the `side` of the images or the length of the text or sound it is traced with; `task`: which of
    the library's heads it has."""

    library: str
    name: str
    kind: str
    side: int
    changes: Mapping[str, Any] = field(default_factory=dict)
    task: str = ""
    dynamo: bool = False

    @property
    def key(self) -> str:
        """How results are filed."""
        return f"{self.library}/{self.name}" + (" (dynamo)" if self.dynamo else "")

    def path(self, folder: Path) -> Path:
        """Where its file is."""
        return folder / (re.sub(r"\W+", "_", self.key).strip("_") + ".onnx")


@dataclass(frozen=True)
class Limits:
    """What a process may take: `seconds` of the processor (four times as long in all) and `gigabytes` of memory."""

    seconds: int
    gigabytes: int

    def hold(self) -> None:
        """Bound this process."""
        resource.setrlimit(resource.RLIMIT_CPU, (self.seconds, self.seconds + 5))
        resource.setrlimit(resource.RLIMIT_DATA, (self.gigabytes << 30, self.gigabytes << 30))


def apart(work: Callable[[], None], limits: Limits) -> str:
    """Do `work` in a process forked from this one; '' or what went wrong, in a line."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)

    def child() -> None:
        limits.hold()
        try:
            work()
        finally:
            error = sys.exception()
            there.send("" if error is None else f"{type(error).__name__}: {error}")
            os._exit(0)  # the line is told: no traceback

    process = context.Process(target=child)
    process.start()
    told = here.recv() if here.poll(4 * limits.seconds) else None
    process.join(5)
    if told is None or process.exitcode is None or process.exitcode < 0:
        process.kill()
        return f"crashed, or took over {limits.seconds} s of the processor"
    return " ".join(told.split())[:300]


LISTS: Mapping[str, Any] = tomllib.loads((HERE / "peers.toml").read_text(encoding="utf-8"))
KINDS = {
    "MaskedLM": "encoder", "SequenceClassification": "encoder", "CausalLM": "decoder", "Seq2SeqLM": "encoder-decoder",
    "CTC": "audio", "AudioClassification": "audio", "SpeechSeq2Seq": "audio",
}  # fmt: skip
CONVOLUTIONAL = ("convnext", "convnextv2", "resnet", "regnet", "poolformer", "bit", "focalnet")
MASKS = {"CausalLM": "attention_mask", "SpeechSeq2Seq": "decoder_attention_mask"}  # else the tracer meets aten::diff
FIXED = ("mamba",)  # its loop over time is unrolled
BY_DYNAMO = (
    "torchvision/resnet18", "torchvision/mobilenet_v3_small", "torchvision/swin_t", "timm/convnext_atto",
    "timm/vit_tiny_patch16_224", "transformers/bert", "transformers/gpt2", "transformers/llama", "transformers/t5",
)  # fmt: skip


def peers() -> Iterator[Peer]:
    """All architectures, then some of them again by torch's newer exporter."""
    made = [*_images("torchvision"), *_images("timm"), *_transformers()]
    yield from made
    yield from (replace(one, dynamo=True) for one in made if one.key in BY_DYNAMO)


def _images(library: str) -> Iterator[Peer]:
    for kind, names in LISTS[library].items():
        for name, given in names.items():
            changes = {"side": given} if isinstance(given, int) else dict(given)
            yield Peer(library, name, kind, changes.pop("side"), changes)


def _transformers() -> Iterator[Peer]:
    sizes = LISTS["sizes"]
    both = {"text_config": sizes["words"], "vision_config": sizes["patches"]}
    for task, names in LISTS["transformers"].items():
        for name, given in names.items():
            like = {**sizes, "texts_and_images": both}.get(given.get("like"), {})
            changes = {**like, **{size: value for size, value in given.items() if size != "like"}}
            kind = "CNN" if name in CONVOLUTIONAL else KINDS.get(task, "vision")
            length = 1600 if task == "CTC" else 64 if "Image" in task else 12
            yield Peer("transformers", name, kind, length, changes, task=task)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the files go")
    parser.add_argument("--only", default="", metavar="PATTERN", help="those whose name it finds: 'timm/swin'")
    parser.add_argument("--list", action="store_true", help="print the names, write nothing")
    parser.add_argument("--seconds", type=int, default=120, help="of the processor for a network (default: 120)")
    parser.add_argument("--gigabytes", type=int, default=6, help="of memory for a network (default: 6)")
    asked = parser.parse_args()
    chosen = [peer for peer in peers() if re.search(asked.only, peer.key)]
    if asked.list:
        print(*(peer.key for peer in chosen), sep="\n")
    else:
        asked.folder.mkdir(parents=True, exist_ok=True)
        export_all([peer for peer in chosen if not peer.path(asked.folder).exists()], asked)
    return 0


def export_all(chosen: list[Peer], asked: argparse.Namespace) -> None:
    """Export each in a process of its own, forked from one that has imported torch."""
    sys.path[:] = [place for place in sys.path if Path(place or ".").resolve() != HERE]  # transformers.py is there too
    torch = import_module("torch")

    torch.set_num_threads(1)
    for library in dict.fromkeys(peer.library for peer in chosen):
        import_module(library)
    for peer in chosen:
        path = peer.path(asked.folder)
        half = path.with_suffix(".part")
        wrong = apart(partial(export, peer, half), Limits(asked.seconds, asked.gigabytes))
        if wrong:
            half.unlink(missing_ok=True)
            path.with_suffix(".txt").write_text(wrong + "\n", encoding="utf-8")
        else:
            half.rename(path)
            path.with_suffix(".txt").unlink(missing_ok=True)
        print(f"{peer.key:52}  {wrong or 'written'}", flush=True)


def export(peer: Peer, path: Path) -> None:
    """Build an architecture with random weights, and write it as ONNX."""
    torch = import_module("torch")

    torch.manual_seed(0)
    build = {"torchvision": _torchvision, "timm": _timm, "transformers": _transformer}[peer.library]
    network, inputs, axes = build(peer)
    network.eval()
    _spread(network)
    names = {"input_names": list(inputs), "output_names": ["y"], "opset_version": 18}
    with torch.no_grad():
        if peer.dynamo:
            torch.onnx.export(network, tuple(inputs.values()), path, dynamo=True, external_data=False, **names)
        else:
            torch.onnx.export(network, tuple(inputs.values()), path, dynamo=False, dynamic_axes=axes, **names)


def _spread(network: Any) -> None:
    """Weights as of a trained network: none so small that a mistake in it would not show, norms and their statistics
    all different."""
    torch = import_module("torch")

    for weight in network.parameters():
        if weight.ndim > 1:
            weight.data.normal_(0, max(1, weight[0].numel()) ** -0.5)
        else:
            tiny = (weight.data != 0) & (weight.data.abs() < 0.05)  # layer scales
            weight.data = torch.where(tiny, 0.5, weight.data) + 0.1 * torch.randn_like(weight)
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.data = 0.1 * torch.randn_like(buffer)
        elif name.endswith("running_var"):
            buffer.data = 0.5 + torch.rand_like(buffer)


def _torchvision(peer: Peer) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    torch, models = import_module("torch"), import_module("torchvision").models

    places = (models, models.segmentation, models.detection, models.video)
    make = next(getattr(place, peer.name) for place in places if hasattr(place, peer.name))
    extra: dict[str, Any] = {"weights": None}
    if peer.kind == "dense":
        extra["weights_backbone"] = None
    if peer.name in ("googlenet", "inception_v3"):
        extra |= {"aux_logits": False, "init_weights": False}
    if peer.name == "vit_b_16":
        network = models.VisionTransformer(patch_size=16, **peer.changes)
    elif peer.name.startswith("swin"):
        block = models.swin_transformer.SwinTransformerBlockV2 if "v2" in peer.name else None
        merging = models.swin_transformer.PatchMergingV2 if "v2" in peer.name else models.swin_transformer.PatchMerging
        parts = {"block": block, "downsample_layer": merging}
        given = {name: part for name, part in parts.items() if part is not None}
        network = models.SwinTransformer(patch_size=[4, 4], window_size=[4, 4], **peer.changes, **given)
    else:
        network = make(**extra)
    shape = (1, 3, 8, peer.side, peer.side) if peer.kind == "video" else (1, 3, peer.side, peer.side)
    axes = {} if "rcnn" in peer.name or "ssd" in peer.name else {"x": {0: "batch"}}
    return _first(network), {"x": torch.randn(shape)}, axes


def _timm(peer: Peer) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    torch, timm = import_module("torch"), import_module("timm")

    timm.layers.set_fused_attn(False)
    timm.layers.set_exportable(True)
    network = timm.create_model(peer.name, pretrained=False, **peer.changes)
    return network, {"x": torch.randn(1, 3, peer.side, peer.side)}, {"x": {0: "batch"}}


def _transformer(peer: Peer) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    torch, transformers = import_module("torch"), import_module("transformers")

    task = peer.task
    config = transformers.AutoConfig.for_model(peer.name, **peer.changes)
    config.use_cache = False
    auto = getattr(transformers, f"AutoModelFor{task}")
    try:
        network = auto.from_config(config, attn_implementation="eager")
    except (TypeError, ValueError):
        network = auto.from_config(config)
    words = torch.randint(3, 300, (2, peer.side)) if "LM" in task or task == "SequenceClassification" else None
    inputs: dict[str, Any] = {}
    axes: dict[str, Any] = {}
    if words is not None:
        inputs["input_ids"] = words
        if task == "Seq2SeqLM":
            inputs["decoder_input_ids"] = words[:, :8].clone()
        if peer.name not in FIXED:
            axes = {name: {0: "batch", 1: f"{name}_length"} for name in inputs}
    elif task == "CTC":
        inputs, axes = {"input_values": torch.randn(1, peer.side)}, {"input_values": {0: "batch"}}
    elif task == "AudioClassification":
        inputs, axes = {"input_values": torch.randn(1, 64, 32)}, {"input_values": {0: "batch"}}
    elif task == "SpeechSeq2Seq":
        shape = (1, 16, 64) if peer.name == "whisper" else (1, 64, 16)
        inputs = {"input_features": torch.randn(shape), "decoder_input_ids": torch.randint(3, 300, (1, 8))}
        axes = {"input_features": {0: "batch"}, "decoder_input_ids": {0: "batch", 1: "length"}}
    elif task == "ZeroShotImageClassification":
        inputs = {"input_ids": torch.randint(3, 300, (2, 12)), "pixel_values": torch.randn(1, 3, 64, 64)}
        axes = {"input_ids": {0: "texts", 1: "length"}, "pixel_values": {0: "batch"}}
    else:
        inputs, axes = {"pixel_values": torch.randn(1, 3, 64, 64)}, {"pixel_values": {0: "batch"}}
    return _first(network, tuple(inputs), MASKS.get(task, "")), inputs, axes


def _first(network: Any, names: tuple[str, ...] = (), mask: str = "") -> Any:
    """A network that gives only the first of the outputs (of a detector, all)."""
    torch = import_module("torch")

    def forward(self: Any, *arrays: Any) -> Any:
        given = dict(zip(names, arrays, strict=True)) if names else {}
        if mask:
            given[mask] = torch.ones_like(arrays[-1])
        found = self.network(**given) if names else self.network(*arrays)
        if hasattr(found, "logits_per_image"):
            return found.logits_per_image
        if hasattr(found, "logits"):
            return found.logits
        if isinstance(found, dict):
            return found["out"]
        return found[0] if isinstance(found, tuple) else found

    outer = type("First", (torch.nn.Module,), {"forward": forward})()
    outer.network = network
    return outer


if __name__ == "__main__":
    sys.exit(main())
