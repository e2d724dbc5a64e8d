"""`io3ops apply`: the table to the running gateway, which takes it over without a pause, or serves on as before."""

from __future__ import annotations

from dataclasses import dataclass

from io3ops.adapters import files
from io3ops.adapters.gateway_http import GatewayHttp
from io3ops.console import Console
from io3ops.errors import ApplyFailed, ContainerDied, Io3opsError
from io3ops.operations.lifecycle.up import Run, applied_copy, remember, start, step_named, walk
from io3ops.operations.stack import observe, project, reload
from io3ops.tools import Tools
from io3ops_shared import digests

# Models are fetched and loaded while the old table still serves; only then does the gateway change.
ORDER = ("images", "models", "preload", "config", "stack", "runtime", "gateway", "smoke")


@dataclass(frozen=True, kw_only=True)
class Applied:
    """`acted`: the steps that had something to do."""

    changed: bool
    acted: tuple[str, ...]


def apply(tools: Tools, console: Console) -> Applied:
    """Render, have the running gateway try the new config and take it over, gate on modes and one call per mode.

    Nothing is dropped, and a config that does not pass is never seen by a client. Only what a container cannot learn
    while it runs (another image, key or network) replaces it.

    Raises TableInvalid before anything is touched, ContainerDied when no stack runs, ApplyFailed when the previous
    config serves on or was put back.
    """
    run = start(tools, console)
    project.check_owner(tools.settings, run.containers)
    if not run.ready_engine or not run.running("gateway"):
        raise ContainerDied(
            "the stack does not run, so there is nothing to apply to",
            hint="`make up` starts it with the table as it is",
        )
    observe.check_port(tools.settings, run.config.plan, run.containers.get("observer"))
    previous = files.read_bytes(applied_copy(tools.settings)) or files.read_bytes(tools.settings.litellm)
    variables, _ = files.read_env(tools.settings.env_file)
    services = tuple(name for name, found in run.containers.items() if found.running)
    handed = project.in_hand(tools.settings)
    try:
        walk(run, console, tuple(step_named(name) for name in ORDER))
    except (Io3opsError, KeyboardInterrupt) as error:
        if not {"config", "stack", "gateway"} & set(run.acted):
            raise
        _put_back(run, console, previous, variables, services, handed)
        if isinstance(error, KeyboardInterrupt):
            raise
        raise ApplyFailed(
            "the new table did not pass, and the previous one serves again",
            details=f"{error.code} [{error.layer}] {error.message}\n{error.details}".strip(),
            hint="runtime/routing.yaml is as you left it: correct it and apply again, or take your change back",
        ) from None
    remember(run)
    return Applied(changed=bool({"config", "stack", "gateway"} & set(run.acted)), acted=tuple(run.acted))


def _put_back(
    run: Run,
    console: Console,
    previous: bytes | None,
    variables: dict[str, str],
    services: tuple[str, ...],
    handed: project.Handed,
) -> None:
    tools = run.tools
    with console.step("restore", "the new table did not pass: the previous one comes back") as step:
        if previous is not None:
            files.write_atomic(tools.settings.litellm, previous)
        project.hand_out(tools.settings, handed, run.owner)
        # Its addresses are the machine's matter, not the table's: a network that was replaced stays.
        variables = variables | {k: v for k, v in run.variables.items() if k.endswith(("_SUBNET", "_NOWHERE"))}
        files.write_env(tools.settings.env_file, variables)
        tools.compose.up(services, variables)
        run.look()
        client = GatewayHttp(tools.settings.base_url, run.key)
        try:
            waiting = project.Waiting(service="gateway", what="the gateway", ready=lambda _: client.ready())
            found = run.containers.get("gateway")
            project.wait(tools, waiting, found.restarts if found else 0, step.activity("gateway"))
            text = (previous or b"").decode()
            if found and text and client.serves()[1] != digests.of_config(text):
                reload.hand_over(tools, found.id, text)
        finally:
            client.close()
        step.outcome = "the previous table serves"
