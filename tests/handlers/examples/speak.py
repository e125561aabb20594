"""Text to speech: a text in, a WAV out."""

import io
import wave

import torch

from ts.torch_handler.base_handler import BaseHandler

RATE = 4000


class Speak(BaseHandler):
    def preprocess(self, data):
        texts = [row.get("data") or row.get("body") for row in data]
        texts = [text if isinstance(text, str) else text.decode("utf-8") for text in texts]
        return [torch.tensor([ord(letter) % 64 for letter in text]) for text in texts]

    def inference(self, data):
        with torch.inference_mode():
            return [self.model(letters) for letters in data]

    def postprocess(self, data):
        answers = []
        for index, samples in enumerate(data):
            numbers = (samples.clamp(-1, 1) * 20000).round().short().numpy()
            file = io.BytesIO()
            with wave.open(file, "wb") as sound:
                sound.setnchannels(1)
                sound.setsampwidth(2)
                sound.setframerate(RATE)
                sound.writeframes(numbers.tobytes())
            self.context.set_response_content_type(index, "audio/wav")
            answers.append(file.getvalue())
        return answers
