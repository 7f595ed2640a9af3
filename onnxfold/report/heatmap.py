"""Heat maps of the distances between layers: HTML that needs nothing, PNG by matplotlib (an optional extra)."""

from __future__ import annotations

import html
import math
from pathlib import Path
from types import ModuleType

import numpy as np

from ..errors import RequestError
from ..model.files import write_text, writing
from ..passes.weight_sharing.distances import Class
from ..units import readable, visible
from .layers_report import LayersReport

_NEAR, _FAR = (26, 84, 144), (247, 247, 240)  # colors of distance 0 and of the largest
_STYLE = """body { font: 14px sans-serif; margin: 2em } table { border-collapse: collapse; margin: 1em 0 2em }
td { width: 1.4em; height: 1.4em; padding: 0 } th { font-weight: normal; text-align: right; padding-right: .5em }"""


def check_plot(path: Path | None) -> None:
    """Find out before the work whether the plot can be drawn. Raises RequestError."""
    if path is None:
        return
    if path.suffix.lower() not in (".html", ".png"):
        raise RequestError(f"a plot is an .html or a .png file, not {path}")
    if path.suffix.lower() == ".png":
        _matplotlib(path)


def draw(report: LayersReport, path: Path) -> None:
    """Write the distances of every class of layers as a heat map. Raises RequestError."""
    try:
        if path.suffix.lower() == ".html":
            write_text(path, page(report))
        else:
            _png(report, path)
    except OSError as error:
        raise RequestError(f"cannot write the plot {path}: {error.strerror or error}") from error


def page(report: LayersReport) -> str:
    """The HTML page: one table per class, cells colored, the figures shown when pointed at."""
    title = html.escape(_title(report))
    tables = "\n".join(_table(kind) for kind in report.kinds)
    head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    body = f"<h1>{title}</h1>\n<p>{html.escape(readable(report.verdict))}. Dark: alike.</p>\n{tables}"
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>{body}\n</body></html>\n'


def _title(report: LayersReport) -> str:
    return f"{visible(report.model)}: {report.distance} distance of layers"


def _table(kind: Class) -> str:
    most = float(np.max(kind.distances, initial=0.0, where=np.isfinite(kind.distances)))
    rows = []
    names = [visible(name) for name in kind.names]
    for name, distances in zip(names, kind.distances, strict=True):
        pairs = zip(names, distances, strict=True)
        cells = "".join(_cell(f"{name} / {other}", float(d), most) for other, d in pairs)
        rows.append(f"<tr><th>{html.escape(name)}</th>{cells}</tr>")
    shape = "x".join(map(str, kind.units[0][0].shape))
    return f"<h2>{shape}</h2><p>0 to {most:.3f}</p><table>{''.join(rows)}</table>"


def _cell(label: str, distance: float, most: float) -> str:
    color = _color(distance / most if most else 0.0)
    return f'<td style="background:{color}" title="{html.escape(f"{label}: {distance:.4f}")}"></td>'


def _color(share: float) -> str:
    share = min(1.0, share) if math.isfinite(share) else 1.0
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(_NEAR, _FAR, strict=True))


def _png(report: LayersReport, path: Path) -> None:
    plt = _matplotlib(path)
    count = len(report.kinds)
    longest = max(len(kind.units) for kind in report.kinds)
    side = max(4.0, 0.3 * longest + 2)
    figure, axes = plt.subplots(1, count, figsize=(side * count, side), squeeze=False, layout="constrained")
    for axis, kind in zip(axes[0], report.kinds, strict=True):
        image = axis.imshow(kind.distances, cmap="Blues_r", vmin=0)
        axis.set_title("x".join(map(str, kind.units[0][0].shape)))
        names = [visible(name) for name in kind.names]
        axis.set_xticks(range(len(names)), names, rotation=90, fontsize=6, parse_math=False)
        axis.set_yticks(range(len(names)), names, fontsize=6, parse_math=False)
        figure.colorbar(image, ax=axis, shrink=0.6)
    figure.suptitle(_title(report), parse_math=False)
    with writing(path) as file:
        figure.savefig(file, dpi=120, format="png")
    plt.close(figure)


def _matplotlib(path: Path) -> ModuleType:
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        why = "needs matplotlib, which is not installed: pip install 'onnxfold[plot]', or name an .html file"
        raise RequestError(f"the plot {path} {why}") from error
    return pyplot
