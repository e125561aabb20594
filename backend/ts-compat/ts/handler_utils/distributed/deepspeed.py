"""Models that DeepSpeed spreads over the ranks, where it is installed."""

import importlib
import os
from typing import Any

from ts.context import Context


def get_ds_engine(model: Any, ctx: Context) -> Any:
    """DeepSpeed's inference engine around a model.

    `deepspeed: {config, checkpoint}` of model-config.yaml names two files of the archive, and
    `handler: {model_path}` where the weights are.
    """
    config = ctx.model_yaml_config or {}
    section = config.get("deepspeed")
    model_path = (config.get("handler") or {}).get("model_path")
    if not isinstance(section, dict) or not section.get("config"):
        raise ValueError("model-config.yaml lacks deepspeed: {config: a file of the archive}")
    if not model_path:
        raise ValueError("model-config.yaml lacks handler: {model_path: where the weights are}")
    try:
        deepspeed: Any = importlib.import_module("deepspeed")
    except ImportError as error:
        raise ImportError(
            "get_ds_engine needs DeepSpeed, which is not installed where the server is: put it"
            " into the archive's requirements.txt, or use torch.distributed.tensor.parallel"
        ) from error
    model_dir = str(ctx.system_properties["model_dir"])
    checkpoint = section.get("checkpoint")
    return deepspeed.init_inference(
        model,
        config=os.path.join(model_dir, section["config"]),
        base_dir=os.path.join(model_dir, model_path),
        checkpoint=os.path.join(model_dir, checkpoint) if checkpoint else None,
    )
