"""Decides what a mode allows and sets, and which deployments a request may use. Pure.

Reads the `io3ops_policy` section of the rendered file. LiteLLM routes requests among the deployments that the policy allows.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from io3ops_gateway.errors import ConfigError, Refusal
from io3ops_gateway.policy.endpoints import CHAT, RESPONSES, Endpoint, has_image
from io3ops_shared.names import DATA_CLASSES, INTERNAL, TRUNCATIONS
from io3ops_shared.policy import SECTION, VERSION, Deployment, GatewaySettings, LogSettings, ModePolicy

# Request fields that offer tools, of all endpoints.
TOOL_FIELDS = ("tools", "functions")
# Two names of one parameter: a value that the table sets for one must not be overruled by the other.
TWINS = {"max_tokens": ("max_completion_tokens",)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """The policy of one configuration. `deployments`: by id. `members`: the deployments' ids of each router group. `overrides`: the modes in
    which a key may override the data class, by the key's name."""

    modes: Mapping[str, ModePolicy]
    aliases: Mapping[str, str]
    data_class: str = INTERNAL
    deployments: Mapping[str, Deployment] = field(default_factory=dict)
    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    overrides: Mapping[str, frozenset[str]] = field(default_factory=dict)
    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    log: LogSettings = field(default_factory=LogSettings)

    def mode(self, model: object) -> tuple[ModePolicy, str]:
        """Return the mode that a request's `model` names, and the data class suffix of the name ('' for none).

        Raises:
            Refusal: 404, there is no such mode. LiteLLM itself also accepts a deployment's id, a provider's model name or several
                names with commas, which would bypass the mode.
        """
        text = model if isinstance(model, str) else ""
        mode = self.modes.get(self.aliases.get(text, text))
        if mode:
            return mode, ""
        base, _, suffix = text.rpartition(":")
        mode = self.modes.get(self.aliases.get(base, base))
        if mode and suffix in DATA_CLASSES:
            return mode, suffix
        raise Refusal(404, "model_not_found", f"there is no mode {str(model)[:80]!r}; GET /v1/models lists them")

    def group(self, mode: ModePolicy, data_class: str) -> str:
        """Return the router group for a data class.

        Raises:
            Refusal: 403, the prompt is internal and the mode has no local model.
        """
        group = mode.groups.get(data_class)
        if not group:
            message = f"internal prompts stay local, and mode {mode.name} has no local model; nothing was sent"
            raise Refusal(403, "stays_local", message)
        return group

    def deployment(self, deployment: object, url: object, *, leaves: bool) -> Deployment:
        """Return the deployment of an attempt. `leaves`: the prompt may go to a cloud.

        Raises:
            Refusal: 403, the deployment or its address is not in the file, or the prompt must stay local.
        """
        target = self.deployments.get(deployment) if isinstance(deployment, str) else None
        if target is None:
            raise Refusal(403, "unknown_deployment", "the routing table has no such deployment; nothing was sent")
        if not target.local and not leaves:
            raise Refusal(403, "stays_local", "internal prompts stay local; nothing was sent to the cloud")
        if url is not None and origin(str(url)) != origin(target.url):
            raise Refusal(
                403, "unknown_address", "the deployment has another address in the routing table; nothing was sent"
            )
        return target


def origin(url: str) -> tuple[str, str, int]:
    """Return the scheme, host and port of a URL; a port of -1, which no deployment has, for a malformed one."""
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname or "", parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
    except ValueError:
        return "", "", -1


def from_config(config: Mapping[str, Any]) -> Policy:
    """Return the policy of a rendered litellm.yaml.

    Raises:
        ConfigError: the policy is missing, malformed or of another version. The gateway must not start without it.
    """
    hint = "run `io3ops render-config` and start the gateway again"
    section = config.get(SECTION)
    if not isinstance(section, Mapping):
        raise ConfigError("litellm.yaml has no policy", hint)
    version = section.get("version")
    if version != VERSION:
        raise ConfigError(f"litellm.yaml has policy version {version!r}; this gateway reads version {VERSION}", hint)
    try:
        modes = {name: _mode(name, entry) for name, entry in section["modes"].items()}
        deployments = {name: _deployment(entry) for name, entry in section["deployments"].items()}
        gateway = section["edge"]
        policy = Policy(
            modes=modes,
            aliases={str(k): str(v) for k, v in section["aliases"].items()},
            data_class=section["data_class"],
            deployments=deployments,
            members=_members(config.get("model_list") or ()),
            overrides={key: frozenset(names) for key, names in section["overrides"].items()},
            gateway=GatewaySettings(**{**gateway, **{name: tuple(gateway[name]) for name in ("hosts", "origins")}}),
            log=LogSettings(**section["log"]),
        )
        _check_gateway(policy.gateway)
        _check_log(policy.log)
        _hold_together(policy, config, hint)
    except (TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"the policy in litellm.yaml cannot be read: {error}", hint) from error
    return policy


def _mode(name: str, entry: Mapping[str, Any]) -> ModePolicy:
    mode = ModePolicy(name=name, **{**entry, "denied": tuple(entry.get("denied", ()))})
    if not isinstance(mode.groups, dict) or not all(isinstance(group, str) for group in mode.groups.values()):
        raise TypeError(f"the groups of mode {name} are not names")
    if isinstance(mode.total, bool) or not isinstance(mode.total, int | float) or mode.total <= 0:
        raise TypeError(f"the total time of mode {name} is not a positive number")
    # Validate strictly: a wrong value here would truncate or record prompts.
    if mode.truncation not in TRUNCATIONS or type(mode.record_internal) is not bool:
        raise TypeError(f"truncation or record_internal of mode {name} is invalid")
    return mode


def _deployment(entry: Mapping[str, Any]) -> Deployment:
    deployment = Deployment(**entry)
    # The string 'false' would count as true, and a cloud as local.
    if type(deployment.local) is not bool or not isinstance(deployment.url, str) or not deployment.url:
        raise TypeError(f"local or url of {deployment.name} is invalid")
    if type(deployment.window) is not int or deployment.window < 0:
        raise TypeError(f"the window of {deployment.name} is not a number")
    return deployment


def _check_gateway(gateway: GatewaySettings) -> None:
    for name, least in (("max_body", 1), ("workers", 0), ("parallel", 1), ("queue", 0)):
        value = getattr(gateway, name)
        if type(value) is not int or value < least:
            raise TypeError(f"{name} is not a valid number")
    if type(gateway.lane) is not bool or type(gateway.queue_timeout) not in (int, float) or gateway.queue_timeout <= 0:
        raise TypeError("lane or queue_timeout is invalid")


def _check_log(log: LogSettings) -> None:
    if type(log.requests) is not bool:
        raise TypeError("requests is not true or false")
    for name in ("keep_days", "budget_mb", "rotate_mb"):
        value = getattr(log, name)
        if type(value) is not int or value < 1:
            raise TypeError(f"{name} is not a valid number")


def _members(entries: Iterable[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Return the deployments' ids of each router group."""
    members: dict[str, list[str]] = {}
    for entry in entries:
        members.setdefault(str(entry["model_name"]), []).append(str(entry["model_info"]["id"]))
    return {group: tuple(ids) for group, ids in members.items()}


def _hold_together(policy: Policy, config: Mapping[str, Any], hint: str) -> None:
    """Raise ConfigError when the policy and LiteLLM's own sections of the file contradict each other."""
    groups = policy.members
    ids: set[str] = set()
    for entry in config.get("model_list") or ():
        deployment_id = str(entry["model_info"]["id"])
        if deployment_id in ids:
            raise ConfigError(f"litellm.yaml has two deployments with the id {deployment_id}", hint)
        ids.add(deployment_id)
        # An entry without an address uses the provider's default one.
        params, deployment = entry["litellm_params"], policy.deployments.get(deployment_id)
        address = params.get("api_base") or params.get("aws_bedrock_runtime_endpoint")
        if deployment and (deployment.local or address) and origin(str(address)) != origin(deployment.url):
            raise ConfigError(
                f"the policy and the model list in litellm.yaml disagree about the address of {deployment_id}", hint
            )
    if policy.data_class not in DATA_CLASSES or any(
        m.data_class not in ("", *DATA_CLASSES) for m in policy.modes.values()
    ):
        raise ConfigError("the policy in litellm.yaml has an unknown data class", hint)
    if {group for mode in policy.modes.values() for group in mode.groups.values()} != set(groups):
        raise ConfigError("the policy and the model list in litellm.yaml name different modes", hint)
    if ids != set(policy.deployments):
        raise ConfigError("the policy and the model list in litellm.yaml name different deployments", hint)
    ways: dict[str, set[str]] = {}
    for name in ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks"):
        for pairs in (config.get("router_settings") or {}).get(name) or ():
            for group, targets in pairs.items():
                ways.setdefault(group, set()).update(targets)
    for mode in policy.modes.values():
        ahead, seen = {mode.groups[INTERNAL]} if INTERNAL in mode.groups else set(), set()
        while ahead:
            here = ahead.pop()
            seen.add(here)
            ahead |= ways.get(here, set()) - seen
            if not all(policy.deployments[deployment_id].local for deployment_id in groups[here]):
                message = f"the group for internal prompts of mode {mode.name} contains a cloud deployment or falls back to one"
                raise ConfigError(message, hint)


def apply(policy: ModePolicy, endpoint: Endpoint, data: dict[str, Any]) -> None:
    """Apply a mode to a request: refuse denied features, then set forced and default parameters and the system prompt.

    Raises:
        Refusal: 400, the mode denies tools or images, and the request has some.
    """
    if "tools" in policy.denied and any(data.get(name) for name in TOOL_FIELDS):
        raise Refusal(400, "tools_not_allowed", f"mode {policy.name} does not accept tools")
    if "images" in policy.denied and has_image(data.get("messages") or data.get("input")):
        raise Refusal(400, "images_not_allowed", f"mode {policy.name} does not accept images")
    for table, forced in ((policy.forced, True), (policy.parameters, False)):
        for word, value in table.items():
            name = endpoint.renamed.get(word, word)
            names = (name, *TWINS.get(name, ()))
            if name not in endpoint.fields or (not forced and any(data.get(n) is not None for n in names)):
                continue
            for twin in names[1:]:
                data.pop(twin, None)
            data[name] = value
    if policy.system_prompt:
        _put_in_front(policy.system_prompt, endpoint, data)


def _put_in_front(text: str, endpoint: Endpoint, data: dict[str, Any]) -> None:
    if endpoint is RESPONSES:
        instructions = data.get("instructions")
        data["instructions"] = f"{text}\n\n{instructions}" if instructions else text
    elif endpoint is CHAT:
        messages = data.get("messages")
        if not isinstance(messages, list):
            return
        first = messages[0] if messages else None
        # Join a first system message, because many chat templates allow only one.
        if (
            isinstance(first, Mapping)
            and first.get("role") in ("system", "developer")
            and isinstance(first.get("content"), str)
        ):
            data["messages"] = [{**first, "content": f"{text}\n\n{first['content']}"}, *messages[1:]]
        else:
            data["messages"] = [{"role": "system", "content": text}, *messages]
    elif "system" in endpoint.fields:
        system = data.get("system")
        if isinstance(system, list):
            data["system"] = [{"type": "text", "text": text}, *system]
        else:
            data["system"] = f"{text}\n\n{system}" if system else text
    elif isinstance(data.get("prompt"), str):
        data["prompt"] = f"{text}\n\n{data['prompt']}"
