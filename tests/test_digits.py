"""The digits of models/digits.npz are scikit-learn's, in the split that the models were trained on."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from tiny import MODELS

sys.path.append(str(MODELS))
import digits


def test_the_file_is_what_scikit_learn_gives() -> None:
    made = digits.make_split()
    with np.load(digits.DATA) as stored:
        assert sorted(stored.files) == sorted(made)
        assert all(np.array_equal(stored[name], values) for name, values in made.items())


def test_measuring_does_not_import_scikit_learn() -> None:
    run = "import digits, sys; digits.load_test(); sys.exit('sklearn' in sys.modules)"
    subprocess.run([sys.executable, "-c", run], cwd=MODELS, check=True)
