"""What plain torch makes of a model, what it leaves alone, and that nothing else changes."""

import random
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")
import numpy as np  # noqa: E402
from torch import nn  # noqa: E402

from torchkeep.backend import contest, cpu  # noqa: E402
from torchkeep.backend.cpu import Outcome, Trial, optimize  # noqa: E402
from torchkeep.backend.guard import Guard  # noqa: E402
from torchkeep.backend.sample import Sample  # noqa: E402
from torchkeep.runtime.cores import cpu_flags  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture(autouse=True)
def _quick_and_sure(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Any form wins that answers alike: on these small models time would be a matter of luck."""
    monkeypatch.setattr(contest, "MIN_GAIN", 1e9)
    monkeypatch.setattr(contest, "TIMED_ROUNDS", (1, 1))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def run(model: Any, *args: Any, **kwargs: Any) -> Outcome:
    return optimize(model, Sample(args, kwargs), engine="torch")


def is_used(model: Any, *args: Any, **kwargs: Any) -> bool:
    """Whether this call takes the faster form."""
    guard = vars(model).get("forward")
    if not isinstance(guard, Guard):
        return False
    fast, taken = guard.fast, []

    def seen(*given: Any) -> Any:
        taken.append(given)
        return fast(*given)

    guard.fast = seen
    model(*args, **kwargs)
    guard.fast = fast
    return bool(taken)


class Mlp(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3))

    def forward(self, x: Any) -> Any:
        return self.layers(x)


X = torch.randn(1, 4, generator=torch.Generator().manual_seed(1))


def test_an_optimised_model_answers_as_before_at_every_batch_size() -> None:
    model = Mlp().eval()
    expected = [model(X.repeat(n, 1)) for n in (1, 2, 5)]
    outcome = run(model, X)
    assert outcome.engine == "torch"
    assert "ms eager, differs by " in outcome.line
    assert "(tolerance 1e-04)" in outcome.line
    for n, answer in zip((1, 2, 5), expected, strict=True):
        assert is_used(model, X.repeat(n, 1))
        torch.testing.assert_close(model(X.repeat(n, 1)), answer)


class Tokens(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(10, 4)

    def forward(self, ids: Any, mask: Any = None) -> Any:
        hidden = self.words(ids)
        return {"logits": (hidden if mask is None else hidden * mask[..., None]).mean(1)}


def test_the_length_of_texts_may_vary() -> None:
    model, ids = Tokens().eval(), torch.ones(1, 6, dtype=torch.int64)
    run(model, ids, mask=torch.ones_like(ids))
    longer = torch.arange(9).expand(3, 9).clone()
    assert is_used(model, longer, mask=longer % 2)
    assert not is_used(model, longer)
    guard = vars(model)["forward"]
    answer = model(longer, mask=longer % 2)
    torch.testing.assert_close(answer, guard.original(longer, mask=longer % 2))


class ByLength(Tokens):
    def forward(self, ids: Any, mask: Any = None) -> Any:
        if ids.shape[1] > 4 and len(ids) < 100:
            return {"logits": self.words(ids).mean(1)}
        return {"logits": self.words(ids).sum(1)}


def test_a_decision_by_length_holds_for_that_length() -> None:
    model, ids = ByLength().eval(), torch.ones(1, 10, dtype=torch.int64)
    assert run(model, ids).engine == "torch"
    assert is_used(model, ids.repeat(3, 1))
    assert not is_used(model, ids[:, :9])
    assert torch.equal(model(ids[:, :3])["logits"], model.words(ids[:, :3]).sum(1))


class ByBatch(Mlp):
    def forward(self, x: Any) -> Any:
        return self.layers(x) if x.size(0) == 1 else -self.layers(x)


def test_a_decision_by_batch_size_holds_for_that_size() -> None:
    model = ByBatch().eval()
    assert run(model, X).engine == "torch"
    assert is_used(model, X)
    assert not is_used(model, X.repeat(2, 1))


class Branching(Mlp):
    def forward(self, x: Any) -> Any:
        return self.layers(x) if x.sum() > 0 else -self.layers(x)


class Random(Mlp):
    def forward(self, x: Any) -> Any:
        return self.layers(x) + torch.rand(1)


class Counting(Mlp):
    calls = 0

    def forward(self, x: Any) -> Any:
        self.calls += 1
        return self.layers(x)


class Remembering(Mlp):
    def forward(self, x: Any) -> Any:
        self.features = self.layers[0](x)
        return self.layers(x)


class Buffered(Mlp):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: Any) -> Any:
        self.seen += 1
        return self.layers(x)


class Constant(Mlp):
    def forward(self, x: Any) -> Any:
        return torch.arange(3.0) * 2


class Odd(Mlp):
    def forward(self, x: Any) -> Any:
        return self.layers(x), 7


class Failing(Mlp):
    def forward(self, x: Any) -> Any:
        raise ValueError("secret of a user")


class Objects(Mlp):
    def forward(self, x: Any) -> Any:
        return object()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Branching, "control flow may depend on its input: test_cpu.py, line"),
        (Random, "answers differently each time"),
        (Counting, "changes its attribute calls"),
        (Remembering, "changes its attribute features"),
        (Buffered, "changes its attribute seen"),
        (Constant, "would be a constant"),
        (Odd, "takes or answers a int"),
        (Objects, "takes or answers a object"),
        (Failing, "fails on the sample: ValueError"),
    ],
)
def test_what_a_record_would_get_wrong_is_left_alone(kind: type, reason: str) -> None:
    model = kind().eval()
    outcome = run(model, X)
    assert outcome.engine == "eager"
    assert reason in outcome.line
    assert "secret" not in outcome.line
    assert "forward" not in vars(model)


class BatchOfTwo(Mlp):
    def forward(self, x: Any) -> Any:
        return self.layers(x).reshape(2, 3)


def test_a_model_of_one_batch_size_is_fast_at_that() -> None:
    model = BatchOfTwo().eval()
    run(model, X.repeat(2, 1))
    assert is_used(model, X.repeat(2, 1))
    with pytest.raises(RuntimeError):
        model(X)


class Caching(Mlp):
    places = None

    def forward(self, x: Any) -> Any:
        if self.places is None:
            self.places = torch.ones(4)
        return self.layers(x + self.places)


def test_a_cache_that_is_filled_once_is_no_change() -> None:
    model = Caching().eval()
    assert run(model, X).engine == "torch"


def _hooked() -> Any:
    model = Mlp()
    model.layers.register_forward_hook(lambda *_: None)
    return model.eval()


def _replaced() -> Any:
    model = Mlp().eval()
    model.forward = model.layers.forward
    return model


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: len, "no torch module"),
        (lambda: Mlp(), "training mode"),
        (_hooked, "forward hooks"),
        (_replaced, "replaced the model's forward"),
        (lambda: torch.compile(Mlp().eval(), backend="eager"), "torch.compile runs"),
        (lambda: Mlp().eval().to("meta"), "not on the CPU"),
    ],
    ids=["function", "training", "hooks", "own forward", "compiled", "elsewhere"],
)
def test_what_is_not_ours_to_change_is_left_alone(model: Any, reason: str) -> None:
    outcome = run(model(), X)
    assert outcome.engine == "eager"
    assert reason in outcome.line


def test_no_second_copy_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "available_bytes", lambda: 100)
    assert "no memory for a second copy" in run(Mlp().eval(), X).line
    monkeypatch.undo()
    assert cpu.available_bytes() > 1 << 20


def test_a_slow_model_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contest.Contest.__init__, "__defaults__", (0.0,))
    assert "too long to check other forms" in run(Mlp().eval(), X).line


def test_what_gains_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contest, "MIN_GAIN", 0.0)
    outcome = run(Mlp().eval(), X)
    assert outcome.engine == "eager"
    assert outcome.line.count("no gain") >= 1


def test_what_differs_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(contest.TOLERANCES, "float32", -1.0)
    outcome = run(Mlp().eval(), X)
    assert outcome.engine == "eager"


def test_random_numbers_and_weights_stay_as_they_were() -> None:
    model = Mlp().eval()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    strides = [value.stride() for value in model.state_dict().values()]

    def draw() -> list[float]:
        return [random.random(), float(np.random.rand()), float(torch.rand(1))]

    def seed() -> None:
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)

    seed()
    expected = draw()
    seed()
    run(model, X)
    assert draw() == expected
    assert [value.stride() for value in model.state_dict().values()] == strides
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_answers_can_be_used_outside_inference_mode() -> None:
    model = Mlp().eval()
    run(model, X)
    answer = model(X)
    assert not answer.is_inference()
    answer.add_(1)


def test_torchscript_works_on_as_before() -> None:
    before = torch.jit.script(Scripted().eval())
    expected = before(X)
    assert run(Mlp().eval(), X).engine == "torch"
    assert torch.equal(before(X), expected)
    assert torch.equal(before.twice(X), expected * 2)
    after = torch.jit.script(Scripted().eval())
    after.load_state_dict(before.state_dict())
    assert torch.equal(after(X), expected)
    assert torch.equal(torch.jit.freeze(before.eval())(X), expected)


def test_gradients_come_from_the_model_itself() -> None:
    model = Mlp().eval()
    run(model, X)
    with torch.enable_grad():
        given = X.clone().requires_grad_()
        model(given).sum().backward()
    assert given.grad is not None


class Scripted(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)

    @torch.jit.export
    def twice(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) * 2


def test_a_script_module_is_frozen_and_keeps_its_methods() -> None:
    model = torch.jit.script(Scripted()).eval()
    expected = model(X)
    outcome = run(model, X)
    assert outcome.line.startswith("torch, frozen")
    assert is_used(model, X.repeat(3, 1))
    torch.testing.assert_close(model.twice(X), expected * 2)
    torch.testing.assert_close(model(X), expected)


class Stepping(nn.Module):  # type: ignore[misc]
    steps: int

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        return x


def test_a_script_module_that_changes_itself_is_left_alone() -> None:
    outcome = run(torch.jit.script(Stepping()).eval(), X)
    assert "changes its own attributes" in outcome.line


def test_without_a_sample_the_first_call_of_a_script_module_decides(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = torch.jit.script(nn.Sequential(nn.Linear(4, 3))).eval()
    expected = model(X)
    outcome = optimize(model, None, engine="torch")
    assert "the first request decides" in outcome.line
    assert isinstance(vars(model)["forward"], Trial)
    with torch.enable_grad():
        model(X)
    assert isinstance(vars(model)["forward"], Trial)
    torch.testing.assert_close(model(X), expected)
    assert capsys.readouterr().out.startswith("engine: torch, frozen, ")
    assert is_used(model, X)


def test_a_trial_that_finds_nothing_leaves_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    model = torch.jit.script(nn.Sequential(nn.Linear(4, 3))).eval()
    optimize(model, None, engine="torch")
    with pytest.raises(RuntimeError):
        model(torch.ones(1, 9))
    assert "engine: eager: it fails on the sample" in capsys.readouterr().out
    assert not isinstance(vars(model)["forward"], Trial)


def test_plain_torch_leaves_an_eager_model_without_a_sample() -> None:
    assert "without a `warmup`" in optimize(Mlp().eval(), None, engine="torch").line


def test_eager_is_left_alone() -> None:
    assert optimize(Mlp().eval(), Sample((X,)), "eager").line == "eager, as configured"


def test_a_quick_model_is_not_worth_importing_ipex() -> None:
    assert cpu.usable_engine("auto", is_quick=True) == "torch"


def test_ipex_that_is_asked_for_and_missing_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cpu, "IPEX", "no_such_distribution")
    assert cpu.usable_engine("auto") == "torch"
    assert caplog.text == ""
    assert cpu.usable_engine("ipex") == "torch"
    assert "it is not installed" in caplog.text


def test_ipex_for_another_torch_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "IPEX", "pytest")  # some distribution of another version
    monkeypatch.delitem(sys.modules, "pytest")
    assert "does not fit torch" in cpu.import_ipex()


def test_bfloat16_needs_a_cpu_that_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert cpu.usable_dtype("float32") == "float32"
    monkeypatch.setattr(cpu, "cpu_flags", lambda: frozenset({"avx2"}))
    assert cpu.usable_dtype("bfloat16") == "float32"
    assert "does not compute in it" in caplog.text
    monkeypatch.setattr(cpu, "cpu_flags", lambda: frozenset({"amx_bf16"}))
    assert cpu.usable_dtype("bfloat16") == "bfloat16"
    assert "sse2" in cpu_flags() or "neon" in cpu_flags() or not cpu_flags()


def test_bfloat16_answers_in_the_models_own_dtype() -> None:
    model = Mlp().eval()
    expected = model(X)
    outcome = optimize(model, Sample((X,)), "torch", "bfloat16")
    assert outcome.engine == "torch"
    answer = model(X)
    assert answer.dtype == torch.float32
    torch.testing.assert_close(answer, expected, atol=2e-2, rtol=0)


def test_a_slow_model_is_checked_against_one_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contest, "MIN_GAIN", 0.0)
    assert run(Mlp().eval(), X).line.count("no gain") == 2
    monkeypatch.setattr(contest, "SLOW_CALL_S", 0.0)
    assert run(Mlp().eval(), X).line.count("no gain") == 1


class Convolving(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv(x))


def test_a_convolving_script_module_is_laid_out_and_stays_as_it_was() -> None:
    model, image = torch.jit.script(Convolving()).eval(), torch.randn(1, 3, 9, 9)
    expected = model(image)
    stride = model.conv.weight.stride()
    assert run(model, image).line.startswith("torch, frozen and laid out for oneDNN, ")
    assert is_used(model, image.repeat(2, 1, 1, 1))
    torch.testing.assert_close(model(image), expected)
    assert model.conv.weight.stride() == stride
