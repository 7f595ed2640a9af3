"""The distances between layers as a picture: PNG or SVG, or the HTML report, which has them too."""

from __future__ import annotations

from pathlib import Path

from ..errors import RequestError
from ..model.files import write_bytes
from .html import extra
from .layers_report import LayersReport
from .saved import HTML, save

_PICTURES = (".png", ".svg")


def check_plot(path: Path | None) -> None:
    """Find out before the work whether the plot can be drawn. Raises RequestError."""
    if path is None:
        return
    if path.suffix.lower() not in (*_PICTURES, *HTML):
        raise RequestError(f"a plot is a .png, an .svg or an .html file, not {path}: name one of these")
    extra.require(f"the plot {path}")


def draw(report: LayersReport, path: Path) -> None:
    """Write the distances of every class of layers as a heat map. Raises RequestError."""
    try:
        if path.suffix.lower() in HTML:
            save(report, path)
        else:
            write_bytes(path, _picture(report, path.suffix.lower()))
    except OSError as error:
        raise RequestError(f"cannot write the plot {path}: {error.strerror or error}") from error


def _picture(report: LayersReport, ending: str) -> bytes:
    import vl_convert

    spec, version = report.plot().to_dict(), extra.vega_lite()
    if ending == ".svg":
        return str(vl_convert.vegalite_to_svg(spec, version)).encode()
    return bytes(vl_convert.vegalite_to_png(spec, version, scale=2))
