"""Which memory allocator worker processes use.

glibc's keeps freed memory in one arena per thread, and a server that computes for days grows
by it. jemalloc and tcmalloc do not; where one is installed, the zygote, and so every worker,
starts with it (LD_PRELOAD: an allocator cannot be exchanged later).
"""

from collections.abc import Mapping
from pathlib import Path

from torchkeep.runtime.cpu_launcher import Allocator

# Debian's and Fedora's names, with and without the multiarch directory.
_LIBRARIES = {
    "jemalloc": ("libjemalloc.so.2",),
    "tcmalloc": ("libtcmalloc.so.4", "libtcmalloc_minimal.so.4"),
}
_DIRECTORIES = ("usr/local/lib", "usr/lib/*-linux-gnu", "usr/lib64", "usr/lib", "lib")
_ARENAS = "2"  # of glibc's, where it stays


def find_allocator(wanted: Allocator = "", root: Path = Path("/")) -> tuple[str, Path | None]:
    """The name of the allocator to use and its library; without one, glibc's own."""
    names = [wanted] if wanted else list(_LIBRARIES)
    for name in names:
        for library in _LIBRARIES.get(name, ()):
            for directory in _DIRECTORIES:
                for path in sorted(root.glob(f"{directory}/{library}")):
                    return name, path
    return "glibc", None


def with_allocator(environ: Mapping[str, str], library: Path | None) -> dict[str, str]:
    """The environment in which a process uses this allocator; the user's own settings win."""
    environment = dict(environ)
    preloaded = environment.get("LD_PRELOAD", "")
    if any(name in preloaded for name in _LIBRARIES):
        return environment
    if library is not None:
        environment["LD_PRELOAD"] = f"{library}:{preloaded}".rstrip(":")
    else:
        environment.setdefault("MALLOC_ARENA_MAX", _ARENAS)
    return environment
