"""Not offered: importing it says what to use instead."""

raise ImportError(
    "the handler trt_llm_handler needs TensorRT-LLM and a GPU, and Torchkeep serves on "
    "CPUs: bring a handler of your own, with transformers and "
    "send_intermediate_predict_response"
)
