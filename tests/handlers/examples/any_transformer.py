"""A handler for the usual tasks of transformers: setup_config.json of the archive says which."""

import json
import os

import torch
import transformers

from ts.torch_handler.base_handler import BaseHandler

CLASSES = {
    "sequence_classification": "AutoModelForSequenceClassification",
    "token_classification": "AutoModelForTokenClassification",
    "question_answering": "AutoModelForQuestionAnswering",
    "text_generation": "AutoModelForCausalLM",
}


class AnyTransformer(BaseHandler):
    def initialize(self, context):
        self.context = context
        self.manifest = context.manifest
        model_dir = context.system_properties["model_dir"]
        with open(os.path.join(model_dir, "setup_config.json")) as file:
            self.setup = json.load(file)
        self.mode = self.setup["mode"]
        model_class = getattr(transformers, CLASSES[self.mode])
        self.model = model_class.from_pretrained(model_dir).eval()
        self.tokenizer = transformers.BertTokenizer(
            os.path.join(model_dir, "vocab.txt"), do_lower_case=self.setup["do_lower_case"]
        )
        labels = os.path.join(model_dir, "index_to_name.json")
        if os.path.isfile(labels):
            with open(labels) as file:
                self.mapping = json.load(file)
        self.initialized = True

    def preprocess(self, data):
        self.texts = []
        for row in data:
            text = row.get("data") or row.get("body")
            text = text if isinstance(text, (str, dict)) else text.decode("utf-8")
            if self.mode == "question_answering":
                asked = text if isinstance(text, dict) else json.loads(text)
                text = (asked["question"], asked["context"])
            self.texts.append(text)
        longest = self.setup["max_length"]
        pairs = list(zip(*self.texts)) if self.mode == "question_answering" else [self.texts]
        arguments = {"max_length": longest, "truncation": True, "return_tensors": "pt"}
        if self.mode == "text_generation":
            return self.tokenizer(*map(list, pairs), add_special_tokens=False, **arguments)
        return self.tokenizer(*map(list, pairs), padding="max_length", **arguments)

    def inference(self, data):
        with torch.inference_mode():
            return getattr(self, self.mode)(data)

    def sequence_classification(self, data):
        scores = self.model(**data).logits.softmax(dim=1)
        return [
            {"label": self.mapping[str(row.argmax().item())], "scores": row.tolist()}
            for row in scores
        ]

    def token_classification(self, data):
        classes = self.model(**data).logits.argmax(dim=2)
        answers = []
        for ids, found, mask in zip(data["input_ids"], classes, data["attention_mask"]):
            tokens = self.tokenizer.convert_ids_to_tokens(ids[mask.bool()].tolist())
            labels = [self.mapping[str(one)] for one in found[mask.bool()].tolist()]
            answers.append([list(pair) for pair in zip(tokens, labels)][1:-1])
        return answers

    def question_answering(self, data):
        output = self.model(**data)
        answers = []
        for ids, start, end in zip(data["input_ids"], output.start_logits, output.end_logits):
            first = start.argmax().item()
            last = first + end[first : first + 4].argmax().item()
            text = self.tokenizer.decode(ids[first : last + 1].tolist())
            answers.append({"answer": text, "start": first, "score": start.max().item()})
        return answers

    def text_generation(self, data):
        ids = self.model.generate(**data, max_new_tokens=6, do_sample=False, pad_token_id=0)
        return [self.tokenizer.decode(one.tolist()) for one in ids]

    def postprocess(self, data):
        return data
