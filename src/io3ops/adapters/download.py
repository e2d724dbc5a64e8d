"""Model files from a URL or from this clone, checked by hash. Downloaded files are kept in a shared cache."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from io3ops.errors import DiskFull, FetchFailed, HashMismatch, connection_problem

CHUNK = 2**20


class Downloads:
    """`cache`: folder of verified files, named by their sha256. `root`: folder at which a relative path starts."""

    def __init__(self, cache: Path, root: Path) -> None:
        self._cache = cache
        self._root = root

    def fetch(self, where: str, sha256: str, on_progress: Callable[[int, int], None]) -> Path:
        """Return the verified file. After a broken transfer, the next call continues it.

        Raises FetchFailed, HashMismatch or DiskFull.
        """
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
            actual = _sha256(partial)
            if actual != sha256:
                partial.unlink()
                raise _mismatch(where, actual, sha256)
            os.replace(partial, kept)
        except OSError as error:
            raise FetchFailed(
                f"{where}: {error.strerror} ({self._cache})",
                hint="make that folder writable, or set XDG_CACHE_HOME to another one",
            ) from None
        return kept

    def _local(self, where: str, sha256: str) -> Path:
        path = self._root / where
        try:
            actual = _sha256(path)
        except OSError as error:
            raise FetchFailed(
                f"{path}: {error.strerror}",
                hint="correct `gguf` in runtime/routing.yaml; a path is relative to the clone",
            ) from None
        if actual != sha256:
            raise _mismatch(where, actual, sha256)
        return path

    def _download(self, url: str, partial: Path, on_progress: Callable[[int, int], None]) -> None:
        import httpx

        have = partial.stat().st_size if partial.exists() else 0
        headers = {"Range": f"bytes={have}-"} if have else {}
        try:
            with httpx.stream("GET", url, headers=headers, follow_redirects=True, timeout=60) as response:
                if response.status_code == 416:
                    # Nothing is left to download.
                    return
                if response.status_code not in (200, 206):
                    raise FetchFailed(
                        f"{url}: HTTP {response.status_code}", hint="correct the URL in runtime/routing.yaml"
                    )
                have = have if response.status_code == 206 else 0
                total = have + int(response.headers.get("content-length") or 0)
                room = shutil.disk_usage(self._cache).free
                if total - have > room:
                    raise DiskFull(
                        f"{url} needs {(total - have) // 10**6} MB in {self._cache}, but {room // 10**6} MB are free",
                        hint="free some space; `make up` continues",
                    )
                with open(partial, "ab" if have else "wb") as file:
                    for part in response.iter_bytes(CHUNK):
                        file.write(part)
                        have += len(part)
                        on_progress(have, total)
        except httpx.HTTPError as error:
            raise FetchFailed(
                f"{url}: {connection_problem(error)}",
                hint="check the network; `make up` continues the download",
            ) from None


def _mismatch(where: str, actual: str, pinned: str) -> HashMismatch:
    return HashMismatch(
        f"{where}: the file has sha256 {actual[:16]}…, but the table pins {pinned[:16]}…",
        hint="do not use the file; correct `sha256` in runtime/routing.yaml only if you know why it changed",
    )


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
