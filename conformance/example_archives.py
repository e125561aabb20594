"""Archives in the style of TorchServe's documentation and of its public examples.

Their handlers are in tests/handlers/examples; the models are small and their weights random.
"""

import json
from dataclasses import replace

from conformance.source import Source
from conformance.weights import (
    TOKENS,
    compiled_of,
    exported_of,
    onnx_of,
    safetensors_of,
    script_of,
    state_of,
    transformer_part,
    write_detector,
    write_segmenter,
)

ONE = "minWorkers: 1\nmaxWorkers: 1\n"
ONE_PAIR = f"{ONE}batchSize: 2\nmaxBatchDelay: 5000\n"
KINDS = json.dumps({str(number): f"kind {number}" for number in range(6)})

SMALL_CLASSIFIER = {
    "model_file": "small_classifier.py",
    "serialized_file": "classifier.pth",
    "write_weights": state_of("../small_classifier", "SmallClassifier", gain=5),
}


def eager(handler: str, module: str, name: str, gain: float = 2.0, **more: object) -> Source:
    """A handler of the examples, whose model is a class with a state dict."""
    return Source(
        f"examples/{handler}.py",
        model_file=f"examples/{module}.py",
        serialized_file=f"{module}.pt",
        write_weights=state_of(module, name, gain=gain),
        **more,  # type: ignore[arg-type]
    )


PICTURES = {
    "digits": eager("digits", "digit_net", "DigitNet", gain=4),
    "digit_pairs": eager("digits", "digit_net", "DigitNet", gain=4, config=ONE_PAIR),
    "vit": Source(
        "image_classifier",
        model_file="examples/small_vit.py",
        serialized_file="vit.pth",
        write_weights=state_of("small_vit", "SmallVit", gain=3),
        extra_files={"index_to_name.json": KINDS},
    ),
    "least_certain": Source(
        "examples/least_certain.py",
        model_file="small_detector.py",
        serialized_file="detector.pth",
        write_weights=write_detector,
        config="handler:\n  threshold: 0.2\n",
    ),
    "segment_whole": Source(
        "image_segmenter",
        model_file="small_segmenter.py",
        serialized_file="segmenter.pth",
        write_weights=write_segmenter,
    ),
    "two_pictures": eager("two_pictures", "twin_net", "TwinNet"),
    "clip": Source(
        "examples/clip.py", **SMALL_CLASSIFIER, extra_files={"index_to_name.json": KINDS}
    ),
    "restyle": Source(
        "examples/restyle.py",
        serialized_file="style.pt",
        write_weights=script_of("style_net", "StyleNet", gain=1),
    ),
    "portraits": eager("portraits", "generator_net", "GeneratorNet", gain=3),
    "occluded": Source("examples/occluded.py", **SMALL_CLASSIFIER),
    "micro_pictures": Source(
        "examples/micro_pictures.py",
        **SMALL_CLASSIFIER,
        config=f"{ONE}batchSize: 3\nmaxBatchDelay: 5000\nmicro_batching:\n"
        "  micro_batch_size: 2\n"
        "  parallelism: {preprocess: 2, inference: 2, postprocess: 1}\n",
    ),
}

ENGLISH = "<unk> the cat dog is sleeping good morning we go home today"
GERMAN = "<end> der Katze Hund schläft gut Morgen wir gehen heim heute und"
TITLES = ["green tea", "black tea", "coffee", "a bicycle", "two bicycles", "a red car"]

TEXTS = {
    "translate": eager(
        "translate", "seq2seq", "Seq2Seq", gain=4,
        extra_files={"source_words.json": json.dumps(ENGLISH.split()),
                     "target_words.json": json.dumps(GERMAN.split())},
        config="handler: {longest: 8}\n",
    ),
    "speak": eager("speak", "speaker_net", "SpeakerNet"),
    "transcribe": eager("transcribe", "listener_net", "ListenerNet", gain=4),
    "any_text": eager(
        "any_text", "letters_net", "LettersNet", gain=0.9,
        extra_files={"index_to_name.json": '{"0": "praise", "1": "question", "2": "blame"}'},
        config=f"{ONE}batchSize: 3\nmaxBatchDelay: 5000\n",
    ),
    "catalogue": eager(
        "catalogue", "letter_bag", "LetterBag",
        extra_files={"catalogue.json": json.dumps(TITLES)},
    ),
}  # fmt: skip

COLUMNS = {"age": [40, 12], "months": [24, 20], "calls": [2, 1.5]}
TABLE_NET = ("examples/table_net.py",)
TABLE_A, TABLE_B = (state_of("table_net", "TableNet", seed) for seed in (20, 21))

DATA = {
    "recommend": eager("recommend", "recommender_net", "RecommenderNet"),
    "table": eager(
        "table", "table_net", "TableNet", extra_files={"columns.json": json.dumps(COLUMNS)}
    ),
    "forecast": Source(
        "examples/forecast.py",
        serialized_file="forecast.pt",
        write_weights=script_of("forecast_net", "ForecastNet"),
    ),
    "ensemble": Source(
        "examples/ensemble.py",
        files=TABLE_NET,
        write_extra={"first.pt": TABLE_A, "second.pt": TABLE_B},
        config="handler: {models: [first, second]}\n",
    ),
    "variants": Source(
        "examples/variants.py", files=TABLE_NET, write_extra={"a.pt": TABLE_A, "b.pt": TABLE_B}
    ),
    "cached": eager(
        "cached", "table_net", "TableNet", config=f"{ONE}handler: {{cache: {{capacity: 2}}}}\n"
    ),
    "validated": eager("validated", "table_net", "TableNet", config=ONE_PAIR),
    "warmed": eager("warmed", "table_net", "TableNet"),
    "counted": eager(
        "counted", "table_net", "TableNet", config=f"{ONE}handler: {{profile: true}}\n"
    ),
    "traced": eager("traced", "table_net", "TableNet"),
}

LM = {"module": "letters_lm", "name": "LettersLm", "gain": 4.0}
WAYS = {
    "token_stream": eager("token_stream", **LM, config="handler: {max_new_tokens: 6}\n"),
    "generation_steps": eager(
        "generation_steps", **LM, config=f"{ONE}batchSize: 2\nmaxBatchDelay: 50\n"
        "continuousBatching: true\n",
    ),
    "remembered_sums": Source(
        "examples/remembered_sums.py",
        config=f"{ONE}batchSize: 2\nmaxBatchDelay: 50\nsequenceBatching: true\n"
        "sequenceMaxIdleMSec: 60000\nmaxNumSequence: 2\nmaxSequenceJobQueueSize: 2\n"
        "handler: {cache: {capacity: 2}}\n",
    ),
    "completions": eager("completions", **LM, config=f"{ONE}asyncCommunication: true\n"),
    **{
        name: Source(
            f"examples/{name}.py",
            files=TABLE_NET,
            write_extra={"table.pt": TABLE_A},
            config=f"{ONE}responseTimeout: 60\ndeviceType: cpu\nparallelType: {kind}\n"
            + ("" if kind == "custom" else "torchrun:\n  nproc-per-node: 2\n"),
        )
        for name, kind in (
            ("split_layers", "tp"), ("staged_layers", "pp"), ("own_stages", "custom")
        )
    },
}  # fmt: skip

ROWS = Source("examples/plain_rows.py")
EAGER_ROWS = eager("plain_rows", "table_net", "TableNet")
WEIGHTS = {
    "rows_state": EAGER_ROWS,
    "rows_script": replace(
        ROWS, serialized_file="rows.pt", write_weights=script_of("table_net", "TableNet")
    ),
    "rows_compiled": replace(
        EAGER_ROWS, config="pt2: {compile: {enable: true, backend: aot_eager}}\n"
    ),
    "rows_compiled_old": replace(EAGER_ROWS, config="pt2: eager\n"),
    "rows_inductor": replace(
        EAGER_ROWS,
        config="responseTimeout: 300\n"
        "pt2: {compile: {enable: true, backend: inductor, mode: default}}\n",
    ),
    "rows_so": replace(
        ROWS,
        serialized_file="rows.so",
        write_weights=compiled_of("table_net", "TableNet", (1, 3)),
        config="pt2: {export: {aot_compile: true}}\n",
    ),
    "rows_pt2": replace(
        ROWS,
        serialized_file="rows.pt2",
        write_weights=compiled_of("table_net", "TableNet", (1, 3)),
    ),
    "rows_exported": replace(
        ROWS,
        serialized_file="rows.pt2",
        write_weights=exported_of("table_net", "TableNet", (1, 3)),
    ),
    "rows_safetensors": replace(
        EAGER_ROWS,
        serialized_file="rows.safetensors",
        write_weights=safetensors_of("table_net", "TableNet"),
    ),
    "onnx_pictures": Source(
        "examples/onnx_pictures.py",
        serialized_file="pictures.onnx",
        write_weights=onnx_of("eight_net", "EightNet", (1, 3, 8, 8)),
        extra_files={"index_to_name.json": KINDS},
    ),
    "rows_misfit": replace(EAGER_ROWS, write_weights=state_of("twin_net", "TwinNet")),
    "rows_two_models": replace(EAGER_ROWS, model_file="examples/two_models.py"),
    "rows_alone": replace(
        ROWS, serialized_file="rows.pth", write_weights=state_of("table_net", "TableNet")
    ),
    "rows_no_script": replace(
        ROWS, serialized_file="rows.pt", write_weights=state_of("table_net", "TableNet")
    ),
}

LABELS = {
    "sequence_classification": '{"0": "good", "1": "bad", "2": "neither"}',
    "token_classification": '{"0": "O", "1": "PERSON", "2": "PLACE"}',
}


def transformer(mode: str) -> Source:
    setup = {"mode": mode, "do_lower_case": True, "max_length": 16}
    extra = {"setup_config.json": json.dumps(setup), "vocab.txt": "\n".join(TOKENS)}
    if mode in LABELS:
        extra["index_to_name.json"] = LABELS[mode]
    parts = ("config.json", "model.safetensors")
    return Source(
        "examples/any_transformer.py",
        extra_files=extra,
        write_extra={part: transformer_part(mode, part) for part in parts},
    )


TRANSFORMERS = {
    "hf_sequence": transformer("sequence_classification"),
    "hf_tokens": transformer("token_classification"),
    "hf_questions": transformer("question_answering"),
    "hf_generation": transformer("text_generation"),
}

EXAMPLES = {**PICTURES, **TEXTS, **DATA, **WAYS, **WEIGHTS, **TRANSFORMERS}
