"""Which allocator the zygote starts with."""

from pathlib import Path

import pytest

from torchkeep.runtime.allocator import find_allocator, with_allocator


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for path in ("usr/lib/x86_64-linux-gnu/libjemalloc.so.2", "usr/lib64/libtcmalloc.so.4"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    return tmp_path


def test_jemalloc_is_taken_first_and_the_wanted_one_instead(root: Path) -> None:
    jemalloc = root / "usr/lib/x86_64-linux-gnu/libjemalloc.so.2"
    tcmalloc = root / "usr/lib64/libtcmalloc.so.4"
    assert find_allocator("", root) == ("jemalloc", jemalloc)
    assert find_allocator("tcmalloc", root) == ("tcmalloc", tcmalloc)
    assert find_allocator("default", root) == ("glibc", None)
    jemalloc.unlink()
    assert find_allocator("", root) == ("tcmalloc", tcmalloc)
    assert find_allocator("jemalloc", root) == ("glibc", None)


def test_preloading_keeps_what_the_user_preloads() -> None:
    library = Path("/l/libjemalloc.so.2")
    assert with_allocator({}, library) == {"LD_PRELOAD": "/l/libjemalloc.so.2"}
    own = {"LD_PRELOAD": "/own.so"}
    assert with_allocator(own, library) == {"LD_PRELOAD": "/l/libjemalloc.so.2:/own.so"}
    chosen = {"LD_PRELOAD": "/x/libtcmalloc.so.4"}
    assert with_allocator(chosen, library) == chosen
    assert own == {"LD_PRELOAD": "/own.so"}


def test_glibc_gets_few_arenas_unless_the_user_says_otherwise() -> None:
    assert with_allocator({}, None) == {"MALLOC_ARENA_MAX": "2"}
    assert with_allocator({"MALLOC_ARENA_MAX": "8"}, None) == {"MALLOC_ARENA_MAX": "8"}
