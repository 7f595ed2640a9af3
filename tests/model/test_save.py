"""Writing: same input, same bytes; external data in a new file; what was there before survives a failure."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers import model
from onnx import TensorProto, helper, numpy_helper
from tiny import MODELS, SHAPES, TEXT, arrays, fold, net, snapshot, write, write_external

from onnxfold import ModelError, RequestError
from onnxfold.model import save as store
from onnxfold.model.model import load
from onnxfold.runtime.session import Session

WIDE = {n: tuple(64 if d == 16 else d for d in s) for n, s in SHAPES.items()}  # so that weights are over 1 KiB


def entries(tensor: TensorProto) -> dict[str, str]:
    return {e.key: e.value for e in tensor.external_data}


def outputs(path: Path, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((2, 3, 8, 8)).astype(np.float32)
    return np.asarray(Session(path).run({"x": x})[0])


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("name", ["digits_resnet_bn", "digits_vgg"])
def test_same_input_same_bytes(tmp_path: Path, name: str, external: bool) -> None:
    source = MODELS / f"{name}.onnx"
    made = []
    for run, threads in enumerate((0, 1, 2, 0)):
        folder = tmp_path / str(run)
        folder.mkdir()
        fold(source, folder / "out.onnx", ratio=0.3, threads=threads, external_data=external, latency=False)
        made.append(snapshot(folder))
    assert len(made[0]) == (2 if external else 1)
    assert all(other == made[0] for other in made)


def test_seed_matters_only_for_ties_and_starts(tmp_path: Path) -> None:
    sizes = set()
    for seed in (0, 1):
        target = tmp_path / f"{seed}.onnx"
        fold(MODELS / "digits_vgg.onnx", target, ratio=0.3, seed=seed, latency=False, provenance=False)
        sizes.add((tmp_path / f"{seed}.onnx").stat().st_size)
    assert len(sizes) == 1


def test_external_data_goes_to_a_new_file(tmp_path: Path) -> None:
    path = write_external(tmp_path / "in.onnx", net(shapes=WIDE))
    before = snapshot(tmp_path)
    fold(path, tmp_path / "out.onnx", ratio=0.5, exclude=["Conv#2"], latency=False)
    after = snapshot(tmp_path)
    assert {name: after[name] for name in before} == before, "the input's files are as they were"
    (data,) = after.keys() - before.keys() - {"out.onnx"}
    assert data.startswith("out.onnx.") and data.endswith(".data")
    old = {t.name: numpy_helper.to_array(t, str(tmp_path)) for t in onnx.load(path).graph.initializer}
    new = onnx.load(tmp_path / "out.onnx", load_external_data=False)
    content, end = after[data], 0
    assert content is not None
    for tensor in new.graph.initializer:
        assert tensor.data_location == TensorProto.EXTERNAL
        where = entries(tensor)
        offset, length = int(where["offset"]), int(where["length"])
        assert where["location"] == data and offset % 64 == 0 and end <= offset < end + 64, "no page for a small one"
        end = offset + length
        if tensor.name in ("b2", "w3", "b3"):
            assert content[offset:end] == old[tensor.name].tobytes()
    assert end == len(content)
    assert arrays(tmp_path / "out.onnx")["w1"].shape == (32, 3, 3, 3)
    assert outputs(tmp_path / "out.onnx").shape == (2, 10)


def test_large_tensors_begin_at_a_page(tmp_path: Path) -> None:
    """So that they can be mapped into memory, as the ONNX specification of external data asks."""
    shapes = {"b0": (10,), "w": (1024, 512), "b": (512,), "v": (512, 1024)}
    text = """(float[N,10] i, float[N,1024] x) => (float y, float z) {
        z = Add (i, b0) t = MatMul (x, w) h = Add (t, b) y = MatMul (h, v) }"""
    path = write_external(tmp_path / "in.onnx", model(text, shapes))
    fold(path, tmp_path / "out.onnx", ratio=0.25, latency=False)
    for tensor in onnx.load(tmp_path / "out.onnx", load_external_data=False).graph.initializer:
        offset = int(entries(tensor)["offset"])
        large = tensor.name in "wv"
        assert (offset % 4096 == 0) >= large and offset % 64 == 0


def test_external_data_can_be_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "in.onnx", net(shapes=WIDE))
    inside = fold(path, tmp_path / "a.onnx", ratio=0.5, latency=False)
    outside = fold(path, tmp_path / "b.onnx", ratio=0.5, external_data=True, latency=False)
    written = onnx.load(tmp_path / "b.onnx", load_external_data=False)
    kinds = {t.name: t.data_location for t in written.graph.initializer}
    assert kinds["w1"] == kinds["w2"] == TensorProto.EXTERNAL
    assert kinds["b1"] == kinds["b3"] == TensorProto.DEFAULT, "small tensors stay inside"
    a, b = arrays(tmp_path / "a.onnx"), arrays(tmp_path / "b.onnx")
    assert all(np.array_equal(a[n], b[n]) for n in a)
    assert np.array_equal(outputs(tmp_path / "a.onnx"), outputs(tmp_path / "b.onnx"))
    (data,) = tmp_path.glob("*.data")
    assert inside.report.after and outside.report.after
    assert outside.report.after.file == data.stat().st_size + (tmp_path / "b.onnx").stat().st_size


def test_external_data_from_typed_fields(tmp_path: Path) -> None:
    proto = net(shapes=WIDE)
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(helper.make_tensor(tensor.name, tensor.data_type, tensor.dims, values.ravel().tolist()))
        assert tensor.float_data
    fold(proto, tmp_path / "out.onnx", ratio=0.5, exclude=["Conv#2"], external_data=True, latency=False)
    made = onnx.load(tmp_path / "out.onnx", load_external_data=False).graph.initializer
    assert {t.name for t in made if t.data_location == TensorProto.EXTERNAL} >= {"w1", "w2", "w3"}
    assert not any(t.float_data for t in made if t.data_location == TensorProto.EXTERNAL)
    assert np.array_equal(arrays(tmp_path / "out.onnx")["w3"], numpy_helper.to_array(proto.graph.initializer[4]))


def test_external_data_in_constants_and_bodies(tmp_path: Path) -> None:
    """Tensors of Constant nodes and of If branches move along too."""
    text = TEXT.replace("y = Gemm", "q = Gemm").replace(
        "}",
        """  k = Constant <value: tensor = float[10] {0,1,2,3,4,5,6,7,8,9}> ()
    z = Add (q, k)
    c2 = Constant <value: tensor = bool {1}> ()
    y = If (c2) <then_branch = one () => (float[N,10] o) { o = Add (z, inner) },
                 else_branch = two () => (float[N,10] o2) { o2 = Identity (z) }>
}""",
    )
    proto = net(text)
    branch = next(a.g for n in proto.graph.node for a in n.attribute if a.name == "then_branch")
    branch.initializer.append(numpy_helper.from_array(np.arange(10, dtype=np.float32), "inner"))
    for constant in [a.t for n in proto.graph.node for a in n.attribute if a.name == "value"]:
        constant.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(constant)))  # raw bytes: only those can go out
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    path = tmp_path / "a" / "in.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0, convert_attribute=True)
    loose = onnx.load(path, load_external_data=False)
    values = next(a.t for n in loose.graph.node for a in n.attribute if n.output[0] == "k")
    assert values.data_location == TensorProto.EXTERNAL
    fold(path, tmp_path / "b" / "out.onnx", ratio=0.5, latency=False)
    shutil.rmtree(tmp_path / "a")
    whole = onnx.load(tmp_path / "b" / "out.onnx")
    constant = next(a.t for n in whole.graph.node for a in n.attribute if n.output[0] == "k")
    assert numpy_helper.to_array(constant).tolist() == list(range(10))
    onnx.checker.check_model(str(tmp_path / "b" / "out.onnx"))


def test_data_file_of_the_replaced_model_goes(tmp_path: Path) -> None:
    path = write_external(tmp_path / "in.onnx", net(shapes=WIDE))
    for ratio in (0.3, 0.5, 0.5):
        fold(path, tmp_path / "out.onnx", ratio=ratio, latency=False)
        assert len(list(tmp_path.glob("out.onnx.*.data"))) == 1
        assert outputs(tmp_path / "out.onnx").shape == (2, 10)


def test_data_file_that_the_input_uses_stays(tmp_path: Path) -> None:
    """A renamed copy of an earlier result shares its data file with that: replacing the result must not take it."""
    fold(write_external(tmp_path / "in.onnx", net(shapes=WIDE)), tmp_path / "out.onnx", ratio=0.3, latency=False)
    shutil.copy(tmp_path / "out.onnx", tmp_path / "copy.onnx")
    fold(tmp_path / "copy.onnx", tmp_path / "out.onnx", ratio=0.3, latency=False)
    assert outputs(tmp_path / "copy.onnx").shape == outputs(tmp_path / "out.onnx").shape


def test_failed_verdict_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_external(tmp_path / "in.onnx")
    fold(path, tmp_path / "out.onnx", ratio=0.3, latency=False)
    before = snapshot(tmp_path)
    monkeypatch.setattr("onnxfold.evaluation.verdict._interface", lambda *_: ["the model's inputs changed"])
    with pytest.raises(Exception, match="was not written"):
        fold(path, tmp_path / "out.onnx", ratio=0.5, latency=False)
    assert snapshot(tmp_path) == before


def test_permissions(tmp_path: Path) -> None:
    """A new file has those of any new file; a replaced one keeps its own."""
    path = write(tmp_path / "in.onnx")
    (tmp_path / "plain").touch()
    fold(path, tmp_path / "out.onnx", ratio=0.5, latency=False)
    assert stat.S_IMODE((tmp_path / "out.onnx").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    (tmp_path / "out.onnx").chmod(0o640)
    fold(path, tmp_path / "out.onnx", ratio=0.5, latency=False)
    assert stat.S_IMODE((tmp_path / "out.onnx").stat().st_mode) == 0o640


@pytest.mark.parametrize("there", [True, False])
def test_link_as_output_is_followed(tmp_path: Path, there: bool) -> None:
    """The link stays, and what it leads to is the result."""
    path = write(tmp_path / "in.onnx")
    (tmp_path / "folder").mkdir()
    real, link = tmp_path / "folder" / "other.onnx", tmp_path / "out.onnx"
    if there:
        real.write_bytes(b"old")
    link.symlink_to(real)
    fold(path, link, ratio=0.5, latency=False)
    assert link.is_symlink() and os.readlink(link) == str(real) and not real.is_symlink()
    assert outputs(link).shape == outputs(real).shape == (2, 10)
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["other.onnx"]


def test_model_behind_a_link(tmp_path: Path) -> None:
    """External data is looked for beside the name that was given, as onnxruntime does."""
    folder = tmp_path / "real"
    folder.mkdir()
    write_external(folder / "in.onnx")
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    assert fold(tmp_path / "link" / "in.onnx", ratio=0.5, latency=False).report.check.passed  # type: ignore[union-attr]
    (tmp_path / "in.onnx").symlink_to(folder / "in.onnx")
    with pytest.raises(ModelError, match=r"weights\.bin.*missing"):
        fold(tmp_path / "in.onnx", ratio=0.5)


def test_save_later(tmp_path: Path) -> None:
    path = write_external(tmp_path / "in.onnx", net(shapes=WIDE))
    result = fold(path, ratio=0.5, latency=False)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["in.onnx", "weights.bin"]
    result.save(tmp_path / "out.onnx")
    assert outputs(tmp_path / "out.onnx").shape == (2, 10)
    with pytest.raises(RequestError, match="input itself"):
        result.save(path)
    with pytest.raises(RequestError, match="holds the weights"):
        result.save(tmp_path / "weights.bin")
    with pytest.raises(RequestError, match="does not exist"):
        result.save(tmp_path / "no" / "out.onnx")


def test_inline_reads_external_data(tmp_path: Path) -> None:
    model = load(write_external(tmp_path / "in.onnx"))
    whole = store.inline(model.proto, model.folder)
    assert [t.raw_data for t in whole.graph.initializer] == [t.raw_data for t in net().graph.initializer]
    plain = load(net())
    assert store.inline(plain.proto, None) is plain.proto
    with pytest.raises(ModelError, match="load it from its path"):
        store.inline(model.proto, None)


def test_external_data_of_a_model_in_memory(tmp_path: Path) -> None:
    write_external(tmp_path / "in.onnx")
    with pytest.raises(ModelError, match="from its path"):
        fold(onnx.load(tmp_path / "in.onnx", load_external_data=False), ratio=0.5)


@pytest.mark.parametrize("options", [{"external_data": True}, {}])
def test_a_link_into_another_folder_with_weights_beside(tmp_path: Path, options: dict[str, bool]) -> None:
    """They would be looked for beside the link by one reader and beside the file by another."""
    (tmp_path / "folder").mkdir()
    path = (write if options else write_external)(tmp_path / "in.onnx", net(shapes=WIDE))
    (tmp_path / "out.onnx").symlink_to(tmp_path / "folder" / "out.onnx")
    with pytest.raises(RequestError, match=r"is a link into another folder.*name .*folder/out\.onnx itself"):
        fold(path, tmp_path / "out.onnx", ratio=0.5, latency=False, **options)
    assert not list((tmp_path / "folder").iterdir()) and not list(tmp_path.glob(".*"))


def test_a_link_in_the_same_folder_with_weights_beside(tmp_path: Path) -> None:
    path = write_external(tmp_path / "in.onnx", net(shapes=WIDE))
    (tmp_path / "out.onnx").symlink_to("real.onnx")
    for ratio in (0.3, 0.5):
        fold(path, tmp_path / "out.onnx", ratio=ratio, latency=False)
        assert outputs(tmp_path / "out.onnx").shape == (2, 10)
        assert len(list(tmp_path.glob("real.onnx.*.data"))) == 1 and (tmp_path / "out.onnx").is_symlink()
