"""LiteLLM's start in the parent: the environment that it reads, its import, and the patches. None of these steps calls out.

The rest of its start belongs to each worker: `hooks.load`, LiteLLM's own lifespan, `LoadedProxy.finish_start`, and last
`log_redaction.install`, so that a start that fails can still be read in the log.
"""

import contextlib
import gc
import importlib
import sys
from collections.abc import Iterable, MutableMapping
from pathlib import Path

from io3ops_gateway.errors import GatewayError, StartError, one_line
from io3ops_gateway.litellm_proxy import compat, http_transport, ollama_errors, redirects, trim

# Set only where the environment says nothing, so that each can be overridden in compose.yaml.
LITELLM_DEFAULTS = {
    # Without this LiteLLM loads a .env file from the folder it was started in.
    "LITELLM_MODE": "PRODUCTION",
    # Each of these is a download at start or on a request; LiteLLM ships a copy of all five.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "LITELLM_LOCAL_AUTOROUTER_PRESETS": "True",
    "LITELLM_LOCAL_POLICY_TEMPLATES": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    # The OpenAI client's own retries, for calls that forget to switch them off (embeddings do).
    "DEFAULT_MAX_RETRIES": "0",
    # Tokenizers of model families come from a model hub; see also `compat.NO_TOKENIZER_DOWNLOAD`.
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # Pages for people, and a map of every route, have no place on a machine-to-machine port.
    "NO_DOCS": "True",
    "NO_REDOC": "True",
    "NO_OPENAPI": "True",
    "DISABLE_ADMIN_UI": "True",
    # LiteLLM's own default is DEBUG. A value set from outside also turns `log_redaction` off.
    "LITELLM_LOG": "ERROR",
}


def prepare_environment(
    environment: MutableMapping[str, str], *, config: Path, key: str, ca_bundle: Path | None
) -> None:
    """Set the variables that LiteLLM reads at its import: what to load, and what to leave alone."""
    for name, value in LITELLM_DEFAULTS.items():
        environment.setdefault(name, value)
    environment["CONFIG_FILE_PATH"] = str(config)
    environment["LITELLM_MASTER_KEY"] = key
    if ca_bundle is not None:
        environment["SSL_CERT_FILE"] = str(ca_bundle)
        environment["REQUESTS_CA_BUNDLE"] = str(ca_bundle)


def import_litellm(ours: Iterable[str]) -> None:
    """Import LiteLLM's proxy and the modules `ours`, so that all workers share their memory. This is most of the start's time.

    Raises:
        StartError: the import failed, so the image is broken.
    """
    # An import leaves no garbage, and each search for some goes through 300 MB.
    gc.disable()
    try:
        litellm = importlib.import_module("litellm")
        # No environment variable does this.
        compat.NO_TOKENIZER_DOWNLOAD.replace(True)
        importlib.import_module("litellm.proxy.proxy_server")
        for name in compat.DEFERRED_MODULES:
            # A later LiteLLM may call it otherwise; it is then imported when it is needed.
            with contextlib.suppress(ModuleNotFoundError):
                importlib.import_module(name)
        for name in ours:
            importlib.import_module(name)
        # Loads the tokenizer: 40 MB that each worker would otherwise have for itself.
        litellm.token_counter(model="", text="x")
    except GatewayError:
        raise
    except Exception as error:
        raise StartError(f"LiteLLM cannot be imported: {one_line(error)}", "build the gateway image again") from error
    finally:
        gc.freeze()
        gc.enable()


def install_patches(*, trimmed: bool) -> bool:
    """Check the libraries' internals, then patch them: the only place that does. Return whether LiteLLM is trimmed now.

    `trimmed`: False leaves LiteLLM's own work on each request as it is.

    Raises:
        StartError: a name that a patch needs is gone from the installed library.
    """
    compat.check()
    redirects.install()
    http_transport.install()
    ollama_errors.install()
    reason = trim.install() if trimmed else ""
    if reason:
        print(f"gateway: {reason}", file=sys.stderr, flush=True)
    return trimmed and not reason
