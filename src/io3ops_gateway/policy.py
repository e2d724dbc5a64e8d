"""What a mode allows, sets and limits, decided on a request's own fields. Pure: no I/O, no LiteLLM, the clock is handed in.

The rendered file's `io3ops_policy` section is the source. LiteLLM routes; this decides what is routed at all.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from io3ops_gateway.errors import ConfigError

VERSION = 1
WINDOW_SECONDS = 60.0
# Request fields that offer tools, in the words of the chat, completions, responses and messages endpoints.
TOOL_FIELDS = ("tools", "functions")
IMAGE_PARTS = ("image_url", "input_image", "image")
# Two names of one thing: who forces or defaults one must not be overruled by the other.
# What only the table says: a client that set the window would reload or cut the model for everybody, and one that chose
# its own deployments, retries or time limits would route around the policy.
STRIPPED = (
    "num_ctx", "keep_alive", "options", "timeout", "stream_timeout", "request_timeout", "num_retries", "max_retries",
    "fallbacks", "context_window_fallbacks", "content_policy_fallbacks", "disable_fallbacks", "max_fallbacks",
    "api_base", "base_url", "api_key", "api_version", "custom_llm_provider", "model_list", "user_config",
    "router_settings_override", "mock_response", "mock_testing_fallbacks", "mock_testing_context_fallbacks",
    "mock_testing_content_policy_fallbacks", "specific_deployment", "order", "_target_order",
)  # fmt: skip
TWINS = {"max_tokens": ("max_completion_tokens", "max_output_tokens")}


class Refusal(Exception):
    """A request that the policy does not let through. `retry_after` in seconds, 0 when waiting does not help."""

    def __init__(self, status: int, code: str, message: str, retry_after: float = 0) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after


@dataclass(frozen=True, kw_only=True, slots=True)
class ModePolicy:
    """One mode. `total`: seconds for all attempts together; limits are absent or positive."""

    name: str
    data_class: str = "internal"
    total: float = 600.0
    limits: Mapping[str, int] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    forced: Mapping[str, Any] = field(default_factory=dict)
    system_prompt: str = ""
    denied: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """Every mode by name, and the aliases that stand for one."""

    modes: Mapping[str, ModePolicy]
    aliases: Mapping[str, str]

    def mode(self, model: object) -> ModePolicy:
        """The mode that a request's `model` means.

        Raises:
            Refusal: 404, it means none. LiteLLM itself would also take a deployment's id, a provider's model name or
                several names with commas, and so lead a request past its mode.
        """
        name = self.aliases.get(model, model) if isinstance(model, str) else ""
        if name not in self.modes:
            raise Refusal(404, "model_not_found", f"there is no mode {str(model)[:80]!r}; GET /v1/models lists them")
        return self.modes[name]


def from_config(config: Mapping[str, Any]) -> Policy:
    """The policy in a rendered litellm.yaml.

    Raises:
        ConfigError: there is none, or it is not of this version: a gateway without its policy must not start.
    """
    hint = "run `io3ops render-config` and start the gateway again"
    section = config.get("io3ops_policy")
    if not isinstance(section, Mapping) or section.get("version") != VERSION:
        raise ConfigError("litellm.yaml has no policy of this version", hint)
    try:
        modes = {
            name: ModePolicy(name=name, **{**entry, "denied": tuple(entry.get("denied", ()))})
            for name, entry in section["modes"].items()
        }
        aliases = {str(k): str(v) for k, v in section["aliases"].items()}
    except (TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"the policy in litellm.yaml cannot be read: {error}", hint) from error
    served = {entry.get("model_name") for entry in config.get("model_list") or ()}
    if served != set(modes):
        raise ConfigError("the policy and the model list in litellm.yaml name different modes", hint)
    return Policy(modes, aliases)


def apply(policy: ModePolicy, data: dict[str, Any]) -> None:
    """Hold a request to its mode: refuse what is denied, drop what only the table says, then set what is forced,
    defaulted and put in front.

    Raises:
        Refusal: 400, the request carries what the mode does not take.
    """
    if "tools" in policy.denied and any(data.get(name) for name in TOOL_FIELDS):
        raise Refusal(400, "tools_not_allowed", f"mode {policy.name} takes no tools")
    if "images" in policy.denied and _has_image(data.get("messages") or data.get("input")):
        raise Refusal(400, "images_not_allowed", f"mode {policy.name} takes no images")
    for name in STRIPPED:
        data.pop(name, None)
    for name, value in policy.forced.items():
        for twin in TWINS.get(name, ()):
            data.pop(twin, None)
        data[name] = value
    for name, value in policy.parameters.items():
        if all(data.get(n) is None for n in (name, *TWINS.get(name, ()))):
            data[name] = value
    if policy.system_prompt:
        _put_in_front(policy.system_prompt, data)


def _has_image(content: object) -> bool:
    if isinstance(content, Mapping):
        return content.get("type") in IMAGE_PARTS or _has_image(content.get("content"))
    return isinstance(content, list) and any(_has_image(part) for part in content)


def _put_in_front(text: str, data: dict[str, Any]) -> None:
    messages = data.get("messages")
    if isinstance(messages, list):
        # The messages endpoint has its own field; a first system message is joined, because many chat formats take one.
        if "system" in data and isinstance(data["system"], str):
            data["system"] = f"{text}\n\n{data['system']}"
            return
        first = messages[0] if messages else None
        if (
            isinstance(first, Mapping)
            and first.get("role") in ("system", "developer")
            and isinstance(first.get("content"), str)
        ):
            data["messages"] = [{**first, "content": f"{text}\n\n{first['content']}"}, *messages[1:]]
        else:
            data["messages"] = [{"role": "system", "content": text}, *messages]
    elif "input" in data:
        given = data.get("instructions")
        data["instructions"] = f"{text}\n\n{given}" if given else text


class Meter:
    """Counts each mode's requests, tokens and parallel requests; one per worker. `clock`: seconds that never go back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._requests: dict[str, deque[float]] = {}
        self._tokens: dict[str, deque[tuple[float, int]]] = {}
        self._parallel: dict[str, int] = {}

    def enter(self, policy: ModePolicy) -> None:
        """Let one request in. Whoever is let in must `leave`.

        Raises:
            Refusal: 429, with the seconds after which the oldest one is out of the window.
        """
        now = self._clock()
        limits = policy.limits
        requests = self._requests.setdefault(policy.name, deque())
        while requests and requests[0] <= now - WINDOW_SECONDS:
            requests.popleft()
        if "requests_per_minute" in limits and len(requests) >= limits["requests_per_minute"]:
            raise _limit(policy, "requests_per_minute", requests[0] + WINDOW_SECONDS - now)
        tokens = self._recent_tokens(policy.name, now)
        if "tokens_per_minute" in limits and sum(n for _, n in tokens) >= limits["tokens_per_minute"]:
            raise _limit(policy, "tokens_per_minute", tokens[0][0] + WINDOW_SECONDS - now)
        running = self._parallel.get(policy.name, 0)
        if "parallel" in limits and running >= limits["parallel"]:
            raise _limit(policy, "parallel", 1)
        requests.append(now)
        self._parallel[policy.name] = running + 1

    def leave(self, mode: str) -> None:
        """One request of the mode has ended, however it did."""
        self._parallel[mode] -= 1

    def used(self, mode: str, tokens: int) -> None:
        """A request of the mode took so many tokens, in and out together."""
        now = self._clock()
        self._recent_tokens(mode, now).append((now, tokens))

    def _recent_tokens(self, mode: str, now: float) -> deque[tuple[float, int]]:
        found = self._tokens.setdefault(mode, deque())
        while found and found[0][0] <= now - WINDOW_SECONDS:
            found.popleft()
        return found


def _limit(policy: ModePolicy, name: str, retry_after: float) -> Refusal:
    message = f"mode {policy.name} takes {policy.limits[name]} {name.replace('_', ' ')}"
    return Refusal(429, "mode_limit", message, max(1, retry_after))
