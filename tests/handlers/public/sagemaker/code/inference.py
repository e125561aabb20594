"""The four functions of SageMaker's PyTorch toolkit."""

import json
import os

import torch


def model_fn(model_dir):
    model = torch.jit.load(os.path.join(model_dir, "model.pth"), map_location="cpu")
    return model.eval()


def input_fn(request_body, request_content_type):
    if request_content_type == "application/json":
        if isinstance(request_body, (bytes, bytearray, str)):
            request_body = json.loads(request_body)
        return torch.tensor(request_body["inputs"], dtype=torch.float32)
    if request_content_type == "text/csv":
        rows = [line.split(",") for line in request_body.splitlines()]
        return torch.tensor([[float(value) for value in row] for row in rows])
    raise ValueError("no such content type: " + request_content_type)


def predict_fn(input_data, model):
    with torch.no_grad():
        return model(input_data)


def output_fn(prediction, accept):
    if accept == "text/csv":
        return "\n".join(",".join(f"{value:.3f}" for value in row) for row in prediction.tolist())
    return json.dumps({"outputs": prediction.tolist()})
