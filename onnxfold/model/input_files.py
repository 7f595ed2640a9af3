"""Files that are read: ordinary ones only. A pipe would be waited for without end, and a device has no end."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from ..units import did_you_mean

_KINDS = (
    (stat.S_ISFIFO, "a pipe (FIFO)"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"), (stat.S_ISDIR, "a folder"),
)  # fmt: skip


def no_file(path: Path) -> str:
    """What `path` is, links followed, in place of an ordinary file: "a socket"; '' for a file.

    It is looked at and not opened: opening a pipe would wait for who writes to it. Raises OSError.
    """
    mode = os.stat(path).st_mode
    if stat.S_ISREG(mode):
        return ""
    return next((kind for is_one, kind in _KINDS if is_one(mode)), "not a regular file")


def near(path: Path) -> str:
    """ ": did you mean X?" where a file in the same folder is called nearly like `path`, which is not there."""
    try:
        names = os.listdir(path.parent)
    except OSError:
        return ""
    return did_you_mean(path.name, names) or ": check the path"


_EXPORTERS: Mapping[str, str] = {
    **dict.fromkeys((".pt", ".pth", ".ckpt", ".safetensors"), "a PyTorch file: export it with torch.onnx.export"),
    **dict.fromkeys((".h5", ".keras", ".tflite"), "a TensorFlow file: export it with tf2onnx"),
    ".pb": "not an ONNX model (a TensorFlow graph?): export it with tf2onnx",
    ".mlmodel": "a Core ML file: export the original to ONNX",
    ".engine": "a TensorRT engine: fold the ONNX model that it was built from",
    ".ort": "in onnxruntime's own format: fold the ONNX model that it was built from",
}


def foreign(path: Path) -> str:
    """What a file is by its ending that is no ONNX model, and what to do, in words."""
    return _EXPORTERS.get(path.suffix.lower(), "not an ONNX model, or is truncated: export or download it again")
