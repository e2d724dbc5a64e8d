"""The words of the request log, version 1. Pure.

The gateway writes them, and lets nothing else into a line; readers know them all, and pass over what a newer gateway adds.
"""

from enum import StrEnum

VERSION = 1
# Every line begins so. Inside a value the quotes would be escaped, so behind a torn line the next one can be found.
BEGIN = b'{"v":'


class Outcome(StrEnum):
    """How a request ended. The log leaves `ok` out."""

    OK = "ok"
    # The gateway itself said no: wrong key, over a limit, not allowed, queue full.
    REFUSED = "refused"
    # Every attempt failed.
    ERROR = "error"
    # The mode's total time was used up.
    TIMEOUT = "timeout"
    CLIENT_LEFT = "client_left"
    # It failed after the answer had begun.
    CUT = "cut"
    # The gateway ended before the answer did.
    STOPPING = "stopping"


# The gateway or a deployment failed. A refusal is the client's, and nobody is to blame for a client that left.
FAILURES = frozenset({Outcome.ERROR, Outcome.TIMEOUT, Outcome.CUT, Outcome.STOPPING})
# Nothing to look into.
HARMLESS = frozenset({Outcome.OK, Outcome.CLIENT_LEFT})


class RequestPath(StrEnum):
    """How far into the gateway a request came."""

    # Straight to the local model.
    LANE = "lane"
    # Through LiteLLM.
    FULL = "full"
    # Neither was reached.
    EDGE = "edge"


class AttemptError(StrEnum):
    """Our words for a failed attempt. Others are `http_` with a status, and the class of an HTTP client's or LiteLLM's exception."""

    # The server broke off in the middle of its answer.
    CUT = "cut"
    # Another attempt began, and nothing had been said of this one's end.
    FAILED = "failed"
    # The answer is none that the gateway can read.
    NOT_UNDERSTOOD = "not_understood"
    # The client left, or the gateway ended.
    STOPPED = "stopped"
    CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"


# What decided a request's data class. The log leaves `default` out.
DATA_CLASS_SOURCES = ("mode", "key", "request", "default")

# OpenTelemetry's names of what was asked for; the other endpoints keep their own.
OPERATIONS = frozenset({"chat", "text_completion", "embeddings", "moderations", "images", "speech"})

OPENAI_FINISH_REASONS = frozenset({"stop", "length", "tool_calls", "function_call", "content_filter"})
ANTHROPIC_FINISH_REASONS = frozenset(
    {"end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "refusal", "model_context_window_exceeded"}
)
# Ollama, vLLM and llama.cpp; `load` and `unload` are Ollama's answers to a request without a prompt.
LOCAL_FINISH_REASONS = frozenset({"eos", "eos_token", "abort", "cancelled", "error", "load", "unload"})
# LiteLLM's word for Bedrock's guardrail.
OTHER_FINISH_REASONS = frozenset({"guardrail_intervened"})
# Why an answer ended. A server may repeat a word of the prompt here, so the gateway writes no other word.
FINISH_REASONS = OPENAI_FINISH_REASONS | ANTHROPIC_FINISH_REASONS | LOCAL_FINISH_REASONS | OTHER_FINISH_REASONS
