"""Every name that handlers of TorchServe import, and how it is called.

A row is `module: name(parameters)`, as TorchServe 0.12 has them: the names of the parameters and
their defaults, without types. What takes `...` is only looked for.
"""

import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from torchkeep.backend.handler import TS_COMPAT

TABLE = """
ts: __version__
ts.version: __version__
ts.context: Context(model_name, model_dir, manifest, batch_size, gpu, mms_version, limit_max_image_pixels=True, metrics=None, model_yaml_config=None)
ts.context: Context.get_request_id(self, idx=0)
ts.context: Context.get_request_header(self, idx, key)
ts.context: Context.get_all_request_header(self, idx)
ts.context: Context.get_sequence_id(self, idx)
ts.context: Context.set_response_content_type(self, idx, value)
ts.context: Context.get_response_content_type(self, idx)
ts.context: Context.set_response_header(self, idx, key, value)
ts.context: Context.get_response_headers(self, idx)
ts.context: Context.set_response_status(self, code=200, phrase='', idx=0)
ts.context: Context.get_response_status(self, idx)
ts.context: Context.set_all_response_status(self, code=200, phrase='')
ts.context: RequestProcessor(request_header)
ts.context: RequestProcessor.get_request_property(self, key)
ts.context: RequestProcessor.get_request_properties(self)
ts.context: RequestProcessor.report_status(self, code, reason_phrase=None)
ts.context: RequestProcessor.get_response_status_code(self)
ts.context: RequestProcessor.get_response_status_phrase(self)
ts.context: RequestProcessor.add_response_property(self, key, value)
ts.context: RequestProcessor.get_response_headers(self)
ts.context: RequestProcessor.get_response_header(self, key)
ts.handler_utils.micro_batching: MicroBatching(parent_handler, micro_batch_size=1, parallelism=None)
ts.handler_utils.micro_batching: MicroBatching.__call__(self, data, context)
ts.handler_utils.micro_batching: MicroBatching.get_micro_batch_idx(self)
ts.handler_utils.micro_batching: MicroBatching.parallelism
ts.handler_utils.micro_batching: MicroBatching.shutdown(self)
ts.handler_utils.timer: timed(...)
ts.handler_utils.utils: import_class(class_name, module_prefix=None)
ts.handler_utils.utils: send_intermediate_predict_response(ret, req_id_map, message, code, context)
ts.handler_utils.hf_batch_streamer: TextIteratorStreamerBatch(tokenizer, batch_size, skip_prompt=False, timeout=None, **decode_kwargs)
ts.handler_utils.hf_batch_streamer: TextIteratorStreamerBatch.put(self, value)
ts.handler_utils.hf_batch_streamer: TextIteratorStreamerBatch.end(self)
ts.launcher: start(model_store=None, snapshot_file=None, no_config_snapshots=False, plugin_folder=None, disable_token=False, models=None, enable_model_api=False)
ts.launcher: stop(wait=True)
ts.launcher: register_model(model_name, url)
ts.launcher: register_model_with_params(params)
ts.metrics.dimension: Dimension(name, value)
ts.metrics.dimension: Dimension.to_dict(self)
ts.metrics.metric: Metric(name, value, unit, dimensions, request_id=None, metric_method=None)
ts.metrics.metric: Metric.update(self, value)
ts.metrics.metric: Metric.reset(self)
ts.metrics.metric: Metric.to_dict(self)
ts.metrics.metric_type_enum: MetricTypes.COUNTER
ts.metrics.metric_type_enum: MetricTypes.GAUGE
ts.metrics.metric_type_enum: MetricTypes.HISTOGRAM
ts.metrics.metrics_store: MetricsStore(request_ids, model_name)
ts.metrics.metrics_store: MetricsStore.add_counter(self, name, value, idx=None, dimensions=None)
ts.metrics.metrics_store: MetricsStore.add_time(self, name, value, idx=None, unit='ms', dimensions=None)
ts.metrics.metrics_store: MetricsStore.add_size(self, name, value, idx=None, unit='MB', dimensions=None)
ts.metrics.metrics_store: MetricsStore.add_percent(self, name, value, idx=None, dimensions=None)
ts.metrics.metrics_store: MetricsStore.add_error(self, name, value, dimensions=None)
ts.metrics.metrics_store: MetricsStore.add_metric(self, name, value, unit, idx=None, dimensions=None)
ts.metrics.process_memory_metric: check_process_mem_usage(stdin)
ts.metrics.process_memory_metric: get_cpu_usage(pid)
ts.model_loader: ModelLoaderFactory.get_model_loader()
ts.model_loader: TsModelLoader.load(self, model_name, model_dir, handler=None, gpu_id=None, batch_size=None, envelope=None, limit_max_image_pixels=True, metrics_cache=None)
ts.protocol.otf_message_handler: create_load_model_response(code, message)
ts.protocol.otf_message_handler: create_predict_response(ret, req_id_map, message, code, context=None, ts_stream_next=False)
ts.protocol.otf_message_handler: send_intermediate_predict_response(ret, req_id_map, message, code, context=None)
ts.service: PredictionException(message, error_code=500)
ts.service: Service(model_name, model_dir, manifest, entry_point, gpu, batch_size, limit_max_image_pixels=True, metrics_cache=None)
ts.service: Service.context
ts.service: Service.predict(self, batch)
ts.service: Service.retrieve_data_for_inference(batch)
ts.service: Service.set_cl_socket(self, cl_socket)
ts.service: emit_metrics(metrics)
ts.torch_handler.base_handler: PROFILER_AVAILABLE
ts.torch_handler.base_handler: BaseHandler()
ts.torch_handler.base_handler: BaseHandler.initialize(self, context)
ts.torch_handler.base_handler: BaseHandler.preprocess(self, data)
ts.torch_handler.base_handler: BaseHandler.inference(self, data, *args, **kwargs)
ts.torch_handler.base_handler: BaseHandler.postprocess(self, data)
ts.torch_handler.base_handler: BaseHandler.handle(self, data, context)
ts.torch_handler.base_handler: BaseHandler.explain_handle(self, data_preprocess, raw_data)
ts.torch_handler.base_handler: BaseHandler.describe_handle(self)
ts.torch_handler.base_handler: BaseHandler.get_device(self)
ts.torch_handler.base_handler: BaseHandler._is_explain(self)
ts.torch_handler.base_handler: BaseHandler._is_describe(self)
ts.torch_handler.base_handler: BaseHandler._infer_with_profiler(self, data)
ts.torch_handler.base_handler: BaseHandler._load_torchscript_model(self, model_pt_path)
ts.torch_handler.base_handler: BaseHandler._load_pickled_model(self, model_dir, model_file, model_pt_path)
ts.torch_handler.base_handler: BaseHandler._load_torch_export_aot_compile(self, model_so_path)
ts.torch_handler.base_handler: BaseHandler._use_torch_export_aot_compile(self)
ts.torch_handler.image_classifier: ImageClassifier.image_processing
ts.torch_handler.image_classifier: ImageClassifier.get_max_result_classes(self)
ts.torch_handler.image_classifier: ImageClassifier.set_max_result_classes(self, topk)
ts.handler_utils.distributed.deepspeed: get_ds_engine(model, ctx)
ts.handler_utils.distributed.pt_pippy: get_pipeline_driver(model, world_size, ctx)
ts.handler_utils.distributed.pt_pippy: initialize_rpc_workers(local_rank, world_size, ctx)
ts.handler_utils.text_utils: get_tokenizer(tokenizer, language='en')
ts.handler_utils.text_utils: ngrams_iterator(token_list, ngrams)
ts.torch_handler.densenet_handler: DenseNetHandler()
ts.torch_handler.densenet_handler: DenseNetHandler.inference(self, data, *args, **kwargs)
ts.torch_handler.densenet_handler: DenseNetHandler.handle(self, data, context)
ts.torch_handler.distributed.base_deepspeed_handler: BaseDeepSpeedHandler()
ts.torch_handler.distributed.base_deepspeed_handler: BaseDeepSpeedHandler.initialize(self, ctx)
ts.torch_handler.distributed.base_pippy_handler: BasePippyHandler()
ts.torch_handler.distributed.base_pippy_handler: BasePippyHandler.initialize(self, ctx)
ts.torch_handler.image_segmenter: ImageSegmenter.image_processing
ts.torch_handler.image_segmenter: ImageSegmenter.postprocess(self, data)
ts.torch_handler.object_detector: ObjectDetector.image_processing
ts.torch_handler.object_detector: ObjectDetector.threshold
ts.torch_handler.object_detector: ObjectDetector.postprocess(self, data)
ts.torch_handler.text_classifier: TextClassifier.ngrams
ts.torch_handler.text_classifier: TextClassifier.preprocess(self, data)
ts.torch_handler.text_classifier: TextClassifier.inference(self, data, *args, **kwargs)
ts.torch_handler.text_classifier: TextClassifier.get_insights(self, text_preprocess, _, target=0)
ts.torch_handler.text_handler: TextHandler()
ts.torch_handler.text_handler: TextHandler.get_source_vocab_path(self, ctx)
ts.torch_handler.text_handler: TextHandler._expand_contractions(self, text)
ts.torch_handler.text_handler: TextHandler._remove_accented_characters(self, text)
ts.torch_handler.text_handler: TextHandler._remove_html_tags(self, text)
ts.torch_handler.text_handler: TextHandler._remove_punctuation(self, text)
ts.torch_handler.text_handler: TextHandler._tokenize(self, text)
ts.torch_handler.text_handler: TextHandler.get_word_token(self, input_tokens)
ts.torch_handler.text_handler: TextHandler.summarize_attributions(self, attributions)
ts.torch_handler.vision_handler: VisionHandler()
ts.torch_handler.vision_handler: VisionHandler.get_insights(self, tensor_data, _, target=0)
ts.torch_handler.image_classifier: ImageClassifier.topk
ts.torch_handler.request_envelope.base: BaseEnvelope(handle_fn)
ts.torch_handler.request_envelope.base: BaseEnvelope.handle(self, data, context)
ts.torch_handler.request_envelope.base: BaseEnvelope.parse_input(self, data)
ts.torch_handler.request_envelope.base: BaseEnvelope.format_output(self, data)
ts.torch_handler.request_envelope.body: BodyEnvelope(handle_fn)
ts.torch_handler.request_envelope.json: JSONEnvelope(handle_fn)
ts.torch_handler.request_envelope.kserve: KServeEnvelope(handle_fn)
ts.torch_handler.request_envelope.kservev2: KServev2Envelope(handle_fn)
ts.torch_handler.unit_tests.test_utils.mock_context: MockContext(model_pt_file='model.pt', model_dir='ts/torch_handler/unit_tests/models/tmp', model_file='model.py', gpu_id='0', model_name='mnist', model_yaml_config_file=None)
ts.torch_handler.unit_tests.test_utils.mock_context: MockContext.get_request_header(self, idx, exp)
ts.torch_handler.unit_tests.test_utils.model_dir: REPO_DIR
ts.torch_handler.unit_tests.test_utils.model_dir: copy_files(src_dir, dst_dir, files)
ts.torch_handler.unit_tests.test_utils.model_dir: download_model(model_url, model_dir)
ts.utils.util: CLEANUP_REGEX
ts.utils.util: PT2Backend.INDUCTOR
ts.utils.util: PredictionException(message, error_code=500)
ts.utils.util: check_valid_pt2_backend(backend)
ts.utils.util: deprecated(version, replacement='', klass=<class 'PendingDeprecationWarning'>)
ts.utils.util: get_yaml_config(yaml_file_path)
ts.utils.util: list_classes_from_module(module, parent_class=None)
ts.utils.util: load_label_mapping(mapping_file_path)
ts.utils.util: map_class_to_label(probs, mapping=None, lbl_classes=None)
"""  # noqa: E501

NOT_OFFERED = (
    "ts.handler_utils.preprocess.dali",
    "ts.llm_launcher",
    "ts.torch_handler.dali_handler",
    "ts.torch_handler.dali_image_classifier",
    "ts.torch_handler.trt_llm_handler",
    "ts.torch_handler.vllm_handler",
)
NEEDS_TORCH = re.compile(
    r"ts\.torch_handler\.(?!request_envelope|unit_tests)|ts\.handler_utils\.distributed"
)


def rows() -> Iterator[Any]:
    for line in TABLE.strip().splitlines():
        module, _, call = line.partition(": ")
        marks = [pytest.mark.torch] if NEEDS_TORCH.match(module) else []
        yield pytest.param(module, call, marks=marks, id=f"{module}.{call.partition('(')[0]}")


def parameters(function: Any) -> str:
    """A signature without types."""
    signature = inspect.signature(function)
    bare = [
        one.replace(annotation=inspect.Parameter.empty) for one in signature.parameters.values()
    ]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))


@pytest.mark.parametrize(("module", "call"), list(rows()))
def test_what_handlers_import(module: str, call: str) -> None:
    names, paren, _ = call.partition("(")
    found = importlib.import_module(module)
    for name in names.split("."):
        found = getattr(found, name)
    if paren and not call.endswith("(...)"):
        assert f"{names}{parameters(found)}" == call


@pytest.mark.parametrize("module", NOT_OFFERED)
def test_what_is_not_offered_says_what_to_use_instead(module: str) -> None:
    with pytest.raises(ImportError, match=r".{20}: (bring|derive|pack|preprocess|use) .{20}"):
        importlib.import_module(module)


def test_the_packages_ship_their_types() -> None:
    for package in ("ts", "model_archiver", "workflow_archiver"):
        assert (TS_COMPAT / package / "py.typed").is_file()


HANDLER = '''
"""A handler, as its author writes it, with types."""

from typing import Any

from ts.context import Context
from ts.torch_handler.base_handler import BaseHandler
from ts.torch_handler.image_classifier import ImageClassifier
from ts.utils.util import PredictionException


def best_of(handler: ImageClassifier) -> int:
    handler.context.set_response_header(0, "x-best", "3")
    return handler.topk


class Doubler(BaseHandler):
    def initialize(self, context: Context) -> None:
        self.context = context
        self.factor = int(context.model_yaml_config.get("factor", 2))
        self.initialized = True

    def preprocess(self, data: list[dict[str, Any]]) -> list[int]:
        if any("body" not in row for row in data):
            raise PredictionException("no body", 400)
        self.context.metrics.add_counter("Rows", len(data))
        return [int(row["body"]) for row in data]

    def inference(self, data: list[int], *args: Any, **kwargs: Any) -> list[int]:
        return [number * self.factor for number in data]

    def postprocess(self, data: list[int]) -> list[str]:
        return [str(number) for number in data]
'''
TEST = '''
"""And its test."""

import pytest
from doubler import Doubler

from ts.context import Context, RequestProcessor
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
from ts.torch_handler.unit_tests.test_utils.mock_context import MockContext
from ts.utils.util import PredictionException


def test_with_a_mock() -> None:
    handler = Doubler()
    context = MockContext(model_pt_file=None, model_file=None)
    handler.initialize(context)
    assert handler.handle([{"body": b"4"}, {"body": b"5"}], context) == ["8", "10"]


def test_with_a_whole_context() -> None:
    context = Context(
        "doubler", ".", None, 1, None, "0.12.0", True, MetricsCacheYamlImpl(), {"factor": 3}
    )
    context.request_processor = [RequestProcessor({})]
    handler = Doubler()
    handler.initialize(context)
    assert handler.handle([{"body": b"4"}], context) == ["12"]
    with pytest.raises(PredictionException, match="no body : 400"):
        handler.handle([{}], context)
'''


# Analysing all of torch would take longer than everything else.
MYPY_INI = "[mypy]\nstrict = true\n[mypy-torch.*]\nfollow_imports = skip\n"


class Author:
    """Works in a folder of his own, by what `torchkeep ts-path` prints."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name, content in (
            ("doubler.py", HANDLER),
            ("test_doubler.py", TEST),
            ("mypy.ini", MYPY_INI),
        ):
            (folder / name).write_text(content)
        program = "from torchkeep.runtime.__main__ import torchkeep; torchkeep(['ts-path'])"
        self._ts_path = self._run({}, "-c", program).strip()

    def runs(self, *command: str) -> None:
        self._run({"PYTHONPATH": self._ts_path, "MYPYPATH": self._ts_path}, "-m", *command)

    def _run(self, environment: dict[str, str], *arguments: str) -> str:
        ended = subprocess.run(
            [sys.executable, *arguments],
            cwd=self._folder,
            env={**environment, "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout


@pytest.mark.torch
def test_an_author_tests_a_handler(tmp_path: Path) -> None:
    Author(tmp_path).runs("pytest", "-q", "-p", "no:cacheprovider")


@pytest.mark.torch
def test_an_author_checks_the_types_of_a_handler(tmp_path: Path) -> None:
    Author(tmp_path).runs("mypy", "doubler.py")
