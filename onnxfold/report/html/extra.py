"""The packages that draw: Altair, vl-convert and Jinja, which come with the extra `report`."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

from ...errors import RequestError

PACKAGES = {"altair": "altair", "vl_convert": "vl-convert-python", "jinja2": "jinja2"}


def require(what: str = "an HTML report") -> None:
    """Raise RequestError where one of the packages is missing."""
    missing = [name for module, name in PACKAGES.items() if not _there(module)]
    if missing:
        raise RequestError(f"{what} needs {', '.join(missing)}: pip install 'onnxfold[report]'")


def _there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ValueError:  # a module that is there in name only
        return False


@cache
def vega_lite() -> str:
    """The version of Vega-Lite that Altair writes, as vl-convert calls it ("6.4"), or the last one that it has."""
    import altair
    import vl_convert

    wanted, there = ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2]), vl_convert.get_vegalite_versions()
    return wanted if wanted in there else str(there[-1])


@cache
def runtime() -> str:
    """Vega-Embed with Vega and Vega-Lite: JavaScript that defines the global `vegaEmbed`."""
    import vl_convert

    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vega_lite()))
