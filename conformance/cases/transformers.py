"""The tasks of transformers, by one handler that the archive's setup_config.json steers."""

import json

from conformance.case import JSON, Scenario, infer, register

TEXT = "text/plain"
ASKED = {"question": "where is anna?", "context": "the cat sat on the mat. anna lives in rome."}

TRANSFORMERS = Scenario(
    "transformers",
    archives=("hf_sequence", "hf_tokens", "hf_questions", "hf_generation"),
    cases=[
        register("hf_sequence"),
        *(infer(f"the class of {text}", "/predictions/hf_sequence", text.encode(), TEXT,
                comparison="numbers")
          for text in ("The cat is great.", "a bad dog?", "unheard words, and more of them")),
        register("hf_tokens"),
        infer("its tokens", "/predictions/hf_tokens", b"Anna lives in Rome", TEXT),
        register("hf_questions"),
        infer("an answer", "/predictions/hf_questions", json.dumps(ASKED).encode(), JSON,
              comparison="numbers"),
        infer("an answer to bytes", "/predictions/hf_questions", json.dumps(ASKED).encode(),
              comparison="numbers"),
        infer("no question", "/predictions/hf_questions", b"where is anna?", TEXT),
        register("hf_generation"),
        infer("a text goes on", "/predictions/hf_generation", b"the cat", TEXT),
        infer("another goes on", "/predictions/hf_generation", b"where is anna", TEXT),
    ],
    needs_torch=True,
    needs=("transformers",),
)  # fmt: skip

SCENARIOS = [TRANSFORMERS]
