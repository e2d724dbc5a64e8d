"""LiteLLM's import, and the environment that it reads before. It calls nobody then."""

import contextlib
import gc
import importlib
from collections.abc import Iterable, MutableMapping
from pathlib import Path
from typing import Any

from io3ops_gateway.errors import GatewayError, StartError, one_line

# What LiteLLM imports with a first request: here it is in memory once, and nobody waits for it.
SHARED = (
    "litellm.proxy.anthropic_endpoints.endpoints",
    "litellm.proxy._experimental.mcp_server.mcp_server_manager",
    "litellm.types.litellm_core_utils.streaming_chunk_builder_utils",
    "litellm.types.proxy.litellm_pre_call_utils",
    "litellm.integrations.websearch_interception.handler",
    "litellm.integrations.shadow_eval_logger",
    "litellm.llms.vertex_ai.vertex_ai_partner_models.anthropic.transformation",
    "anyio._backends._asyncio",
    # OpenAI's client imports these 450 modules at its first call.
    "openai.resources",
)
# Set only where the environment says nothing, so that each can be overridden in compose.yaml.
LITELLM_DEFAULTS = {
    # Without this LiteLLM loads a .env file from wherever it was started.
    "LITELLM_MODE": "PRODUCTION",
    # Each of these is a download at start or on a request; LiteLLM ships a copy of all five.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "LITELLM_LOCAL_AUTOROUTER_PRESETS": "True",
    "LITELLM_LOCAL_POLICY_TEMPLATES": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    # The OpenAI client's own retries, for calls that forget to switch them off (embeddings do).
    "DEFAULT_MAX_RETRIES": "0",
    # Tokenizers of model families come from a model hub; see also disable_hf_tokenizer_download below.
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # Pages nobody needs on a machine-to-machine port, and a map of every route for whoever finds it.
    "NO_DOCS": "True",
    "NO_REDOC": "True",
    "NO_OPENAPI": "True",
    "DISABLE_ADMIN_UI": "True",
    # LiteLLM's own default is DEBUG. A value set from outside also turns `log_redaction.withhold_text` off.
    "LITELLM_LOG": "ERROR",
}


def prepare_environment(
    environment: MutableMapping[str, str], *, config: Path, key: str, ca_bundle: Path | None
) -> None:
    """Tell LiteLLM, in the only language it reads before its import, what to load and what to leave alone."""
    for name, value in LITELLM_DEFAULTS.items():
        environment.setdefault(name, value)
    environment["CONFIG_FILE_PATH"] = str(config)
    environment["LITELLM_MASTER_KEY"] = key
    if ca_bundle is not None:
        environment["SSL_CERT_FILE"] = str(ca_bundle)
        environment["REQUESTS_CA_BUNDLE"] = str(ca_bundle)


def import_litellm(ours: Iterable[str]) -> None:
    """LiteLLM's proxy, and the modules `ours` that a worker needs, into memory that all workers share. Most of the start is this import.

    Raises:
        StartError: the import failed, so the image is broken.
    """
    # Nothing of what an import makes is garbage; looking for some among 300 MB again and again is a waste.
    gc.disable()
    try:
        # No environment variable does this one: count tokens with the bundled tokenizer.
        litellm: Any = importlib.import_module("litellm")
        litellm.disable_hf_tokenizer_download = True
        importlib.import_module("litellm.proxy.proxy_server")
        for name in SHARED:
            # What a later LiteLLM calls otherwise is imported when it is needed.
            with contextlib.suppress(ModuleNotFoundError):
                importlib.import_module(name)
        for name in ours:
            importlib.import_module(name)
        # Loads the tokenizer: 40 MB that each worker would have for itself.
        litellm.token_counter(model="", text="x")
    except GatewayError:
        raise
    except Exception as error:
        raise StartError(f"LiteLLM cannot be imported: {one_line(error)}", "build the gateway image again") from error
    finally:
        gc.freeze()
        gc.enable()
