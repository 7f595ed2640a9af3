"""ONNX files of transformers with the topology and the names that exporters and optimizers give them, at any size.

    build(PRESETS["llama3-8b"].tiny(), Style.DECOMPOSED).model(Draw(Kind.ALIKE))
    build(PRESETS["llama2-7b"], Style.DECOMPOSED, np.float16).write(path)

`build` draws no weight yet; `write` draws and writes them slab by slab, so that memory does not grow with the model.
The same numbers come out in every style.
"""

from .config import PRESETS, Activation, Config, Family
from .feeding import feeds, shapes
from .nets import NETS, runs_batch
from .styles import Style, build
from .weights import Draw, Kind

__all__ = [
    "NETS", "PRESETS", "Activation", "Config", "Draw", "Family", "Kind", "Style", "build", "feeds", "runs_batch",
    "shapes",
]  # fmt: skip
