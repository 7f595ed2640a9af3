"""Presets, words and files for preprocessing, layouts that the model tells, and images at the wrong end or scale."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from samples import IMAGE, F, numbered, refused, save_image
from tiny import MODELS

from onnxfold.calibration.processor import NAME, read_processor, resolved
from onnxfold.calibration.reader import read_calibration
from onnxfold.calibration.samples import calibration_samples
from onnxfold.calibration.synthetic.photographs import crops, photographs
from onnxfold.errors import RequestError
from onnxfold.model.model import load
from onnxfold.options.accept import preprocess as accepted
from onnxfold.options.preprocess import PRESETS, Layout, Preprocess, PreprocessFile, Resize
from onnxfold.runtime.session import InputSpec

NHWC = [InputSpec("x", F, ("N", 8, 8, 3))]


def read(source: object, specs: list[InputSpec], text: str) -> Any:
    return read_calibration(source, specs, preprocess=Preprocess.parse(text)).feeds[0]["x"]


# what it says -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "black", "white"),
    [("0-1", 0, 1), ("-1-1", -1, 1), ("raw", 0, 255), ("yolo", 0, 1), ("imagenet", -0.485 / 0.229, 0.515 / 0.229),
     ("clip", -0.48145466 / 0.26862954, 0.51854534 / 0.26862954)],
)  # fmt: skip
def test_presets(preset: str, black: float, white: float) -> None:
    pixels = np.zeros((2, 8, 8, 3), np.uint8)
    pixels[1] = 255
    found = np.concatenate([f["x"] for f in read_calibration(pixels, IMAGE, preprocess=Preprocess.parse(preset)).feeds])
    np.testing.assert_allclose(found[:, 0, 0, 0], [black, white], rtol=1e-5)
    assert preset in PRESETS and set(PRESETS) == {"imagenet", "0-1", "-1-1", "yolo", "clip", "raw"}


@pytest.mark.parametrize(
    "text",
    ["imagenet", "yolo,letterbox:0", "clip,nhwc", "-1-1,stretch", "0.5,0.25,crop:0.9,bgr", "raw,bicubic,nchw",
     "clip,stretch"],
)  # fmt: skip
def test_as_text_and_back(text: str) -> None:
    assert Preprocess.parse(str(Preprocess.parse(text))) == Preprocess.parse(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("imagnet", "did you mean 'imagenet'?"), ("imagenet,nwhc", "MEAN,STD,LAYOUT"), ("yolo,stretch:3", "MEAN,STD"),
        ("clip,crop:x", "MEAN,STD"), ("clip,crop:0", "`crop` of a Preprocess must be above 0"),
        ("yolo,letterbox:256", "`pad` of a Preprocess must be a whole number from 0 to 255"),
        ("raw,nchw,nhwc", "says one thing twice"), ("0.5", "MEAN,STD"),
    ],
)  # fmt: skip
def test_wrong_words(text: str, says: str) -> None:
    with pytest.raises(RequestError) as caught:
        Preprocess.parse(text)
    assert says in str(caught.value)


def test_a_path_is_told_from_a_text(tmp_path: Path) -> None:
    assert accepted("imagenet").mean[0] == 0.485
    assert accepted("a/preprocessor_config.json") == accepted(Path("a/preprocessor_config.json"))
    assert isinstance(accepted(Path("a.json")), PreprocessFile)


# the layout ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        (("N", 3, 8, 8), Layout.NCHW), (("N", 8, 8, 3), Layout.NHWC), (("N", 1, 8, 8), Layout.NCHW),
        (("N", 3, None, None), Layout.NCHW), (("N", None, None, 3), Layout.NHWC),
        (("batch", "num_channels", 8, 8), Layout.NCHW), (("N", 8, 8, "C"), Layout.NHWC),
    ],
)  # fmt: skip
def test_the_layout_is_that_of_the_model(shape: tuple[Any, ...], layout: Layout) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3 if 1 not in shape else 1), np.uint8)
    specs = [InputSpec("x", F, shape)]
    assert np.array_equal(read(pixels, specs, "0-1"), read(pixels, specs, f"0-1,{layout.value}"))


@pytest.mark.parametrize("shape", [("N", 3, 8, 3), ("N", None, None, None), ("N", 4, 8, 8)])
def test_a_layout_that_cannot_be_told(shape: tuple[Any, ...]) -> None:
    pixels = np.zeros((1, 8, 8, 3), np.uint8)
    refused(pixels, [InputSpec("x", F, shape)], "add nchw or nhwc", preprocess=Preprocess.parse("0-1"))


@pytest.mark.parametrize("count", [1, 4])
def test_floats_at_the_wrong_end(count: int) -> None:
    channels_last, channels_first = numbered(count, 8, 8, 3), numbered(count, 3, 8, 8)
    refused(channels_last, IMAGE, "they are NHWC and the model takes NCHW: give array.transpose(0, 3, 1, 2)")
    refused(channels_first, NHWC, "they are NCHW and the model takes NHWC: give array.transpose(0, 2, 3, 1)")
    refused(channels_last[0], IMAGE, "it is HWC and the model takes CHW: give array.transpose(2, 0, 1)")
    assert "NHWC" not in refused(numbered(count, 9, 8, 3), IMAGE, "but the model takes [N, 3, 8, 8]")


# the geometry -------------------------------------------------------------------------------------------------------


@pytest.fixture
def halves(tmp_path: Path) -> Path:
    """16 high and 32 wide: red on the left, blue on the right."""
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, :16, 0] = pixels[:, 16:, 2] = 200
    return save_image(tmp_path / "x.png", pixels)


def test_stretch(halves: Path) -> None:
    x = read(halves, NHWC, "raw,stretch")[0]
    np.testing.assert_allclose(x[:, :3], np.broadcast_to([200, 0, 0], (8, 3, 3)), atol=1)
    np.testing.assert_allclose(x[:, -3:], np.broadcast_to([0, 0, 200], (8, 3, 3)), atol=1)


def test_letterbox(halves: Path) -> None:
    """As Ultralytics' LetterBox: half the size, gray of 114 above and below."""
    for text, gray in (("raw,letterbox", 114), ("raw,letterbox:7", 7)):
        x = read(halves, NHWC, text)[0]
        assert np.abs(x[[0, 1, 6, 7]] - gray).max() < 1e-3
        np.testing.assert_allclose(x[2:6, :3], np.broadcast_to([200, 0, 0], (4, 3, 3)), atol=1)
    odd = read(halves, [InputSpec("x", F, ("N", 7, 8, 3))], "raw,letterbox")[0]
    assert [bool(np.abs(row - 114).max() < 1e-3) for row in odd] == [True, False, False, False, False, True, True]


def test_crop_takes_as_much_as_it_says(halves: Path) -> None:
    """The whole height of 16, or half of it: the red of the middle 16, or 8, columns."""
    wide = read(halves, [InputSpec("x", F, ("N", 8, 16, 3))], "raw,crop:1")[0]
    assert wide[:, :6, 0].min() > 195 and wide[:, 10:, 2].min() > 195
    narrow = read(halves, NHWC, "raw,crop:0.5")[0]
    assert narrow[:, :2, 0].min() > 195 and narrow[:, -2:, 2].min() > 195


def test_bicubic_is_not_linear(halves: Path) -> None:
    linear, cubic = (read(halves, NHWC, text)[0] for text in ("raw,stretch", "raw,stretch,bicubic"))
    assert 1 < np.abs(linear - cubic).max() < 60


@pytest.mark.parametrize("specs", [IMAGE, NHWC])
def test_blue_first(specs: list[InputSpec]) -> None:
    pixels = np.broadcast_to(np.array([10, 20, 30], np.uint8), (1, 8, 8, 3))
    x = read(pixels, specs, "0.1:0.2:0.3,1,bgr")
    axis = specs[0].shape.index(3)
    expected = np.array([30, 20, 10]) / 255 - [0.1, 0.2, 0.3]
    np.testing.assert_allclose(np.moveaxis(x, axis, -1)[0, 0, 0], expected, atol=1e-6)


# files of Hugging Face ----------------------------------------------------------------------------------------------

VIT = {"do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
       "resample": 2, "rescale_factor": 1 / 255, "size": {"height": 224, "width": 224}}  # fmt: skip
RESNET = {"crop_pct": 0.875, "do_normalize": True, "do_resize": True, "image_mean": [0.485, 0.456, 0.406],
          "image_std": [0.229, 0.224, 0.225], "resample": 3, "size": {"shortest_edge": 224}}  # fmt: skip
CLIP = {"crop_size": 224, "do_center_crop": True, "do_normalize": True, "do_resize": True, "resample": 3, "size": 224,
        "image_mean": list(PRESETS["clip"]["mean"]), "image_std": list(PRESETS["clip"]["std"])}  # fmt: skip
MOBILEVIT = {"crop_size": {"height": 256, "width": 256}, "do_center_crop": True, "do_flip_channel_order": True,
             "do_normalize": False, "do_resize": True, "resample": 2, "size": {"shortest_edge": 288}}  # fmt: skip
EFFICIENT = {**VIT, "rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (VIT, Preprocess.parse("-1-1,stretch")),
        (RESNET, Preprocess.parse("imagenet,bicubic")),
        ({**RESNET, "size": {"shortest_edge": 384}}, Preprocess.parse("imagenet,bicubic,stretch")),
        (CLIP, Preprocess.parse("clip")),
        (MOBILEVIT, Preprocess((0.0,), (1.0,), bgr=True, crop=256 / 288)),
        (EFFICIENT, Preprocess.parse("-1-1,stretch")),
        ({**VIT, "do_rescale": False, "do_normalize": False}, Preprocess.parse("raw,stretch")),
        ({**VIT, "do_resize": False}, Preprocess.parse("-1-1,crop:1")),
    ],
)
def test_what_a_file_says(given: dict[str, Any], found: Preprocess, tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(json.dumps(given), encoding="utf-8")
    said = read_processor(tmp_path / NAME)
    assert (said.layout, said.resize, said.bicubic, said.bgr, said.origin) == (
        found.layout, found.resize, found.bicubic, found.bgr, NAME,
    )  # fmt: skip
    for values in ("mean", "std"):
        mine, theirs = (np.broadcast_to(getattr(one, values), 3) for one in (said, found))
        np.testing.assert_allclose(mine, theirs, atol=1e-9)
    assert said.crop == pytest.approx(found.crop)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({**VIT, "do_pad": True}, "asks for 'do_pad', which is not done here"),
        ({**VIT, "resample": 0}, "cannot be understood"),
        ({**VIT, "size": {"shortest_edge": 800, "longest_edge": 1333}}, "cannot be understood"),
        ({**VIT, "image_mean": [2, 2, 2]}, "must be from 0 to 1"),
        ({**VIT, "image_mean": None}, "cannot be understood"),
        ({"feature_size": 80}, "says nothing of images"),
        ([], "says nothing of images"),
    ],
)
def test_files_that_cannot_be_used(given: Any, says: str, tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_text(json.dumps(given), encoding="utf-8")
    with pytest.raises(RequestError) as caught:
        read_processor(path)
    assert says in str(caught.value) and str(path) in str(caught.value)
    assert resolved(None, tmp_path / "m.onnx") is None  # nobody asked for it: no harm


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot read"):
        resolved(PreprocessFile(str(tmp_path / "none.json")), None)
    (tmp_path / "a.json").write_text("{", encoding="utf-8")
    with pytest.raises(RequestError, match="is not valid JSON"):
        resolved(PreprocessFile(str(tmp_path / "a.json")), None)


@pytest.mark.parametrize("below", ["", "onnx"])
def test_a_file_beside_the_model_is_read(tmp_path: Path, below: str) -> None:
    """With a note, and only where there are pixels."""
    (tmp_path / NAME).write_text(json.dumps({**VIT, "size": {"height": 8, "width": 8}}), encoding="utf-8")
    path = tmp_path / below / "m.onnx"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes((MODELS / "digits_vgg.onnx").read_bytes())
    pixels = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1), np.uint8)
    found = calibration_samples(load(path, None), pixels, 16, None, None)
    assert found.notes == (f"pixels become numbers as {NAME} says: 0.5,0.5,stretch",)
    floats = calibration_samples(load(path, None), numbered(16, 1, 8, 8) / 16 - 0.5, 16, None, None)
    assert floats.notes == ()


# the scale ----------------------------------------------------------------------------------------------------------


def warnings_of(path: Path, x: Any) -> list[str]:
    found = calibration_samples(load(path, None), x, 32, None, None).notes
    return [note for note in found if note.startswith("the calibration data for input 'image' are from")]


@pytest.fixture(scope="module")
def digits() -> Any:
    made = crops(np.random.default_rng(3), photographs(), 32, 8, 8)
    return np.ascontiguousarray(made.transpose(0, 3, 1, 2)[:, :1], np.float32)


def test_pixels_for_a_model_that_takes_small_numbers(digits: Any) -> None:
    path = MODELS / "digits_resnet_bn.onnx"
    (said,) = warnings_of(path, digits)
    assert "photographs of zero mean, unit variance fit the statistics inside the model" in said
    assert "normalize them as in training" in said
    for right in (digits / 255, digits / 127.5 - 1, (digits / 255 - 0.45) / 0.25, 0 * digits):
        assert warnings_of(path, right.astype(np.float32)) == []


def test_small_numbers_for_a_model_that_takes_pixels(digits: Any, tmp_path: Path) -> None:
    """The same model, with a first layer that takes 0 to 255."""
    proto = onnx.load(MODELS / "digits_resnet_bn.onnx")
    first = next(node for node in proto.graph.node if node.op_type == "Conv")
    weight = next(t for t in proto.graph.initializer if t.name == first.input[1])
    divided = onnx.numpy_helper.to_array(weight) / np.float32(64)  # about the deviation of pixels
    weight.CopyFrom(onnx.numpy_helper.from_array(divided, weight.name))
    onnx.save(proto, tmp_path / "m.onnx")
    assert warnings_of(tmp_path / "m.onnx", digits) == []


def test_without_evidence_nothing_is_said(digits: Any) -> None:
    assert warnings_of(MODELS / "digits_vgg.onnx", digits) == []


def test_a_file_beside_the_model_is_evidence(digits: Any, tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(json.dumps(VIT), encoding="utf-8")
    path = tmp_path / "m.onnx"
    path.write_bytes((MODELS / "digits_vgg.onnx").read_bytes())
    (said,) = warnings_of(path, digits)
    assert f"the {NAME} beside the model makes 1 of white at most" in said
    assert warnings_of(path, digits / 127.5 - 1) == []


def test_resize_is_one_of_three() -> None:
    with pytest.raises(RequestError, match="`resize` of a Preprocess must be one of"):
        Preprocess((0.5,), (0.5,), Layout.NCHW, "crop")  # type: ignore[arg-type]
    assert Preprocess((0.5,), (0.5,), resize=Resize.STRETCH, crop=0.5, pad=3) == Preprocess.parse("-1-1,stretch")
