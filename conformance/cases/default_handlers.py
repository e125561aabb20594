"""The handlers that an archive names instead of bringing one."""

from dataclasses import replace
from pathlib import Path

from conformance.case import JSON, MULTIPART, Scenario, form, infer, picture, register
from conformance.cases.management import load_failure

PNG = "image/png"
# What `torch.save` wrote for the tensor [0.1, 0.2, -0.3, 4.0].
FOUR_NUMBERS = (Path(__file__).parents[2] / "tests" / "handlers" / "four_numbers.pt").read_bytes()
WHOLE_BATCHES = "whole-batches"
TEXTS = {
    "a word of it": b"great",
    "two words": b"it was",
    "a sentence": b"Do not STOP, it was great.",
    "a contraction": b"don't",
    "another contraction": b"can't stop",
    "accents": "caf\u00e9 is open".encode(),
    "tags": b"<p>it was <b>great</b></p>",
    "punctuation": b"it was... great!!!",
    "numbers": b"5 stars",
    "nothing": b"",
    "spaces": b"   ",
    "an unknown word": b"never seen",
}


IMAGES = Scenario(
    "default image handlers",
    archives=("detector", "detector_pairs", "segmenter", "few_pixels", "few_classes", "bad_labels"),
    cases=[
        register("detector"),
        infer("detect", "/predictions/detector", picture(), PNG, comparison="numbers"),
        infer("detect in nothing", "/predictions/detector"),
        infer("detect in text", "/predictions/detector", b"text", "text/plain"),
        register("detector_pairs"),
        replace(
            infer("detect in two", "/predictions/detector_pairs", picture(), PNG),
            batch_of=2,
            comparison="numbers",
        ),
        register("segmenter"),
        infer("segment", "/predictions/segmenter", picture(), PNG, comparison="numbers"),
        infer("segment nothing", "/predictions/segmenter"),
        register("few_pixels"),
        infer("classify", "/predictions/few_pixels", picture(), PNG, comparison="numbers"),
        infer(
            "explain",
            "/explanations/few_pixels",
            picture(),
            PNG,
            comparison="numbers",
            needs_captum=True,
        ),
        infer(
            "explain a class",
            "/explanations/few_pixels",
            form(
                ('Content-Disposition: form-data; name="data"; filename="p.png"', picture()),
                (
                    'Content-Disposition: form-data; name="target"; filename="t"\r\n'
                    "Content-Type: application/json",
                    b"3",
                ),
            ),
            MULTIPART,
            comparison="numbers",
            needs_captum=True,
        ),
        infer("explain nothing", "/explanations/few_pixels", needs_captum=True),
        infer(
            "numbers for a picture",
            "/predictions/few_pixels",
            str([[[0.5] * 8] * 8] * 3).encode(),
            JSON,
            comparison="numbers",
        ),
        register("few_classes"),
        infer("four classes are fewer than five", "/predictions/few_classes", picture(), PNG),
        *load_failure("bad_labels"),
    ],
    needs_torch=True,
    needs_captum=True,
)

TEXT = Scenario(
    "default text handler",
    archives=("text", "text_pairs", "text_no_vocabulary", "text_no_embedding"),
    cases=[
        register("text"),
        *(
            infer(name, "/predictions/text", text, "text/plain", comparison="numbers")
            for name, text in TEXTS.items()
        ),
        infer("bytes", "/predictions/text", b"it was great", comparison="numbers"),
        infer(
            "a form",
            "/predictions/text",
            form(('Content-Disposition: form-data; name="data"', b"it was great")),
            MULTIPART,
            comparison="numbers",
        ),
        infer("not utf-8", "/predictions/text", b"it was \xff"),
        infer("json", "/predictions/text", b'{"text": "great"}', JSON),
        infer(
            "explain a text",
            "/explanations/text",
            b"it was great",
            comparison="numbers",
            needs_captum=True,
        ),
        infer(
            "explain a typed text",
            "/explanations/text",
            b"it was great",
            "text/plain",
            comparison="numbers",
            needs_captum=True,
        ),
        infer(
            "explain one word",
            "/explanations/text",
            b"stop",
            deliberate="one-word-explanations",
            our_status=200,
            needs_captum=True,
        ),
        register("text_pairs"),
        replace(
            infer("two texts", "/predictions/text_pairs", b"it was great", "text/plain"),
            batch_of=2,
            deliberate=WHOLE_BATCHES,
            our_status=200,
        ),
        *load_failure("text_no_vocabulary"),
        *load_failure("text_no_embedding"),
    ],
    needs_torch=True,
    needs_captum=True,
)

TENSORS = Scenario(
    "tensor handler",
    archives=("mlp", "mlp_pairs"),
    cases=[
        register("mlp", model_name="dense", handler="densenet_handler"),
        infer("a tensor", "/predictions/dense", FOUR_NUMBERS, comparison="tensor"),
        infer("no tensor", "/predictions/dense", b"no tensor"),
        infer("nothing instead of a tensor", "/predictions/dense"),
        register("mlp_pairs", model_name="dense_pairs", handler="densenet_handler"),
        replace(
            infer("two tensors", "/predictions/dense_pairs", FOUR_NUMBERS),
            batch_of=2,
            deliberate=WHOLE_BATCHES,
            our_status=200,
        ),
    ],
    needs_torch=True,
)

SCENARIOS = [IMAGES, TEXT, TENSORS]
