"""A class around the one function of `model_packaging`."""

from model_archiver import model_packaging
from model_archiver.model_archiver_config import ModelArchiverConfig


class ModelArchiver:
    """TorchServe's entry point for callers from Python."""

    @staticmethod
    def generate_model_archive(config: ModelArchiverConfig) -> None:
        model_packaging.generate_model_archive(config)
