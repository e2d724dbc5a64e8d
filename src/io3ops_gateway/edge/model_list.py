"""Answers `GET /v1/models`: the modes that a key may use, as OpenAI clients list models. Touches nothing."""

import time
from collections.abc import Mapping
from typing import Any

from io3ops_gateway.asgi import Headers
from io3ops_gateway.errors import Refusal
from io3ops_gateway.policy.client_keys import ClientKey
from io3ops_shared.names import OWNER
from io3ops_shared.policy import ModePolicy

PATHS = ("/v1/models", "/models")
PREFIXES = tuple(f"{path}/" for path in PATHS)


class ModelList:
    """Lists `modes`. `config`: the digest of the running configuration, which only the owner gets."""

    def __init__(self, modes: Mapping[str, ModePolicy], config: str) -> None:
        self._modes = modes
        self._config = config
        self._created = int(time.time())

    def serves(self, path: str) -> bool:
        return path in PATHS or path.startswith(PREFIXES)

    def answer(self, key: ClientKey, path: str) -> tuple[dict[str, Any], Headers]:
        """Return (body, headers) for a listing or for one model.

        Raises:
            Refusal: 404, there is no such mode, or the key may not use it.
        """
        headers = [(b"x-io3-config", self._config.encode())] if key.name == OWNER else []
        names = [name for name in self._modes if key.modes is None or name in key.modes]
        listed = [{"id": name, "object": "model", "created": self._created, "owned_by": "io3ops"} for name in names]
        if path in PATHS:
            return {"object": "list", "data": listed}, headers
        wanted = path.split("/models/", 1)[1]
        for entry in listed:
            if entry["id"] == wanted:
                return entry, headers
        raise Refusal(404, "model_not_found", f"there is no mode {wanted[:80]!r}; GET /v1/models lists them")
