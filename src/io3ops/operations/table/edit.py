"""`io3ops routes edit`: open the editor, then show every problem or the difference, then render."""

from __future__ import annotations

import difflib
import shlex

from io3ops.adapters import files
from io3ops.console import Console
from io3ops.errors import SettingInvalid, TableInvalid
from io3ops.operations.table import config
from io3ops.tools import Tools


def edit(tools: Tools, console: Console) -> int:
    """Edit a copy of the table, replace the table with it when it has no problem, and return the exit code.

    Raises SettingInvalid without an editor; TableInvalid with every problem, and keeps the copy for the next call.
    """
    settings = tools.settings
    copy = settings.state / "routing.edited.yaml"
    before = files.read_bytes(settings.table) or b""
    if not copy.exists():
        files.write_atomic(copy, before)
    else:
        console.note(f"continuing with {copy.relative_to(settings.root)} from an earlier edit")
    environment = settings.environment
    editor = (
        environment.get("VISUAL")
        or environment.get("EDITOR")
        or next((name for name in ("sensible-editor", "nano", "vi") if tools.processes.which(name)), "")
    )
    if not editor:
        raise SettingInvalid(
            "no editor found", hint="set EDITOR, or edit runtime/routing.yaml and run `io3ops render-config`"
        )
    try:
        code = tools.processes.attach([*shlex.split(editor), str(copy)])
    except (OSError, ValueError) as error:
        copy.unlink()
        hint = "set EDITOR to a program that exists"
        raise SettingInvalid(f"the editor {editor!r} cannot be started: {error}", hint=hint) from None
    if code:
        hint = "the table is unchanged; your text is kept and `io3ops routes edit` opens it again"
        raise SettingInvalid(f"the editor {editor!r} failed (exit code {code})", hint=hint)
    after = files.read_bytes(copy) or b""
    if after == before:
        copy.unlink()
        console.note("nothing was changed")
        return 0
    try:
        edited = config.from_bytes(settings, after)
    except TableInvalid as error:
        raise TableInvalid(
            error.message, details=error.details, hint="your text is kept: `io3ops routes edit` opens it again"
        ) from None
    for warning in edited.warnings:
        console.note(f"warning: {warning}")
    lines = difflib.unified_diff(
        before.decode("utf-8", "replace").splitlines(keepends=True),
        after.decode("utf-8", "replace").splitlines(keepends=True),
        "routing.yaml",
        "routing.yaml (edited)",
    )
    console.note("".join(lines).rstrip("\n"))
    files.write_atomic(settings.table, after)
    copy.unlink()
    written = config.write(settings, edited)
    console.note(
        f"wrote runtime/routing.yaml{''.join(f', {name}' for name in written)}; `io3ops apply` switches the running gateway to it"
    )
    return 0
