"""The release of TorchServe whose `ts` package this one stands in for."""

__version__ = "0.12.0"
