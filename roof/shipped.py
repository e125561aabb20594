"""Files of the distribution that are no modules of `torchkeep`."""

from pathlib import Path

# Holds the `ts` that workers import, and the archivers' packages.
TS_COMPAT = Path(__file__).resolve().parent.parent / "backend" / "ts-compat"
METRICS_YAML = TS_COMPAT / "ts/configs/metrics.yaml"  # metrics_config names another
