"""``python -m onnxfold``."""

import sys

from .cli.main import main

sys.exit(main())
