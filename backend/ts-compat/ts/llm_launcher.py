"""Not offered: importing it, or `python -m ts.llm_launcher`, says what to use instead."""

raise ImportError(
    "ts.llm_launcher starts vLLM or TensorRT-LLM, and Torchkeep serves neither: pack a handler of "
    "your own that generates with transformers and streams by "
    "ts.handler_utils.utils.send_intermediate_predict_response, and start it with torchserve"
)
