"""The handler that others derive from: load a model, then preprocess, infer, postprocess."""

import importlib
import importlib.util
import logging
import os
import time
import zipfile
from collections.abc import Sequence
from typing import Any, cast
from weakref import ref

import torch

from ts.context import Context
from ts.handler_utils.timer import timed
from ts.torch_handler.weights import load_weights
from ts.utils.util import check_valid_pt2_backend, list_classes_from_module, load_label_mapping

PROFILER_AVAILABLE = importlib.util.find_spec("torch.profiler") is not None

_log = logging.getLogger(__name__)


class BaseHandler:
    """Serves any model whose input is a tensor; subclasses override the steps they need."""

    # What this class itself has loaded, as opposed to a subclass: the worker may optimise it.
    _loaded_model: Any = None

    def __init__(self) -> None:
        self.model: Any = None
        self.mapping: dict[str, str] | None = None
        self.device: Any = None
        self.initialized = False
        self.context = cast(Context, None)  # until `initialize`; handlers need not ask for that
        self.model_pt_path: str | None = None
        self.manifest: dict[str, Any] | None = None
        self.map_location: str | None = None
        self.explain = False
        self.target: Any = 0
        self.profiler_args: dict[str, Any] = {}
        self.model_yaml_config: dict[str, Any] = {}
        # A pickle that holds more than tensors is read where the sandbox confines this process.
        self.trusts_pickles = False

    def initialize(self, context: Context) -> None:
        """Load the model that the manifest names; whatever goes wrong fails the load."""
        if context.manifest is None:
            raise TypeError("the archive has no MANIFEST.json")
        self.context = context
        self.manifest = context.manifest
        self.model_yaml_config = context.model_yaml_config or {}
        self.trusts_pickles = bool(getattr(context, "is_confined", False))
        self.device = _choose_device(context.system_properties.get("gpu_id"))
        self.map_location = self.device.type
        model_dir = str(context.system_properties["model_dir"])
        names = context.manifest["model"]
        if names.get("serializedFile"):
            self.model_pt_path = os.path.join(model_dir, names["serializedFile"])
        self.model = self._optimize(self._load(model_dir, names.get("modelFile")))
        self.mapping = load_label_mapping(os.path.join(model_dir, "index_to_name.json"))
        self.initialized = True
        if isinstance(context, Context):
            context.base_handler = ref(self)

    @timed
    def preprocess(self, data: Any) -> Any:
        return torch.as_tensor(data, device=self.device)

    @timed
    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        if not callable(self.model):
            return _run_onnx(self.model, data)
        with torch.inference_mode():
            return self.model(data.to(self.device), *args, **kwargs)

    @timed
    def postprocess(self, data: Any) -> Any:
        return data.tolist()

    def handle(self, data: Any, context: Context) -> Any:
        """One batch: describe, explain or predict, as the headers of its first request say."""
        started = time.perf_counter()
        self.context = context
        if self._is_describe():
            output: Any = [self.describe_handle()]
        elif PROFILER_AVAILABLE and "ENABLE_TORCH_PROFILER" in os.environ:
            output, _ = self._infer_with_profiler(data)
        else:
            output = self._answer(data)
        if context.metrics is not None:
            elapsed_ms = round((time.perf_counter() - started) * 1000, 2)
            context.metrics.add_time("HandlerTime", elapsed_ms, None, "ms")
        return output

    def explain_handle(self, data_preprocess: Any, raw_data: Sequence[dict[str, Any]]) -> Any:
        """Ask the handler's own `get_insights`, with the target that the first request names."""
        row = raw_data[0]
        inputs = row.get("data") or row.get("body")
        self.target = row.get("target") or 0
        # Only subclasses know how to explain their model.
        return self.get_insights(data_preprocess, inputs, self.target)  # type: ignore[attr-defined]

    def describe_handle(self) -> Any:
        """What a customized describe of the model answers; None unless overridden."""
        return None

    def get_device(self) -> Any:
        return self.device

    def _answer(self, data: Any) -> Any:
        prepared = self.preprocess(data)
        if self._is_explain():
            return self.explain_handle(prepared, data)
        return self.postprocess(self.inference(prepared))

    def _infer_with_profiler(self, data: Any) -> tuple[Any, Any]:
        """The output and the profile; a trace is left in /tmp/pytorch_profiler/{model name}."""
        arguments = dict(self.profiler_args) or {
            "activities": [torch.profiler.ProfilerActivity.CPU],
            "record_shapes": True,
        }
        if "on_trace_ready" not in arguments:
            arguments["on_trace_ready"] = _trace_writer(self.manifest)
        with torch.profiler.profile(**arguments) as profiler:
            output = self._answer(data)
        return output, profiler

    def _is_explain(self) -> bool:
        return bool(self._header("explain") == "True")

    def _is_describe(self) -> bool:
        return bool(self._header("describe") == "True")

    def _header(self, name: str) -> Any:
        # Contexts of tests may have no requests, and mocks know none.
        if self.context is None or not getattr(self.context, "request_processor", True):
            return None
        return self.context.get_request_header(0, name)

    def _load(self, model_dir: str, model_file: str | None) -> Any:
        """The model, from the first of TorchServe's forms that fits the two file names."""
        path = self.model_pt_path
        if model_file:
            model = self._load_pickled_model(model_dir, model_file, path)
            return model.to(self.device).eval()
        if path is None:
            raise AttributeError("the manifest names neither serializedFile nor modelFile")
        if path.endswith(".pt"):
            return self._load_torchscript_model(path).eval()
        if path.endswith(".so") and self._use_torch_export_aot_compile():
            return self._load_torch_export_aot_compile(path)
        if path.endswith(".pt2"):
            return _load_pt2(path)
        if path.endswith(".onnx") and importlib.util.find_spec("onnxruntime"):
            return _onnx_session(path, self.device)
        raise RuntimeError(f"No model weights could be loaded{_why_not(path)}")

    def _load_pickled_model(
        self, model_dir: str, model_file: str, model_pt_path: str | None
    ) -> Any:
        """An instance of the one class in `model_file`, with the state dict of `model_pt_path`."""
        if not os.path.isfile(os.path.join(model_dir, model_file)):
            raise RuntimeError(f"Missing the {model_file} file")
        module = importlib.import_module(model_file.split(".")[0])
        classes = list_classes_from_module(module)
        if len(classes) != 1:
            raise ValueError(f"Expected only one class as model definition. {classes}")
        model = classes[0]()
        if model_pt_path:
            state = load_weights(model_pt_path, self.map_location, self.trusts_pickles)
            model.load_state_dict(state)
        self._loaded_model = model
        return model

    def _load_torchscript_model(self, model_pt_path: str) -> Any:
        self._loaded_model = torch.jit.load(model_pt_path, map_location=self.device)
        return self._loaded_model

    def _load_torch_export_aot_compile(self, model_so_path: str) -> Any:
        return torch._export.aot_load(model_so_path, str(self.map_location))

    def _use_torch_export_aot_compile(self) -> bool:
        pt2 = self.model_yaml_config.get("pt2")
        export = pt2.get("export") if isinstance(pt2, dict) else None
        return isinstance(export, dict) and bool(export.get("aot_compile"))

    def _optimize(self, model: Any) -> Any:
        """The model made faster where its configuration asks for it, else the model itself."""
        options = _compile_options(self.model_yaml_config.get("pt2"))
        if options is None:
            return model
        self._loaded_model = None  # whoever asks for torch.compile gets that and nothing else
        try:
            return torch.compile(model, **options)
        except Exception:
            _log.exception("torch.compile failed, the model runs as it is")
            return model


def _trace_writer(manifest: dict[str, Any] | None) -> Any:
    """Writes traces where TorchServe does; None where this process may not."""
    model_name = os.path.basename(str((manifest or {"model": {}})["model"].get("modelName")))
    directory = f"/tmp/pytorch_profiler/{model_name}"
    try:
        os.makedirs(directory, exist_ok=True)
        writer: Any = torch.profiler.tensorboard_trace_handler(directory)
    # RuntimeError is torch's: the directory is somebody else's.
    except (OSError, RuntimeError) as error:
        _log.warning("ENABLE_TORCH_PROFILER: no trace is kept: %s", error)
        return None
    return writer


def _load_pt2(path: str) -> Any:
    """A package of AOTInductor, or a program of `torch.export`."""
    with zipfile.ZipFile(path) as package:
        is_compiled = any(name.endswith(".so") for name in package.namelist())
    if is_compiled:
        return torch._inductor.aoti_load_package(path)
    return torch.export.load(path).module()


def _onnx_session(path: str, device: Any) -> Any:
    onnxruntime: Any = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # else as many as there are cores
    wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
    usable = set(onnxruntime.get_available_providers())
    providers = [one for one in (*wanted, "CPUExecutionProvider") if one in usable]
    return onnxruntime.InferenceSession(path, options, providers=providers)


def _run_onnx(session: Any, data: Any) -> Any:
    """The outputs of an InferenceSession as tensors; a single one by itself."""
    values = data if isinstance(data, list | tuple) else [data]
    names = [one.name for one in session.get_inputs()]
    if len(values) != len(names):
        raise ValueError(f"the ONNX model takes {names}, and {len(values)} inputs were prepared")
    arrays = [value.detach().cpu().numpy() for value in values]
    outputs = [
        torch.as_tensor(one) for one in session.run(None, dict(zip(names, arrays, strict=True)))
    ]
    return outputs[0] if len(outputs) == 1 else outputs


def _why_not(path: str) -> str:
    """What is missing before a file of this suffix could be loaded."""
    name, suffix = os.path.basename(path), os.path.splitext(path)[1]
    reasons = {
        ".onnx": "the package onnxruntime is not installed",
        ".so": "model-config.yaml does not say pt2: {export: {aot_compile: true}}",
        ".safetensors": "it holds weights alone: name the file of their class, too",
    }
    known = reasons.get(suffix, "without a model file it must be .pt, .pt2, .so or .onnx")
    return f": {name}: {known}"


def _choose_device(gpu_id: int | None) -> Any:
    if gpu_id is not None and torch.cuda.is_available():
        return torch.device(f"cuda:{gpu_id}")
    if os.environ.get("TS_IPEX_GPU_ENABLE") == "true" and torch.xpu.is_available():
        return torch.device(f"xpu:{gpu_id or 0}")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    if importlib.util.find_spec("torch_xla"):
        xla: Any = importlib.import_module("torch_xla.core.xla_model")
        return xla.xla_device()
    return torch.device("cpu")


def _compile_options(pt2: Any) -> dict[str, Any] | None:
    """Keyword arguments for `torch.compile`, or None where the configuration asks for none."""
    if isinstance(pt2, dict) and "compile" in pt2:
        options = dict(pt2["compile"] or {})
        if not options.pop("enable", False):
            return None
    elif isinstance(pt2, str):
        options = {"backend": pt2}
        _log.warning('"pt2: %s" is the old form of pt2.compile', pt2)
    elif isinstance(pt2, dict) and pt2 and "export" not in pt2:
        options = dict(pt2)
        _log.warning("arguments right under pt2 are the old form of pt2.compile")
    else:
        return None
    return options if check_valid_pt2_backend(options.get("backend", "inductor")) else None
