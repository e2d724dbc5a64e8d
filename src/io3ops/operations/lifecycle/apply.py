"""`io3ops apply`: the running gateway switches to the table without a pause, or keeps the previous one."""

from __future__ import annotations

from dataclasses import dataclass

from io3ops.adapters import files
from io3ops.adapters.gateway_http import GatewayHttp
from io3ops.console import Console
from io3ops.errors import ApplyFailed, ContainerDied, Io3opsError
from io3ops.operations.lifecycle.up import Run, StepName, applied_copy, remember, start, step_named, walk
from io3ops.operations.stack import mounted_files, observe, project, reload, waiting
from io3ops.tools import Tools
from io3ops_shared import digests

# The old table serves while models are fetched and loaded; then the gateway switches.
ORDER: tuple[StepName, ...] = (
    StepName.IMAGES,
    StepName.MODELS,
    StepName.PRELOAD,
    StepName.CONFIG,
    StepName.STACK,
    StepName.RUNTIME,
    StepName.GATEWAY,
    StepName.SMOKE,
)

# The steps that change the configuration which the gateway serves.
SWITCHING: frozenset[StepName] = frozenset({StepName.CONFIG, StepName.STACK, StepName.GATEWAY})


@dataclass(frozen=True, kw_only=True)
class Applied:
    """Whether the gateway changed, and the steps that acted."""

    changed: bool
    acted: tuple[StepName, ...]


def apply(tools: Tools, console: Console) -> Applied:
    """Render the table, let the running gateway test it and switch to it, and check the modes with one call each.

    No request is dropped, and no client sees a configuration that fails its checks. The container is replaced only for a change
    that it cannot take while it runs: another image, key or network.

    Raises TableInvalid before any change; ContainerDied when the stack does not run; ApplyFailed when the previous configuration
    keeps serving or was restored.
    """
    run = start(tools, console)
    project.check_owner(tools.settings, run.containers)
    if not run.ready_engine or not run.running("gateway"):
        raise ContainerDied(
            "the stack does not run, so no gateway can take the table",
            hint="`make up` starts it with this table",
        )
    observe.check_port(tools.settings, run.config.plan, run.containers.get("observer"))
    previous = files.read_bytes(applied_copy(tools.settings)) or files.read_bytes(tools.settings.litellm)
    variables, _ = files.read_env(tools.settings.env_file)
    services = tuple(name for name, container in run.containers.items() if container.running)
    mounted = mounted_files.on_disk(tools.settings)
    try:
        walk(run, console, tuple(step_named(name) for name in ORDER))
    except (Io3opsError, KeyboardInterrupt) as error:
        if not SWITCHING & set(run.acted):
            raise
        _restore(run, console, previous, variables, services, mounted)
        if isinstance(error, KeyboardInterrupt):
            raise
        raise ApplyFailed(
            "the new table failed its checks, so the previous one serves again",
            details=f"{error.code} [{error.layer}] {error.message}\n{error.details}".strip(),
            hint="runtime/routing.yaml is unchanged: correct it and run `io3ops apply` again, or undo your change",
        ) from None
    remember(run)
    return Applied(changed=bool(SWITCHING & set(run.acted)), acted=tuple(run.acted))


def _restore(
    run: Run,
    console: Console,
    previous: bytes | None,
    variables: dict[str, str],
    services: tuple[str, ...],
    mounted: mounted_files.MountedFiles,
) -> None:
    tools = run.tools
    with console.step("restore", "the new table failed its checks") as step:
        if previous is not None:
            files.write_atomic(tools.settings.litellm, previous)
        mounted_files.write(tools.settings, mounted, run.owner)
        # Keep the addresses of a replaced network: they depend on this machine, not on the table.
        variables = variables | {k: v for k, v in run.variables.items() if k.endswith(("_SUBNET", "_NOWHERE"))}
        files.write_env(tools.settings.env_file, variables)
        tools.compose.up(services, variables)
        run.look()
        client = GatewayHttp(tools.settings.base_url, run.key)
        try:
            gateway = waiting.Waiting(service="gateway", what="the gateway", ready=lambda _: client.ready())
            container = run.containers.get("gateway")
            waiting.wait(tools, gateway, container.restarts if container else 0, step.activity("gateway"))
            text = (previous or b"").decode()
            if container and text and client.serves()[1] != digests.of_config(text):
                reload.hand_over(tools, container.id, text)
        finally:
            client.close()
        step.outcome = "the previous table serves"
