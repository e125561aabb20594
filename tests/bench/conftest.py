"""`bench` is a program beside the package: only its own tests import it."""

import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parent.parent.parent)
# Last, so that no other name changes its meaning by it.
if ROOT not in sys.path:
    sys.path.append(ROOT)
