"""The runtime's API (Ollama), through the `ollama` package. `Relay.forward` makes its address reachable."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from io3ops.errors import DiskFull, FetchFailed, RuntimeRefused, RuntimeUnreachable, connection_problem

# Phrases of Ollama's errors when it cannot reach the model library.
OFFLINE = ("no such host", "i/o timeout", "connection refused", "server misbehaving")


@dataclass(frozen=True, kw_only=True)
class InstalledModel:
    """A model in the runtime. `digest` identifies the manifest; `size` in bytes; `remote`: it runs on another machine."""

    name: str
    digest: str
    size: int
    remote: bool


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model in memory. `memory` and `vram` in bytes; `context` in tokens, 0 when unknown; `until`: ISO time of the unloading."""

    name: str
    memory: int
    vram: int
    context: int
    until: str = ""


class OllamaApi:
    """One runtime at `url`. `label` names it in errors; `proxy`: URL of the proxy that leads to a runtime outside the stack.

    Each call raises RuntimeUnreachable when the runtime does not answer, DiskFull when its disk is full, and RuntimeRefused
    (FetchFailed for `pull` and `create`) for every other failure.
    """

    def __init__(self, url: str, label: str, *, timeout: float | None = 30.0, proxy: str = "") -> None:
        import httpx
        import ollama

        # trust_env=False: a proxy in the environment is for the Internet, never for the runtime.
        options: dict[str, Any] = {
            "transport": httpx.HTTPTransport(proxy=proxy or None, trust_env=False),
            "trust_env": False,
            "timeout": timeout,
        }
        self._ollama = ollama.Client(host=url, **options)
        # For calls and fields that the package does not know. Both clients share the connections.
        self._http = httpx.Client(base_url=url, follow_redirects=True, **options)
        self._label = label

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def version(self) -> str:
        """Return the runtime's version."""
        with self._errors("asking for its version"):
            return str(self._call("GET", "/api/version")["version"])

    def installed(self) -> tuple[InstalledModel, ...]:
        """List the models in the runtime."""
        with self._errors("listing its models"):
            # The package's own list lacks the fields that reveal a model on another machine.
            return tuple(
                InstalledModel(
                    name=m["name"],
                    digest=m.get("digest", ""),
                    size=m.get("size", 0),
                    remote=bool(m.get("remote_host") or m.get("remote_model")),
                )
                for m in self._call("GET", "/api/tags")["models"] or []
            )

    def loaded(self) -> tuple[LoadedModel, ...]:
        """List the models in memory."""
        with self._errors("listing its loaded models"):
            return tuple(
                LoadedModel(
                    name=_required(m.name),
                    memory=m.size or 0,
                    vram=m.size_vram or 0,
                    context=m.context_length or 0,
                    until=m.expires_at.isoformat() if m.expires_at else "",
                )
                for m in self._ollama.ps().models
            )

    def weights(self, name: str) -> str:
        """Return the runtime's path of the file that a model was made from; '' when it names none."""
        with self._errors(f"inspecting {name}"):
            lines = (self._ollama.show(name).modelfile or "").splitlines()
        return next((line.removeprefix("FROM ").strip() for line in lines if line.startswith("FROM ")), "")

    def pull(self, name: str, on_progress: Callable[[int, int], None]) -> None:
        """Pull a model from the library. After a broken transfer, the next call continues it."""
        layers: dict[str, tuple[int, int]] = {}
        with self._errors(f"pulling {name}", FetchFailed):
            for event in self._ollama.pull(name, stream=True):
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
        """Make a model from local files ({name in the model: path}). The name exists only once the model is complete."""
        total = sum(p.stat().st_size for p in files.values())
        done = 0
        digests = {}
        with self._errors(f"creating {name}", FetchFailed):
            for file, path in files.items():
                digests[file] = self._ollama.create_blob(path)
                done += path.stat().st_size
                on_progress(done, total)
            parameters: dict[str, Any] = {"num_ctx": context} | ({"stop": list(stop)} if stop else {})
            events = self._ollama.create(
                model=name, files=digests, template=template or None, parameters=parameters, stream=True
            )
            for _ in events:
                pass

    def load(self, name: str, *, embeddings: bool, context: int, keep_alive: str) -> None:
        """Load a model with the options that the gateway sends, so that the first request does not load it again."""
        options = {"num_ctx": context}
        with self._errors(f"loading {name}"):
            if embeddings:
                self._ollama.embed(model=name, input="", options=options, keep_alive=keep_alive)
            else:
                # The package has no `shift`, which is one of these options (io3ops_gateway/policy/context_window.py).
                body = {"model": name, "stream": False, "shift": False, "keep_alive": keep_alive, "options": options}
                self._call("POST", "/api/generate", body)

    def delete(self, name: str) -> None:
        """Delete a model."""
        with self._errors(f"deleting {name}"):
            self._ollama.delete(name)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        import ollama

        response = self._http.request(method, path, json=body)
        if response.is_error:
            raise ollama.ResponseError(response.text, response.status_code)
        return response.json()

    @contextlib.contextmanager
    def _errors(self, doing: str, kind: type[RuntimeRefused | FetchFailed] = RuntimeRefused) -> Iterator[None]:
        """Translate the errors of both clients."""
        import httpx
        import ollama

        try:
            yield
        except ollama.ResponseError as error:
            raise self._refused(doing, str(error.error).strip() or str(error), kind) from None
        except (KeyError, TypeError, ValueError):
            raise kind(
                f"{self._label}: {doing} failed: this server is not an Ollama",
                hint="correct the provider's `url` in runtime/routing.yaml",
            ) from None
        except httpx.TimeoutException:
            raise kind(
                f"{self._label}: {doing} timed out",
                hint="a large model may need longer: raise `load_timeout` in runtime/routing.yaml",
            ) from None
        except ConnectionError:
            # The package's text for it is advice about a runtime on this machine.
            raise self._unreachable(doing, "connection refused") from None
        except httpx.TransportError as error:
            raise self._unreachable(doing, connection_problem(error)) from None

    def _refused(
        self, doing: str, text: str, kind: type[RuntimeRefused | FetchFailed]
    ) -> RuntimeRefused | FetchFailed | RuntimeUnreachable | DiskFull:
        if text.startswith("egress:"):
            # The egress proxy answered, because it could not reach the runtime.
            return self._unreachable(doing, text)
        if "no space left" in text:
            return DiskFull(
                f"{self._label}: {doing} failed: the disk is full", hint="free some space; `make up` continues"
            )
        hint = "`io3ops logs runtime` shows its log"
        if kind is FetchFailed and any(phrase in text for phrase in OFFLINE):
            hint = "check that the engine can reach the model library (network, proxy); `io3ops preset starter` needs no library"
        return kind(f"{self._label}: {doing} failed: {text[:400]}", hint=hint)

    def _unreachable(self, doing: str, why: str) -> RuntimeUnreachable:
        return RuntimeUnreachable(
            f"{self._label} does not answer the gateway's container ({doing}: {why})",
            hint="check that it runs; an Ollama on this host must listen on more than loopback (OLLAMA_HOST=0.0.0.0); "
            "`io3ops health` shows which layer fails",
        )


def _required(name: str | None) -> str:
    if not name:
        raise ValueError("a model without a name")
    return name
