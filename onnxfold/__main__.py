"""``python -m onnxfold``."""

import sys

from .cli import main

sys.exit(main())
