"""Images as calibration data: preprocessing, pixels in arrays and in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from samples import (
    IMAGE,
    IMAGENET,
    PLAIN,
    TEXTS,
    F,
    numbered,
    refused,
    save_image,
    save_npy,
)

from onnxfold.calibration.reader import read_calibration
from onnxfold.errors import RequestError
from onnxfold.options.preprocess import Layout, Preprocess
from onnxfold.runtime.session import Feeds, InputSpec


def test_preprocess() -> None:
    assert Preprocess.parse(IMAGENET) == Preprocess((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), Layout.NCHW)
    assert Preprocess.parse(" 0.5 , 127.5/255 , NHWC ") == Preprocess((0.5,), (0.5,), Layout.NHWC)
    assert Preprocess.parse("0,1/255,nchw").std == (1 / 255,)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "MEAN,STD,LAYOUT"), ("0,1,nchw,2", "MEAN,STD,LAYOUT"),
        ("a,1,nchw", "MEAN,STD,LAYOUT"), ("0,1,chw", "MEAN,STD,LAYOUT"), ("0,1/0,nchw", "MEAN,STD,LAYOUT"),
        ("0,1/2/3,nchw", "MEAN,STD,LAYOUT"), ("0:1:,1,nchw", "MEAN,STD,LAYOUT"),
        ("127.5,127.5,nhwc", "127.5/255"), ("0,255,nchw", "scaled to 0..1"), ("0,0,nchw", "std 0"),
        ("-0.5,1,nchw", "mean -0.5"), ("nan,1,nchw", "mean nan"), ("0,inf,nchw", "std inf"), ("0:0,1,nchw", "1 or 3"),
    ],
)  # fmt: skip
def test_bad_preprocess(text: str, says: str) -> None:
    with pytest.raises(RequestError) as caught:
        Preprocess.parse(text)
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("stored_as", [Layout.NCHW, Layout.NHWC])
@pytest.mark.parametrize("taken_as", [Layout.NCHW, Layout.NHWC])
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_pixels(stored_as: Layout, taken_as: Layout, dtype: str) -> None:
    """uint8 arrays become what the model takes, by the rule written out in numpy."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 10, 3), np.uint8)
    preprocess = Preprocess.parse(IMAGENET.replace("nchw", taken_as.value))
    expected = (pixels / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    shape: tuple[int | str, ...] = ("N", 8, 10, 3)
    if taken_as is Layout.NCHW:
        expected, shape = expected.transpose(0, 3, 1, 2), ("N", 3, 8, 10)
    given = pixels.transpose(0, 3, 1, 2) if stored_as is Layout.NCHW else pixels
    specs = [InputSpec("x", np.dtype(dtype).type, shape)]
    found = read_calibration(given, specs, preprocess=preprocess)
    assert {f["x"].dtype for f in found.feeds} == {np.dtype(dtype)}
    close = 2e-3 if dtype == "float16" else 2e-6  # values up to 2.7: half an ulp of float16 is 1e-3
    np.testing.assert_allclose(np.concatenate([f["x"] for f in found.feeds]), expected, rtol=0, atol=close)
    single = read_calibration(given[2], specs, preprocess=preprocess)
    np.testing.assert_allclose(single.feeds[0]["x"], expected[2:3], rtol=0, atol=close)


def test_raw_pixels() -> None:
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(4, 8, 8, 3)
    found = read_calibration(pixels, IMAGE, preprocess=Preprocess.parse("0,1/255,nchw"))
    exact = np.concatenate([f["x"] for f in found.feeds]).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(exact, pixels.astype(F), rtol=1e-6)


def test_pixels_refused() -> None:
    pixels = np.zeros((2, 8, 8, 3), np.uint8)
    refused(pixels, IMAGE, "pixels", "`preprocess='imagenet'`")
    refused(np.zeros((2, 8, 9, 3), np.uint8), IMAGE, "3 x 8 x 8", "[2, 8, 9, 3]", preprocess=PLAIN)
    refused(np.zeros((2, 8), np.uint8), IMAGE, "[2, 8]", preprocess=PLAIN)
    refused(pixels, [InputSpec("x", F, ("N", 8, 8, 3))], "8 channels in layout nchw", "try nhwc", preprocess=PLAIN)
    refused(pixels, [InputSpec("x", F, ("N", 1, 8, 8))], "3 channels", preprocess=Preprocess.parse(IMAGENET))
    both = np.zeros((2, 3, 8, 3), np.uint8)
    refused(both, [InputSpec("x", F, ("N", 3, None, None))], "as NCHW and as NHWC", preprocess=PLAIN)


def test_image_files(tmp_path: Path) -> None:
    """Images of the right size go in as they are; also those in folders below, in the order of their paths."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    save_image(tmp_path / "b" / "1.PNG", pixels[2])
    save_image(tmp_path / "a" / "2.png", pixels[1])
    save_image(tmp_path / "a" / "1.bmp", pixels[0])
    (tmp_path / "labels.csv").touch()
    found = read_calibration(tmp_path, IMAGE, samples=3, preprocess=PLAIN)
    assert found.notes == (f"{tmp_path.name}: skipped labels.csv",)
    values = np.concatenate([f["x"] for f in found.feeds])
    np.testing.assert_allclose(values, pixels.transpose(0, 3, 1, 2) / 255, atol=1e-6)
    alone = read_calibration(tmp_path / "a" / "2.png", IMAGE, preprocess=PLAIN)
    assert np.array_equal(alone.feeds[0]["x"], values[1:2]) and alone.description == "1 sample of 2.png"


@pytest.mark.parametrize("size", [(64, 96), (96, 64), (16, 16), (500, 7), (1, 1)])
@pytest.mark.parametrize("wanted", [(32, 32), (16, 48), (48, 16)])
def test_images_are_scaled_and_cropped_in_the_center(
    tmp_path: Path, size: tuple[int, int], wanted: tuple[int, int]
) -> None:
    """On an image whose colors are its coordinates, the crop is centered and shows 0.875 of the tighter side."""
    rows, columns = np.meshgrid(*((np.arange(n) + 0.5) / n * 255 for n in size), indexing="ij")
    path = save_image(tmp_path / "x.png", np.stack([rows, columns, 0 * rows], -1).astype(np.uint8))
    specs = [InputSpec("x", F, ("N", *wanted, 3))]
    seen = read_calibration(path, specs, preprocess=Preprocess.parse("0,1,nhwc")).feeds[0]["x"][0]
    assert seen.shape == (*wanted, 3)
    assert abs(seen[..., :2].mean((0, 1)) - 0.5).max() < 0.05
    if min(size) >= 64:
        spans = [np.ptp(seen[..., axis]) * wanted[axis] / (wanted[axis] - 1) for axis in (0, 1)]
        scale = max(w / 0.875 / s for w, s in zip(wanted, size, strict=True))
        shown = [w / (s * scale) for w, s in zip(wanted, size, strict=True)]
        np.testing.assert_allclose(spans, shown, atol=0.06)  # a pixel of 16


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1", "YCbCr"])
@pytest.mark.parametrize("channels", [1, 3])
def test_modes_of_images(tmp_path: Path, mode: str, channels: int) -> None:
    image = pytest.importorskip("PIL.Image")
    suffix = "tif" if mode in ("CMYK", "YCbCr") else "png"
    image.new("RGB", (8, 8), (255, 255, 255)).convert(mode).save(tmp_path / f"x.{suffix}")
    found = read_calibration(tmp_path, [InputSpec("x", F, ("N", channels, 8, 8))], preprocess=PLAIN)
    np.testing.assert_allclose(found.feeds[0]["x"], np.ones((1, channels, 8, 8)), atol=0.01)


def test_models_that_take_pixels(tmp_path: Path) -> None:
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    path = save_image(tmp_path / "x.png", pixels)
    specs = [InputSpec("x", np.uint8, ("N", 16, 16, 3))]
    found = read_calibration(path, specs, preprocess=Preprocess.parse("0,1/255,nhwc")).feeds[0]["x"]
    assert found.dtype == np.uint8 and np.array_equal(found[0], pixels)
    assert np.array_equal(read_calibration(pixels, specs).feeds[0]["x"][0], pixels)
    refused(path, specs, "uint8", "`preprocess='raw'`", preprocess=Preprocess.parse("0,1,nhwc"))


def test_images_refused(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    path = save_image(tmp_path / "a.png", pixels)
    refused(tmp_path, IMAGE, "a.png", "preprocess")
    refused(tmp_path, TEXTS, "2 (ids, mask)", preprocess=PLAIN)
    refused(tmp_path, [InputSpec("x", F, ("N", 784))], "images need 4", preprocess=PLAIN)
    refused(
        tmp_path, [InputSpec("x", F, ("N", 3, None, None))], "`input_shapes={'x': (1, 3, 224, 224)}`", preprocess=PLAIN
    )
    open_size = [InputSpec("x", F, ("N", 3, "H", "W"))]
    shapes = {"x": (1, 3, 4, 4)}
    assert read_calibration(path, open_size, preprocess=PLAIN, input_shapes=shapes).feeds[0]["x"].shape == (1, 3, 4, 4)
    (tmp_path / "b.jpg").write_text("a text with the wrong name")
    refused(tmp_path, IMAGE, "b.jpg", "not an image", preprocess=PLAIN)
    noise = save_image(tmp_path / "b.jpg", np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    noise.write_bytes(noise.read_bytes()[:-2000])
    refused(tmp_path, IMAGE, "b.jpg", preprocess=PLAIN)
    (tmp_path / "b.jpg").unlink()
    save_image(tmp_path / "deep.png", np.full((8, 8), 40000, np.uint16))
    refused(tmp_path, IMAGE, "deep.png", "more than 8 bits", preprocess=PLAIN)
    save_npy(tmp_path / "x.npy", numbered(2, 3, 8, 8))
    refused(tmp_path, IMAGE, "x.npy and images", "one kind", preprocess=PLAIN)


def test_image_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = pytest.importorskip("PIL.Image")
    monkeypatch.setattr(image, "MAX_IMAGE_PIXELS", 50)
    save_image(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    refused(tmp_path, IMAGE, "a.png", "bomb", preprocess=PLAIN)


def test_image_folder_with_a_fixed_batch(tmp_path: Path) -> None:
    for i in range(10):
        save_image(tmp_path / f"{i}.png", np.full((8, 8, 3), i, np.uint8))
    specs = [InputSpec("x", F, (4, 3, 8, 8))]
    found: list[Feeds] = list(read_calibration(tmp_path, specs, preprocess=Preprocess.parse("0,1/255,nchw")).feeds)
    assert [np.rint(f["x"][:, 0, 0, 0]).tolist() for f in found] == [[0, 1, 2, 3], [4, 5, 6, 7]]
