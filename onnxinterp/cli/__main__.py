"""`python -m onnxinterp.cli` runs the command `onnxinterp`."""

import sys

from onnxinterp.cli import main

sys.exit(main())
