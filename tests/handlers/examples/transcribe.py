"""Speech to text: a WAV in, letters out by CTC, greedily."""

import io
import wave

import torch

from ts.torch_handler.base_handler import BaseHandler
from ts.utils.util import PredictionException

LETTERS = "-abcdefghijklm "


class Transcribe(BaseHandler):
    def preprocess(self, data):
        spectra = []
        for row in data:
            try:
                with wave.open(io.BytesIO(row.get("data") or row.get("body"))) as sound:
                    frames = bytearray(sound.readframes(sound.getnframes()))
            except wave.Error as error:
                raise PredictionException(f"not a WAV: {error}", 415)
            samples = torch.frombuffer(frames, dtype=torch.int16).float() / 32768
            spectrum = torch.stft(samples, 32, 16, window=torch.hann_window(32), return_complex=True)
            spectra.append(torch.log1p(spectrum.abs() * 20).T)
        return spectra

    def inference(self, data):
        with torch.inference_mode():
            return [self.model(spectrum).log_softmax(dim=1) for spectrum in data]

    def postprocess(self, data):
        answers = []
        for scores in data:
            best = scores.max(dim=1)
            letters = torch.unique_consecutive(best.indices)
            text = "".join(LETTERS[number] for number in letters if number)
            answers.append({"text": text, "frames": len(scores), "score": best.values.mean().item()})
        return answers
