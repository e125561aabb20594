"""Hugging Face sequence classification: a model directory, setup_config.json, a tokenizer."""

import json
import logging
import os
from abc import ABC

import torch
import transformers
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from ts.torch_handler.base_handler import BaseHandler

logger = logging.getLogger(__name__)
logger.info("Transformers version %s", transformers.__version__)


class SequenceClassificationHandler(BaseHandler, ABC):
    def __init__(self):
        super(SequenceClassificationHandler, self).__init__()
        self.initialized = False

    def initialize(self, ctx):
        self.manifest = ctx.manifest
        properties = ctx.system_properties
        model_dir = properties.get("model_dir")
        self.device = torch.device(
            "cuda:" + str(properties.get("gpu_id"))
            if torch.cuda.is_available() and properties.get("gpu_id") is not None
            else "cpu"
        )
        with open(os.path.join(model_dir, "setup_config.json")) as setup_config_file:
            self.setup_config = json.load(setup_config_file)
        if self.setup_config["mode"] != "sequence_classification":
            raise ValueError("Missing the operation mode.")
        self.model = AutoModelForSequenceClassification.from_pretrained(model_dir)
        self.model.to(self.device)
        self.model.eval()
        self.tokenizer = AutoTokenizer.from_pretrained(
            model_dir, do_lower_case=self.setup_config["do_lower_case"]
        )
        mapping_file_path = os.path.join(model_dir, "index_to_name.json")
        if os.path.isfile(mapping_file_path):
            with open(mapping_file_path) as f:
                self.mapping = json.load(f)
        else:
            logger.warning("Missing the index_to_name.json file.")
        self.initialized = True

    def preprocess(self, requests):
        texts = []
        for data in requests:
            input_text = data.get("data")
            if input_text is None:
                input_text = data.get("body")
            if isinstance(input_text, (bytes, bytearray)):
                input_text = input_text.decode("utf-8")
            if isinstance(input_text, dict):
                input_text = input_text["text"]
            texts.append(input_text)
        inputs = self.tokenizer(
            texts,
            max_length=int(self.setup_config["max_length"]),
            padding="max_length",
            truncation=True,
            add_special_tokens=True,
            return_tensors="pt",
        )
        return inputs["input_ids"].to(self.device), inputs["attention_mask"].to(self.device)

    def inference(self, input_batch, *args, **kwargs):
        input_ids_batch, attention_mask_batch = input_batch
        with torch.no_grad():
            return self.model(input_ids_batch, attention_mask=attention_mask_batch).logits

    def postprocess(self, logits):
        probabilities = torch.softmax(logits, dim=1)
        return [
            {
                "label": self.mapping[str(int(row.argmax()))],
                "score": float(row.max()),
            }
            for row in probabilities
        ]
