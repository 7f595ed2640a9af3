"""How many inputs are made for a model that nobody has data for, and about how long that takes."""

from __future__ import annotations

from dataclasses import dataclass

from ..calibration.synthetic.audio_inputs import audio_input
from ..calibration.synthetic.bn_prior import FEWEST
from ..calibration.synthetic.drawn_text import reads_lines
from ..calibration.synthetic.generated_text import LENGTH, text_shapes
from ..calibration.synthetic.heard import affordable, seconds_of
from ..calibration.synthetic.photographed import wants_crops
from ..calibration.synthetic.pictures import image_shape
from ..calibration.synthetic.synthesize import Extent
from ..model.model import Model, Shapes
from ..model.shapes.nominal import OPEN_OTHER
from ..runtime.probe_inputs import VOCABULARY, index_limits
from ..runtime.session import Session
from ..runtime.token_scores import word_scores

_DESCENT = 6.0  # forward passes that a step of deep inversion takes
_NODE = 0.03  # seconds to prepare the gradient of a node
_FINDING = 300.0  # forward passes that finding the range of pixels takes, twice
_SCALES = 200.0  # forward passes that finding the scale of sounds takes
_SOUND = 0.01  # seconds to make a second of sound
_CROP = 0.03  # seconds to crop a photograph, or to draw a line
_WORD = 0.1  # forward passes of the usual length that one more word of a text takes


@dataclass(frozen=True)
class Making:
    """Samples that are made: the `seconds` it takes, and their `count`."""

    seconds: float
    count: int


def longer(model: Model, shapes: Shapes) -> float:
    """How many times as long texts are, the user's and those that are made, as those that a model is probed with; 1 for
    a model that takes no texts, or texts of a known length."""
    words = max(index_limits(model.graph).values(), default=0) >= VOCABULARY
    return LENGTH / OPEN_OTHER if words and len(text_shapes(Session.of(model).inputs, shapes or {})) > 1 else 1.0


def making(model: Model, extent: Extent, forward: float, shapes: Shapes) -> Making:
    """What `synthesize` makes for a model, going by its inputs and operators alone.

    Args:
        extent: how much is made.
        forward: seconds per sample of one run of the model.
        shapes: of inputs with open dimensions.
    """
    graph, specs = model.graph, Session.of(model).inputs
    if max(index_limits(graph).values(), default=0) >= VOCABULARY:
        written = forward * extent.count * LENGTH * LENGTH * _WORD if word_scores(graph) else 0.0
        return Making(written if written <= extent.writing else 0.0, extent.count)
    sound = audio_input(model, specs, extent.sounds, shapes or {})
    if sound is not None:
        count = affordable(sound)
        return Making(_SCALES * forward + _SOUND * seconds_of(sound) * count, count)
    shape = image_shape(specs, 1, shapes or {})
    if shape is not None and (reads_lines(model, shape) or wants_crops(model, specs, shapes or {})):
        return Making(_FINDING * forward + _CROP * extent.photographs, extent.photographs)
    ops = [node.op for node in graph.nodes]
    if shape is not None and "BatchNormalization" not in ops and ops.count("Conv") < FEWEST:
        return Making(0.0, extent.pictures)
    return Making(_NODE * len(ops) + _DESCENT * forward * extent.count * extent.steps, extent.count)
