"""GGUF files from a URL or the clone: verified, kept, and continued after a cut."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fake_ollama import serve

from io3ops.adapters.download import Downloads
from io3ops.errors import FetchFailed, HashMismatch

CONTENT = b"GGUF" + bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """Serves CONTENT at /m.gguf, from where a request asks for it; records the ranges."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def answer(self, _method: str, path: str, _body: bytes, headers: Any) -> tuple[int, bytes, dict[str, str]]:
        wanted = headers.get("Range", "")
        self.asked.append(wanted)
        if path != "/m.gguf":
            return 404, b"", {}
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        return (206 if wanted else 200), CONTENT[start:], {}


@pytest.fixture
def server() -> Iterator[tuple[Server, str]]:
    made = Server()
    with serve(made.answer, headers=True) as port:
        yield made, f"http://127.0.0.1:{port}"


def quiet(_done: int, _total: int) -> None:
    return


def test_a_file_is_fetched_once_and_kept(tmp_path: Path, server: tuple[Server, str]) -> None:
    made, url = server
    downloads = Downloads(tmp_path / "cache", tmp_path)
    first = downloads.fetch(f"{url}/m.gguf", SHA256, quiet)
    assert first.read_bytes() == CONTENT
    assert downloads.fetch(f"{url}/m.gguf", SHA256, quiet) == first and len(made.asked) == 1
    first.write_bytes(b"rotten")
    assert downloads.fetch(f"{url}/m.gguf", SHA256, quiet).read_bytes() == CONTENT


def test_a_transfer_that_was_cut_continues(tmp_path: Path, server: tuple[Server, str]) -> None:
    """From where it stopped, not from the beginning."""
    made, url = server
    downloads = Downloads(tmp_path / "cache", tmp_path)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f"{SHA256}.part").write_bytes(CONTENT[:1000])
    assert downloads.fetch(f"{url}/m.gguf", SHA256, quiet).read_bytes() == CONTENT
    assert made.asked == ["bytes=1000-"]


def test_a_wrong_file_and_a_missing_one_are_refused(tmp_path: Path, server: tuple[Server, str]) -> None:
    _, url = server
    downloads = Downloads(tmp_path / "cache", tmp_path)
    with pytest.raises(HashMismatch):
        downloads.fetch(f"{url}/m.gguf", "0" * 64, quiet)
    assert list((tmp_path / "cache").iterdir()) == []
    with pytest.raises(FetchFailed, match="404"):
        downloads.fetch(f"{url}/none.gguf", SHA256, quiet)
    with pytest.raises(FetchFailed, match=r": connection refused$"):
        downloads.fetch("http://127.0.0.1:9/m.gguf", SHA256, quiet)


def test_a_file_of_the_clone_is_verified_too(tmp_path: Path) -> None:
    downloads = Downloads(tmp_path / "cache", tmp_path)
    (tmp_path / "m.gguf").write_bytes(CONTENT)
    assert downloads.fetch("m.gguf", SHA256, quiet) == tmp_path / "m.gguf"
    with pytest.raises(HashMismatch):
        downloads.fetch("m.gguf", "0" * 64, quiet)
    with pytest.raises(FetchFailed):
        downloads.fetch("none.gguf", SHA256, quiet)
