"""Who judges: inputs of another kind than those that were fitted on, in the convention that the model wants."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from tiny import MODELS, SHARED

from onnxfold import fold
from onnxfold.calibration.judge import LINES, PHOTOGRAPHS, WORDS, independent_judge
from onnxfold.calibration.samples import SYNTHETIC, calibration_samples, synthetic_samples
from onnxfold.calibration.synthetic import conventions
from onnxfold.calibration.synthetic.conventions import BYTES, CONVENTIONS, USUAL, convention
from onnxfold.calibration.synthetic.photographs import crops, more_photographs, photographs
from onnxfold.calibration.synthetic.problem import InversionProblem, LossValue
from onnxfold.evaluation.candidates import Evaluator, Reference
from onnxfold.evaluation.quality import measured
from onnxfold.model.model import load
from onnxfold.options.choices import Effort
from onnxfold.runtime.session import Feeds, Session


def test_crops_are_pixels_of_the_photographs_and_the_same_for_a_seed() -> None:
    made, again = (crops(np.random.default_rng(3), photographs(), 6, 20, 30) for _ in range(2))
    assert made.shape == (6, 20, 30, 3) and made.dtype == np.float32 and (made == again).all()
    assert made.min() >= 0 and made.max() <= 255 and made.std() > 10
    assert not (crops(np.random.default_rng(4), photographs(), 6, 20, 30) == made).all()


def test_the_photographs_of_the_package_are_whole() -> None:
    assert len(more_photographs()) == 10 and len({image.shape for image in more_photographs()}) > 1
    assert all(image.ndim == 3 and image.dtype == np.uint8 and image.std() > 10 for image in more_photographs())


@pytest.mark.parametrize("name", ["digits_resnet_bn", "digits_vgg"])
def test_images_are_judged_by_photographs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SYNTHETIC, Effort.BALANCED, (64, 16))
    samples = synthetic_samples(load(MODELS / f"{name}.onnx"), Effort.BALANCED, 0, None)
    assert samples.judge.independent and samples.judge.described == PHOTOGRAPHS
    fitted, judging = (next(iter(feeds[0].values())) for feeds in (samples.fit, samples.check))
    assert fitted.shape[1:] == judging.shape[1:] and sum(len(next(iter(f.values()))) for f in samples.check) == 128


@pytest.mark.parametrize(
    ("shape", "kind"), [("3,48,320", LINES), ("48,320,3", LINES), ("3,48,96", PHOTOGRAPHS), ("3,96,640", PHOTOGRAPHS)]
)
def test_readers_of_text_are_judged_by_text(shape: str, kind: str) -> None:
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[N,{shape}] x) => (float[N,{shape}] y) {{ y = Relu(x) }}'
    )
    like = {"x": np.zeros((4, *map(int, shape.split(","))), np.float32)}
    judge = independent_judge(load(proto), like, 8, 0, None)
    assert judge is not None and judge.described == kind and judge.independent


def test_other_inputs_cannot_be_judged() -> None:
    """Sixty-four numbers that are no image: the same kind, and no tick."""
    samples = synthetic_samples(load(MODELS / "digits_mlp.onnx"), Effort.BALANCED, 0, None)
    assert not samples.judge.independent
    report = fold(MODELS / "digits_mlp.onnx", ratio=0.1, round_to=1, effort="fast", latency=False).report
    assert report.check is not None and report.check.mark == "unsure"
    assert (
        "say little about real ones" in report.verdict
        and "; pass `calibration` for an error you can rely on" in report.verdict
    )


def test_the_users_own_data_judges() -> None:
    given = {"image": np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)}
    samples = calibration_samples(load(MODELS / "digits_mlp.onnx"), given, 64, None, None)
    held, fitted = ({id(feed) for feed in feeds} for feeds in (samples.check, samples.fit))
    assert samples.judge.independent and held and not held & fitted


def test_words_follow_zipfs_law() -> None:
    text = '<ir_version: 8, opset_import: ["": 17]> g (int64[N,12] ids) => (float[N,12,4] y) { y = Gather(table, ids) }'
    proto = onnx.parser.parse_model(text)
    table = np.random.default_rng(0).standard_normal((1000, 4)).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(table, "table"))
    like = {"ids": np.zeros((8, 12), np.int64)}
    judge = independent_judge(load(proto), like, 4000, 0, None)
    assert judge is not None and judge.described == WORDS and judge.independent
    ids = np.concatenate([feeds["ids"] for feeds in judge.batches])
    counts = np.bincount(ids.ravel(), minlength=1000)
    assert ids.min() >= 0 and ids.max() < 1000 and ids.shape == (4000, 12)
    ratio = counts[0] / counts[27:30].mean()
    assert 9 < ratio < 13, "number 0 is as many times as likely as (28 + 2.7) / 2.7"


def test_sentences_are_judged_by_words_that_they_do_not_have() -> None:
    text = '<ir_version: 8, opset_import: ["": 17]> g (int64[N,12] ids) => (float[N,12,4] y) { y = Gather(table, ids) }'
    proto = onnx.parser.parse_model(text)
    table = np.random.default_rng(0).standard_normal((1000, 4)).astype(np.float32)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(table, "table"))
    samples = synthetic_samples(load(proto), Effort.BALANCED, 0, None)
    fitted, judging = ({int(i) for f in feeds for i in f["ids"].ravel()} for feeds in (samples.fit, samples.check))
    assert samples.judge.independent and len(fitted) > 100 and len(judging) > 100 and not fitted & judging


EMBEDDED = """<ir_version: 8, opset_import: ["": 17]> g (int64[N,{length}] ids, {kind}[{shape}] more)
    => (float[N,{length},4] y) {{ e = Gather(table, ids) y = Add(e, {second}) }}"""


@pytest.mark.parametrize(
    ("length", "kind", "shape", "second", "independent"),
    [
        (1, "int64", "N,1", "m", True),  # a mask of one word
        (6, "int64", "1,6", "p", True),  # positions, which are not of the batch
        (6, "float", "N,6,4", "more", False),  # floats of which nothing is known
    ],
)
def test_what_stands_beside_words(length: int, kind: str, shape: str, second: str, independent: bool) -> None:
    text = EMBEDDED.format(length=length, kind=kind, shape=shape, second="f" if second != "more" else "more")
    made = {
        "m": "c = Cast<to = 1>(more) last = Constant<value_ints = [2]>() f = Unsqueeze(c, last)",
        "p": "f = Gather(positions, more)",
        "more": "",
    }
    proto = onnx.parser.parse_model(text.replace("{ e =", f"{{ {made[second]} e =", 1))
    for name, rows in (("table", 200), ("positions", 12)):
        value = np.random.default_rng(0).standard_normal((rows, 4)).astype(np.float32)
        if name == "table" or second == "p":
            proto.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    model = load(proto)
    sides = [4 if n == "N" else int(n) for n in shape.split(",")]
    like = {"ids": np.zeros((4, length), np.int64), "more": np.ones(sides, kind.replace("float", "float32"))}
    judge = independent_judge(model, like, 16, 0, None)
    assert judge is not None and judge.independent is independent and len(judge.batches) == 4
    for feeds in judge.batches:
        assert feeds["more"].shape == like["more"].shape
        Session.of(model).run(feeds)


@pytest.mark.parametrize(("scale", "strange"), [(1.0, False), (0.1, True), (20.0, True)])
def test_outputs_that_hardly_move_say_little(scale: float, strange: bool) -> None:
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[N,4] x) => (float[N,4] y) { y = Neg(x) }'
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    here, there = ({"x": (size * rng.standard_normal((64, 4))).astype(np.float32)} for size in (scale, 1.0))
    evaluator = Evaluator(load(proto), lambda _: [here], reference=Reference(known=[there]))
    assert evaluator.strange is strange
    found = measured(evaluator, proto, "inputs", True)
    assert found is not None and found.independent is not strange


@pytest.mark.parametrize(
    ("scale", "shift", "wanted"), [(1.0, 0.0, USUAL), (58.0, 120.0, BYTES), (0.225, 0.45, CONVENTIONS[2])]
)
@pytest.mark.parametrize(("side", "quick"), [(32, False), (80, True)])
def test_the_convention_is_found_by_batch_normalization(
    scale: float, shift: float, wanted: object, side: int, quick: bool
) -> None:
    """A network of which the first statistics are those of pixels in one convention, whatever its weights."""
    rng = np.random.default_rng(0)
    x = crops(rng, photographs(), 64, side, side)
    pixels = (x - x.mean()) / x.std() * scale + shift
    text = f"""<ir_version: 8, opset_import: ["": 17]> g (float[N,3,{side},{side}] x) => (float[N,8,{side},{side}] y)
        {{ c = Conv<pads = [1,1,1,1]>(x, w) b = BatchNormalization(c, s, z, m, v) y = Relu(b) }}"""
    made = onnx.parser.parse_model(text)
    w = rng.standard_normal((8, 3, 3, 3)).astype(np.float32) / 5
    wide = np.pad(pixels.transpose(0, 3, 1, 2), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(wide, (3, 3), axis=(2, 3))
    c = np.einsum("nihwab,oiab->nohw", windows, w)
    held = {"w": w, "s": np.ones(8), "z": np.zeros(8), "m": c.mean((0, 2, 3)), "v": c.var((0, 2, 3))}
    for name, value in held.items():
        made.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value, np.float32), name))
    model = load(made)
    assert convention(model, Session.of(model).inputs, "x", (1, 3, side, side), {}, quick) is wanted


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not there")
@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("cifar10_resnet20_bn", "zero mean, unit variance"), ("cifar10_resnet20_fused", "zero mean, unit variance"),
        ("cifar10_resnet_6blk_mlperftiny", "0 to 255"), ("cifar10_densenet40_12_bn", "0 to 255"),
        ("imagenet_mobilenetv1_0.5_160", "-1 to 1"),
        pytest.param("imagenet_squeezenet10_dc_fused", "blue first, less the mean", marks=pytest.mark.full),
    ],
)  # fmt: skip
def test_conventions_of_real_networks(name: str, wanted: str, quick: bool) -> None:
    model = load(SHARED / f"{name}.onnx")
    specs = Session.of(model).inputs
    side = specs[0].shape[2]
    assert isinstance(side, int)
    assert convention(model, specs, specs[0].name, (1, 3, side, side), {}, quick).name == wanted


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not there")
def test_a_quick_look_finds_what_all_crops_find() -> None:
    """Its statistics of BatchNormalization do not tell two conventions apart by four crops."""
    model = load(SHARED / "ultraface_RFB320.onnx")
    (spec,) = Session.of(model).inputs
    whole, quick = (convention(model, [spec], spec.name, (1, 3, 240, 320), {}, quick) for quick in (False, True))
    assert quick is whole


@pytest.mark.parametrize(("far", "runs"), [(1.3, 5), (1e9, 15)])
def test_conventions_that_fit_far_worse_are_left_alone(far: float, runs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five conventions on twelve crops; on 24 more, those that are not far off: none is left beside the best here."""
    asked, evaluate = list[str](), InversionProblem.evaluate

    def counted(self: InversionProblem, x: Feeds, target: Any) -> LossValue:
        asked.extend(x)
        return evaluate(self, x, target)

    monkeypatch.setattr(InversionProblem, "evaluate", counted)
    monkeypatch.setattr(conventions, "_FAR", far)
    model = load(MODELS / "digits_resnet_bn.onnx")
    assert convention(model, Session.of(model).inputs, "image", (1, 1, 8, 8), {}) is USUAL
    assert asked == ["image"] * runs


NORMALIZED = "y = BatchNormalization(x, s, z, z, s)"
CONVOLVED = "c = Conv(x, w, z) d = Conv(c, w, z) y = Conv(d, w, z)"


@pytest.mark.parametrize("node", [NORMALIZED, CONVOLVED])
def test_a_quick_look_takes_few_crops(node: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none of the five is ruled out, twelve crops each, two at a time."""
    asked = list[int]()

    def alike(self: InversionProblem, x: Feeds, target: Any) -> LossValue:
        asked.append(len(x["x"]))
        return LossValue(1.0, 1.0, {}, np.zeros(0), np.zeros(0))

    monkeypatch.setattr(InversionProblem, "evaluate", alike)
    text = f"""<ir_version: 8, opset_import: ["": 17]> g (float[N,3,80,80] x) => (float[N,3,80,80] y)
        <float[3] s = {{1,1,1}}, float[3] z = {{0,1,2}}, float[3,3,1,1] w = {{1,2,3,4,5,6,7,8,9}}> {{ {node} }}"""
    model = load(onnx.parser.parse_model(text))
    assert convention(model, Session.of(model).inputs, "x", (1, 3, 80, 80), {}, True) is CONVENTIONS[1]
    assert sum(asked) == 5 * 12 and set(asked) == {2}


def test_the_convention_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[object]()
    real = conventions._losses
    monkeypatch.setattr(conventions, "_losses", lambda *given: calls.append(given) or real(*given))
    model = load(MODELS / "digits_resnet_bn.onnx")
    specs = Session.of(model).inputs
    first, again = (convention(model, specs, "image", (count, 1, 8, 8), {}) for count in (1, 64))
    assert first is again and len(calls) == 1
