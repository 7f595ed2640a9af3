"""The trained networks and images beside the project that benchmarks measure on."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parents[2] / "shared" / "data"
INNER = r"layer.*conv1"  # the inner groups of residual blocks, in the CIFAR-10 ResNets
BATCH = 100


@dataclass(frozen=True)
class Net:
    """A classifier, `images` it has not seen as it wants them with `labels`, and others without (`unlabeled`)."""

    name: str
    path: Path
    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    unlabeled: NDArray[np.float32]

    def top1(self, model: onnx.ModelProto) -> float:
        """Percent of the images whose largest score is the label's."""
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        source = session.get_inputs()[0]
        batch = source.shape[0] if isinstance(source.shape[0], int) else BATCH
        hits = 0
        for start in range(0, len(self.images), batch):
            scores: Any = session.run(None, {source.name: self.images[start : start + batch]})[0]
            hits += int((scores.reshape(len(scores), -1).argmax(1) == self.labels[start : start + batch]).sum())
        return 100 * hits / len(self.images)


def net(data: Path, name: str, count: int = 2000, others: int = 128) -> Net:
    """The net called `name`: 2,000 CIFAR-10 test images and `others` training images (up to 512), or 272 and 128
    photographs."""
    entry = json.loads((data / "models.json").read_text())[name]
    path = data / "models" / f"{name}.onnx"
    if entry["data"] == "cifar10":
        with np.load(data / "cifar10" / "test2k.npz") as test, np.load(data / "cifar10" / "calib512.npz") as train:
            images, labels = test["images"][:count], test["labels"][:count]
            unlabeled = train[train.files[0]][:: 512 // others]
    elif entry["data"] == "imagenet":
        everything, classes = _photographs(data / "imagenet", entry)
        taken = np.arange(len(everything)) % 25 < 8  # 128 of 400
        images, labels, unlabeled = everything[~taken][:count], classes[~taken][:count], everything[taken]
    else:
        sys.exit(f"{name} is no image classifier")
    return Net(name, path, _prepared(entry, images), labels.astype(np.int64), _prepared(entry, unlabeled))


def options(text: str, store: bool = False) -> argparse.ArgumentParser:
    """A parser with the options that all these benchmarks share; `store`: also of those that keep their figures."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE, help="folder with the networks and images")
    parser.add_argument("--images", type=int, default=2000, help="test images at most (default: 2000)")
    if store:
        parser.add_argument("--store", type=Path, help="JSON file that keeps the figures; then rendered")
        parser.add_argument("--render", type=Path, help="render this JSON file, measure nothing")
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options, once the data is known to be there."""
    found = parser.parse_args()
    if not found.data.is_dir():
        sys.exit(f"{found.data} does not exist: name the folder with the networks and images with --data")
    return found


def _photographs(folder: Path, entry: dict[str, Any]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    from PIL import Image

    size, rows = entry["size"], list(csv.DictReader((folder / "labels.csv").open()))
    images = []
    for row in rows:
        image = Image.open(folder / row["file"]).convert("RGB")
        side = round(image.width * entry["crop"])
        at = (image.width - side) // 2
        cut = image.crop((at, at, at + side, at + side))
        images.append(np.asarray(cut.resize((size, size), Image.Resampling.BILINEAR)))
    return np.stack(images), np.array([int(row["label"]) + entry.get("label_offset", 0) for row in rows])


def _prepared(entry: dict[str, Any], images: NDArray[np.uint8]) -> NDArray[np.float32]:
    x = images.astype(np.float32)
    if entry.get("bgr"):
        x = x[..., ::-1]
    x = (x - np.float32(entry["mean"])) / np.float32(entry["std"])
    return np.ascontiguousarray(x if entry.get("layout") == "NHWC" else x.transpose(0, 3, 1, 2))
