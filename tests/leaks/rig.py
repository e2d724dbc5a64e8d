"""A whole stack whose clouds are recorders: gateway, egress proxy, TLS and DNS are the real ones, only the other end is ours.

`api.openai.com` and the others lead to a container on the network outside; a CA of the test's own vouches for it. Beside the
gateway runs LiteLLM as it comes, with the same table and no policy: what leaks there shows that the suite can see a leak.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import trustme
import yaml
from tests.beside import Part, answers
from tests.clone import PATIENCE, ROOT, Clone, free_port, until
from tests.fake_ollama import serve
from tests.fake_upstream import FakeUpstream
from tests.leaks.cases import OLLAMA, SERVED, Case, table, word

CLOUDS = ("api.openai.com", "api.anthropic.com", "generativelanguage.googleapis.com", "api.mistral.ai")
SECRETS = {name: f"sk-{name}-of-the-test-0123456789" for name in ("openai", "anthropic", "gemini", "mistral")}
# Runs in the gateway's image. FastAPI keeps the routers that were included, and mounts, as routes of their own.
ROUTES = """
import json
from litellm.proxy._lazy_features import register_all_features
from litellm.proxy.proxy_server import app
register_all_features(app)
found = set()
def walk(routes):
    for route in routes:
        if hasattr(route, "effective_candidates"):
            walk(route.effective_candidates())
            walk(route.effective_low_priority_routes())
        elif getattr(route, "path", None) is not None:
            found.update((method, route.path) for method in getattr(route, "methods", None) or ("GET", "POST"))
            found.update((method, route.path + "/x") for method in ("GET", "POST") if type(route).__name__ == "Mount")
walk(app.routes)
print(json.dumps(sorted(found)))
"""
SYSTEM_CA = Path("/usr/local/share/ca-certificates")


@dataclass
class Recorder:
    """A container with `cloud.py`; `control` is its port on this machine."""

    control: str

    def put(self, behaviours: dict[str, str]) -> None:
        httpx.put(f"{self.control}/behaviours", json=behaviours, trust_env=False).raise_for_status()

    def hits(self, needles: Iterable[str]) -> dict[str, int]:
        """How many contacts hold each needle, in any encoding."""
        answer = httpx.post(f"{self.control}/search", json=list(needles), trust_env=False, timeout=300)
        found: dict[str, int] = answer.raise_for_status().json()
        return found

    def recorded(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = httpx.get(f"{self.control}/recorded", trust_env=False, timeout=PATIENCE).json()
        return found

    def forget(self) -> None:
        httpx.delete(f"{self.control}/recorded", trust_env=False)


@dataclass
class Rig:
    """`stock`: the address of LiteLLM without the policy; `keys`: client keys by name; `secrets`: the providers' keys."""

    clone: Clone
    folder: Path
    upstream: FakeUpstream
    clouds: tuple[str, ...] = CLOUDS
    secrets: dict[str, str] = field(default_factory=lambda: dict(SECRETS))
    cloud: Recorder = field(init=False)
    lan: Recorder = field(init=False)
    stock: str = ""
    keys: dict[str, str] = field(default_factory=dict)
    parts: ExitStack = field(default_factory=ExitStack)

    @property
    def gateway(self) -> str:
        return f"http://127.0.0.1:{self.clone.port}"

    def io3ops(self, *args: str) -> subprocess.CompletedProcess[str]:
        return self.clone.io3ops(*args, timeout=1800, IO3OPS_CA_DIR=str(self.folder / "ca"))

    def start(self, routing: str, *, exit_code: int = 0) -> None:
        """Start the stack with this table. `exit_code`: of `io3ops up`."""
        self._certificates()
        (self.clone.path / "runtime/routing.yaml").write_text(routing, "utf-8")
        for name, value in self.secrets.items():
            done = subprocess.run(
                ["python3", "-m", "io3ops", "secrets", "set", name],
                cwd=self.clone.path, env=self.clone.env | {"PATH": str(ROOT / ".venv/bin") + ":/usr/bin:/bin"}, input=value, text=True, capture_output=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
        done = self.io3ops("up")
        assert done.returncode == exit_code, done.stdout + done.stderr
        for name, options in {
            "inside": ["--data-class", "internal"],
            "open": ["--data-class", "public"],
            "alice": [],
            "bob": [],
        }.items():
            done = self.io3ops("keys", "add", name, *options, "--json")
            assert done.returncode == 0, done.stderr
            self.keys[name] = json.loads(done.stdout)["data"]["key"]
        self.keys["owner"] = self.clone.key()
        self.cloud = self._recorder(
            "cloud", self.clouds, CLOUD_PORT="443", CLOUD_CERT="/pki/cloud.pem", CLOUD_KEY="/pki/cloud.key"
        )
        self.lan = self._recorder("lan", ["lan.example"], CLOUD_PORT="8000")
        self.lan.put({f"s-{word(b)}": b for b in SERVED})
        self.upstream.behaviours = {f"o-{word(b)}": b for b in OLLAMA}
        until("the gateway answers", lambda: self._ready(self.gateway))

    def switch(self, *, lane: bool) -> None:
        """The running gateway with the fast lane or without it."""
        config = yaml.safe_load((self.clone.path / "runtime/litellm.yaml").read_text("utf-8"))
        config["io3ops_policy"]["door"]["lane"] = lane
        argv = ["docker", "exec", "-i", self.clone.container("gateway"), "/usr/bin/python3", "-I", "-S"]
        argv += ["/opt/io3ops/io3ops_gateway/scripts/control.py", "reload"]
        done = subprocess.run(argv, input=yaml.safe_dump(config).encode(), capture_output=True, check=False)
        assert done.returncode == 0, done.stdout

    def _certificates(self) -> None:
        ca = trustme.CA()
        shutil.copytree(SYSTEM_CA, self.folder / "ca") if SYSTEM_CA.is_dir() else (self.folder / "ca").mkdir()
        ca.cert_pem.write_to_path(self.folder / "ca/test.crt")
        pki = self.folder / "pki"
        pki.mkdir()
        issued = ca.issue_cert(*self.clouds)
        issued.private_key_pem.write_to_path(pki / "cloud.key")
        (pki / "cloud.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        # Throw-away keys: the recorder's user must be able to read them.
        for path in (self.folder, pki, *pki.iterdir()):
            path.chmod(0o755 if path.is_dir() else 0o644)

    def _image(self) -> str:
        return self.clone.docker("inspect", "-f", "{{.Config.Image}}", self.clone.container("gateway")).stdout.strip()

    def _recorder(self, name: str, aliases: Sequence[str], **env: str) -> Recorder:
        part = Part(
            self.clone, name, self._image(), ("-u", "/leaks/cloud.py"), entrypoint="/usr/bin/python3",
            networks=[f"{self.clone.project}_outside"], aliases=aliases, port=8080, ready=answers("/health"),
            mounts={ROOT / "tests/leaks": "/leaks", self.folder / "pki": "/pki"}, env=env | {"CLOUD_DNS_PORT": "0"},
            sysctls={"net.ipv4.ip_unprivileged_port_start": "0"},
        )  # fmt: skip
        return Recorder(self.parts.enter_context(part).url)

    def _ready(self, address: str, path: str = "/health/readiness") -> bool:
        try:
            return httpx.get(address + path, trust_env=False, timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def start_stock(self) -> None:
        """LiteLLM as it comes, on the same networks, with the same table: whole chains, keys in place, no policy."""
        config = yaml.safe_load((self.clone.path / "runtime/litellm.yaml").read_text("utf-8"))
        groups = {entry["model_name"] for entry in config["model_list"]}
        wide = {name.removesuffix(":public") for name in groups if name.endswith(":public")}
        config["model_list"] = [e for e in config["model_list"] if e["model_name"] not in wide]
        for entry in config["model_list"]:
            entry["model_name"] = entry["model_name"].removesuffix(":public")
            entry["model_info"]["id"] = entry["model_info"]["id"].replace(":public", "")
            provider = entry["litellm_params"]["model"].split("/")[0]
            if (
                "api_key" in entry["litellm_params"]
                and provider in SECRETS
                and "lan.example" not in entry["litellm_params"].get("api_base", "")
            ):
                entry["litellm_params"]["api_key"] = SECRETS[provider]
        for name in ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks"):
            pairs = [
                (g, t) for e in config["router_settings"].get(name, []) for g, t in e.items() if g.endswith(":public")
            ]
            config["router_settings"][name] = [
                {g.removesuffix(":public"): [t[0].removesuffix(":public")]} for g, t in pairs
            ]
        del config["litellm_settings"]["callbacks"], config["io3ops_policy"]
        (self.folder / "stock").mkdir()
        (self.folder / "stock/config.yaml").write_text(yaml.safe_dump(config), "utf-8")
        (self.folder / "stock").chmod(0o755)
        proxy = "http://egress:3128"
        environment = {
            "LITELLM_MASTER_KEY": self.clone.key(), "HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "HOME": "/tmp",
            "NO_PROXY": "localhost,127.0.0.1", "SSL_CERT_FILE": "/stock/bundle.pem", "LITELLM_MODE": "PRODUCTION", "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        }  # fmt: skip
        authorities = sorted((self.folder / "ca").glob("*.crt"))
        (self.folder / "stock/bundle.pem").write_bytes(b"\n".join(path.read_bytes() for path in authorities))
        part = Part(
            self.clone, "stock", self._image(), ("--config", "/stock/config.yaml", "--port", "4000", "--host", "0.0.0.0"),
            entrypoint="/opt/gateway/bin/litellm", networks=[f"{self.clone.project}_edge", f"{self.clone.project}_egress"], dns=["127.0.0.1"],
            port=4000, mounts={self.folder / "stock": "/stock"}, env=environment, ready=answers("/health/liveliness"),
        )  # fmt: skip
        self.stock = self.parts.enter_context(part).url

    def routes(self) -> list[tuple[str, str]]:
        """Every (method, path) of LiteLLM's own app, from the app itself: a new version's new ones are among them."""
        done = self.clone.docker("exec", f"{self.clone.project}-stock", "/opt/gateway/bin/python", "-c", ROUTES)
        assert done.returncode == 0, done.stderr
        return [(method, path) for method, path in json.loads(done.stdout.strip().splitlines()[-1])]

    def play(self, address: str, cases: Iterable[Case], *, workers: int = 8, seconds: float = 30) -> dict[str, int]:
        """Send the cases; (name -> status), 0 for an answer that broke off or took too long."""
        limits = httpx.Limits(max_connections=workers)
        with (
            httpx.Client(trust_env=False, timeout=seconds, limits=limits) as client,
            ThreadPoolExecutor(workers) as pool,
        ):
            found = pool.map(lambda case: self._send(client, address, case), cases)
            return dict(found)

    def _send(self, client: httpx.Client, address: str, case: Case) -> tuple[str, int]:
        key = self.keys[case.key] if address == self.gateway else self.keys["owner"]
        headers = {"Authorization": f"Bearer {key}"} | case.headers
        try:
            url = address + case.path + case.query
            if isinstance(case.body, bytes):
                headers |= {"content-type": "application/json"}
                answer = client.request(case.method, url, content=case.body, headers=headers)
            else:
                answer = client.request(case.method, url, json=case.body, headers=headers)
        except (httpx.TransportError, httpx.InvalidURL):
            return case.name, 0
        return case.name, answer.status_code

    def remove(self) -> None:
        self.parts.close()
        self.clone.remove()


def running(folder: Path) -> Iterator[Rig]:
    """A rig that runs until the generator is closed."""
    models = (*(f"o-{word(b)}" for b in OLLAMA), "vec")
    upstream = FakeUpstream(models)
    with serve(upstream.answer) as port:
        rig = Rig(clone=Clone.make(folder), folder=folder, upstream=upstream)
        try:
            # The stack's own models do not exist here, so the last step's real calls may fail on some modes: this table is meant to.
            rig.start(table(port, free_port()), exit_code=1)
            yield rig
        finally:
            rig.remove()
