"""Packing archives from Python, by TorchServe's names: `ModelArchiverConfig` and what takes it."""

from model_archiver.model_archiver import ModelArchiver as ModelArchiver
from model_archiver.model_archiver_config import ModelArchiverConfig as ModelArchiverConfig
from model_archiver.model_archiver_error import ModelArchiverError as ModelArchiverError
