"""The base of handlers whose model DeepSpeed spreads over the ranks (`parallelType: tp`)."""

import os
from abc import ABC

from ts.context import Context
from ts.torch_handler.base_handler import BaseHandler


class BaseDeepSpeedHandler(BaseHandler, ABC):
    """Knows its device, which is the number of its rank; the rest is the subclass's affair."""

    def initialize(self, ctx: Context) -> None:
        self.context = ctx
        self.device = int(os.environ.get("LOCAL_RANK", 0))
