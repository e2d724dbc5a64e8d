"""`keys`, `secrets` and `audit` through the command line, without an engine: what is kept, printed, and never lost."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.clone import Clone

from io3ops.adapters import files
from io3ops.errors import KeyFileUnsafe
from io3ops_shared import digests

# Nothing answers there, so that no test depends on an engine.
AWAY: dict[str, Any] = {"DOCKER_HOST": "tcp://127.0.0.1:9"}


def run(clone: Clone, *args: str) -> subprocess.CompletedProcess[str]:
    return clone.io3ops(*args, **AWAY)


def piped(clone: Clone, text: bytes, *args: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "io3ops", *args],
        cwd=clone.path, env=clone.env | AWAY, input=text, capture_output=True, check=False,
    )  # fmt: skip


def keys_file(clone: Clone) -> Path:
    return clone.path / ".io3ops/keys/keys.json"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def cloud(clone: Clone, *, enabled: bool) -> None:
    kind = f"providers:\n  cloud: {{kind: openai, key: openai, enabled: {str(enabled).lower()}}}"
    clone.edit_table("providers:", kind)


# -- keys


def test_a_new_key_is_printed_once_and_only_its_hash_is_kept(clone: Clone) -> None:
    done = run(
        clone, "keys", "add", "alice", "--data-class", "internal", "--mode", "executor", "--mode", "embed", "--mode", "executor",
        "--requests-per-minute", "5", "--parallel", "2",
    )  # fmt: skip
    key = done.stdout.strip()
    assert done.returncode == 0 and key.startswith("sk-io3-") and len(key) > 45 and key not in done.stderr
    assert "printed only now" in done.stderr and "no gateway runs, so it works from the next start" in done.stderr
    kept = json.loads(keys_file(clone).read_text())
    created = kept["keys"]["alice"].pop("created")
    assert kept == {
        "version": 1,
        "keys": {
            "alice": {
                "sha256": hashlib.sha256(key.encode()).hexdigest(),
                "data_class": "internal",
                "modes": ["executor", "embed"],
                "limits": {"requests_per_minute": 5, "parallel": 2},
            }
        },
    }
    assert abs(time.time() - time.mktime(time.strptime(created + "UTC", "%Y-%m-%dT%H:%M:%SZ%Z")) + time.timezone) < 60
    assert mode(keys_file(clone)) == 0o600 and mode(keys_file(clone).parent) == 0o700
    for flags in ((), ("--json",)):
        shown = run(clone, "keys", *flags).stdout
        assert "alice" in shown and hashlib.sha256(key.encode()).hexdigest()[:8] in shown and key[7:] not in shown
    for path in (clone.path / ".io3ops").rglob("*"):
        assert not path.is_file() or key not in path.read_text(), path


def test_a_key_without_options_says_nothing_of_what_it_may(clone: Clone) -> None:
    made = json.loads(run(clone, "keys", "--json", "add", "bob").stdout)
    assert made["command"] == "keys add" and made["ok"] and made["data"]["key"].startswith("sk-io3-")
    assert set(json.loads(keys_file(clone).read_text())["keys"]["bob"]) == {"sha256", "created"}
    assert made["data"]["modes"] == [] and made["data"]["limits"] == {} and made["data"]["data_class"] == ""


def test_revoking_keeps_the_name_taken_and_twice_is_fine(clone: Clone) -> None:
    run(clone, "keys", "add", "alice")
    run(clone, "keys", "add", "bob")
    assert run(clone, "keys", "revoke", "alice").returncode == 0
    first = json.loads(keys_file(clone).read_text())
    assert first["keys"]["alice"]["revoked"] and "revoked" not in first["keys"]["bob"]
    again = run(clone, "keys", "revoke", "alice")
    assert again.returncode == 0 and "already" in again.stdout
    assert json.loads(keys_file(clone).read_text()) == first
    assert run(clone, "keys", "add", "alice").returncode == 18
    assert json.loads(keys_file(clone).read_text()) == first
    assert mode(keys_file(clone)) == 0o600


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("add", "owner"), 18, "the name of the owner's key"),
        (("add", "Alice"), 18, "is not a valid name"),
        (("add", "bob", "--mode", "executer"), 18, "did you mean 'executor'"),
        (("add", "bob", "--parallel", "0"), 2, "parallel"),
        (("add", "bob", "--data-class", "secret"), 2, "data-class"),
        (("revoke", "alicia"), 18, "did you mean 'alice'"),
        (("revoke", "owner"), 18, "--rotate"),
        (("bob",), 2, "bob"),
    ],
)
def test_mistakes_are_named_and_change_nothing(clone: Clone, args: tuple[str, ...], code: int, words: str) -> None:
    run(clone, "keys", "add", "alice")
    before = keys_file(clone).read_bytes()
    done = run(clone, "keys", *args)
    assert done.returncode == code and words in done.stderr and "Traceback" not in done.stderr
    assert keys_file(clone).read_bytes() == before


def test_a_pasted_key_is_not_repeated(clone: Clone) -> None:
    key = run(clone, "keys", "add", "alice").stdout.strip()
    for verb in ("add", "revoke"):
        done = run(clone, "keys", verb, key)
        assert done.returncode == 18 and key[7:] not in done.stdout + done.stderr


@pytest.mark.parametrize("content", [b"", b"{", b'{"version": 2, "keys": {}}'])
def test_a_broken_file_is_an_error_that_loses_nothing(clone: Clone, content: bytes) -> None:
    keys_file(clone).parent.mkdir(parents=True)
    keys_file(clone).write_bytes(content)
    for args in ((), ("add", "bob"), ("revoke", "bob")):
        done = run(clone, "keys", *args)
        assert done.returncode == 17 and "E17" in done.stderr and "sk-io3" not in done.stdout
        assert keys_file(clone).read_bytes() == content
    keys_file(clone).unlink()
    keys_file(clone).mkdir()
    assert run(clone, "keys").returncode == 17


def test_keys_made_at_the_same_time_are_all_kept_or_refused(clone: Clone) -> None:
    started = [clone.start("keys", "add", f"k{i}", **AWAY) for i in range(6)]
    codes = {f"k{i}": (p.communicate()[0], p.returncode) for i, p in enumerate(started)}
    kept = json.loads(keys_file(clone).read_text())["keys"]
    assert {code for _, code in codes.values()} <= {0, 14}
    assert {name for name, (_, code) in codes.items() if code == 0} == set(kept)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hand a file to another user")
def test_the_files_belong_to_the_user_that_the_gateway_runs_as(clone: Clone) -> None:
    """Without an engine as the master key's file does; afterwards as they did."""
    clone.io3ops("key", "--rotate")
    os.chown(clone.path / ".io3ops/secrets/master_key", 12345, 12346)
    run(clone, "keys", "add", "alice")
    piped(clone, b"sk-1\n", "secrets", "set", "openai")
    secrets = clone.path / ".io3ops/secrets/providers"
    for path in (keys_file(clone), keys_file(clone).parent, secrets, secrets / "openai"):
        assert (path.stat().st_uid, path.stat().st_gid) == (12345, 12346), path
    os.chown(clone.path / ".io3ops/secrets/master_key", 0, 0)
    run(clone, "keys", "revoke", "alice")
    assert keys_file(clone).stat().st_uid == 12345


def test_an_open_folder_is_closed(clone: Clone) -> None:
    keys_file(clone).parent.mkdir(parents=True)
    keys_file(clone).parent.chmod(0o755)
    run(clone, "keys", "add", "alice")
    assert mode(keys_file(clone).parent) == 0o700


def test_a_file_with_an_owner_is_never_there_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that polls must not meet a file that it may not open, nor keep one that it cannot."""
    handed: list[str] = []
    monkeypatch.setattr(os, "chown", lambda path, *_: handed.append(path.name))
    for _ in range(2):
        files.write_atomic(tmp_path / "f", b"x", 0o600, (12345, 12345))
    assert handed[0] != "f" and handed[1] == "f" and len(handed) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["f"]

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    with pytest.raises(KeyFileUnsafe):
        files.write_atomic(tmp_path / "f", b"y", 0o600, (12345, 12345))
    assert (tmp_path / "f").read_bytes() == b"x" and [p.name for p in tmp_path.iterdir()] == ["f"]


# -- secrets


def test_a_secret_is_stored_privately_and_never_shown(clone: Clone) -> None:
    cloud(clone, enabled=False)
    assert clone.json("secrets")["data"]["secrets"][0]["state"] == "missing"
    done = piped(clone, b"sk-very-private-1\r\n", "secrets", "set", "openai")
    path = clone.path / ".io3ops/secrets/providers/openai"
    assert done.returncode == 0 and path.read_bytes() == b"sk-very-private-1"
    assert [mode(p) for p in (path, path.parent, path.parent.parent)] == [0o600, 0o700, 0o700]
    assert b"which the table does not enable" in done.stderr and b"private-1" not in done.stdout + done.stderr
    found = clone.json("secrets")
    assert found["data"]["secrets"] == [
        {
            "name": "openai",
            "state": "present",
            "why": "",
            "used_by": [{"provider": "cloud", "enabled": False, "kind": "openai"}],
        }
    ]
    assert "private-1" not in json.dumps(found) + run(clone, "secrets").stdout


def test_an_enabled_provider_needs_up_after_a_change(clone: Clone) -> None:
    """Also while the table has problems of its own: keys are set while it is being written."""
    cloud(clone, enabled=True)
    clone.edit_table("modes:", "modez:")
    done = piped(clone, b"sk-1\n", "secrets", "set", "openai", "--json")
    assert "io3ops up" in json.loads(done.stdout)["data"]["notes"][0] and b"io3ops up" in done.stderr
    gone = run(clone, "secrets", "remove", "openai")
    assert gone.returncode == 0 and "cloud will stop" in gone.stderr
    assert not (clone.path / ".io3ops/secrets/providers/openai").exists()
    assert run(clone, "secrets", "remove", "openai").returncode == 18


@pytest.mark.parametrize("value", [b"", b"\n", b"two words\n", b"two\nlines\n", b"\xc3\xa4\n", b"x" * 100_000])
def test_what_is_no_key_replaces_none(clone: Clone, value: bytes) -> None:
    piped(clone, b"sk-1\n", "secrets", "set", "openai")
    done = piped(clone, value, "secrets", "set", "openai")
    assert done.returncode == 19 and b"E19" in done.stderr
    assert (clone.path / ".io3ops/secrets/providers/openai").read_bytes() == b"sk-1"


def test_a_value_is_never_an_argument(clone: Clone) -> None:
    assert piped(clone, b"", "secrets", "set", "openai", "sk-1").returncode == 2
    done = piped(clone, b"sk-1\n", "secrets", "set", "sk-proj-abcdefgh")
    assert done.returncode == 18 and b"abcdefgh" not in done.stderr
    assert not (clone.path / ".io3ops/secrets/providers").exists()
    assert piped(clone, b"sk-1\n", "secrets", "set", "../master_key").returncode == 18
    assert piped(clone, b"", "secrets", "set", "../master_key").returncode == 18, "before a value is asked for"


def test_a_terminal_is_asked_without_an_echo(clone: Clone) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(clone.path)
        os.execvpe(sys.executable, [sys.executable, "-m", "io3ops", "secrets", "set", "openai"], clone.env | AWAY)
    shown = b""
    while b"API key openai" not in shown:
        shown += os.read(terminal, 1000)
    # The prompt is written before the echo is off; a person is never that fast.
    time.sleep(0.5)
    os.write(terminal, b"sk-typed-in\n")
    try:
        while chunk := os.read(terminal, 1000):
            shown += chunk
    except OSError:
        pass
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, shown
    os.close(terminal)
    assert b"typed" not in shown
    assert (clone.path / ".io3ops/secrets/providers/openai").read_bytes() == b"sk-typed-in"


def test_stored_files_that_cannot_be_used_are_listed_as_such(clone: Clone) -> None:
    folder = clone.path / ".io3ops/secrets/providers"
    folder.mkdir(parents=True)
    for name, content in (("open", b"sk-1"), ("empty", b""), ("Odd name\x1b", b"sk-1"), ("good", b"sk-1\n")):
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o644 if name == "open" else 0o600)
    (folder / "link").symlink_to(folder / "good")
    (folder / "sk-proj-abcdefgh").write_bytes(b"")
    assert "abcdefgh" not in run(clone, "secrets").stdout
    found = {k["name"]: (k["state"], k["why"]) for k in clone.json("secrets")["data"]["secrets"]}
    assert found["open"][0] == "unsafe" and "0644" in found["open"][1]
    assert found["empty"] == ("unusable", "it is empty") and found["link"] == ("unusable", "not a regular file")
    assert found["Odd name?"][0] == "unusable" and found["good"] == ("present", "")
    assert "\x1b" not in run(clone, "secrets").stdout


# -- audit


def entries(count: int, reason: str = "why") -> bytes:
    lines, prev = b"", digests.NO_ENTRY
    for seq in range(1, count + 1):
        made: dict[str, Any] = {
            "v": 1, "seq": seq, "time": "2026-11-24T10:00:00.123Z", "key": "alice", "mode": "synthesizer",
            "class": "internal", "source": "default", "reason": f"{reason} {seq}", "provider": "openai",
            "deployment": "synthesizer.2.big", "prev": prev,
        }  # fmt: skip
        prev = digests.of_audit_entry(made)
        lines += json.dumps(made | {"hash": prev}).encode() + b"\n"
    return lines


def write_log(clone: Clone, data: bytes) -> Path:
    path = clone.path / ".io3ops/audit/audit.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_without_a_log_no_override_was_used(clone: Clone) -> None:
    done = run(clone, "audit")
    assert done.returncode == 0 and "no override was ever used" in done.stdout
    assert not (clone.path / ".io3ops/audit-head.json").exists()


def test_a_whole_log_is_shown_and_remembered(clone: Clone) -> None:
    write_log(clone, entries(3))
    done = run(clone, "audit")
    assert done.returncode == 0 and "why 1" in done.stdout and "3 entries, chain intact" in done.stdout
    head = clone.path / ".io3ops/audit-head.json"
    assert json.loads(head.read_text())["seq"] == 3 and mode(head) == 0o600
    write_log(clone, entries(5) + b'{"v":1,')
    found = clone.json("audit", "--last", "1")
    assert found["ok"] and found["data"]["torn"] and found["data"]["count"] == 5
    assert [e["seq"] for e in found["data"]["entries"]] == [5] and found["data"]["problem"] is None
    assert json.loads(head.read_text()) == {"seq": 5, "hash": found["data"]["last_hash"]}


@pytest.mark.parametrize("later", [entries(2), b"", entries(4, "nothing"), None])
def test_a_log_that_lost_what_was_verified_is_broken_every_time(clone: Clone, later: bytes | None) -> None:
    path = write_log(clone, entries(3))
    run(clone, "audit")
    if later is None:
        path.unlink()
    else:
        path.write_bytes(later)
    for _ in range(2):
        done = run(clone, "audit")
        assert done.returncode == 1 and "chain broken" in done.stdout, "it is not got used to"


def test_a_changed_line_is_named_and_not_remembered(clone: Clone) -> None:
    write_log(clone, entries(3).replace(b"why 2", b"why 9"))
    found = clone.io3ops("audit", "--json")
    data = json.loads(found.stdout)
    assert found.returncode == 1 and not data["ok"] and data["data"]["problem"]["line"] == 2
    assert not (clone.path / ".io3ops/audit-head.json").exists()


def test_a_head_or_log_that_cannot_be_read_is_a_failed_check(clone: Clone) -> None:
    path = write_log(clone, entries(3))
    (clone.path / ".io3ops/audit-head.json").write_text("{}")
    done = run(clone, "audit")
    assert done.returncode == 1 and "audit-head.json" in done.stderr
    assert (clone.path / ".io3ops/audit-head.json").read_text() == "{}"
    (clone.path / ".io3ops/audit-head.json").unlink()
    path.unlink()
    path.mkdir()
    assert run(clone, "audit").returncode == 1
