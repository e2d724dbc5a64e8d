"""Lists the endpoints that the gateway serves, and the request fields that it hands on. Pure.

Only allowlists: a field or route that a new LiteLLM adds is not served by accident.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from io3ops_gateway.errors import Refusal
from io3ops_gateway.policy.data_classes import PLACES
from io3ops_gateway.policy.embedding_formats import FORMATS


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """One kind of request. `fields`: those handed on. `task`: of the modes that serve it. `renamed`: this endpoint's name for a parameter of
    the table, where it differs."""

    name: str
    fields: frozenset[str]
    task: str = "chat"
    renamed: Mapping[str, str] = field(default_factory=dict)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# OpenAI's parameters and those that clients of local servers send; LiteLLM's `drop_params` removes the ones a provider does not know.
SAMPLING = """temperature top_p top_k min_p typical_p max_tokens stop seed presence_penalty frequency_penalty repeat_penalty
repetition_penalty logit_bias logprobs n user stream stream_options"""
CHAT = Endpoint(
    name="chat",
    fields=_words(
        f"""model messages {SAMPLING} max_completion_tokens top_logprobs response_format tools tool_choice parallel_tool_calls
        functions function_call reasoning_effort verbosity thinking modalities audio prediction safety_identifier
        prompt_cache_key service_tier web_search_options chat_template_kwargs guided_json guided_regex guided_choice
        guided_grammar"""
    ),
)
COMPLETIONS = Endpoint(name="completions", fields=_words(f"model prompt suffix echo best_of {SAMPLING}"))
EMBEDDINGS = Endpoint(
    name="embeddings",
    task="embeddings",
    fields=_words("model input dimensions encoding_format user input_type truncate"),
)
RESPONSES = Endpoint(
    name="responses",
    fields=_words(
        """model input instructions stream stream_options temperature top_p max_output_tokens max_tool_calls tools tool_choice
        parallel_tool_calls text reasoning truncation include user top_logprobs safety_identifier prompt_cache_key service_tier
        store"""
    ),
    renamed={"max_tokens": "max_output_tokens"},
)
MESSAGES = Endpoint(
    name="messages",
    fields=_words(
        """model messages system max_tokens stream temperature top_p top_k stop_sequences tools tool_choice thinking service_tier
        output_config output_format"""
    ),
    renamed={"stop": "stop_sequences"},
)
MODERATIONS = Endpoint(name="moderations", task="moderations", fields=_words("model input"))
IMAGES = Endpoint(
    name="images",
    task="images",
    fields=_words("model prompt n size quality style response_format background output_format output_compression user"),
)
SPEECH = Endpoint(name="speech", task="speech", fields=_words("model input voice response_format speed instructions"))

SERVED = {
    "/chat/completions": CHAT,
    "/completions": COMPLETIONS,
    "/embeddings": EMBEDDINGS,
    "/responses": RESPONSES,
    "/messages": MESSAGES,
}
# Served only when a mode of the table has the task.
EXTRA = {"/moderations": MODERATIONS, "/images/generations": IMAGES, "/audio/speech": SPEECH}
# LiteLLM also serves these without `/v1`, and some clients rely on it.
UNPREFIXED = frozenset({"/chat/completions", "/completions", "/embeddings", "/responses", "/moderations"})

# A conversation that a provider keeps has no data class here, so a request must carry its whole content.
STATEFUL = ("previous_response_id", "conversation", "background", "prompt")
# Prefixes of the tools that the client runs itself. A provider, or a server that it calls, runs all others.
CLIENT_TOOLS = ("bash_", "text_editor_", "computer_", "memory_")
IMAGE_PARTS = ("image_url", "input_image", "image")
# Fields of a message part that refer to remote content.
LINKS = ("url", "image_url", "file_url", "video_url", "audio_url", "file_id", "server_url")
# Output of a model or a tool, not parts of the prompt: links in these are never followed.
NOT_PARTS = ("arguments", "annotations", "citations", "text")


def paths(tasks: Collection[str]) -> dict[str, Endpoint]:
    """Return every served path, for a table whose modes have these `tasks`."""
    served = SERVED | {path: endpoint for path, endpoint in EXTRA.items() if endpoint.task in tasks}
    prefixed = {f"/v1{path}": endpoint for path, endpoint in served.items()}
    return prefixed | {path: endpoint for path, endpoint in served.items() if path in UNPREFIXED}


def for_task(task: str) -> str:
    """Return the path of the endpoint to recommend for modes with this task."""
    return next(f"/v1{path}" for path, endpoint in (SERVED | EXTRA).items() if endpoint.task == task)


def kept(endpoint: Endpoint, body: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return (the fields to hand on, the names of the others except those that carry marks).

    Raises:
        Refusal: 400, the request refers to a conversation that a provider keeps.
    """
    if endpoint is RESPONSES:
        for name in STATEFUL:
            if body.get(name):
                message = f"{name!r} is not served: the gateway keeps no conversations; send the whole input"
                raise Refusal(400, "stateless", message)
    kept = {name: value for name, value in body.items() if name in endpoint.fields}
    if endpoint is RESPONSES:
        # OpenAI keeps an answer for thirty days unless told not to.
        kept["store"] = False
    marks = (*PLACES, "tags", "data_class", "store")
    return kept, sorted(name[:40] for name in body.keys() - kept.keys() if name not in marks)


def check_content(body: Mapping[str, Any], *, internal: bool) -> None:
    """Refuse content that would make a server fetch something, or call another server, for an internal prompt.

    Raises:
        Refusal: 400, naming the tool, link or field.
    """
    if body.get("encoding_format") not in (None, *FORMATS):
        raise Refusal(400, "bad_request", f"encoding_format must be one of: {', '.join(FORMATS)}")
    for name in ("messages", "tools", "functions"):
        value = body.get(name)
        if value is not None and not (isinstance(value, list) and all(isinstance(part, Mapping) for part in value)):
            raise Refusal(400, "bad_request", f"{name} must be a list of objects")
    for tool in _tools(body):
        kind = tool.get("type")
        if not isinstance(kind, str) or kind in ("function", "custom") or kind.startswith(CLIENT_TOOLS):
            continue
        if internal or kind.startswith("mcp"):
            message = f"another server runs tools of type {kind[:40]!r}; {'internal prompts' if internal else 'requests'} must not use them"
            raise Refusal(400, "tool_not_allowed", message)
    if internal:
        if body.get("web_search_options") is not None:
            raise Refusal(400, "tool_not_allowed", "web search would send an internal prompt to another server")
        for where in ("messages", "input", "system"):
            for link in _links(body.get(where)):
                message = f"{link[:60]!r} is a link, and nothing is fetched for an internal prompt; send the content itself (data: URL)"
                raise Refusal(400, "link_not_allowed", message)


def has_image(content: object, depth: int = 50) -> bool:
    """Return whether a message or a list of messages has an image."""
    if not depth:
        raise Refusal(400, "too_deep", "the messages are nested too deeply")
    if isinstance(content, Mapping):
        return content.get("type") in IMAGE_PARTS or has_image(content.get("content"), depth - 1)
    return isinstance(content, list) and any(has_image(part, depth - 1) for part in content)


def _tools(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    tools = body.get("tools")
    if isinstance(tools, list):
        yield from (tool for tool in tools if isinstance(tool, Mapping))


def _links(content: object, named: bool = False, depth: int = 50) -> Iterator[str]:
    """Yield the links in the content. `named`: the content is the value of one of LINKS."""
    if not depth:
        raise Refusal(400, "too_deep", "the messages are nested too deeply")
    if isinstance(content, str):
        if named and not content.startswith("data:"):
            yield content
    elif isinstance(content, list):
        for part in content:
            yield from _links(part, named, depth - 1)
    elif isinstance(content, Mapping):
        for name, value in content.items():
            # A tool's input is an object or text. LiteLLM's token counter treats a list there as message parts, and fetches their images.
            tool = name == "input" and content.get("type") in ("tool_use", "custom_tool_call")
            if name in NOT_PARTS or (tool and not isinstance(value, list)):
                continue
            yield from _links(value, name in LINKS, depth - 1)
