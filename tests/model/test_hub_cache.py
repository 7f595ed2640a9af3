"""Models in a cache as Hugging Face lays one out: links of a snapshot into one folder of blobs."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from tiny import arrays, snapshot, write_external

import onnxfold
from onnxfold.errors import ModelError

DATA = "model.onnx_data"


def cached(root: Path, inside: str = "onnx") -> Path:
    """The model in `root`/snapshots/abc/`inside`, it and its weights as links into `root`/blobs."""
    folder, made = root / "snapshots" / "abc" / inside, root / "made"
    for one in (folder, made, root / "blobs", root / "refs"):
        one.mkdir(parents=True, exist_ok=True)
    write_external(made / "model.onnx", data=DATA)
    for number, name in enumerate(("model.onnx", DATA)):
        blob = root / "blobs" / f"{number:064x}"
        os.replace(made / name, blob)
        (folder / name).symlink_to(os.path.relpath(blob, folder))
    made.rmdir()
    return folder / "model.onnx"


@pytest.mark.parametrize("inside", ["", "onnx", "onnx/fp32"])
def test_a_model_and_its_weights_are_links(tmp_path: Path, inside: str) -> None:
    path = cached(tmp_path / "models--a--b", inside)
    before, out = snapshot(tmp_path / "models--a--b"), tmp_path / "out.onnx"
    report = onnxfold.fold(path, out, ratio=0.25, round_to=1, effort="fast", latency=False).report
    assert report.check is not None and report.check.passed and report.check.providers[0].outputs
    assert report.coverage == onnxfold.inspect(path).coverage
    assert all(np.isfinite(values).all() for values in arrays(out).values())
    assert snapshot(tmp_path / "models--a--b") == before


def test_weights_that_are_a_link_within_the_folder(tmp_path: Path) -> None:
    path = write_external(tmp_path / "model.onnx", data=DATA)
    os.rename(tmp_path / DATA, tmp_path / "weights")
    (tmp_path / DATA).symlink_to("weights")
    assert onnxfold.inspect(path).groups


@pytest.mark.parametrize("how", ["another cache", "out of blobs", "blobs elsewhere", "no blobs", "below blobs"])
def test_links_that_leave_the_cache_are_refused(tmp_path: Path, how: str) -> None:
    """Into the blobs of another model, from a blob on, or where `blobs` is a link itself."""
    root = tmp_path / "models--a--b"
    path = cached(root)
    blob = (path.parent / DATA).resolve()
    moved = {
        "another cache": tmp_path / "models--c--d" / "blobs" / "1", "out of blobs": tmp_path / "secret",
        "blobs elsewhere": tmp_path / "store" / "1", "no blobs": root / "other" / "1",
        "below blobs": root / "blobs" / "deep" / "1",
    }[how]  # fmt: skip
    moved.parent.mkdir(parents=True, exist_ok=True)
    os.rename(blob, moved)
    if how == "out of blobs":
        blob.symlink_to(moved)
    elif how == "blobs elsewhere":
        for one in (root / "blobs").iterdir():
            os.rename(one, tmp_path / "store" / one.name)
        (root / "blobs").rmdir()
        (root / "blobs").symlink_to(tmp_path / "store")
        os.rename(moved, tmp_path / "store" / blob.name)
    else:
        (path.parent / DATA).unlink()
        (path.parent / DATA).symlink_to(moved)
    with pytest.raises(ModelError, match="outside the model's folder"):
        onnxfold.inspect(path)
