"""The archives of the cases and of the system tests, from tests/handlers: good and broken ones.

Packed by zip code of our own, as torch-model-archiver packs them (tests/conformance/layouts.json
has its layouts), so that the tests depend on no archiver. Where a virtual environment is given,
its torch-model-archiver packs them instead: that is how the facts were recorded.
"""

import json
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from conformance.example_archives import EXAMPLES
from conformance.packages import unpacked_wheel
from conformance.public_archives import PUBLIC
from conformance.source import HANDLERS, Source
from conformance.weights import (
    write_classifier,
    write_detector,
    write_mlp_weights,
    write_resnet,
    write_segmenter,
    write_text_model,
    write_vocabulary,
)

PAIRS_CONFIG = "batchSize: 2\nmaxBatchDelay: 5000\nminWorkers: 1\nmaxWorkers: 1\n"
RANKS = (
    "minWorkers: 1\nmaxWorkers: 1\nresponseTimeout: 30\ndeviceType: cpu\nparallelType: {type}\n"
    "torchrun:\n  nproc-per-node: 2\n"
)
CLASS_NAMES = {str(index): [f"n{index:08}", f"class_{index}"] for index in range(1000)}

# What archives may ask for in their model-config.yaml, well and badly.
CONFIGS = {
    "clamped": "minWorkers: -1\nmaxWorkers: -2\nbatchSize: 0\nmaxBatchDelay: -5\n"
    "responseTimeout: 0\nstartupTimeout: -1\nmaxRetryTimeoutInSec: -1\n"
    "clientTimeoutInMills: -1\njobQueueSize: -1\n",
    "wrong_types": 'minWorkers: "two"\nmaxWorkers: 2.5\nbatchSize: 1.5\nmaxBatchDelay: [1]\n'
    'responseTimeout: true\nstartupTimeout: "7"\nuseJobTicket: "yes"\ndeviceType: 7\n'
    "deviceIds: 0\nparallelType: 3\nmaxRetryTimeoutInSec: {a: 1}\njobQueueSize: null\n",
    "swapped": "minWorkers: 3\nmaxWorkers: 2\nbatchSize: 5\n",
    "only_min": "minWorkers: 2\n",
    "gpu": "deviceType: gpu\n",
    "gpu_ids": "deviceType: GPU\ndeviceIds: [0, 1]\n",
    "cpu": "deviceType: Cpu\n",
    "parallel": "parallelType: pp\nparallelLevel: 2\n",
    "parallel_unknown": "parallelType: other\nparallelLevel: 2\n",
    "level_only": "parallelLevel: 2\n",
    "torchrun": "torchrun:\n  nproc-per-node: 4\nparallelType: tp\n",
    "sequences": "sequenceBatching: true\nmaxNumSequence: 4\nsequenceMaxIdleMSec: 5000\n"
    "sequenceTimeoutMSec: 6000\nmaxSequenceJobQueueSize: 7\n",
    "no_sequences": "maxNumSequence: 4\nsequenceMaxIdleMSec: 5000\n",
    "max_sequences": "maxNumSequence: 4\n",
    "sequence_queue": "maxSequenceJobQueueSize: 4\n",
    "sequence_idle": "sequenceMaxIdleMSec: 5000\nsequenceTimeoutMSec: 6000\n",
    "sequences_only": "sequenceBatching: true\n",
    "continuous": "continuousBatching: true\n",
    "limits": "maxRetryTimeoutInSec: 7\nclientTimeoutInMills: 9\njobQueueSize: 3\n"
    "useJobTicket: true\n",
    "no_yaml": "minWorkers: [1\n",
    "no_mapping": "- minWorkers\n- 1\n",
    "nothing": "# nothing\n",
    "large": "batchSize: 99999999999\nmaxBatchDelay: 2147483648\nresponseTimeout: 2147483647\n",
    "spelled": "minworkers: 1\nbatch_size: 4\nBatchSize: 4\n",
}

# Modules of an archive that have the names of others: of the standard library, of installed
# packages, of our own folders.
SHADOWING = {
    f"{name}.py": "FROM_ARCHIVE = True\n"
    for name in (
        *("backend", "cryptography", "modelstore", "msgpack", "profile", "runtime", "secrets"),
        *("statistics", "torch"),
    )
}

SOURCES: dict[str, Source] = {
    **{f"config_{name}": Source("echo.py", config=text) for name, text in CONFIGS.items()},
    "environment": Source("environment.py"),
    "places": Source("places.py"),
    "places_dir": Source("places.py", form=""),
    "places_shadowed": Source("places.py", extra_files=SHADOWING),
    "slow": Source("slow.py"),
    "slow_load": Source("slow_load.py"),
    "narrow": Source("slow.py", config="minWorkers: 1\nmaxWorkers: 1\njobQueueSize: 2\n"),
    "impatient": Source(
        "slow.py", config="minWorkers: 1\nmaxWorkers: 1\nclientTimeoutInMills: 1000\n"
    ),
    "mortal": Source("slow.py", config="minWorkers: 1\nmaxWorkers: 1\nmaxRetryTimeoutInSec: 0\n"),
    "echo": Source("echo.py"),
    "echo_v2": Source("echo.py", model_name="echo", version="2.0"),
    "echo_config": Source(
        "echo.py",
        config="minWorkers: 1\nmaxWorkers: 2\nbatchSize: 4\nmaxBatchDelay: 50\n"
        "responseTimeout: 33\nstartupTimeout: 44\nhandler:\n  colour: blue\n",
    ),
    "echo_tgz": Source("echo.py", form=".tar.gz"),
    "echo_dir": Source("echo.py", form=""),
    "metered": Source("metered.py"),
    "rows": Source("rows.py"),
    "row_pairs": Source(
        "rows.py", config="batchSize: 2\nmaxBatchDelay: 5000\nminWorkers: 1\nmaxWorkers: 1\n"
    ),
    "tickets": Source("slow.py", config="minWorkers: 1\nmaxWorkers: 1\nuseJobTicket: true\n"),
    "replies": Source("replies.py"),
    "described": Source("described.py"),
    "described_pairs": Source(
        "described.py", config="batchSize: 2\nmaxBatchDelay: 5000\nminWorkers: 1\nmaxWorkers: 1\n"
    ),
    "short_queue": Source("slow.py", config="minWorkers: 1\nmaxWorkers: 1\njobQueueSize: 2\n"),
    "no_retries": Source(
        "failures.py", config="minWorkers: 1\nmaxWorkers: 1\nmaxRetryTimeoutInSec: 0\n"
    ),
    "odd_config": Source(
        "echo.py",
        config="minWorkers: 2\nmaxWorkers: 1\nbatchSize: 0\nmaxBatchDelay: -3\n"
        "responseTimeout: -4\nstartupTimeout: 0\nmaxRetryTimeoutInSec: 7\n"
        "clientTimeoutInMills: 99\ndeviceType: gpu\ndeviceIds: [0, 1]\nuseJobTicket: true\n",
    ),
    "batch_config": Source("echo.py", config="batchSize: 6\n"),
    "captive": Source("captive.py", config="minWorkers: 1\nmaxWorkers: 1\n"),
    "captive_online": Source(
        "captive.py", config="minWorkers: 1\nmaxWorkers: 1\nsandbox: {network: true}\n"
    ),
    "batches": Source(
        "replies.py", config="batchSize: 2\nmaxBatchDelay: 5000\nminWorkers: 1\nmaxWorkers: 1\n"
    ),
    "batches_fail": Source(
        "failures.py", config="batchSize: 2\nmaxBatchDelay: 5000\nminWorkers: 1\nmaxWorkers: 1\n"
    ),
    "failures": Source("failures.py"),
    "silent": Source("failures.py", config="minWorkers: 1\nmaxWorkers: 1\nresponseTimeout: 2\n"),
    "streams": Source("streams.py", config="minWorkers: 1\nmaxWorkers: 1\nresponseTimeout: 2\n"),
    "stream_batches": Source(
        "streams.py", config="batchSize: 2\nmaxBatchDelay: 5000\nminWorkers: 1\nmaxWorkers: 1\n"
    ),
    "sequences": Source(
        "sequences.py",
        config="minWorkers: 1\nmaxWorkers: 1\nbatchSize: 2\nmaxBatchDelay: 50\n"
        "sequenceBatching: true\nsequenceMaxIdleMSec: 3000\nmaxNumSequence: 2\n"
        "maxSequenceJobQueueSize: 2\n",
    ),
    "short_sequences": Source(
        "sequences.py",
        config="minWorkers: 2\nmaxWorkers: 2\nbatchSize: 2\nmaxBatchDelay: 50\n"
        "sequenceBatching: true\nsequenceMaxIdleMSec: 1500\nmaxNumSequence: 2\n"
        "maxSequenceJobQueueSize: 1\n",
    ),
    "endless_sequences": Source("sequences.py", config="sequenceBatching: true\n"),
    "steps": Source(
        "steps.py",
        config="minWorkers: 1\nmaxWorkers: 1\nbatchSize: 2\nmaxBatchDelay: 50\n"
        "continuousBatching: true\n",
    ),
    "sequence_steps": Source(
        "steps.py",
        config="minWorkers: 1\nmaxWorkers: 1\nbatchSize: 2\nmaxBatchDelay: 50\n"
        "continuousBatching: true\nsequenceBatching: true\nsequenceMaxIdleMSec: 60000\n"
        "maxNumSequence: 2\nmaxSequenceJobQueueSize: 2\n",
    ),
    "coroutines": Source(
        "coroutines.py",
        config="minWorkers: 1\nmaxWorkers: 1\nresponseTimeout: 1\nasyncCommunication: true\n",
    ),
    "coroutine_pairs": Source(
        "coroutines.py",
        config="minWorkers: 1\nmaxWorkers: 1\nbatchSize: 2\nmaxBatchDelay: 5000\n"
        "asyncCommunication: true\n",
    ),
    "coroutine_ticket": Source(
        "coroutines.py",
        config="minWorkers: 1\nmaxWorkers: 1\nasyncCommunication: true\nuseJobTicket: true\n",
    ),
    "plain_function": Source(
        "plain_function.py", config="minWorkers: 1\nmaxWorkers: 1\nasyncCommunication: true\n"
    ),
    "micro_batches": Source(
        "micro_batches.py",
        config="minWorkers: 1\nmaxWorkers: 1\nbatchSize: 3\nmaxBatchDelay: 300\n"
        "micro_batching:\n  parallelism: {preprocess: 2, inference: 1, postprocess: 1}\n",
    ),
    "some_fail": Source(
        "some_fail.py", config="minWorkers: 1\nmaxWorkers: 1\nbatchSize: 3\nmaxBatchDelay: 5000\n"
    ),
    "resnet": Source(
        "image_classifier",
        serialized_file="resnet18.pt",
        write_weights=write_resnet,
        extra_files={"index_to_name.json": json.dumps(CLASS_NAMES)},
    ),
    "mlp": Source(
        "mlp_handler.py",
        model_file="mlp.py",
        serialized_file="mlp.pt",
        write_weights=write_mlp_weights,
    ),
    "mlp_pairs": Source(
        "base_handler",
        model_file="mlp.py",
        serialized_file="mlp.pt",
        write_weights=write_mlp_weights,
        config=PAIRS_CONFIG,
    ),
    "base": Source(
        "base_handler",
        model_file="mlp.py",
        serialized_file="mlp.pt",
        write_weights=write_mlp_weights,
    ),
    "detector": Source(
        "object_detector",
        model_file="small_detector.py",
        serialized_file="detector.pth",
        write_weights=write_detector,
        extra_files={"index_to_name.json": '{"object_type_names": ["sky", "cat", "dog"]}'},
    ),
    "detector_pairs": Source(
        "object_detector",
        model_file="small_detector.py",
        serialized_file="detector.pth",
        write_weights=write_detector,
        config="batchSize: 2\nmaxBatchDelay: 5000\nminWorkers: 1\nmaxWorkers: 1\n",
    ),
    "segmenter": Source(
        "eight_pixels.py",
        model_file="small_segmenter.py",
        serialized_file="segmenter.pth",
        write_weights=write_segmenter,
    ),
    "few_pixels": Source(
        "eight_pixels_classified.py",
        model_file="small_classifier.py",
        serialized_file="classifier.pth",
        write_weights=write_classifier,
        extra_files={"index_to_name.json": '{"0": "a", "1": ["n1", "b"], "2": "c", "3": "d"}'},
    ),
    "few_classes": Source(
        "image_classifier",
        model_file="small_classifier.py",
        serialized_file="classifier.pth",
        write_weights=write_classifier,
    ),
    "text": Source(
        "text_classifier",
        model_file="text_model.py",
        serialized_file="text.pt",
        write_weights=write_text_model,
        extra_files={"index_to_name.json": '{"0": "good", "1": "bad", "2": "none"}'},
        write_extra={"source_vocab.pt": write_vocabulary},
    ),
    "text_pairs": Source(
        "text_classifier",
        model_file="text_model.py",
        serialized_file="text.pt",
        write_weights=write_text_model,
        write_extra={"source_vocab.pt": write_vocabulary},
        config="batchSize: 2\nmaxBatchDelay: 5000\nminWorkers: 1\nmaxWorkers: 1\n",
    ),
    "text_no_vocabulary": Source(
        "text_classifier",
        model_file="text_model.py",
        serialized_file="text.pt",
        write_weights=write_text_model,
    ),
    "text_no_embedding": Source(
        "text_classifier",
        model_file="mlp.py",
        serialized_file="mlp.pt",
        write_weights=write_mlp_weights,
        write_extra={"source_vocab.pt": write_vocabulary},
    ),
    "bad_labels": Source(
        "image_classifier",
        model_file="small_classifier.py",
        serialized_file="classifier.pth",
        write_weights=write_classifier,
        extra_files={"index_to_name.json": '["a", "b"]'},
    ),
    "ranks": Source("ranks.py", config=RANKS.format(type="tp")),
    "ranks_pp": Source("ranks.py", config=RANKS.format(type="pp")),
    "ranks_custom": Source("ranks.py", config=RANKS.format(type="custom")),
    "ranks_online": Source(
        "ranks.py", config=RANKS.format(type="tp") + "sandbox: {network: true}\n"
    ),
    "rpc_ranks": Source("rpc_ranks.py", config=RANKS.format(type="pp")),
    "ranks_no_load": Source(
        "ranks.py", config=RANKS.format(type="tp"), extra_files={"load_fails": ""}
    ),
    "word_lengths": Source(
        "word_lengths.py",
        extra_files={"stop_words.txt": "a the of"},
        config="handler:\n  unit: letters\n",
    ),
    "entry": Source("other_entry:answer"),
    "shadowed": Source("shadowed_class.py"),
    "load_value_error": Source("load_raises.py", extra_files={"how.txt": "value-error"}),
    "load_runtime_error": Source("load_raises.py", extra_files={"how.txt": "runtime-error"}),
    "load_cuda": Source("load_raises.py", extra_files={"how.txt": "cuda"}),
    "load_memory_error": Source("load_raises.py", extra_files={"how.txt": "memory-error"}),
    "load_exit": Source("load_raises.py", extra_files={"how.txt": "exit"}),
    "load_no_handler": Source("load_no_handler.py"),
    "load_two_classes": Source("load_two_classes.py"),
    "load_no_initialize": Source("load_no_initialize.py"),
    "load_import_error": Source("load_import_error.py"),
    "load_no_weights": Source("base_handler"),
    **PUBLIC,
    **EXAMPLES,
}


def _zip(**entries: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in entries.items():
                archive.writestr(name, text)

    return write


def _file(content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


def _manifest(**model: str) -> dict[str, str]:
    return {"MAR-INF/MANIFEST.json": json.dumps({"runtime": "python", "model": model})}


def _truncated(path: Path) -> None:
    _zip(**_manifest(modelName="truncated", handler="echo.py"), **{"echo.py": "x = 1\n" * 99})(path)
    path.write_bytes(path.read_bytes()[:-400])


BROKEN: dict[str, Callable[[Path], None]] = {
    "no_manifest": _zip(**{"echo.py": "def handle(data, context): ..."}),
    "no_zip": _file(b"this is no archive"),
    "empty_file": _file(b""),
    "truncated": _truncated,
    "manifest_no_json": _zip(**{"MAR-INF/MANIFEST.json": "{not json"}),
    "no_name": _zip(**_manifest(handler="echo.py")),
    "bad_runtime": _zip(
        **{"MAR-INF/MANIFEST.json": '{"runtime": "cobol", "model": {"modelName": "bad_runtime"}}'}
    ),
    "handlerless": _zip(
        **_manifest(modelName="handlerless"), **{"own.py": "def answer(d, c): return ['own']\n"}
    ),
    "slip": _zip(**_manifest(modelName="slip", handler="echo.py"), **{"../slipped.txt": "out"}),
}


def build_archives(
    store: Path, names: Iterable[str] | None = None, packed_by: Path | None = None
) -> dict[str, Path]:
    """Build the named archives (all when None) in `store`; returns name -> path."""
    store.mkdir(parents=True, exist_ok=True)
    names = [*SOURCES, *BROKEN] if names is None else list(names)
    return {name: _build(name, store, packed_by) for name in names}


def _build(name: str, store: Path, reference: Path | None) -> Path:
    if name in BROKEN:
        target = store / f"{name}.mar"
        BROKEN[name](target)
        return target
    source = SOURCES[name]
    target = store / f"{name}{source.form}"
    with TemporaryDirectory() as scratch:
        files = _collect(source, Path(scratch))
        if reference:
            _pack_with_reference(reference, name, source, files, target)
        else:
            _pack(name, source, files, target)
    return target


def _collect(source: Source, scratch: Path) -> dict[str, Path]:
    """Path on disk of every file of the archive, by its role or its own name."""
    homes = [HANDLERS]
    if source.wheel:
        homes.insert(0, unpacked_wheel(source.wheel, scratch / "wheel"))
    files = {}
    if not source.is_built_in:
        files["handler"] = _first(homes, f"{_handler_module(source)}.py")
    for name in source.files:
        files[f"extra:{name}"] = HANDLERS / name
    if source.model_file:
        files["model_file"] = _first(homes, source.model_file)
    if source.serialized_file and source.write_weights:
        files["serialized_file"] = scratch / source.serialized_file
        source.write_weights(files["serialized_file"])
    for name, text in source.extra_files.items():
        files[f"extra:{name}"] = scratch / name
        files[f"extra:{name}"].write_text(text)
    for name, write in source.write_extra.items():
        files[f"extra:{name}"] = scratch / name
        write(files[f"extra:{name}"])
    if source.extra_folder:
        files["folder"] = HANDLERS / source.extra_folder
    for role, name, text in (
        ("requirements", "requirements.txt", source.requirements),
        ("config", "model-config.yaml", source.config),
    ):
        if text:
            files[role] = scratch / name
            files[role].write_text(text)
    return files


def _first(homes: Iterable[Path], name: str) -> Path:
    return next(home / name for home in homes if (home / name).is_file())


def _handler_module(source: Source) -> str:
    return source.handler.partition(":")[0].removesuffix(".py")


def _pack(name: str, source: Source, files: dict[str, Path], target: Path) -> None:
    model = {
        "modelName": source.model_name or name,
        "serializedFile": source.serialized_file,
        "handler": Path(source.handler).name,
        "modelFile": source.model_file and Path(source.model_file).name,
        "modelVersion": source.version,
        "requirementsFile": "requirements.txt" if source.requirements else None,
        "configFile": "model-config.yaml" if source.config else None,
    }
    manifest = {
        "createdOn": "29/03/2024 16:37:08",
        "runtime": "python",
        "model": {key: value for key, value in model.items() if value is not None},
        "archiverVersion": "0.12.0",
    }
    with TemporaryDirectory() as scratch:
        root = Path(scratch, source.model_name or name)
        for role, path in files.items():
            root.mkdir(exist_ok=True)
            if role == "folder":
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(path, root, ignore=ignored, dirs_exist_ok=True)
            else:
                shutil.copy(path, root / path.name)
        members = sorted(path for path in root.rglob("*") if path.is_file())
        (root / "MAR-INF").mkdir(parents=True)
        (root / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest, indent=2))
        match source.form:
            case "":
                shutil.copytree(root, target)
            case ".tar.gz":
                with tarfile.open(target, "w:gz") as tar:
                    for path in sorted(root.rglob("*")):  # directories have no entries
                        if path.is_file():
                            tar.add(path, Path(root.name, path.relative_to(root)))
            case ".mar":
                with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
                    for path in members:
                        archive.write(path, path.relative_to(root))
                    # As text: the entry has no file's kind, and is for its owner only.
                    archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest, indent=2))


def _pack_with_reference(
    reference: Path, name: str, source: Source, files: dict[str, Path], target: Path
) -> None:
    handler = source.handler
    if not source.is_built_in:
        handler = str(files["handler"].with_name(Path(source.handler).name))
    command = [
        str(reference / "bin" / "torch-model-archiver"),
        *("--model-name", source.model_name or name),
        *("--version", source.version),
        *("--handler", handler),
        *("--archive-format", {".mar": "default", ".tar.gz": "tgz", "": "no-archive"}[source.form]),
    ]
    if source.model_file:
        command += ["--model-file", str(files["model_file"])]
    if source.serialized_file:
        command += ["--serialized-file", str(files["serialized_file"])]
    extra = [str(path) for role, path in files.items() if role.startswith(("extra:", "folder"))]
    if extra:
        command += ["--extra-files", ",".join(extra)]
    if source.requirements:
        command += ["--requirements-file", str(files["requirements"])]
    if source.config:
        command += ["--config-file", str(files["config"])]
    with TemporaryDirectory() as export:
        subprocess.run([*command, "--export-path", export], check=True, capture_output=True)
        shutil.move(Path(export, f"{source.model_name or name}{source.form}"), target)
