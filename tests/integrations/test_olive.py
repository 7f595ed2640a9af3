"""The pass in a recipe that Olive itself runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import onnx
import pytest
from tiny import ROOT, net, write

pytest.importorskip("olive", reason="needs Olive: pip install 'onnxfold[olive]'")

from olive.model import ONNXModelHandler
from olive.passes.olive_pass import create_pass_from_dict
from olive.workflows import run as run_olive

import onnxfold
from onnxfold.integrations.olive import TYPES, OnnxFold, package_config
from onnxfold.options.keywords import FoldKeywords

PAGE = (ROOT / "docs" / "integrations.md").read_text(encoding="utf-8")
pytestmark = pytest.mark.filterwarnings("ignore")  # Olive's and torch's own


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLIVE_DISABLE_TELEMETRY", "1")


def folded(model: Path, folder: Path, **given: Any) -> ONNXModelHandler:
    one = create_pass_from_dict(OnnxFold, given, disable_search=True)
    made = one.run(ONNXModelHandler(model_path=str(model)), str(folder))
    assert isinstance(made, ONNXModelHandler)
    return made


def test_every_parameter_is_a_keyword_of_fold() -> None:
    assert set(TYPES) <= set(FoldKeywords.__annotations__)


def test_a_recipe_runs(tmp_path: Path) -> None:
    """The one of docs/integrations.md, as ``olive run`` does it; the package configuration goes through a file."""
    packages = tmp_path / "olive_config.json"
    packages.write_text(json.dumps(package_config()))
    recipe = json.loads(re.findall(r"<!-- olive recipe -->\n```json\n(.*?)```", PAGE, re.DOTALL)[0])
    source = ROOT / recipe["input_model"]["model_path"]
    recipe["input_model"]["model_path"] = str(source)
    recipe |= {"cache_dir": str(tmp_path / "cache"), "output_dir": str(tmp_path / "out")}
    recipe["passes"]["fold"] |= {"effort": "fast", "latency": False}
    run_olive(recipe, package_config=str(packages))
    made = tmp_path / "out" / "model.onnx"
    assert made.stat().st_size < source.stat().st_size and onnx.load(made).metadata_props


def test_the_pass_does_what_fold_does(tmp_path: Path) -> None:
    source = write(tmp_path / "in.onnx", net())
    given = {"target_params": 0.6, "effort": "fast", "latency": False, "seed": 3}
    made = folded(source, tmp_path / "out", **given)
    onnxfold.fold(source, tmp_path / "direct.onnx", **given)
    assert Path(made.model_path).read_bytes() == (tmp_path / "direct.onnx").read_bytes()


def test_weights_beside_the_file_are_handed_on_with_it(tmp_path: Path) -> None:
    made = folded(write(tmp_path / "in.onnx", net()), tmp_path / "out", ratio=0.5, effort="fast", external_data=True)
    assert Path(made.get_resource("model_path")).is_dir() and made.load_model().graph.initializer[0].dims[0] == 8


def test_nothing_to_fold_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = write(tmp_path / "in.onnx", net())
    made = folded(source, tmp_path / "out", ratio=0.5, exclude=[".*"])
    assert Path(made.model_path) == source


def test_a_wrong_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(onnxfold.RequestError, match="`ratio`"):
        folded(write(tmp_path / "in.onnx", net()), tmp_path / "out", ratio=1.5)
