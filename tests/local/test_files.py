"""The clone's files on a real disk: nothing is lost, whatever is wrong with them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from io3ops.adapters import files
from io3ops.errors import AlreadyRunning, EnvFileInvalid, KeyFileUnsafe, NotWritable


def test_a_write_replaces_the_whole_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "f"
    assert files.write_atomic(target, b"one")
    assert not files.write_atomic(target, b"one"), "same content: not written"
    assert files.write_atomic(target, b"two", 0o600)
    assert target.read_bytes() == b"two" and target.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "f"
    target.write_bytes(b"old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NotWritable, match="the disk is full"):
        files.write_atomic(target, b"new")
    assert target.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["f"]


def test_the_second_holder_of_the_lock_is_told_who_has_it(tmp_path: Path) -> None:
    lock = tmp_path / "state" / "lock"
    with files.exclusive(lock), pytest.raises(AlreadyRunning, match=str(os.getpid())), files.exclusive(lock):
        pass
    with files.exclusive(lock):
        pass


def test_a_killed_holder_does_not_block_the_next(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    code = f"import os, pathlib\nfrom io3ops.adapters.files import exclusive\nwith exclusive(pathlib.Path({str(lock)!r})): os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code], check=False)
    with files.exclusive(lock):
        pass


def test_a_new_key_is_random_and_private(tmp_path: Path) -> None:
    first, second = (files.new_key(tmp_path / "s" / n, None) for n in ("a", "b"))
    assert first != second and len(first) > 40
    assert (tmp_path / "s" / "a").stat().st_mode & 0o777 == 0o600
    assert files.read_key(tmp_path / "s" / "a") == first
    assert files.read_key(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("content", "mode"),
    [
        (b"sk-io3-" + b"x" * 40, 0o644),
        (b"sk-io3-" + b"x" * 40, 0o640),
        (b"", 0o600),
        (b"short", 0o600),
        (b"two words in here, not a key", 0o600),
    ],
)
def test_a_key_that_cannot_be_trusted_is_refused_and_not_echoed(tmp_path: Path, content: bytes, mode: int) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(KeyFileUnsafe) as caught:
        files.read_key(path)
    assert caught.value.hint and "xxxx" not in caught.value.message


def test_the_users_lines_in_env_survive_and_edits_of_ours_do_not(tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_text("# mine\nIO3OPS_PORT=4100\nOTHER='a b'\n")
    files.write_env(env, {"IO3OPS_GATEWAY_IMAGE": "good", "PATH_LIKE": "ä b"})
    env.write_text(env.read_text().replace("'good'", "'evil'"))
    ours, theirs = files.read_env(env)
    assert ours["IO3OPS_GATEWAY_IMAGE"] == "evil" and theirs == {"IO3OPS_PORT": "4100", "OTHER": "a b"}
    assert files.write_env(env, {"IO3OPS_GATEWAY_IMAGE": "good", "PATH_LIKE": "ä b"})
    assert files.read_env(env) == (
        {"IO3OPS_GATEWAY_IMAGE": "good", "PATH_LIKE": "ä b"},
        {"IO3OPS_PORT": "4100", "OTHER": "a b"},
    )
    assert "# mine" in env.read_text()
    assert not files.write_env(env, {"IO3OPS_GATEWAY_IMAGE": "good", "PATH_LIKE": "ä b"}), "unchanged: not written"


@pytest.mark.parametrize("content", [b"A=1\nnot a line\n", b"\xff\xfe"])
def test_a_broken_env_file_is_named_and_kept(tmp_path: Path, content: bytes) -> None:
    env = tmp_path / ".env"
    env.write_bytes(content)
    with pytest.raises(EnvFileInvalid):
        files.read_env(env)
    assert env.read_bytes() == content


def test_only_certificates_are_taken_from_the_ca_folder(tmp_path: Path) -> None:
    (tmp_path / "a.crt").write_text("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")
    (tmp_path / "b.crt").write_text("not one")
    (tmp_path / "c.key").write_text("-----BEGIN CERTIFICATE-----")
    found = files.ca_certificates(tmp_path)
    assert list(found) == ["a.crt"] and files.ca_certificates(tmp_path / "none") == {}
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old.crt").write_text("x")
    files.sync_folder(tmp_path / "out", found)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a.crt"]


def test_an_existing_files_mode_is_corrected_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        files.write_atomic(tmp_path / "f", b"x", 0o644)
    finally:
        os.umask(before)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o644, "the gateway's user must be able to read it"
    assert files.write_atomic(tmp_path / "f", b"x", 0o600)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o600


def test_a_key_is_handed_to_the_gateways_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[object] = []
    monkeypatch.setattr(os, "chown", lambda path, uid, gid: handed.append((path, uid, gid)))
    files.new_key(tmp_path / "s" / "key", (10001, 10001))
    assert handed == [(tmp_path / "s" / "key", 10001, 10001)]

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    with pytest.raises(KeyFileUnsafe, match="10001") as caught:
        files.own(tmp_path / "s" / "key", (10001, 10001))
    assert "chown" in caught.value.hint


def test_env_is_private(tmp_path: Path) -> None:
    """It may hold a user's own secrets below our block."""
    files.write_env(tmp_path / ".env", {"A": "1"})
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600


def test_a_lost_end_line_does_not_take_the_users_lines_with_it(tmp_path: Path) -> None:
    env = tmp_path / ".env"
    files.write_env(env, {"A": "1"})
    env.write_text(env.read_text().replace(files.END, "") + "MINE=2\n")
    files.write_env(env, {"A": "1"})
    assert files.read_env(env)[1]["MINE"] == "2"


def test_both_endings_of_certificates_are_taken(tmp_path: Path) -> None:
    for name in ("a.crt", "b.pem"):
        (tmp_path / name).write_text("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")
    assert sorted(files.ca_certificates(tmp_path)) == ["a.crt", "b.pem"]


def test_a_key_in_a_place_that_cannot_be_written_is_no_bug(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotWritable):
        files.new_key(tmp_path / "file" / "secrets" / "key", None)
