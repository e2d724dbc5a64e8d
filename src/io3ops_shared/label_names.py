"""Format of `words.json`, the names of the table that the observer may use as labels: `io3ops up` writes it, the observer reads it. Pure."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Deployment:
    """The place in which a step of a chain runs. `kind`: the table's word for the software or service."""

    provider: str
    kind: str
    model: str


def render(modes: Iterable[str], deployments: Mapping[str, Deployment]) -> str:
    """Return the file's text. Same names, same text."""
    document = {"modes": list(modes), "deployments": {name: asdict(entry) for name, entry in deployments.items()}}
    return json.dumps(document, indent=1) + "\n"


def parse(data: bytes) -> tuple[frozenset[str], dict[str, Deployment]]:
    """Return the modes and the deployments. Raises ValueError for anything else than `render` writes."""
    try:
        document = json.loads(data)
        modes = document["modes"]
        deployments = {name: Deployment(**entry) for name, entry in document["deployments"].items()}
        words = [*modes, *(word for entry in deployments.values() for word in asdict(entry).values())]
    except (TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError("it is not what `io3ops up` writes") from None
    if not isinstance(modes, list) or not all(isinstance(word, str) for word in words):
        raise ValueError("a name is not a text")
    return frozenset(modes), deployments
