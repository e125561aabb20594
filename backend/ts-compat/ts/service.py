"""Kept for handlers that import `PredictionException` from here."""

from ts.utils.util import PredictionException as PredictionException
