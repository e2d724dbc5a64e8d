"""The clone's files: atomic writes, the run lock, the key, .env, the download cache."""

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
# The name of a file that `mounts` puts into a folder for a moment begins so; no other reader counts it.
MARK = ".io3ops-mount-"
END = "# --- end; your own settings go below, e.g. IO3OPS_PORT=4100 ---"


def read_bytes(path: Path, refused: type[Io3opsError] = TableInvalid) -> bytes | None:
    """The file's content, or None when there is no such file. Raises `refused` for one that cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise refused(f"{path} cannot be read: {error.strerror}", hint="correct its permissions") from None


def write_atomic(path: Path, data: bytes, mode: int = 0o644, owner: tuple[int, int] | None = None) -> bool:
    """Write beside, then rename; False when the content was there already.

    `owner` (uid, gid): handed over before the rename, so that a reader never meets a file that it may not open.
    Raises NotWritable, or KeyFileUnsafe for the owner; the old file is whole in every case.
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
    if error.errno == errno.ENOSPC:
        return NotWritable(
            f"{path} cannot be written: the disk is full", hint="free some space, then run the same command again"
        )
    return NotWritable(
        f"{path} cannot be written: {error.strerror}",
        hint="io3ops keeps its state in the clone: make the folder writable, or clone to a place that is",
    )


@contextlib.contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Hold the clone's run lock. Raises AlreadyRunning naming the other process.

    The kernel drops the lock with its holder, so a killed run never blocks the next.
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
                hint="wait until it ends, then run the same command again",
            ) from None
        file.seek(0)
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def read_key(path: Path) -> str | None:
    """The master key, or None when there is none yet. Raises KeyFileUnsafe for one that cannot be trusted."""
    try:
        status = path.stat()
        if status.st_mode & 0o077:
            raise KeyFileUnsafe(
                f"{path} can be read by other users (mode {status.st_mode & 0o777:04o})",
                hint="make a new key, others may know this one: io3ops key --rotate",
            )
        key = path.read_text("ascii", "replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KeyFileUnsafe(
            f"{path} cannot be read: {error.strerror}", hint="correct its owner and mode (0600)"
        ) from None
    if len(key) < 20 or not key.isascii() or any(c.isspace() for c in key):
        raise KeyFileUnsafe(f"{path} does not hold a usable key", hint="make a new one: io3ops key --rotate")
    return key


def new_key(path: Path, owner: tuple[int, int] | None) -> str:
    """Write a fresh random key with mode 0600; `owner` (uid, gid) when it must not be this user's."""
    key = f"sk-io3-{secrets.token_urlsafe(32)}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise not_writable(path, error) from None
    write_atomic(path, f"{key}\n".encode(), 0o600)
    own(path, owner)
    return key


def private_folder(folder: Path, owner: tuple[int, int] | None) -> None:
    """Make a folder 0700, of the user that the gateway's container runs as. Raises NotWritable or KeyFileUnsafe."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if folder.stat().st_mode & 0o777 != 0o700:
            folder.chmod(0o700)
    except OSError as error:
        raise not_writable(folder, error) from None
    own(folder, owner)


def owner(path: Path) -> tuple[int, int] | None:
    """Who a file belongs to, None when there is no such file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_uid, status.st_gid


def own(path: Path, owner: tuple[int, int] | None, *, follow: bool = True) -> None:
    """Hand a file to the user that the gateway's container runs as. `follow`: a link's target, else the link itself."""
    status = path.stat() if follow else path.lstat()
    if owner and (status.st_uid, status.st_gid) != owner:
        try:
            (os.chown if follow else os.lchown)(path, *owner)
        except OSError as error:
            raise KeyFileUnsafe(
                f"{path} belongs to user {status.st_uid}, the gateway runs as {owner[0]}: {error.strerror}",
                hint=f"sudo chown {owner[0]} '{path}'",
            ) from None


def read_env(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """(what io3ops wrote, what the user wrote) in `.env`. Raises EnvFileInvalid with the line."""
    data = read_bytes(path)
    if data is None:
        return {}, {}
    ours, theirs = _split(path, data)
    return _parse(path, ours), _parse(path, theirs)


def write_env(path: Path, values: Mapping[str, str]) -> bool:
    """Rewrite our part of `.env`, keep every other line as it is; True when anything changed."""
    _, theirs = _split(path, read_bytes(path) or b"")
    block = [BEGIN, *(f"{name}='{value}'" if value else f"{name}=" for name, value in values.items()), END]
    rest = theirs.strip("\n")
    return write_atomic(path, ("\n".join(block) + "\n" + (rest + "\n" if rest else "")).encode(), 0o600)


def _split(path: Path, data: bytes) -> tuple[str, str]:
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise EnvFileInvalid(f"{path} is not text", hint="move it away; io3ops writes a new one") from None
    # What bears one of our names is ours, also when one of the two marks was deleted.
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
    """Take our part out of `.env`; the user's lines stay, and a file that held only ours goes."""
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
    """The extra CA certificates of this machine, by file name; those that cannot be read are left out."""
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
    """Make `folder` hold exactly the wanted files."""
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
    """As `sync_folder`, for what only the gateway's user may read."""
    private_folder(folder, owner)
    sync_folder(folder, wanted, 0o600, owner)


def read_folder(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by name; {} when there is none."""
    if not folder.is_dir():
        return {}
    names = sorted(path for path in folder.iterdir() if not path.name.startswith(MARK))
    return {path.name: read_bytes(path) or b"" for path in names}


def let_read(folder: Path, owner: tuple[int, int]) -> None:
    """Make a mounted folder readable for the container's user when that is not this one (root with a strict umask)."""
    try:
        for path in (folder, *(path for path in folder.iterdir() if not path.name.startswith(MARK))):
            status = path.stat()
            if status.st_uid != owner[0]:
                path.chmod(status.st_mode & 0o777 | (0o055 if path.is_dir() else 0o044))
    except OSError as error:
        raise not_writable(folder, error) from None
