"""The zygote's main: `python -P -m torchkeep.backend FD PID SCRATCH`, run by the frontend.

FD is the control socket of the first stage, PID the frontend's, SCRATCH a directory for files
that imports write. `-P` matters: the working directory of a worker
is the model directory, and without it an archive that holds `queue.py` would be imported
in place of the standard library's.
"""

import socket
import sys
from pathlib import Path

from torchkeep.backend.zygote import Stage


def main() -> None:
    _, descriptor, frontend_pid, scratch = sys.argv
    control = socket.socket(fileno=int(descriptor))
    Stage("plain", control, int(frontend_pid), Path(scratch)).run()


if __name__ == "__main__":
    main()
