"""The clone's files: atomic writes, the run lock, the master key, .env, folders that the gateway's user owns."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

from io3ops.errors import AlreadyRunning, EnvFileInvalid, Io3opsError, KeyFileUnsafe, NotWritable, TableInvalid

BEGIN = "# --- written by io3ops; changes between these lines are undone ---"
# Prefix of the file that `mounts` puts into a folder for a moment. Everything else ignores it.
MARK = ".io3ops-mount-"
END = "# --- end; your own settings go below, e.g. IO3OPS_PORT=4100 ---"


def read_bytes(path: Path, refused: type[Io3opsError] = TableInvalid) -> bytes | None:
    """Return a file's content, or None when there is no such file. Raises `refused` when it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise refused(f"{path} cannot be read: {error.strerror}", hint="correct its owner or permissions") from None


def write_atomic(path: Path, data: bytes, mode: int = 0o644, owner: tuple[int, int] | None = None) -> bool:
    """Replace a file by one rename; return False when it already has this content and mode.

    `owner` (uid, gid) is set before the rename, so that a reader never sees a file that it may not open. Raises NotWritable, or
    KeyFileUnsafe when the owner cannot be set; the old file stays complete then.
    """
    try:
        if path.exists() and path.read_bytes() == data and path.stat().st_mode & 0o777 == mode:
            own(path, owner)
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, mode)
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            own(beside, owner)
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise not_writable(path, error) from None
    return True


def not_writable(path: Path, error: OSError) -> NotWritable:
    """Return the error for a path that cannot be written."""
    if error.errno == errno.ENOSPC:
        return NotWritable(
            f"{path} cannot be written: the disk is full", hint="free some space, then run the same command again"
        )
    return NotWritable(
        f"{path} cannot be written: {error.strerror}",
        hint="io3ops keeps its state in the clone: make the folder writable, or clone to a folder that is",
    )


@contextlib.contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Hold a lock of the clone. Raises AlreadyRunning, which names the process that holds it.

    The kernel releases the lock when its holder ends, so a killed run never blocks the next one.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = open(lock, "a+")  # noqa: SIM115  (closed below, after the lock was released)
    except OSError as error:
        raise not_writable(lock, error) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise AlreadyRunning(
                f"another io3ops (process {holder}) is changing this stack",
                hint="wait until it has finished, then run the same command again",
            ) from None
        file.seek(0)
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def read_key(path: Path) -> str | None:
    """Return the master key, or None when there is none yet. Raises KeyFileUnsafe for a file that cannot be trusted."""
    try:
        status = path.stat()
        if status.st_mode & 0o077:
            raise KeyFileUnsafe(
                f"{path} can be read by other users (mode {status.st_mode & 0o777:04o})",
                hint="others may know this key; make a new one: io3ops key --rotate",
            )
        key = path.read_text("ascii", "replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KeyFileUnsafe(
            f"{path} cannot be read: {error.strerror}", hint="correct its owner and mode (0600)"
        ) from None
    if len(key) < 20 or not key.isascii() or any(c.isspace() for c in key):
        raise KeyFileUnsafe(f"{path} contains no usable key", hint="make a new one: io3ops key --rotate")
    return key


def new_key(path: Path, owner: tuple[int, int] | None) -> str:
    """Write a new random key with mode 0600 and return it; `owner` (uid, gid): None for this user."""
    key = f"sk-io3-{secrets.token_urlsafe(32)}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise not_writable(path, error) from None
    write_atomic(path, f"{key}\n".encode(), 0o600)
    own(path, owner)
    return key


def private_folder(folder: Path, owner: tuple[int, int] | None) -> None:
    """Make a folder with mode 0700 that belongs to `owner`, the gateway's user. Raises NotWritable or KeyFileUnsafe."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if folder.stat().st_mode & 0o777 != 0o700:
            folder.chmod(0o700)
    except OSError as error:
        raise not_writable(folder, error) from None
    own(folder, owner)


def owner(path: Path) -> tuple[int, int] | None:
    """Return (uid, gid) of a file, None when there is no such file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_uid, status.st_gid


def own(path: Path, owner: tuple[int, int] | None, *, follow: bool = True) -> None:
    """Give a file to `owner`, the gateway's user. `follow`: give a link's target, else the link itself. Raises KeyFileUnsafe."""
    status = path.stat() if follow else path.lstat()
    if owner and (status.st_uid, status.st_gid) != owner:
        try:
            (os.chown if follow else os.lchown)(path, *owner)
        except OSError as error:
            raise KeyFileUnsafe(
                f"{path} belongs to user {status.st_uid}, but the gateway runs as user {owner[0]}: {error.strerror}",
                hint=f"run: sudo chown {owner[0]} '{path}'",
            ) from None


def read_env(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return the variables of `.env`: (those that io3ops wrote, those that the user wrote). Raises EnvFileInvalid."""
    data = read_bytes(path)
    if data is None:
        return {}, {}
    ours, theirs = _split(path, data)
    return _parse(path, ours), _parse(path, theirs)


def write_env(path: Path, values: Mapping[str, str]) -> bool:
    """Rewrite our part of `.env` and keep every other line; return whether anything changed."""
    _, theirs = _split(path, read_bytes(path) or b"")
    block = [BEGIN, *(f"{name}='{value}'" if value else f"{name}=" for name, value in values.items()), END]
    rest = theirs.strip("\n")
    return write_atomic(path, ("\n".join(block) + "\n" + (rest + "\n" if rest else "")).encode(), 0o600)


def _split(path: Path, data: bytes) -> tuple[str, str]:
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise EnvFileInvalid(f"{path} is not UTF-8 text", hint="move it away; io3ops writes a new one") from None
    # Our variables are recognised by name when the user deleted one of the two marks.
    ours = re.compile(r"(COMPOSE_\w+|IO3OPS_(PORT|UID|GID|\w+_(IMAGE|MEMORY|DIGEST|FINGERPRINT|GID|SUBNET|NOWHERE)))=")
    if BEGIN in lines:
        start = lines.index(BEGIN)
    elif END in lines:
        start = next((i for i, line in enumerate(lines) if ours.match(line)), lines.index(END)) - 1
    else:
        return "", "\n".join(lines)
    end = next((i for i in range(start + 1, len(lines)) if not ours.match(lines[i])), len(lines))
    if END in lines[max(start, 0) :]:
        end = lines.index(END, max(start, 0))
        return "\n".join(lines[start + 1 : end]), "\n".join(lines[: max(start, 0)] + lines[end + 1 :])
    return "\n".join(lines[start + 1 : end]), "\n".join(lines[:start] + lines[end:])


def remove_env_block(path: Path) -> None:
    """Remove our part of `.env`; delete the file when the user has no lines in it."""
    data = read_bytes(path)
    if data is None:
        return
    _, theirs = _split(path, data)
    if theirs.strip():
        write_atomic(path, (theirs.strip("\n") + "\n").encode(), 0o600)
    else:
        path.unlink(missing_ok=True)


def _parse(path: Path, text: str) -> dict[str, str]:
    from dotenv.parser import parse_stream

    values = {}
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            line = binding.original.string.strip().splitlines()[0]
            raise EnvFileInvalid(
                f"{path} has a line that is not NAME=value: {line[:60]!r}", hint="correct or remove that line"
            )
        if binding.key:
            values[binding.key] = binding.value or ""
    return values


def ca_certificates(folder: Path) -> dict[str, bytes]:
    """Return this machine's extra CA certificates by file name, without those that cannot be read."""
    found = {}
    with contextlib.suppress(OSError):
        for path in sorted([*folder.glob("*.crt"), *folder.glob("*.pem")]):
            with contextlib.suppress(OSError):
                data = path.read_bytes()
                if b"-----BEGIN CERTIFICATE-----" in data:
                    found[path.name] = data
    return found


def sync_folder(
    folder: Path, wanted: Mapping[str, bytes], mode: int = 0o644, owner: tuple[int, int] | None = None
) -> None:
    """Write the wanted files into a folder and remove all others. Raises NotWritable or KeyFileUnsafe."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            if path.name not in wanted and not path.name.startswith(MARK):
                path.unlink()
    except OSError as error:
        raise not_writable(folder, error) from None
    for name, data in wanted.items():
        write_atomic(folder / name, data, mode, owner)


def sync_private(folder: Path, wanted: Mapping[str, bytes], owner: tuple[int, int] | None) -> None:
    """Like `sync_folder`, for files that only the gateway's user may read."""
    private_folder(folder, owner)
    sync_folder(folder, wanted, 0o600, owner)


def read_folder(folder: Path) -> dict[str, bytes]:
    """Return the content of every file of a folder by name; {} when there is no folder."""
    if not folder.is_dir():
        return {}
    names = sorted(path for path in folder.iterdir() if not path.name.startswith(MARK))
    return {path.name: read_bytes(path) or b"" for path in names}


def let_read(folder: Path, owner: tuple[int, int]) -> None:
    """Make a mounted folder readable for the container's user: root may have a umask that prevents it. Raises NotWritable."""
    try:
        for path in (folder, *(path for path in folder.iterdir() if not path.name.startswith(MARK))):
            status = path.stat()
            if status.st_uid != owner[0]:
                path.chmod(status.st_mode & 0o777 | (0o055 if path.is_dir() else 0o044))
    except OSError as error:
        raise not_writable(folder, error) from None
