"""`python -m torchkeep.modelstore`: the commands that seal archives, and open them."""

import sys

from torchkeep.modelstore.sealing_commands import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], "python -m torchkeep.modelstore"))
