"""Short unit names and what they are written out as."""

_FULL_NAMES = {
    "ms": "Milliseconds",
    "s": "Seconds",
    "percent": "Percent",
    "count": "Count",
    "MB": "Megabytes",
    "GB": "Gigabytes",
    "kB": "Kilobytes",
    "B": "Bytes",
    "": "unit",
    None: "unit",
}


def full_unit(unit: str | None) -> str:
    """The unit written out; a name that is not a known short form stays as it is."""
    return _FULL_NAMES.get(unit, unit or "unit")
