"""The names that TorchServe handlers import, written anew for Torchkeep's workers."""

from ts.version import __version__ as __version__
