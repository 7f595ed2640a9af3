"""A pass for Microsoft's Olive (`pip install 'onnxfold[olive]'`).

Olive finds passes in a package configuration. ``python -m onnxfold.integrations.olive olive_config.json`` writes
Olive's own with this pass added; ``olive run --config recipe.json --package-config olive_config.json`` then runs a
recipe that names the pass `OnnxFold`.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..api import fold
from ..errors import NothingToFoldError, RequestError
from ..options.parameters import PARAMETERS

try:
    from olive.hardware.accelerator import AcceleratorSpec
    from olive.model import ONNXModelHandler
    from olive.model.utils import resolve_onnx_path
    from olive.package_config import OlivePackageConfig
    from olive.passes import Pass
    from olive.passes.onnx.common import get_external_data_file_names
    from olive.passes.pass_config import BasePassConfig, PassConfigParam
except ImportError as error:
    raise RequestError(f"the Olive pass needs Olive ({error}): pip install 'onnxfold[olive]'") from error

log = logging.getLogger("olive.onnxfold")  # shown as Olive shows its own

TYPES: Mapping[str, Any] = {
    "max_error": float, "ratio": float, "target_macs": float, "target_params": float, "target_size": float,
    "target_latency": float, "min_agreement": float, "group_ratios": dict[str, float], "method": str,
    "include": list[str], "exclude": list[str], "round_to": int | str, "device": str, "fold_heads": bool,
    "calibration": str, "samples": int, "preprocess": str, "input_shapes": dict[str, list[int]], "effort": str,
    "recovery": str, "refine": bool, "steps": int, "quantize": str, "latency": bool, "providers": list[str],
    "seed": int, "external_data": bool,
}  # fmt: skip
"""The parameters of the pass: keywords of `onnxfold.fold` that can stand in JSON, and their types there."""


class OnnxFold(Pass):
    """Folds the channels of an ONNX model. Takes the keywords of `onnxfold.fold` (see docs/options.md); those that are
    left out have its defaults. A model with nothing to fold is handed on as it is, with a warning."""

    @classmethod
    def _default_config(cls, accelerator_spec: AcceleratorSpec) -> dict[str, PassConfigParam]:
        return {
            name: PassConfigParam(type_=kind, default_value=None, description=PARAMETERS[name].purpose)
            for name, kind in TYPES.items()
        }

    def _run_for_config(
        self, model: ONNXModelHandler, config: type[BasePassConfig], output_model_path: str
    ) -> ONNXModelHandler:
        if not isinstance(model, ONNXModelHandler):
            raise RequestError(f"OnnxFold takes an ONNX model, not a {type(model).__name__}: convert it before")
        source = Path(model.model_path)
        target = Path(resolve_onnx_path(output_model_path, source.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        given = {name: value for name in TYPES if (value := getattr(config, name)) is not None}
        try:
            report = fold(source, target, **given).report
        except NothingToFoldError as error:
            log.warning("OnnxFold changes nothing: %s", error)
            return model
        log.info("OnnxFold: %s", report.verdict)
        log.debug("OnnxFold: %s", report.to_json())
        return _handler(target)


def _handler(path: Path) -> ONNXModelHandler:
    """What Olive knows a file by: its folder too, where the weights are beside it."""
    if get_external_data_file_names(path):
        return ONNXModelHandler(model_path=str(path.parent), onnx_file_name=path.name)
    return ONNXModelHandler(model_path=str(path))


def package_config() -> dict[str, Any]:
    """Olive's package configuration with the pass `OnnxFold` in it, for ``olive.workflows.run(recipe,
    package_config=...)``."""
    text = Path(OlivePackageConfig.get_default_config_path()).read_text(encoding="utf-8")
    config: dict[str, Any] = json.loads(text)
    config["passes"]["OnnxFold"] = {
        "module_path": "onnxfold.integrations.olive.OnnxFold",
        "supported_providers": ["*"], "supported_accelerators": ["*"], "supported_precisions": ["*"],
        "supported_algorithms": [], "supported_quantization_encodings": [],
    }  # fmt: skip
    return config


if __name__ == "__main__":
    Path(sys.argv[1] if len(sys.argv) > 1 else "olive_config.json").write_text(
        json.dumps(package_config(), indent=2) + "\n", encoding="utf-8"
    )
