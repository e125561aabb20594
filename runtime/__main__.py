"""`python -m torchkeep.runtime` is the server; the two console scripts begin here, too."""

import sys

from torchkeep.roof.commands import serve, torchkeep, torchserve
from torchkeep.runtime import start_stop

__all__ = ["torchkeep", "torchserve"]

if __name__ == "__main__":
    sys.exit(start_stop.server_process(None, serve))
