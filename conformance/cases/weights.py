"""One small model in every kind of weights; and those that cannot be loaded."""

import json

from conformance.case import JSON, Case, Scenario, infer, png, register
from conformance.cases.management import load_failure

ROWS = ([0.5, -1.0, 2.0], [3.0, 0.25, 1.0])
OURS_ONLY = "more-weights"
COMPILED_WITHIN_S = 300.0  # the first request of a compiled model


def rows(model: str) -> list[Case]:
    return [
        register(model),
        *(
            infer(
                f"{model} {row}",
                f"/predictions/{model}",
                json.dumps(row).encode(),
                JSON,
                comparison="numbers",
                timeout_s=COMPILED_WITHIN_S,
            )
            for row in ROWS
        ),
    ]


def not_theirs(model: str) -> Case:
    """TorchServe cannot load it; what ours answers is in tests/system/test_weights.py."""
    case = register(model)
    return Case(case.name, "management", "POST", case.path, deliberate=OURS_ONLY, our_status=200)


KINDS = Scenario(
    "weights",
    archives=(
        "rows_state", "rows_script", "rows_compiled", "rows_compiled_old", "rows_safetensors",
        "rows_exported", "rows_misfit", "rows_two_models", "rows_alone", "rows_no_script",
    ),
    cases=[
        *rows("rows_state"),
        *rows("rows_script"),
        *rows("rows_compiled"),
        *rows("rows_compiled_old"),
        not_theirs("rows_safetensors"),
        not_theirs("rows_exported"),
        *load_failure("rows_misfit", is_kept=True),
        *load_failure("rows_two_models"),
        *load_failure("rows_alone", is_kept=True),
        *load_failure("rows_no_script", is_kept=True),
    ],
    needs_torch=True,
)  # fmt: skip

COMPILED = Scenario(
    "compiled weights",
    archives=("rows_inductor", "rows_so", "rows_pt2"),
    cases=[*rows("rows_inductor"), *rows("rows_so"), not_theirs("rows_pt2")],
    needs_torch=True,
    programs=("g++",),
    is_long=True,
)


def spotted(x: int, y: int) -> tuple[int, ...]:
    return (x * 20, y * 20, 255 if (x + y) % 3 else 0)


ONNX = Scenario(
    "onnx",
    archives=("onnx_pictures",),
    cases=[
        register("onnx_pictures"),
        infer("a spotted picture", "/predictions/onnx_pictures", png(12, 12, spotted), "image/png",
              comparison="numbers"),
        infer("a dark picture", "/predictions/onnx_pictures",
              png(12, 12, lambda x, y: (x, y, 0)), "image/png", comparison="numbers"),
    ],
    needs_torch=True,
    needs_captum=True,
    needs=("onnx", "onnxruntime"),
)  # fmt: skip

SCENARIOS = [KINDS, COMPILED, ONNX]
