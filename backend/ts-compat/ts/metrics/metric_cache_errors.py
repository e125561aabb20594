"""What can go wrong with `context.metrics`.

The errors are kin to Python's own, not to each other, so that handlers can catch either.
"""

import yaml


class GeneralMetricsCacheError(Exception):
    """Anything that has no class of its own."""


class MetricsCacheIOError(OSError):
    """The configuration file cannot be read."""


class MetricsCachePyYamlError(yaml.YAMLError):
    """The configuration file is no yaml."""


class MetricsCacheTypeError(TypeError):
    """An argument or a configured value has the wrong type."""


class MetricsCacheValueError(ValueError):
    """An argument or a configured value is not allowed."""


class MetricsCacheKeyError(KeyError):
    """There is no such metric, or the configuration lacks a section."""
