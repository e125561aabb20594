"""Every archive of the cases and of the system tests: what it shows, and who knows its answers.

`tests/handlers/README.md` is made from this list: `make conformance-docs`.
"""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from conformance.archives import BROKEN, CONFIGS, SOURCES
from conformance.case import Case, Scenario
from conformance.scenarios import SCENARIOS


@dataclass(frozen=True)
class OursOnly:
    """No answer of TorchServe is there to compare with: which test knows the right one, and why."""

    test: str  # file::function
    why: str


@dataclass(frozen=True)
class Kind:
    """Archives that show one thing, each with a few words about it."""

    title: str
    archives: dict[str, str]
    is_example: bool = False  # in the style of TorchServe's documentation and public examples


KINDS = (
    Kind(
        "Default handlers",
        {
            "resnet": "image_classifier: torchvision's ResNet-18 as TorchScript, ImageNet's labels",
            "vit": "image_classifier: torchvision's vision transformer as a state dict",
            "few_classes": "image_classifier: fewer classes than `topk`",
            "detector": "object_detector: torchvision's Faster R-CNN, labels as a list",
            "detector_pairs": "object_detector in batches",
            "segment_whole": "image_segmenter: torchvision's FCN, every pixel",
            "text": "text_classifier: an embedding bag and a vocabulary",
            "text_pairs": "text_classifier in batches",
            "mlp": "densenet_handler, and BaseHandler with its own `preprocess`",
            "mlp_pairs": "densenet_handler in batches",
            "base": "base_handler, alone and behind an envelope",
        },
        is_example=True,
    ),
    Kind(
        "Pictures",
        {
            "digits": "MNIST: own `image_processing`, `postprocess` answers the digit",
            "digit_pairs": "the same in batches",
            "few_pixels": "own `image_processing`, `set_max_result_classes`, captum's explanations",
            "segmenter": "own `image_processing` of the segmenter",
            "least_certain": "the detector's `threshold` from model-config.yaml",
            "two_pictures": "a Siamese network: two named inputs in one request",
            "clip": "video classes: frames in base64 within JSON, `map_class_to_label`",
            "restyle": "style transfer: a picture for a picture, with its content type",
            "portraits": "a DCGAN: JSON in, a PNG of many pictures out",
            "occluded": "explanations by `get_insights` of its own",
        },
        is_example=True,
    ),
    Kind(
        "Texts and sounds",
        {
            "word_lengths": "a class of its own, extra files, `describe_handle`, `get_insights`",
            "translate": "translation: two vocabularies as extra files, greedy decoding",
            "speak": "text to speech: a WAV as the answer",
            "transcribe": "speech to text: a WAV as the request, CTC",
            "any_text": "texts, bytes, JSON and forms in one batch",
            "catalogue": "search in an extra file, the number of answers as a parameter",
            "hf_sequence": "transformers: sequence classification by setup_config.json",
            "hf_tokens": "transformers: token classification",
            "hf_questions": "transformers: question answering",
            "hf_generation": "transformers: text generation",
        },
        is_example=True,
    ),
    Kind(
        "Data, and what handlers do besides",
        {
            "recommend": "a recommender (DLRM): bags of ids and numbers as JSON",
            "table": "CSV in and out, PredictionException for missing columns, own headers",
            "forecast": "a time series: TorchScript with a loop, a list of floats",
            "ensemble": "several models in one archive",
            "variants": "two variants, chosen by a header of the request",
            "cached": "an LRU cache of answers, told in a header",
            "validated": "bad rows of a batch are answered 400, each for itself",
            "warmed": "predicts in `initialize`, tells of it in a description",
            "counted": "custom metrics of every kind, `handler: {profile: true}`",
            "metered": "metrics with units, dimensions and types, both pipes",
            "traced": "`profiler_args` under ENABLE_TORCH_PROFILER and TS_BENCHMARK",
        },
        is_example=True,
    ),
    Kind(
        "Handlers that the public uses, or in their very form",
        {
            "mms_service": "Multi Model Server's class handlers",
            "plain_class": "a class that derives from nothing",
            "image_batch": "batches of pictures",
            "many_files": "a package within the archive",
            "zipped_package": "a package in a zip file within the archive",
            "toolbox": "helpers of the package ts",
            "captum_flowers": "captum's explanations of a table",
            "sequence_classification": "Hugging Face's sequence classification",
            "sagemaker": "SageMaker's toolkit, from PyPI",
            "mlflow_linear": "mlflow-torchserve's handler, from PyPI",
            "mmpretrain": "MMPretrain's handler, from PyPI",
        },
        is_example=True,
    ),
    Kind(
        "Ways of running",
        {
            "token_stream": "streaming: a generated text, token by token",
            "streams": "streaming in every way there is, and in wrong ones",
            "stream_batches": "streaming in batches",
            "remembered_sums": "a stateful model: sums of sequences in an LRU cache",
            "sequences": "sequences: ends, limits, ids of the server",
            "short_sequences": "sequences over several workers",
            "endless_sequences": "sequences that would never end",
            "generation_steps": "continuous batching: text generation, a letter for each step",
            "steps": "continuous batching in every way there is",
            "sequence_steps": "continuous batching of sequences",
            "completions": "asyncCommunication: an LLM behind OpenAI's routes",
            "coroutines": "asyncCommunication in every way there is",
            "coroutine_pairs": "coroutines in batches",
            "coroutine_ticket": "coroutines and job tickets",
            "plain_function": "asyncCommunication without a coroutine",
            "micro_pictures": "micro-batching: sizes and parallelism from model-config.yaml",
            "micro_batches": "micro-batches that fail",
            "some_fail": "requests of a batch that fail alone (`context.fail`)",
            "split_layers": "parallelType tp: a layer split over ranks by gloo",
            "staged_layers": "parallelType pp: stages that meet by RPC",
            "own_stages": "parallelType custom: the handler starts its process itself",
            "ranks": "ranks that compute, end and start together",
            "ranks_pp": "the same as pp",
            "ranks_custom": "the same as custom",
            "ranks_online": "ranks in a strict sandbox",
            "rpc_ranks": "BasePippyHandler",
            "ranks_no_load": "a rank that cannot load",
            "tickets": "useJobTicket",
            "mortal": "maxRetryTimeoutInSec 0, and workers that die",
            "no_retries": "maxRetryTimeoutInSec 0, and handlers that end their process",
            "impatient": "clientTimeoutInMills",
            "narrow": "jobQueueSize",
            "short_queue": "jobQueueSize, over the limit",
        },
        is_example=True,
    ),
    Kind(
        "Weights",
        {
            "rows_state": "a state dict and a model file",
            "rows_script": "TorchScript",
            "rows_compiled": "torch.compile: `pt2: {compile: ...}`",
            "rows_compiled_old": "torch.compile: `pt2: eager`, the older form",
            "rows_inductor": "torch.compile by inductor",
            "rows_so": "AOTInductor's library, `pt2: {export: {aot_compile: true}}`",
            "rows_pt2": "AOTInductor's package",
            "rows_exported": "a program of torch.export",
            "rows_safetensors": "safetensors and a model file",
            "onnx_pictures": "ONNX, asked by the handler itself",
            "rows_misfit": "weights of another model",
            "rows_two_models": "a model file with two classes",
            "rows_alone": "a state dict without a model file",
            "rows_no_script": "a state dict as if it were TorchScript",
        },
        is_example=True,
    ),
    Kind(
        "Failures",
        {
            "failures": "a handler that fails in each way there is",
            "batches_fail": "the same in batches",
            "silent": "the same, against responseTimeout",
            "load_value_error": "`initialize` raises",
            "load_runtime_error": "`initialize` raises a RuntimeError",
            "load_cuda": "`initialize` finds CUDA out of memory",
            "load_memory_error": "`initialize` finds no memory",
            "load_exit": "`initialize` ends the process",
            "load_no_handler": "neither a function nor a class",
            "load_two_classes": "two classes",
            "load_no_initialize": "a class without `initialize`",
            "load_import_error": "an import that fails",
            "load_no_weights": "base_handler without weights",
            "slow_load": "a load longer than startupTimeout",
            "bad_labels": "an index_to_name.json of the wrong form",
            "text_no_vocabulary": "text_classifier without its vocabulary",
            "text_no_embedding": "text_classifier with a model that has no embedding",
            "captive": "a hostile handler in the sandbox",
            "captive_online": "the same, with a network",
            "no_manifest": "no manifest",
            "no_zip": "no zip file",
            "empty_file": "an empty file",
            "truncated": "half a zip file",
            "manifest_no_json": "a manifest that is no JSON",
            "no_name": "a manifest without a name",
            "bad_runtime": "a runtime that there is not",
            "handlerless": "a manifest without a handler",
            "slip": "a file outside of the archive",
        },
    ),
    Kind(
        "Requests, answers and entry points",
        {
            "echo": "answers what it was given",
            "echo_v2": "a second version",
            "echo_config": "a model-config.yaml with settings of its own",
            "echo_tgz": "a .tar.gz",
            "echo_dir": "a directory",
            "replies": "an answer of every type",
            "batches": "the same in batches",
            "rows": "rows of envelopes",
            "row_pairs": "the same in batches",
            "described": "descriptions of itself",
            "described_pairs": "the same in batches",
            "entry": "`module:function`",
            "shadowed": "a function beside a class",
            "environment": "variables of the environment",
            "places": "working directory, import path, temporary files",
            "places_dir": "the same of a directory",
            "places_shadowed": "modules with the names of installed ones",
            "slow": "as slow as asked",
            "odd_config": "settings that contradict each other",
            "batch_config": "a batch size alone",
        },
    ),
    Kind(
        "Settings in model-config.yaml",
        {f"config_{name}": f"`{name.replace('_', ' ')}`" for name in CONFIGS},
    ),
)

SANDBOX = "tests/system/test_sandbox.py::test_a_hostile_handler_reaches_what_the_matrix_says"
MEETING = "requests meet, or clients leave: no two runs of TorchServe answer alike"
OURS_ONLY = {
    "captive": OursOnly(SANDBOX, "TorchServe has no sandbox"),
    "captive_online": OursOnly(SANDBOX, "TorchServe has no sandbox"),
    **{
        name: OursOnly(f"tests/system/test_ways_of_running.py::test_{test}", why)
        for name, test, why in (
            (
                "short_sequences",
                "sequences_have_a_worker_each_and_wait_their_turn",
                MEETING,
            ),
            (
                "endless_sequences",
                "sequences_without_an_end_are_refused",
                "TorchServe registers it, and answers each request 500",
            ),
            ("sequence_steps", "streams_of_one_sequence_run_together", MEETING),
            ("coroutine_pairs", "coroutines_may_have_batches", "TorchServe answers none of them"),
            ("coroutine_ticket", "an_async_worker_always_has_a_ticket", MEETING),
            (
                "some_fail",
                "a_handler_fails_some_requests_of_a_batch",
                "TorchServe has no `context.fail`",
            ),
        )
    },
    **{
        name: OursOnly(f"tests/system/test_ranks.py::test_{test}", why)
        for name, test, why in (
            ("ranks", "ranks_compute_together_and_end_together", "it tells of processes"),
            ("ranks_pp", "the_kinds_of_parallel_models", "it tells of processes"),
            ("ranks_custom", "the_kinds_of_parallel_models", "it tells of processes"),
            ("ranks_no_load", "the_kinds_of_parallel_models", "the message is ours"),
            ("rpc_ranks", "the_kinds_of_parallel_models", "TorchServe's needs PiPPy and GPUs"),
            ("ranks_online", "a_strict_sandbox_holds_every_rank", "TorchServe has no sandbox"),
        )
    },
    **{
        name: OursOnly(
            f"tests/system/test_weights.py::test_{test}",
            "TorchServe does not load it; its answers for the same state dict count",
        )
        for name, test in (
            ("rows_safetensors", "safetensors_and_exported_programs_answer_as_the_state_dict"),
            ("rows_exported", "safetensors_and_exported_programs_answer_as_the_state_dict"),
            ("rows_pt2", "a_package_of_aotinductor_answers_as_the_state_dict"),
        )
    },
}

HEAD = """# The archives of the tests

{total} archives are served by real servers in the tests. To {recorded} of them the real TorchServe
0.12 has answered what is compared (`tests/system/facts.json`; how many cases, apart from the
registration, is in brackets). For {ours} it could not, and their line says why; {deliberate} show
only what [differs on purpose](../../docs/differences.md). {examples} archives, with {handlers}
handlers, are in the style of TorchServe's documentation and public examples: all written here
(those of `examples/` are nothing else), but for [public ones](public/README.md) as they are. The
rest are for failures, edges and settings.

Models are small and their weights random, but the same everywhere (`conformance/weights.py`); what
is in each archive says `conformance/archives.py`, `example_archives.py` or `public_archives.py`.
This page is made from `conformance/inventory.py` by `make conformance-docs`.
"""


def page() -> str:
    examples = [name for kind in KINDS if kind.is_example for name in kind.archives]
    parts = [
        HEAD.format(
            total=len(archives()),
            recorded=sum(1 for name in archives() if recorded_in(name)),
            ours=len(OURS_ONLY),
            deliberate=sum(1 for name in archives() if is_deliberate(name)),
            examples=len(examples),
            handlers=len({SOURCES[name].handler for name in examples}),
        )
    ]
    for kind in KINDS:
        parts.append(f"\n## {kind.title}\n\n| Archive | Shows | Right answers |\n|---|---|---|\n")
        parts += [
            f"| `{name}` | {text} | {_golden(name)} |\n" for name, text in kind.archives.items()
        ]
    return "".join(parts)


def archives() -> list[str]:
    return [*SOURCES, *BROKEN]


def recorded_in(archive: str) -> dict[str, int]:
    """Scenarios whose cases ask this archive, and how many of its answers must be TorchServe's."""
    counts = {
        scenario.name: sum(not case.deliberate for case in _asking(archive, scenario))
        for scenario in SCENARIOS
    }
    return {name: count for name, count in counts.items() if count}


def differences_of(archive: str) -> list[str]:
    """What its cases show that differs on purpose: ids."""
    found = {case.deliberate for scenario in SCENARIOS for case in _asking(archive, scenario)} - {
        None
    }
    return sorted(map(str, found))


def is_deliberate(archive: str) -> bool:
    """Whether nothing that it answers is TorchServe's answer."""
    return archive not in OURS_ONLY and not recorded_in(archive)


def _asking(archive: str, scenario: Scenario) -> list[Case]:
    if archive not in scenario.needed:
        return []
    cases = [case for case in scenario.asked if case.method]  # and not lines of a log
    is_good = archive in SOURCES  # of a broken one the registration is the question
    registered = [case for case in cases if _parameters(case).get("url") == archive]
    names = {archive} | {_parameters(case).get("model_name", archive) for case in registered}
    if is_good:
        names.add(SOURCES[archive].model_name or archive)
    pattern = re.compile(rf"(?<!\w)({'|'.join(names)})(?!\w)")
    return [
        case
        for case in cases
        if pattern.search(case.path + (case.raw or b"").decode("latin-1"))
        and not (is_good and case.name.startswith("register "))
    ]


def _parameters(case: Case) -> dict[str, str]:
    """Of a registration: `url` without its suffix, and the others."""
    pairs = dict(parse_qsl(urlsplit(case.path).query))
    return {**pairs, "url": pairs.get("url", "").partition(".")[0]}


def _golden(archive: str) -> str:
    if archive in OURS_ONLY:
        one = OURS_ONLY[archive]
        return f"ours: {one.why} (`{one.test.rpartition('/')[2]}`)"
    if is_deliberate(archive):
        return f"on purpose not TorchServe's: {', '.join(differences_of(archive))}"
    scenarios = sorted(recorded_in(archive).items(), key=lambda pair: -pair[1])
    shown = ", ".join(f"*{name}* ({count})" for name, count in scenarios[:2])
    more = len(scenarios) - 2
    return f"TorchServe: {shown}" + (f" and {more} more" if more > 0 else "")
