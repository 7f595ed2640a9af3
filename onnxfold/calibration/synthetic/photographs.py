"""Crops of real photographs, for models of images whose data nobody has.

Random resized crops, mirrored, in other light, contrast and color, as classifiers are trained on them (Szegedy et al.,
"Going deeper with convolutions", CVPR 2015; the settings are those usual since). Two photographs that scikit-learn
ships (a temple and a flower, both CC BY 2.0) judge; with ten that come with the package (`../photographs/README.md`
says whose they are) they tell in which convention a model wants its images. Repairs are fitted on crops of these ten
and of 52 others (`photographed.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...progress import steps

if TYPE_CHECKING:
    from importlib.abc import Traversable  # in 3.10; importlib.resources.abc has it from 3.11

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]
_AREA = (0.03, 0.9)  # of the photograph
_ASPECT = (3 / 4, 4 / 3)
_TRIES = 10
_CHANGE = 0.4  # of light, contrast and color: factors lie this far around 1


@cache
def more_photographs() -> tuple[Pixels, ...]:
    """The photographs of the package, [H, W, 3]."""
    return _pictures(files("onnxfold.calibration") / "photographs")


@cache
def varied_photographs() -> tuple[Pixels, ...]:
    """Those, and many more of the package: animals, buildings, tools."""
    return (*more_photographs(), *_pictures(files("onnxfold.calibration") / "photographs" / "varied"))


@cache
def photographs() -> tuple[Pixels, ...]:
    """The photographs that scikit-learn ships, [H, W, 3]: those of `sklearn.datasets.load_sample_images`.

    They are read where they lie, for importing scikit-learn takes a second, half of the time that a small model takes.
    """
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("scikit-learn is not installed")
    return _pictures(Path(package.origin).parent / "datasets" / "images")


def _pictures(folder: Path | Traversable) -> tuple[Pixels, ...]:
    """All JPEG files of a folder by name, [H, W, 3]."""
    from PIL import Image  # slow to import

    found = []
    names = sorted(one.name for one in folder.iterdir() if one.name.endswith(".jpg"))
    for name in steps("reading photographs", names):
        with (folder / name).open("rb") as file:
            found.append(np.asarray(Image.open(file).convert("RGB")))
    return tuple(found)


def crops(rng: np.random.Generator, among: Sequence[Pixels], count: int, height: int, width: int) -> Floats:
    """[count, height, width, 3] from 0 to 255, taken from each of the photographs in turn."""
    turns = steps("cropping photographs", range(count))
    return np.stack([_altered(rng, _crop(rng, among[i % len(among)], height, width)) for i in turns])


def _crop(rng: np.random.Generator, photograph: Pixels, height: int, width: int) -> Floats:
    from PIL import Image  # slow to import

    whole = photograph.shape[0] * photograph.shape[1]
    rows, columns = photograph.shape[:2]
    for _ in range(_TRIES):
        area = whole * np.exp(rng.uniform(*np.log(_AREA)))
        aspect = width / height * np.exp(rng.uniform(*np.log(_ASPECT)))
        tall, wide = round((area / aspect) ** 0.5), round((area * aspect) ** 0.5)
        if 0 < tall <= rows and 0 < wide <= columns:
            break
    else:
        tall, wide = rows, columns
    top, left = rng.integers(0, rows - tall + 1), rng.integers(0, columns - wide + 1)
    part = Image.fromarray(photograph[top : top + tall, left : left + wide])
    return np.asarray(part.resize((width, height), Image.Resampling.BILINEAR), np.float32)


def _altered(rng: np.random.Generator, picture: Floats) -> Floats:
    light, contrast, color = rng.uniform(1 - _CHANGE, 1 + _CHANGE, 3)
    x = (picture[:, ::-1] if rng.random() < 0.5 else picture) * light
    x = x.mean() + (x - x.mean()) * contrast
    gray = x.mean(axis=2, keepdims=True)
    return np.asarray(np.clip(gray + (x - gray) * color, 0, 255), np.float32)
