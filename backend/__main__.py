"""What the frontend starts: `python -P -m torchkeep.backend zygote|worker ...`.

    zygote FD PID SCRATCH   the zygote's first stage; FD is its control socket, PID the
                            frontend's, SCRATCH a directory for files that imports write
    worker FD ID PID DIR..  one worker, of a model with an interpreter of its own; FD is its
                            connection, ID its worker id; what it runs on is looked for in each
                            DIR first, as the model may have other versions of it
    check DIR...            whether this interpreter could run a worker: its exit status

`-P` matters: the working directory of a worker is the model directory, and without it an
archive that holds `queue.py` would be imported in place of the standard library's.
"""

import socket
import sys
from pathlib import Path

from torchkeep.backend.module_search import searched_first


def main() -> None:
    match sys.argv[1:]:
        case ["zygote", descriptor, frontend_pid, scratch]:
            from torchkeep.backend.zygote import Stage

            control = socket.socket(fileno=int(descriptor))
            Stage("plain", control, int(frontend_pid), Path(scratch)).run()
        case ["worker", descriptor, worker_id, frontend_pid, *libraries]:
            with searched_first(libraries):
                from torchkeep.backend import process
                from torchkeep.backend.worker import Worker

            connection = socket.socket(fileno=int(descriptor))
            connection.set_inheritable(False)  # nothing that the handler starts shall have it
            process.run_to_exit(Worker(connection, worker_id, int(frontend_pid)).run)
        case ["check", *libraries]:
            with searched_first(libraries):
                import torchkeep.backend.worker  # noqa: F401
        case _:
            raise SystemExit("torchkeep.backend is started by the server, not by hand")


if __name__ == "__main__":
    main()
