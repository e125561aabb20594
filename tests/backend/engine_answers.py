"""What an engine makes of networks: `python engine_answers.py ENGINE DTYPE NETWORK...`, as JSON.

Run in a process of its own, because importing IPEX changes torch for good, and by any Python
that has torch and torchkeep: the weights and inputs are the same in all of them.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from torchkeep.backend import contest
from torchkeep.backend.cpu import optimize
from torchkeep.backend.guard import Guard
from torchkeep.backend.sample import Answer, Sample

sys.path.insert(0, str(Path(__file__).parent))

from networks import NETWORKS


def answers(name: str, engine: str, dtype: str) -> dict[str, Any]:
    model, args, kwargs = NETWORKS[name]()
    sample = Sample(args, kwargs)
    with torch.inference_mode():
        own = Answer.of(model(*args, **kwargs))
    outcome = optimize(model, sample, engine, dtype)
    is_used = isinstance(vars(model).get("forward"), Guard)
    with torch.inference_mode():
        found = Answer.of(model(*args, **kwargs))
        batch = sample.with_other_size(0)
        found_of_two = Answer.of(model(*batch.args, **batch.kwargs)).leaves[0]
    scores = found.leaves[0]
    label_s = (own.leaves[0].softmax(1) - scores.softmax(1)).abs().max()
    return {
        "line": outcome.line,
        "is_used": is_used,
        "difference": own.difference(found),
        "probability_difference": float(label_s),
        "answer": scores.flatten().tolist()[:10],
        "batch": found_of_two.flatten().tolist()[:10],
    }


def main() -> None:
    torch.set_num_threads(1)
    contest.MIN_GAIN = float("inf")  # answers are the question here, and not time
    engine, dtype, *names = sys.argv[1:]
    found: dict[str, Any] = {name: answers(name, engine, dtype) for name in names}
    print(json.dumps({"torch": torch.__version__, **found}))  # noqa: T201 - read by the test


if __name__ == "__main__":
    main()
