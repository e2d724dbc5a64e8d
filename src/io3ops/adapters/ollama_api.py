"""The runtime's API (Ollama), through the `ollama` package. URLs come from `Relay.forward`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from io3ops.errors import DiskFull, FetchFailed, RuntimeRefused, RuntimeUnreachable


@dataclass(frozen=True, kw_only=True)
class InstalledModel:
    """`digest` names the manifest; `size` in bytes; `remote`: it only stands for a model on another machine."""

    name: str
    digest: str
    size: int
    remote: bool


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """`memory` and `vram` in bytes; `context` in tokens, 0 when the runtime does not say; `until`: when it is unloaded, as Ollama writes it."""

    name: str
    memory: int
    vram: int
    context: int
    until: str = ""


class OllamaApi:
    """One runtime at `url`. `label` says in errors which one; `proxy` (a URL) is the way to it when it is outside the stack."""

    def __init__(self, url: str, label: str, *, timeout: float | None = 30.0, proxy: str = "") -> None:
        import ollama

        # trust_env: a proxy in the environment is for the Internet, never for the runtime.
        self._client = ollama.Client(host=url, timeout=timeout, trust_env=False, proxy=proxy or None)
        self._label = label

    def version(self) -> str:
        with self._errors("asking for its version"):
            return str(self._client._client.get("/api/version").raise_for_status().json()["version"])

    def installed(self) -> tuple[InstalledModel, ...]:
        with self._errors("listing its models"):
            raw = self._client._client.get("/api/tags").raise_for_status().json()["models"] or []
            return tuple(
                InstalledModel(
                    name=m["name"],
                    digest=m.get("digest", ""),
                    size=m.get("size", 0),
                    remote=bool(m.get("remote_host") or m.get("remote_model")),
                )
                for m in raw
            )

    def loaded(self) -> tuple[LoadedModel, ...]:
        with self._errors("listing its loaded models"):
            raw = self._client._client.get("/api/ps").raise_for_status().json()["models"] or []
            return tuple(
                LoadedModel(
                    name=m["name"],
                    memory=m.get("size", 0),
                    vram=m.get("size_vram", 0),
                    context=m.get("context_length", 0),
                    until=str(m.get("expires_at", "")),
                )
                for m in raw
            )

    def weights(self, name: str) -> str:
        """The file that a model was made of, as the runtime names it; '' when it does not say."""
        with self._errors(f"asking about {name}"):
            shown = self._client.show(name).modelfile or ""
        return next((line.removeprefix("FROM ").strip() for line in shown.splitlines() if line.startswith("FROM ")), "")

    def pull(self, name: str, on_progress: Callable[[int, int], None]) -> None:
        """Fetch from the model library; a broken transfer continues where it stopped on the next call."""
        layers: dict[str, tuple[int, int]] = {}
        with self._errors(f"pulling {name}", FetchFailed):
            for event in self._client.pull(name, stream=True):
                if event.digest and event.total:
                    layers[event.digest] = (event.completed or 0, event.total)
                    on_progress(sum(c for c, _ in layers.values()), sum(t for _, t in layers.values()))

    def create(
        self,
        name: str,
        files: dict[str, Path],
        *,
        template: str,
        stop: tuple[str, ...],
        context: int,
        on_progress: Callable[[int, int], None],
    ) -> None:
        """Make a model of local files ({name in the model: path}); a half-made one never gets the name."""
        total = sum(p.stat().st_size for p in files.values())
        done = 0
        digests = {}
        with self._errors(f"creating {name}", FetchFailed):
            for file, path in files.items():
                digests[file] = self._client.create_blob(path)
                done += path.stat().st_size
                on_progress(done, total)
            options: dict[str, Any] = {"template": template} if template else {}
            parameters: dict[str, Any] = {"num_ctx": context} | ({"stop": list(stop)} if stop else {})
            for _ in self._client.create(model=name, files=digests, parameters=parameters, stream=True, **options):
                pass

    def load(self, name: str, *, embeddings: bool, context: int, keep_alive: str) -> None:
        """Load a model with the window that the gateway will ask for, so that its first request finds it."""
        with self._errors(f"loading {name}"):
            if embeddings:
                self._client.embed(model=name, input="", options={"num_ctx": context}, keep_alive=keep_alive)
            else:
                # The library has no word for `shift`, which is part of how a model is loaded (io3ops_gateway/policy/context_window.py).
                body = {"model": name, "stream": False, "shift": False, "keep_alive": keep_alive}
                answer = self._client._client.post("/api/generate", json=body | {"options": {"num_ctx": context}})
                answer.raise_for_status()

    def delete(self, name: str) -> None:
        with self._errors(f"deleting {name}"):
            self._client.delete(name)

    @contextlib.contextmanager
    def _errors(self, doing: str, kind: type[RuntimeRefused | FetchFailed] = RuntimeRefused) -> Iterator[None]:
        import httpx
        import ollama

        try:
            yield
        except (ollama.ResponseError, httpx.HTTPStatusError) as error:
            answer = getattr(error, "response", None)
            text = str(getattr(error, "error", None) or (answer.text if answer is not None else "") or error).strip()
            if text.startswith("egress:"):
                # The way out says so, not the runtime: there was nobody to ask.
                raise self._unreachable(doing, text) from None
            if "no space left" in text:
                raise DiskFull(
                    f"{self._label}: {doing}: the disk is full", hint="free some space, then `make up` continues"
                ) from None
            offline = any(
                words in text for words in ("no such host", "i/o timeout", "connection refused", "server misbehaving")
            )
            hint = "`io3ops logs runtime` shows what it says"
            if kind is FetchFailed and offline:
                hint = "is the model library reachable from the engine (network, proxy)? `io3ops preset starter` needs none"
            raise kind(f"{self._label}: {doing} failed: {text[:400]}", hint=hint) from None
        except (KeyError, TypeError, ValueError):
            raise kind(
                f"{self._label}: {doing} failed: what answers there is not an Ollama",
                hint="correct the provider's `url` in runtime/routing.yaml",
            ) from None
        except httpx.TimeoutException:
            raise kind(
                f"{self._label}: {doing}: no answer in time",
                hint="a large model may need longer: `load_timeout` in runtime/routing.yaml",
            ) from None
        except (httpx.TransportError, ConnectionError) as error:
            raise self._unreachable(doing, type(error).__name__) from None

    def _unreachable(self, doing: str, why: str) -> RuntimeUnreachable:
        return RuntimeUnreachable(
            f"{self._label} does not answer the gateway's container ({doing}: {why})",
            hint="is it up? An Ollama on this host must listen beyond loopback (OLLAMA_HOST=0.0.0.0); `io3ops health` shows which layer fails",
        )
