"""Secrets in the memory of a process."""

import re


def found_in_memory(pid: int, needles: dict[str, bytes]) -> set[str]:
    """Which needles stand anywhere in the writable memory of a process (a child of ours)."""
    found = set()
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            region = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
            if region is None:
                continue
            start, end = (int(group, 16) for group in region.groups())
            try:
                memory.seek(start)
                content = memory.read(end - start)
            except (OSError, ValueError, OverflowError):
                continue
            found |= {name for name, needle in needles.items() if needle in content}
    return found
