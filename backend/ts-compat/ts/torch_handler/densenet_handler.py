"""The built-in handler `densenet_handler`, for any model from tensor to tensor."""

import io
from typing import Any

import torch

from ts.handler_utils.timer import timed
from ts.torch_handler.base_handler import BaseHandler


class DenseNetHandler(BaseHandler):
    """Takes a tensor as `torch.save` writes it, and answers one in the same form."""

    @timed
    def preprocess(self, data: Any) -> Any:
        """The tensors of all requests in one, along a new first dimension."""
        inputs = [
            # Bytes of a client: nothing but tensors is read from them.
            torch.load(
                io.BytesIO(row.get("data") or row.get("body")),
                map_location=self.device,
                weights_only=True,
            )
            for row in data
        ]
        return torch.stack(inputs)

    @timed
    def postprocess(self, data: Any) -> list[Any]:
        """A tensor for each request; its first dimension is one, as in TorchServe."""
        return list(data.split(1))
