"""`io3ops down`: stop everything, lose nothing; with `purge`, remove the models and the state too."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from io3ops.adapters import files
from io3ops.console import Console
from io3ops.operations.stack import engine, project
from io3ops.operations.stack.project import compose_variables
from io3ops.tools import Tools


@dataclass(frozen=True, kw_only=True)
class DownResult:
    stopped: tuple[str, ...]
    removed: tuple[str, ...]


def down(tools: Tools, console: Console, *, purge: bool = False) -> DownResult:
    """Raises EngineNotRunning when there is no engine to ask, ForeignStack for another clone's project."""
    settings = tools.settings
    engine.require(tools, "without it nothing of the stack runs; `make up` starts it")
    found = tools.engine.containers(settings.project)
    project.check_owner(settings, found)
    volumes = tools.engine.volumes(settings.project) if purge else ()
    if found or volumes:
        with console.step(
            "stop", f"{', '.join(sorted(found)) or 'no container'} of project {settings.project}"
        ) as step:
            tools.compose.down(compose_variables(tools), volumes=purge)
            tools.engine.remove_networks(settings.project)
            step.outcome = (
                "removed containers, networks and models"
                if purge
                else "containers removed; models, key and config are kept"
            )
    else:
        console.skip("stop", "nothing runs")
    removed = list(volumes)
    if purge and settings.state.exists():
        with console.step("purge", "key, certificates and our part of .env") as step:
            for path in (
                settings.state / "secrets",
                settings.state / "ca",
                settings.keys_file.parent,
                settings.handed_keys,
                settings.egress_folder,
                settings.observer_folder,
                settings.outlet_folder,
            ):
                shutil.rmtree(path, ignore_errors=True)
                removed.append(str(path.relative_to(settings.root)))
            files.remove_env_block(settings.env_file)
            step.outcome = "removed"
    return DownResult(stopped=tuple(sorted(found)), removed=tuple(removed))
