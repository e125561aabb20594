"""Not offered: importing it says what to use instead."""

raise ImportError(
    "the handler vllm_handler is not served yet, and vLLM needs a GPU for most models: "
    "bring a handler of your own, with transformers and send_intermediate_predict_response"
)
