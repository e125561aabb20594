"""The sum of several runs of pytest, in the form of its own closing line."""

import re
import sys
from collections import Counter
from pathlib import Path

ORDER = ("failed", "passed", "skipped", "deselected", "xfailed", "xpassed", "warning", "error")


def closing_line(logs: list[str]) -> str:
    """Counts are added; the time is that of the longest run, as they ran side by side."""
    counts: Counter[str] = Counter()
    seconds = 0.0
    for log in logs:
        lines = re.findall(r"^=+ (.* in ([0-9.]+)s.*) =+$", log, re.MULTILINE)
        if not lines:
            counts["error"] += 1  # it never came to its end
            continue
        text, took = lines[-1]
        seconds = max(seconds, float(took))
        for number, kind in re.findall(r"([0-9]+) ([a-z]+)", text.partition(" in ")[0]):
            counts[kind.removesuffix("s") if kind in ("errors", "warnings") else kind] += int(
                number
            )
    parts = ", ".join(f"{counts[kind]} {kind}" for kind in ORDER if counts[kind])
    return f"===== {parts} in {seconds:.2f}s ====="


if __name__ == "__main__":
    print(closing_line([Path(name).read_text() for name in sys.argv[1:]]))  # noqa: T201
