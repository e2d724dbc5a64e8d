"""A model file from a URL or from this clone: checked by hash, kept in the shared cache when it was downloaded."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from io3ops.errors import DiskFull, FetchFailed, HashMismatch

CHUNK = 2**20


class Downloads:
    """`cache`: where verified files are kept, by their sha256. `root`: what a relative path starts from."""

    def __init__(self, cache: Path, root: Path) -> None:
        self._cache = cache
        self._root = root

    def fetch(self, where: str, sha256: str, on_progress: Callable[[int, int], None]) -> Path:
        """The verified file. Raises FetchFailed, HashMismatch or DiskFull; a broken transfer continues the next time."""
        if not where.startswith(("http://", "https://")):
            return self._local(where, sha256)
        kept = self._cache / f"{sha256}.gguf"
        with contextlib.suppress(FileNotFoundError):
            if _sha256(kept) == sha256:
                return kept
            kept.unlink()
        partial = self._cache / f"{sha256}.part"
        try:
            self._cache.mkdir(parents=True, exist_ok=True)
            self._download(where, partial, on_progress)
            found = _sha256(partial)
            if found != sha256:
                partial.unlink()
                raise _mismatch(where, found, sha256)
            os.replace(partial, kept)
        except OSError as error:
            raise FetchFailed(
                f"{where}: {error.strerror} ({self._cache})", hint="make that folder writable or set XDG_CACHE_HOME"
            ) from None
        return kept

    def _local(self, where: str, sha256: str) -> Path:
        path = self._root / where
        try:
            found = _sha256(path)
        except OSError as error:
            raise FetchFailed(
                f"{path}: {error.strerror}", hint="correct `gguf` in runtime/routing.yaml: the path starts at the clone"
            ) from None
        if found != sha256:
            raise _mismatch(where, found, sha256)
        return path

    def _download(self, url: str, partial: Path, on_progress: Callable[[int, int], None]) -> None:
        import httpx

        have = partial.stat().st_size if partial.exists() else 0
        headers = {"Range": f"bytes={have}-"} if have else {}
        try:
            with httpx.stream("GET", url, headers=headers, follow_redirects=True, timeout=60) as answer:
                if answer.status_code == 416:
                    return
                if answer.status_code not in (200, 206):
                    raise FetchFailed(
                        f"{url}: HTTP {answer.status_code}", hint="correct the URL in runtime/routing.yaml"
                    )
                have = have if answer.status_code == 206 else 0
                total = have + int(answer.headers.get("content-length") or 0)
                room = shutil.disk_usage(self._cache).free
                if total - have > room:
                    raise DiskFull(
                        f"{url} needs {(total - have) // 10**6} MB in {self._cache}, {room // 10**6} MB are free",
                        hint="free some space, then `make up` continues",
                    )
                with open(partial, "ab" if have else "wb") as file:
                    for part in answer.iter_bytes(CHUNK):
                        file.write(part)
                        have += len(part)
                        on_progress(have, total)
        except httpx.HTTPError as error:
            raise FetchFailed(
                f"{url}: {type(error).__name__}: {error}",
                hint="check the network; `make up` continues where it stopped",
            ) from None


def _mismatch(where: str, found: str, pinned: str) -> HashMismatch:
    return HashMismatch(
        f"{where}: the file has sha256 {found[:16]}…, the table pins {pinned[:16]}…",
        hint="do not use it: correct `sha256` in runtime/routing.yaml only if you know why it changed",
    )


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
