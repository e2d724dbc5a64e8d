"""`io3ops down`: stops the stack and keeps its data. `down --purge` (`make reset`) removes models, keys and state too."""

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
    """Services that were stopped, and volumes and folders that were removed."""

    stopped: tuple[str, ...]
    removed: tuple[str, ...]


def down(tools: Tools, console: Console, *, purge: bool = False) -> DownResult:
    """Stop the stack. Raises an engine error when the engine does not answer; ForeignStack for another clone's project."""
    settings = tools.settings
    engine.require(tools, "without the engine the stack does not run; `make up` starts both")
    containers = tools.engine.containers(settings.project)
    project.check_owner(settings, containers)
    volumes = tools.engine.volumes(settings.project) if purge else ()
    if containers or volumes:
        with console.step(
            "stop", f"{', '.join(sorted(containers)) or 'no container'} of project {settings.project}"
        ) as step:
            tools.compose.down(compose_variables(tools), volumes=purge)
            tools.engine.remove_networks(settings.project)
            step.outcome = (
                "removed containers, networks and models"
                if purge
                else "removed containers and networks; models, key and configuration are kept"
            )
    else:
        console.skip("stop", "the stack does not run")
    removed = list(volumes)
    if purge and settings.state.exists():
        with console.step("purge", "keys, certificates and io3ops' part of .env") as step:
            for path in (
                settings.state / "secrets",
                settings.state / "ca",
                settings.keys_file.parent,
                settings.mounted_keys,
                settings.egress_folder,
                settings.observer_folder,
                settings.outlet_folder,
            ):
                shutil.rmtree(path, ignore_errors=True)
                removed.append(str(path.relative_to(settings.root)))
            files.remove_env_block(settings.env_file)
            step.outcome = "removed"
    return DownResult(stopped=tuple(sorted(containers)), removed=tuple(removed))
