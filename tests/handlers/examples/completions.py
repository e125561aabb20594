"""An LLM behind OpenAI's routes, one coroutine for each request; the url path is the route."""

import asyncio
import json

import letters_lm

from ts.handler_utils.utils import send_intermediate_predict_response
from ts.service import PredictionException
from ts.torch_handler.base_handler import BaseHandler


class Completions(BaseHandler):
    def __init__(self):
        super().__init__()
        self.routes = {"v1/models": self.models, "v1/completions": self.completions}

    async def handle(self, data, context):
        path = context.get_request_header(0, "url_path")
        if path not in self.routes:
            raise PredictionException(f"Unknown API endpoint: {path}", 404)
        return [await self.routes[path](data[0], context)]

    async def models(self, row, context):
        return {"object": "list", "data": [{"id": context.model_name, "object": "model"}]}

    async def completions(self, row, context):
        wish = row.get("data") or row.get("body")
        if isinstance(wish, (bytes, bytearray)):
            wish = json.loads(wish)
        tokens = letters_lm.generate(self.model, wish["prompt"], wish.get("max_tokens", 8))
        if not wish.get("stream"):
            return {
                "object": "text_completion",
                "choices": [{"index": 0, "text": "".join(tokens), "finish_reason": "length"}],
            }
        context.set_response_content_type(0, "text/event-stream")
        for token in tokens:
            piece = json.dumps({"choices": [{"index": 0, "text": token}]})
            send_intermediate_predict_response(
                [f"data: {piece}\n\n"], context.request_ids, "Result", 200, context
            )
            await asyncio.sleep(0)
        return "data: [DONE]\n\n"
