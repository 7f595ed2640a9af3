"""The Python of docs/integrations.md runs as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from tiny import ROOT

PAGE = (ROOT / "docs" / "integrations.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"<!-- (\w+) example -->\n```python\n(.*?)```", PAGE, re.DOTALL)


def test_all_python_of_the_page_is_here() -> None:
    assert len(EXAMPLES) == PAGE.count("```python") == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("name", "code"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_examples_run(name: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "simplify":
        pytest.importorskip("onnxsim")
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    exec(compile(code.replace("max_error=0.1", "ratio=0.2, effort='fast'"), "docs/integrations.md", "exec"), {})
    assert onnx.load("folded.onnx").graph.node


def test_without_olive_the_pass_says_what_to_install() -> None:
    run = "import sys; sys.modules['olive'] = None; import onnxfold.integrations.olive"
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("onnxfold.errors.RequestError: the Olive pass needs Olive (")
    assert done.stderr.endswith("pip install 'onnxfold[olive]'\n")
