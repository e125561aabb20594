"""A class with `initialize` and `handle` and no base class; TorchScript; tensors in and out."""

import io
import os

import torch


class TensorService:
    def __init__(self):
        self.model = None
        self.device = None
        self.explain = False

    def initialize(self, context):
        properties = context.system_properties
        self.manifest = context.manifest
        if torch.cuda.is_available() and properties.get("gpu_id") is not None:
            self.device = torch.device("cuda:" + str(properties.get("gpu_id")))
        else:
            self.device = torch.device("cpu")
        model_pt_path = os.path.join(
            properties.get("model_dir"), self.manifest["model"]["serializedFile"]
        )
        self.model = torch.jit.load(model_pt_path, map_location=self.device)
        self.model.eval()

    def inference(self, tensors):
        with torch.inference_mode():
            return self.model(tensors.to(self.device))

    def handle(self, data, context):
        answers = []
        for index, row in enumerate(data):
            content = row.get("data") or row.get("body")
            buffer = io.BytesIO(content)
            tensor = torch.load(buffer, map_location="cpu")
            buffer.close()
            output = self.inference(tensor.reshape(1, -1)).cpu()
            wanted = context.get_request_header(index, "Accept")
            if wanted == "application/octet-stream":
                answer = io.BytesIO()
                torch.save(output, answer)
                context.set_response_content_type(index, wanted)
                answers.append(answer.getvalue())
            else:
                answers.append(output.tolist())
        return answers
