"""Class handler with a coroutine: the header `way` names what it does, after `take-s` seconds."""

import asyncio
import os

from ts.handler_utils.utils import send_intermediate_predict_response
from ts.service import PredictionException


class Coroutines:
    def initialize(self, context):
        context.notes = ["loaded"]
        self.context = context
        self.at_work = 0

    async def handle(self, data, context):
        self.at_work += 1
        at_work = self.at_work
        way = context.get_request_header(0, "way")
        try:
            print("taking", way, flush=True)
            await asyncio.sleep(float(context.get_request_header(0, "take-s") or 0))
            if way is not None:
                return await getattr(self, way)(data, context)
        except asyncio.CancelledError:
            print("cancelled", flush=True)
            raise
        finally:
            self.at_work -= 1
        context.notes.append("answered")
        return [{"at work": at_work, "of": len(data), "notes": context.notes,
                 "own context": context is not self.context}] * len(data)  # fmt: skip

    async def streams(self, data, context):
        for number in range(3):
            context.set_response_header(0, "x-number", str(number))
            pieces = [f"{number} "] * len(data)
            send_intermediate_predict_response(pieces, context.request_ids, "more", 200, context)
            await asyncio.sleep(0.01)
        return ["last"] * len(data)

    async def stream_raises(self, data, context):
        pieces = ["one "] * len(data)
        send_intermediate_predict_response(pieces, context.request_ids, "more", 200, context)
        raise ValueError("a secret of the handler")

    async def sends_a_code(self, data, context):
        ids = context.request_ids
        send_intermediate_predict_response([""] * len(data), ids, "said by it", 418, context)
        return ["never seen"] * len(data)

    async def sets_status(self, data, context):
        context.set_response_status(201, "In My Words", 0)
        context.set_response_header(0, "x-own", "header")
        return ["made"] * len(data)

    async def raises(self, data, context):
        raise ValueError("a secret of the handler")

    async def refuses(self, data, context):
        raise PredictionException("said by the handler", 429)

    async def no_list(self, data, context):
        return None

    async def too_long(self, data, context):
        return ["one"] * (len(data) + 1)

    async def an_object(self, data, context):
        return [object()] * len(data)

    async def dies(self, data, context):
        os._exit(3)
