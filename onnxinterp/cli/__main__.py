"""`python -m onnxinterp.cli` is `onnxinterp`."""

import sys

from onnxinterp.cli import main

sys.exit(main())
