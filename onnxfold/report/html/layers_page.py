"""What the page of a ranking shows: the distances of layers as heat maps, and all pairs as a table."""

from __future__ import annotations

from typing import Any

from ..layers_report import LayersReport
from .fold_page import Tile
from .heat_maps import MOST, heat_map

MOST_PAIRS, MOST_MAPS = 2000, 34  # rows of the table; maps (with 3 % of them, one)


def layers_page(report: LayersReport, share: float = 1.0) -> dict[str, Any]:
    """The context of the template; with this `share` of the usual rows and maps."""
    classes, most = report.classes(), int(share * MOST_PAIRS)
    return {
        "mark": ("plain", "i", "Similar layers"), "alerts": [],
        "tiles": [
            Tile("Layers", str(sum(len(one.names) for one in classes)), f"in {len(classes)} shapes"),
            Tile("Pairs", str(len(report.pairs)), "could share a weight"),
        ],
        "pairs": report.pairs[:most], "left_out": max(0, len(report.pairs) - most),
        "maps": [(f"map-{number}", one) for number, one in enumerate(classes)],
        "most": MOST,
        "charts": {f"map-{number}": heat_map(one) for number, one in enumerate(classes[: int(share * MOST_MAPS)])},
    }  # fmt: skip
