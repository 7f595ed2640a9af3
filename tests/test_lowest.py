"""The versions that .ci/run installs as the lowest ones are those that pyproject.toml allows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from tiny import ROOT

tomllib = pytest.importorskip("tomllib")  # Python 3.10 has none
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
ALONE = {"bench", "directml", "docs", "gpu", "olive"}  # extras whose packages no test needs
LOWEST = ROOT / ".ci" / "lowest.txt"


def allowed(requirements: Iterable[str]) -> dict[str, Version]:
    """By package, the lowest version that it may have. All of them have one."""
    found = {}
    for requirement in map(Requirement, requirements):
        (bound,) = requirement.specifier
        assert bound.operator == ">=" or bound.version.endswith(".*"), requirement
        found[requirement.name] = Version(bound.version.removesuffix(".*"))
    return found


def pinned(text: str) -> dict[str, Version]:
    """By package, the version that a file of constraints names."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    pairs = [re.fullmatch(r"([\w-]+)==([\d.]+)", line) for line in lines]
    assert all(pairs), lines
    return {pair[1]: Version(pair[2]) for pair in pairs if pair is not None}


def project() -> Mapping[str, Version]:
    used = [name for extra, names in EXTRAS.items() if extra not in ALONE for name in names]
    return allowed([*PROJECT["build-system"]["requires"], *PROJECT["project"]["dependencies"], *used])


def test_the_lowest_versions_are_those_of_the_project() -> None:
    assert pinned(LOWEST.read_text(encoding="utf-8")) == project()


def test_one_package_has_one_bound() -> None:
    """Extras repeat what others need."""
    everything = [one for names in EXTRAS.values() for one in names if ">=" in one]
    assert len(allowed(everything)) == len(set(everything))
    for extra in ("gpu", "directml"):
        assert allowed(EXTRAS[extra])[f"onnxruntime-{extra}"] == project()["onnxruntime"]


def test_declared_interpreters_begin_with_the_lowest() -> None:
    declared = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["project"]["classifiers"]))
    assert declared[0] == PROJECT["project"]["requires-python"].removeprefix(">=") == "3.10"


@pytest.mark.parametrize("bad", ["scipy", "scipy<2", "scipy~=1.0", "scipy>=1,<2"])
def test_a_requirement_without_a_lowest_version_is_caught(bad: str) -> None:
    with pytest.raises((AssertionError, ValueError)):
        allowed([bad])
    assert allowed(["a>=1.0", "b==2.*"]) == pinned("# x\na==1\nb==2.0.0\n")
