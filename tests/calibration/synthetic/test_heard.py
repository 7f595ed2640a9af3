"""Models that listen: which they are, what they get, and that other sounds judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

import onnxfold
from onnxfold.calibration.judge import SOUNDS
from onnxfold.calibration.origin import Origin
from onnxfold.calibration.samples import synthetic_extent, synthetic_samples
from onnxfold.calibration.synthetic.audio_inputs import audio_input
from onnxfold.calibration.synthetic.heard import affordable, heard
from onnxfold.calibration.synthetic.sounds import RATE, voices
from onnxfold.calibration.synthetic.spectrograms import log_mel, samples_of
from onnxfold.model.model import Model, load
from onnxfold.options.choices import Effort
from onnxfold.planning.making_time import making
from onnxfold.runtime.session import Session


def network(shape: str, body: str, name: str = "x", out: str = "N,c", **weights: Any) -> Model:
    text = f'<ir_version: 8, opset_import: ["" : 17]> agraph (float[{shape}] {name}) => (float[{out}] y) {{ {body} }}'
    proto = parser.parse_model(text)
    rng = np.random.default_rng(0)
    for key, value in weights.items():
        array = rng.standard_normal(value) / np.sqrt(np.prod(value[1:])) if isinstance(value, tuple) else value
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array, np.float32), key))
    return load(proto)


def classifier(shape: str, weight: tuple[int, ...], name: str = "x") -> Model:
    """A convolution, then the mean over all positions."""
    body = f"c = Conv ({name}, w) r = Relu (c) p = GlobalAveragePool (r) y = Flatten (p)"
    return network(shape, body, name, w=weight)


def spelled(model: Model) -> tuple[int, int | None] | None:
    found = audio_input(model, Session.of(model).inputs, 4, {})
    return None if found is None else (found.time, found.bins)


@pytest.mark.parametrize(
    ("shape", "weight", "name", "expected"),
    [
        ("N,1,16000", (8, 1, 80), "x", (2, None)),
        ("N,1,4000", (8, 1, 80), "waveform", (2, None)),
        ("N,1,samples", (8, 1, 80), "waveform", (2, None)),
        ("N,1,300", (8, 1, 80), "waveform", None),
        ("N,2,16000", (8, 2, 80), "audio", None),
        ("N,1,101,40", (8, 1, 3, 3), "x", (2, 3)),
        ("N,1,40,101", (8, 1, 3, 3), "x", (3, 2)),
        ("N,1,49,10", (8, 1, 3, 3), "x", (2, 3)),
        ("N,1,96,64", (8, 1, 3, 3), "x", (2, 3)),
        ("N,1,61,13", (8, 1, 3, 3), "mfcc_0", (2, 3)),
        ("N,1,64,64", (8, 1, 3, 3), "log_mel", (3, 2)),
        ("N,1,100,128", (8, 1, 3, 3), "inputMelSpectrogram", (2, 3)),
        ("N,80,300", (8, 80, 3), "x", (2, 1)),
        ("N,40,300", (8, 40, 3), "mfcc", (2, 1)),
        ("N,3,101,40", (8, 3, 3, 3), "mel", None),
    ],
)
def test_who_listens(shape: str, weight: tuple[int, ...], name: str, expected: tuple[int, int | None] | None) -> None:
    assert spelled(classifier(shape, weight, name)) == expected


@pytest.mark.parametrize(
    ("shape", "weight", "name"),
    [
        ("N,1,28,28", (8, 1, 3, 3), "x"),  # digits
        ("N,1,64,64", (8, 1, 3, 3), "x"),
        ("N,1,128,64", (8, 1, 3, 3), "image"),  # people
        ("N,1,112,96", (8, 1, 3, 3), "data"),  # faces
        ("N,1,64,160", (8, 1, 3, 3), "x"),  # codes to be typed
        ("N,1,64,1024", (8, 1, 3, 3), "range"),  # lidar
        ("N,1,h,w", (8, 1, 3, 3), "x"),
        ("N,1,100,40", (8, 1, 1, 2), "x"),  # prices that were offered
        ("N,1,64,480", (8, 1, 1, 64), "x"),  # brain waves
        ("N,1,12,1000", (8, 1, 3, 3), "x"),  # hearts
        ("N,1,24,113", (8, 1, 3, 3), "x"),  # movements
        ("N,1,187", (8, 1, 5), "x"),
        ("N,1,5000", (8, 1, 5), "ecg"),
        ("N,1,samples", (8, 1, 80), "history"),
        ("N,40,300", (8, 40, 3), "x"),  # forty sensors
        ("N,128,150", (8, 128, 3), "latents"),
        ("N,80,100", (8, 80, 1), "x"),
        ("N,1,128,128", (8, 1, 3, 3), "ultrasound_image"),
        ("N,64,20", (8, 64, 3), "species"),
        ("N,1,64,64", (8, 1, 3, 3), "melanoma"),
    ],
)
def test_who_does_not(shape: str, weight: tuple[int, ...], name: str) -> None:
    assert spelled(classifier(shape, weight, name)) is None


def test_words_in_floats_are_no_sound() -> None:
    body = "i = Cast <to = 7> (pcm) e = Gather (t, i) r = Transpose <perm = [0, 2, 1]> (e) c = Conv (r, w) "
    model = network("N,16000", body + "p = GlobalAveragePool (c) y = Flatten (p)", "pcm", t=(70, 16), w=(8, 16, 3))
    assert spelled(model) is None


def test_what_is_read_through_other_scales_and_beside_empty_names() -> None:
    scaled = "s = Cast <to = 10> (x) u = Cast <to = 1> (s) d = Mul (k, u) c = Conv (d, w) p = GlobalAveragePool (c) "
    scaled += "y = Flatten (p)"
    assert spelled(network("N,1,16000", scaled, w=(8, 1, 80), k=np.array(2.0))) == (2, None)
    apart = "z = Relu (x) v = Conv (o, w, ) m = ReduceMean <keepdims = 0, axes = [1, 2]> (v) y = Add (z, m)"
    assert spelled(network("N,16000", apart, out="N,16000", o=(1, 1, 16000), w=(1, 1, 80))) is None


def test_images_that_are_flat_are_no_sounds() -> None:
    assert spelled(network("N,784", "y = MatMul (x, w)", w=(784, 10))) is None
    rows = "s = Constant <value = int64[3] {0, 28, 28}> () r = Reshape (x, s) y = MatMul (r, w)"
    assert spelled(network("N,784", rows, out="N,28,10", w=(28, 10))) is None
    picture = "s = Constant <value = int64[4] {0, 1, 28, 28}> () r = Reshape (x, s) y = Conv (r, w)"
    assert spelled(network("N,784", picture, out="N,8,26,26", w=(8, 1, 3, 3))) is None


def test_frames_of_a_long_sound_are_multiplied() -> None:
    body = "s = Constant <value = int64[3] {0, 100, 160}> () r = Reshape (x, s) y = MatMul (r, w)"
    assert spelled(network("N,16000", body, out="N,100,20", w=(160, 20))) == (1, None)


def test_characters_along_a_line_and_large_images_are_seen() -> None:
    body = "c = Conv (x, w) p = ReduceMean <axes = [2], keepdims = 0> (c) y = Transpose <perm = [0, 2, 1]> (p)"
    assert spelled(network("N,1,32,100", body, out="N,T,30", w=(30, 1, 3, 3))) is None, "a reader of gray lines"
    same = "y = Conv <pads = [1, 1, 1, 1]> (x, w)"
    assert spelled(network("N,1,320,128", same, out="N,4,320,128", w=(4, 1, 3, 3))) is None, "a filter of images"


@pytest.mark.parametrize("effort", ["fast", "balanced"])
def test_an_open_length_becomes_a_second_unless_it_is_given(tmp_path: Path, effort: str) -> None:
    model = network(
        "N,1,samples",
        "c = Conv (wav, w) r = Relu (c) d = Conv (r, v) s = Relu (d) p = GlobalAveragePool (s) f = Flatten (p) "
        "y = MatMul (f, u)",
        "wav", w=(16, 1, 80), v=(16, 16, 3), u=(16, 10),
    )  # fmt: skip
    specs = Session.of(model).inputs
    lengths = [audio_input(model, specs, 4, shapes) for shapes in ({}, {"wav": (1, 1, 96)}, {"wav": (1, 1, 4000)})]
    assert [found and found.shape for found in lengths] == [(4, 1, RATE), None, (4, 1, 4000)]
    onnx.save(model.proto, tmp_path / "in.onnx")
    made = onnxfold.fold(tmp_path / "in.onnx", tmp_path / "out.onnx", ratio=0.5, effort=effort)
    assert made.report.check.quality is not None and made.report.check.quality.inputs == SOUNDS
    assert any("a second long, [1, 1, 16000]" in note for note in made.report.notes)
    assert made.report.before.macs == 16 * 80 * 15921 + 16 * 16 * 3 * 15919 + 160


def test_a_model_that_takes_no_second_of_sound_gets_other_inputs() -> None:
    body = "two, zero, axis = Numbers c = Conv (wav, w) f = Shape (c) n = Gather (f, two) "
    body += "a = Slice (table, zero, n, axis) d = Add (c, a) p = GlobalAveragePool (d) y = Flatten (p)"
    numbers = " ".join(
        f"{name} = Constant <value = int64[1] {{{value}}}> ()"
        for name, value in {"two": 2, "zero": 0, "axis": 2}.items()
    )
    body = body.replace("two, zero, axis = Numbers", numbers)
    limited = network("N,1,samples", body, "wav", w=(8, 1, 80), table=(1, 8, 500))
    assert audio_input(limited, Session.of(limited).inputs, 4, {}) is not None
    assert heard(limited, Session.of(limited).inputs, 4, 0, {}) is None
    assert synthetic_samples(limited, Effort.BALANCED, 0, None).origin is not Origin.SOUNDS


def test_long_sounds_are_few() -> None:
    model = classifier("N,1,1440000", (8, 1, 80))
    found = audio_input(model, Session.of(model).inputs, 256, {})
    assert found is not None and affordable(found) == 6, "ten minutes of sound"


def with_statistics(shape: tuple[int, ...], seen: np.ndarray[Any, Any]) -> Model:
    """A convolution whose BatchNormalization has met what was `seen`."""
    sizes = ",".join(["N", *map(str, shape[1:])])
    kernel = (8, shape[1], *([3] * (len(shape) - 2)))
    body = "c = Conv (x, w, b) n = BatchNormalization (c, g, s, m, v) r = Relu (n) p = GlobalAveragePool (r) "
    bare = network(sizes, "y = Conv (x, w, b)", out=",".join(["N", "c", *"hw"[: len(shape) - 2]]), w=kernel, b=(8,))
    (met,) = Session.of(bare).run({"x": seen.astype(np.float32)})
    axes = (0, *range(2, met.ndim))
    values = {i.name: numpy_helper.to_array(i) for i in bare.proto.graph.initializer}
    return network(
        sizes,
        body + "y = Flatten (p)",
        **values,
        g=np.ones(8),
        s=np.zeros(8),
        m=met.mean(axis=axes),
        v=met.var(axis=axes),
    )


@pytest.mark.parametrize("gain", [1.0, 32768.0])
def test_the_scale_of_samples_is_the_one_that_statistics_tell(gain: float) -> None:
    model = with_statistics((1, 1, 8000), gain * voices(np.random.default_rng(9), 16, 8000)[:, None])
    found = heard(model, Session.of(model).inputs, 16, 0, {})
    assert found is not None and not found[1]
    assert 0.3 < found[0].std() / gain / voices(np.random.default_rng(9), 16, 8000).std() < 3


@pytest.mark.parametrize(("gain", "offset"), [(1.0, 0.0), (0.25, 0.675), (4.343, 0.0), (1.0, 20.8)])
def test_the_scale_of_a_spectrogram_is_the_one_that_statistics_tell(gain: float, offset: float) -> None:
    powers = log_mel(voices(np.random.default_rng(9), 24, samples_of(60)), 60, 32)
    model = with_statistics((1, 1, 60, 32), (gain * powers + offset)[:, None])
    found = heard(model, Session.of(model).inputs, 24, 0, {})
    assert found is not None
    made = found[0]
    assert made.shape == (24, 1, 60, 32)
    assert 0.7 < made.std() / (gain * powers.std()) < 1.4
    assert abs(made.mean() - (gain * powers.mean() + offset)) < gain * powers.std()


def test_bins_come_first_where_the_model_has_them_first() -> None:
    late, early = classifier("N,1,101,40", (8, 1, 3, 3)), classifier("N,1,40,101", (8, 1, 3, 3))
    (first, _), (second, _) = (heard(m, Session.of(m).inputs, 4, 0, {}) or (np.zeros(1), False) for m in (late, early))
    assert (first == second.swapaxes(2, 3)).all()


def test_a_model_that_listens_is_repaired_with_voices_and_judged_by_tones() -> None:
    model = classifier("N,1,101,40", (8, 1, 3, 3))
    samples = synthetic_samples(model, Effort.BALANCED, 0, None)
    assert samples.origin is Origin.SOUNDS and samples.trusted and samples.faithful and samples.spread
    count = synthetic_extent(model, Effort.BALANCED, None).sounds
    assert sum(len(feeds["x"]) for feeds in samples.fit) == count
    assert samples.judge.described == SOUNDS and samples.judge.independent
    fitted, judging = (np.concatenate([f["x"] for f in feeds]) for feeds in (samples.fit, samples.check))
    nearest = min(float(np.abs(judging - one).mean()) for one in fitted)
    assert nearest > 0.1, "none of those is among these"


def test_a_model_of_one_sound_at_a_time() -> None:
    text = (
        "s = Constant <value = int64[3] {1, 1, 8000}> () r = Reshape (x, s) c = Conv (r, w) y = GlobalAveragePool (c)"
    )
    samples = synthetic_samples(network("N,8000", text, out="N,c,1", w=(8, 1, 80)), Effort.BALANCED, 0, None)
    assert samples.origin is Origin.SOUNDS and samples.apart and {len(f["x"]) for f in samples.fit} == {1}


def test_what_sounds_take_is_in_the_estimate() -> None:
    model = classifier("N,1,16000", (8, 1, 80))
    extent = synthetic_extent(model, Effort.BALANCED, None)
    assert making(model, extent, 0.001, None).count == extent.sounds
    assert (
        making(model, extent, 0.001, None).seconds
        > making(classifier("N,1,8000", (8, 1, 80)), extent, 0.001, None).seconds
    )


def test_two_inputs_are_left_alone() -> None:
    proto = onnx.ModelProto.FromString(classifier("N,1,8000", (8, 1, 80)).proto.SerializeToString())
    proto.graph.input.append(onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["N", 2]))
    assert spelled(load(proto)) is None
