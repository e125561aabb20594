"""Which calls take the faster form, and that nobody can tell a guarded model from its own."""

import copy
import inspect
import io
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from torchkeep.backend.guard import (  # noqa: E402
    Contract,
    Guard,
    Recorder,
    hooked_module,
    plain_attributes,
)
from torchkeep.backend.sample import Sample  # noqa: E402

pytestmark = pytest.mark.torch


class Net(nn.Module):  # type: ignore[misc]
    """Doubles; answers with another number where the faster form does."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)
        self.scale = 2.0

    def forward(self, x: Any, mask: Any = None, *, double: bool = True) -> Any:
        """Its own words."""
        return x * self.scale

    def encode(self, x: Any) -> Any:
        return self.forward(x) + 1


FAST = -1.0


def guarded(model: Any, *args: Any, free: tuple[int, ...] = (), **kwargs: Any) -> Any:
    def fast(given: Any, keywords: Any, leaves: list[Any]) -> Any:
        return torch.full_like(leaves[0], FAST, dtype=torch.float32)

    Guard(model, fast, Contract.of(Sample(args, kwargs), free)).install()
    return model


def is_fast(model: Any, *args: Any, **kwargs: Any) -> bool:
    return bool((model(*args, **kwargs) == FAST).all())


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.no_grad():
        yield


X = torch.ones(2, 3)
IDS = torch.ones(2, 5, dtype=torch.int64)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (X.clone(), True),
        (torch.ones(7, 3), True),
        (torch.ones(0, 3), False),
        (torch.ones(2, 4), False),
        (torch.ones(3), False),
        (torch.ones(2, 3, 1), False),
        (X.double(), False),
        (X.to_sparse(), False),
        (nn.Parameter(X), True),
        (X.as_subclass(type("Mine", (torch.Tensor,), {})), False),
    ],
    ids=["same", "batch", "empty", "width", "1-d", "3-d", "dtype", "sparse", "parameter", "class"],
)
def test_only_what_was_checked_is_fast(given: Any, expected: bool) -> None:
    model = guarded(Net(), X, free=(0,))
    answer = model(given)
    assert bool((answer.to_dense() == FAST).all() and answer.numel()) is expected


def test_the_batch_is_fixed_unless_it_was_checked() -> None:
    model = guarded(Net(), X)
    assert is_fast(model, X)
    assert not is_fast(model, torch.ones(7, 3))


def test_free_dimensions_are_of_one_size_in_all_tensors() -> None:
    model = guarded(Net(), IDS, free=(0, 1), mask=IDS)
    assert is_fast(model, torch.ones(4, 9, dtype=torch.int64), mask=torch.ones_like(IDS[:1])) is (
        False
    )
    longer = torch.ones(4, 9, dtype=torch.int64)
    assert is_fast(model, longer, mask=longer)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {"x": X}),
        ((X, None), {}),
        ((X,), {"double": False}),
        ((X,), {"mask": X}),
        ((X,), {"mask": object()}),
        (([1.0],), {"double": True}),
    ],
    ids=["by keyword", "more", "flag", "kind", "unknown kind", "no tensor"],
)
def test_other_arguments_go_the_original_way(args: Any, kwargs: Any) -> None:
    model = guarded(Net(), X, double=True)
    model.scale = 2.0
    if args and isinstance(args[0], list):
        with pytest.raises(TypeError):
            model(*args, **kwargs)
    else:
        assert not is_fast(model, *args, **kwargs)
    assert is_fast(model, X, double=True)


def test_gradients_go_the_original_way() -> None:
    model = guarded(Net(), X)
    with torch.enable_grad():
        assert not is_fast(model, X)
    with torch.inference_mode():
        assert is_fast(model, X)


def test_autocast_and_tracing_go_the_original_way() -> None:
    model = guarded(Net(), X)
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_fast(model, X)
    assert torch.equal(torch.jit.trace(model, X, check_trace=False)(X), X * 2)


def _load(model: Any) -> None:
    model.load_state_dict(model.state_dict())


def _step(model: Any) -> None:
    model.inner.weight.add_(1)


@pytest.mark.parametrize(
    "change",
    [
        _load,
        _step,
        lambda model: model.double(),
        lambda model: model.train(),
        lambda model: setattr(model, "scale", 3.0),
        lambda model: setattr(model, "scale", torch.tensor([2.0, 2.0, 2.0])),
        lambda model: model.inner.register_forward_hook(lambda *_: None),
        lambda model: model.inner.register_forward_pre_hook(lambda *_: None),
    ],
    ids=["state dict", "weights", "dtype", "training", "setting", "tensor", "hook", "pre-hook"],
)
def test_a_changed_model_runs_itself(change: Any) -> None:
    model = guarded(Net().eval(), X)
    assert is_fast(model, X)
    change(model)
    assert not is_fast(model, X)


def test_a_hook_that_is_gone_no_longer_counts() -> None:
    model = guarded(Net().eval(), X)
    handle = model.inner.register_forward_hook(lambda *_: None)
    assert hooked_module(model) == "inner"
    assert not is_fast(model, X)
    assert not is_fast(model, X)
    handle.remove()
    assert is_fast(model, X)


def test_hooks_of_the_model_itself_run_around_the_faster_form() -> None:
    model, seen = guarded(Net().eval(), X), []
    model.register_forward_hook(lambda _, given, answer: seen.append(answer))
    assert is_fast(model, X)
    assert len(seen) == 1


def test_the_model_looks_as_it_did() -> None:
    plain, model = Net().eval(), guarded(Net().eval(), X)
    assert isinstance(model, Net)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert [name for name, _ in model.named_modules()] == [n for n, _ in plain.named_modules()]
    assert inspect.signature(model.forward) == inspect.signature(plain.forward)
    assert repr(model) == repr(plain)
    assert is_fast(model, X)
    assert torch.equal(model.encode(X), torch.full_like(X, FAST + 1))


def test_a_copy_and_a_pickle_are_free_of_the_faster_form() -> None:
    model = guarded(Net().eval(), X)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    copies = [
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),  # noqa: S301 - our own
        torch.load(buffer, weights_only=False),
    ]
    for other in copies:
        other.scale = 5.0
        assert torch.equal(other(X), X * 5)
    assert is_fast(model, X)


def test_a_failure_of_the_faster_form_is_answered_by_the_model(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = Net().eval()

    def fast(*_: Any) -> Any:
        raise RuntimeError("no such kernel")

    Guard(model, fast, Contract.of(Sample((X,)))).install()
    assert torch.equal(model(X), X * 2)
    assert torch.equal(model(X), X * 2)
    assert len(caplog.records) == 1


def test_a_removed_override_leaves_nothing() -> None:
    model = Net()
    recorder = Recorder(model)
    recorder.install()
    recorder.remove()
    assert "forward" not in vars(model)


def test_a_recorder_keeps_a_copy_of_the_first_call() -> None:
    model, given = Net(), torch.ones(2, 3)
    recorder = Recorder(model)
    recorder.install()
    model(given, double=False)
    model(torch.ones(1))
    given.zero_()
    assert recorder.sample is not None
    assert torch.equal(recorder.sample.args[0], X)
    assert recorder.sample.kwargs == {"double": False}


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda model: None, "not called"),
        (lambda model: model(X, mask=object()), "takes or answers a object"),
        (lambda model: torch.enable_grad()(model)(X), "no_grad"),
    ],
    ids=["no call", "kind", "gradients"],
)
def test_a_recorder_says_why_it_has_no_sample(call: Any, reason: str) -> None:
    model = Net()
    recorder = Recorder(model)
    recorder.install()
    call(model)
    assert recorder.sample is None
    assert reason in recorder.reason


def test_a_script_module_is_guarded_like_any_other() -> None:
    model = guarded(torch.jit.script(nn.Sequential(nn.Linear(3, 3))).eval(), X, free=(0,))
    assert is_fast(model, X)
    assert is_fast(model.forward.__self__ if hasattr(model.forward, "__self__") else model, X)
    with torch.enable_grad():
        assert not is_fast(model, X)
    buffer = io.BytesIO()
    torch.jit.save(model, buffer)
    buffer.seek(0)
    assert not is_fast(torch.jit.load(buffer), X)
    assert not is_fast(copy.deepcopy(model), X)


def test_attributes_tell_what_a_call_left_behind() -> None:
    class Counting(Net):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[Any] = []
            self.register_buffer("total", torch.zeros(1))

    model = Counting()
    before = list(plain_attributes(model))
    model.seen.append(1)
    model.total.add_(1)
    after = list(plain_attributes(model))
    changed = [
        old[0]
        for old, new in zip(before, after, strict=True)
        if old[1] is not new[1] or old[2] != new[2]
    ]
    assert changed == ["total", "seen"]
