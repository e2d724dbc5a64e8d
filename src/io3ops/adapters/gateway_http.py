"""The gateway's OpenAI-compatible endpoint, called as an application would."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from io3ops.errors import GatewayError, connection_problem


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer to one request. `seconds`: wall time; `deployment`: the one that served it, '' when unknown."""

    text: str
    dimensions: int
    tokens: int
    seconds: float
    deployment: str


class GatewayHttp:
    """One gateway; `url` ends in /v1. Calls raise GatewayError, which names the call and the answer."""

    def __init__(self, url: str, key: str) -> None:
        import httpx

        self._root = url.removesuffix("/v1")
        # trust_env=False: a proxy in the environment must not see loopback traffic.
        self._client = httpx.Client(trust_env=False, headers={"Authorization": f"Bearer {key}"}, timeout=10)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def ready(self) -> bool:
        """Return whether the gateway reports that it is ready. Calls no model and never raises for a broken connection."""
        import httpx

        try:
            return self._client.get(f"{self._root}/health/readiness", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def live(self) -> bool:
        """Return whether the gateway's process answers."""
        import httpx

        try:
            return self._client.get(f"{self._root}/health/liveliness", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def modes(self) -> tuple[str, ...]:
        """Return the modes that it lists, sorted."""
        return self.serves()[0]

    def serves(self) -> tuple[tuple[str, ...], str]:
        """Return (the modes that it lists, sorted; the digest of its configuration)."""
        with self._errors("listing its modes"):
            answer = self._client.get(f"{self._root}/v1/models")
        return tuple(sorted(entry["id"] for entry in self._json(answer, "listing its modes")["data"])), (
            answer.headers.get("x-io3-config", "")
        )

    def chat(self, mode: str, prompt: str, *, data_class: str, max_tokens: int, timeout: float) -> Answer:
        """Send one chat request, marked as a probe. An answer without text and tokens is an error."""
        body = {"model": mode, "messages": [{"role": "user", "content": prompt}], "max_tokens": max_tokens}
        content, seconds, deployment = self._post("/v1/chat/completions", body, mode, data_class, timeout)
        message = content["choices"][0]["message"]
        text = message.get("content") or message.get("reasoning_content") or ""
        tokens = (content.get("usage") or {}).get("completion_tokens", 0)
        if not text.strip() and not tokens:
            raise GatewayError(
                f"mode {mode!r} answered without text", hint="choose another model for it in runtime/routing.yaml"
            )
        return Answer(text=text, dimensions=0, tokens=tokens, seconds=seconds, deployment=deployment)

    def embed(self, mode: str, text: str, *, data_class: str, timeout: float) -> Answer:
        """Send one embedding request, marked as a probe. A vector of zeros is an error."""
        body = {"model": mode, "input": text}
        content, seconds, deployment = self._post("/v1/embeddings", body, mode, data_class, timeout)
        vector = content["data"][0]["embedding"]
        if not vector or not any(vector):
            raise GatewayError(
                f"mode {mode!r} answered with an empty vector",
                hint="choose another embedding model in runtime/routing.yaml",
            )
        return Answer(text="", dimensions=len(vector), tokens=0, seconds=seconds, deployment=deployment)

    def _post(
        self, path: str, body: dict[str, Any], mode: str, data_class: str, timeout: float
    ) -> tuple[dict[str, Any], float, str]:
        started = time.monotonic()
        with self._errors(f"mode {mode!r}"):
            mark = {"x-io3-data-class": data_class, "x-io3-probe": "smoke"}
            answer = self._client.post(f"{self._root}{path}", json=body, headers=mark, timeout=timeout)
        content = self._json(answer, f"mode {mode!r}")
        return content, time.monotonic() - started, answer.headers.get("x-io3-deployment", "")

    def _json(self, answer: Any, asked: str) -> dict[str, Any]:
        with contextlib.suppress(ValueError):
            content = answer.json()
            if answer.status_code == 200 and isinstance(content, dict):
                return content
            if isinstance(content, dict) and isinstance(content.get("error"), dict):
                text = " ".join(str(content["error"].get("message", "")).split())[:400]
                hint = "`io3ops logs gateway` shows more"
                if answer.status_code == 401:
                    hint = (
                        "the gateway runs with another key than that in .io3ops; `make up` restarts it with the new one"
                    )
                raise GatewayError(f"{asked}: HTTP {answer.status_code}: {text}", hint=hint)
        raise GatewayError(f"{asked}: HTTP {answer.status_code}", hint="`io3ops logs gateway` shows more")

    @contextlib.contextmanager
    def _errors(self, asked: str) -> Iterator[None]:
        import httpx

        try:
            yield
        except httpx.TimeoutException:
            raise GatewayError(
                f"{asked}: timed out", hint="a large model may still be loading; `io3ops models` shows it"
            ) from None
        except httpx.TransportError as error:
            raise GatewayError(
                f"{asked}: {self._root} does not answer ({connection_problem(error)})",
                hint="`make up` starts the stack",
            ) from None
