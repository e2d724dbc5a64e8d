"""Pulling from a model library behind a company's certificate: by a helper container that is gone afterwards."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from tests.beside import network
from tests.clone import Clone
from tests.fake_ollama import FakeLibrary, serve

pytestmark = pytest.mark.containers


def test_a_library_model_is_pulled_and_the_serving_runtime_sees_it(running: Clone, tmp_path: Path) -> None:
    with network(running, "files") as second:
        pull_from_a_library(running, tmp_path, second)


def pull_from_a_library(running: Clone, tmp_path: Path, second: str) -> None:
    library = FakeLibrary()
    # Two addresses of this machine as a container sees it: Ollama only takes a redirect to another host for a blob.
    host, files = (
        running.docker("network", "inspect", network, "-f", "{{(index .IPAM.Config 0).Gateway}}").stdout.strip()
        for network in ("bridge", second)
    )
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "company.crt")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host, files).configure_cert(tls)
    table = running.path / "runtime/routing.yaml"
    before = table.read_text("utf-8")
    with serve(library.answer, tls) as port:
        library.files = f"https://{files}:{port}"
        table.write_text(
            before.replace("chain: [minilm]", "chain: [minilm]\n  pulled: {chain: [tiny]}").replace(
                "modes:\n",
                f'  tiny: {{provider: local, source: {{ollama: "{host}:{port}/library/tiny:1"}}}}\n\nmodes:\n',
                1,
            ),
            "utf-8",
        )
        try:
            refused = running.io3ops("pull")
            assert refused.returncode == 50 and "certificate" in refused.stderr, refused.stderr
            assert running.container("loader") == "", "the helper is gone after a failure too"
            trusted: dict[str, Any] = {"IO3OPS_CA_DIR": str(tmp_path)}
            library.corrupt = True
            done = running.io3ops("pull", **trusted)
            assert done.returncode == 50 and "digest mismatch" in done.stderr, done.stderr
            library.corrupt = False
            done = running.io3ops("pull", **trusted)
            assert done.returncode == 0, done.stderr
            rows = {r["model"]: r for r in running.json("models")["data"]["models"]}
            assert rows["tiny"]["state"] == "installed" and rows["tiny"]["size"] == 3
            assert running.container("loader") == ""
            assert running.io3ops("pull").stderr.count("installed"), "a second pull has nothing to do"
        finally:
            table.write_text(before, "utf-8")
            running.docker("exec", running.container("runtime"), "ollama", "rm", f"{host}:{port}/library/tiny:1")
