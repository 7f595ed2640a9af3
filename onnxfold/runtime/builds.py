"""Which builds of onnxruntime are installed. Each is a package of its own, and all of them share one folder: together
they overwrite each other, and removing one leaves a part of the other."""

from __future__ import annotations

from importlib.metadata import packages_distributions

INSTALL = "pip install 'onnxfold[cpu]' (or [gpu] for CUDA, [directml] for Windows; one of them)"
_EXTRAS = {"onnxruntime": "cpu", "onnxruntime-gpu": "gpu", "onnxruntime-directml": "directml"}


def installed() -> list[str]:
    """The packages that bring onnxruntime, sorted; names such as onnxruntime-gpu."""
    return sorted({name.lower().replace("_", "-") for name in packages_distributions().get("onnxruntime", ())})


def unusable(error: ImportError | None) -> str:
    """Why onnxruntime cannot be imported, and what to do; `error` None: it is there, and empty."""
    builds = installed()
    if len(builds) > 1:
        return clash(builds, "cpu")
    if isinstance(error, ModuleNotFoundError) and error.name == "onnxruntime" and not builds:
        return f"onnxruntime is not installed: {INSTALL}"
    name = builds[0] if builds else "onnxruntime"
    why = f"does not start here ({' '.join(str(error).split())[:200]})" if error else "is there only in part"
    return f"{name} {why}: pip uninstall -y {name} && pip install {name}"


def clash(builds: list[str], extra: str) -> str:
    """That `builds` are too many, and how to keep the one of `extra`."""
    both = " and ".join(builds)
    again = f"pip uninstall -y {' '.join(builds)} && pip install 'onnxfold[{extra}]'"
    return f"{both} are installed together and overwrite each other: {again}"


def lacking(provider: str, offered: list[str]) -> str:
    """That the installed build has no `provider` (an onnxruntime name), and how to get it.

    `offered`: what it has, as people say it.
    """
    extra = {"CUDAExecutionProvider": "gpu", "TensorrtExecutionProvider": "gpu", "DmlExecutionProvider": "directml"}
    wanted = extra.get(provider, "")
    if wanted and len(builds := installed()) > 1:
        return f"this onnxruntime has no {provider}: {clash(builds, wanted)}"
    there = ", ".join(offered)
    if not wanted:
        return f"this onnxruntime has no {provider}, only {there}: install the build that has it, or leave it out"
    package = next(name for name, one in _EXTRAS.items() if one == wanted)
    swap = f"install {package} in place of {' and '.join(installed()) or 'this one'}"
    return f"this onnxruntime has no {provider}, only {there}: {swap}, or leave it out"
