"""Which model the path of a prediction asks for, and what its handler is told about it.

TorchServe looks at the segments of a path alone, in this order:

    /predictions/{model}[/{version}[/...]]   /explanations/...   the version, and what follows it
    /v1/models/{model}:predict               :explain            KServe, version 1
    /v2/models/{model}/infer                 /explain            KServe, version 2
    /invocations                             /models/{model}/invoke     SageMaker
    /{model}[/{version}]/predict                                 what there was before all of them
"""

from dataclasses import dataclass, field

from torchkeep.frontend.errors import ResourceNotFound

# A first segment that belongs to somebody else, even where the last one says `predict`.
RESERVED = frozenset(["explanations", "invocations", "models", "ping"])


@dataclass(slots=True)
class Target:
    """A model to be asked: by its name, or (with None) by what the request says besides."""

    name: str | None
    version: str | None = None
    added: dict[str, str] = field(default_factory=dict)  # headers, as if the client had sent them
    takes_query: bool = False  # whether the handler sees the query's parameters


def read_target(segments: list[str]) -> Target | None:
    """The target of a path that asks for a prediction; None for all other paths.

    Raises ResourceNotFound for those that should, and name no model.
    """
    match segments:
        case ["predictions" | "explanations" as verb, name, *rest]:
            return Target(
                name,
                rest[0] if rest else None,
                {"explain": str(verb == "explanations"), "url_path": "/".join(rest[1:])},
            )
        case ["predictions" | "explanations"]:
            raise ResourceNotFound
        case ["v1", "models", call] if ":" in call:
            return _kserve_v1(call)
        case ["v2", "models", name, "infer" | "explain" as verb]:
            return Target(name, None, {"explain": str(verb == "explain")})
        case ["invocations"]:
            return Target(None, takes_query=True)
        case ["models", name, "invoke"]:
            return Target(name, takes_query=True)
        case ["models", _, _]:
            # TorchServe: not the management API's either, where both share one port
            raise ResourceNotFound
        case [name, "predict"] if name not in RESERVED:
            return Target(name, takes_query=True)
        case [name, version, "predict"] if name not in RESERVED:
            return Target(name, version, takes_query=True)
    return None


def _kserve_v1(call: str) -> Target | None:
    # TorchServe: the verb may stand anywhere behind a colon; the name ends at the first one
    explain = ":predict" not in call
    if explain and ":explain" not in call:
        return None
    return Target(call.partition(":")[0], None, {"explain": str(explain)})
