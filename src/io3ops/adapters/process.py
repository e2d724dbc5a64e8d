"""The only module that starts processes. Argument lists, never shell strings."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

# A program that runs in the background.
Background = subprocess.Popen[bytes]


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A process that has ended. `code`: negative when a signal killed it, 127 when there is no such program."""

    argv: tuple[str, ...]
    code: int
    output: str
    errors: str = ""

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.code == 0

    def tail(self, lines: int = 15) -> str:
        """Return the last lines that the process wrote, stderr after stdout."""
        text = f"{self.output.rstrip()}\n{self.errors.rstrip()}".strip()
        return "\n".join(text.splitlines()[-lines:])


class Processes:
    """Starts programs in one folder with one environment."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self._environment = dict(environment)
        self._folder = folder

    def which(self, program: str) -> str | None:
        """Return the path of a program, None when it is not installed."""
        return shutil.which(program, path=self._environment.get("PATH"))

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
    ) -> Finished:
        """Run to the end. Never raises: a timeout (seconds) gives code 124, as timeout(1) does."""
        try:
            done = subprocess.run(
                list(argv),
                cwd=self._folder,
                env=self._merged(env),
                input=stdin,
                capture_output=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            return Finished(
                argv=tuple(argv), code=124, output=_text(error.stdout), errors=f"timed out after {timeout} s"
            )
        except OSError as error:
            return Finished(argv=tuple(argv), code=127, output="", errors=str(error))
        return Finished(argv=tuple(argv), code=done.returncode, output=_text(done.stdout), errors=_text(done.stderr))

    def stream(
        self,
        argv: Sequence[str],
        on_line: Callable[[str], None],
        *,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
    ) -> Finished:
        """Run to the end, and pass each line of stdout and stderr to `on_line`. Ctrl-C ends the process too.

        `stdin` stays open while this process lives, so its end tells the program that nobody waits for it any more.
        """
        lines: list[str] = []
        try:
            process = subprocess.Popen(
                list(argv),
                cwd=self._folder,
                env=self._merged(env),
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        except OSError as error:
            return Finished(argv=tuple(argv), code=127, output="", errors=str(error))
        assert process.stdout is not None
        with process.stdout, process.stdin or contextlib.nullcontext():
            try:
                if process.stdin:
                    _feed(process.stdin, stdin)
                for raw in process.stdout:
                    line = _text(raw).rstrip()
                    lines.append(line)
                    on_line(line)
                code = process.wait()
            except BaseException:
                _end(process)
                raise
        return Finished(argv=tuple(argv), code=code, output="\n".join(lines[-400:]))

    def attach(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> int:
        """Run a program that uses this terminal, such as an editor; return its exit code."""
        process = subprocess.Popen(list(argv), cwd=self._folder, env=self._merged(env))
        try:
            return process.wait()
        except KeyboardInterrupt:
            _end(process)
            return 0

    def pipe(self, argv: Sequence[str], stdin: int, stdout: int) -> subprocess.Popen[bytes]:
        """Start a program with the given file descriptors as its stdin and stdout."""
        return subprocess.Popen(
            list(argv),
            cwd=self._folder,
            env=self._environment,
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def start(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a program in the background without its stdout; the caller ends it and may read its stderr."""
        return subprocess.Popen(
            list(argv),
            cwd=self._folder,
            env=self._merged(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def reader(self, argv: Sequence[str]) -> Background:
        """Start a program in the background; the caller reads its stdout and ends it."""
        return subprocess.Popen(
            list(argv),
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def daemon(self, argv: Sequence[str], log: IO[bytes]) -> int:
        """Start a program that outlives this one; return its process id."""
        process = subprocess.Popen(
            list(argv),
            cwd="/",
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        return process.pid

    def _merged(self, env: Mapping[str, str] | None) -> dict[str, str]:
        return self._environment | dict(env or {})


def _feed(pipe: IO[bytes], data: bytes) -> None:
    # Write to the descriptor, not to the buffered file: closing that would write again to a program that has ended.
    with contextlib.suppress(BrokenPipeError):
        while data:
            data = data[os.write(pipe.fileno(), data) :]


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _text(data: bytes | None) -> str:
    return (data or b"").decode("utf-8", "replace")
