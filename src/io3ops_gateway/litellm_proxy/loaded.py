"""LiteLLM's proxy in one worker, with the hooks of one configuration: its app, and whether it took over what the file says.

Touches LiteLLM's modules in this process, and what `hooks` touches.
"""

from typing import TYPE_CHECKING

from io3ops_gateway.asgi import App
from io3ops_gateway.errors import GatewayError, StartError, one_line
from io3ops_gateway.litellm_proxy import compat, trim
from io3ops_gateway.settings import Settings

if TYPE_CHECKING:
    from io3ops_gateway.litellm_proxy.hooks import PolicyHooks

HINT = "correct runtime/routing.yaml and run `io3ops render-config`"


class LoadedProxy:
    """LiteLLM's app and the hooks that it calls. `trimmed`: the parent trimmed LiteLLM before the fork."""

    def __init__(self, app: App, hooks: "PolicyHooks", *, trimmed: bool) -> None:
        self.app = app
        self.hooks = hooks
        self._trimmed = trimmed

    def finish_start(self) -> None:
        """Complete LiteLLM's start, once its own lifespan has started.

        Raises:
            StartError: LiteLLM does not call the hooks, or routes something else than the file says.
        """
        if self._trimmed:
            trim.trim_callbacks(self.hooks)
        self._check_hooks()
        self._check_deployments()

    def _check_hooks(self) -> None:
        if not any(callback is self.hooks for callback in compat.CALLBACKS.find()):
            raise StartError("LiteLLM did not register the policy's hooks", HINT)

    def _check_deployments(self) -> None:
        """Compare with the policy: LiteLLM drops a deployment that it cannot read, and says nothing."""
        router = compat.ROUTER.find()
        held: dict[str, set[str]] = {}
        for entry in (router.get_model_list() or ()) if router is not None else ():
            held.setdefault(entry["model_name"], set()).add(entry["model_info"]["id"])
        planned = {group: set(ids) for group, ids in self.hooks.policy.members.items()}
        if held != planned:
            missing = sorted(set[str]().union(*planned.values()) - set[str]().union(*held.values()))
            what = f"LiteLLM does not hold what the file says: {', '.join(missing) or 'the groups differ'}"
            raise StartError(what, HINT)


def load(settings: Settings, *, trimmed: bool) -> LoadedProxy:
    """Load the hooks with the policy of `settings.config`; LiteLLM finds them at its own start.

    Raises:
        ConfigError: the policy cannot be read.
        StartError: LiteLLM or the hooks cannot be imported, so the image is broken.
    """
    try:
        # Only here: the hooks extend a class of LiteLLM, so they can be imported only after it.
        from io3ops_gateway.litellm_proxy import hooks

        return LoadedProxy(compat.PROXY_APP.find(), hooks.load(settings), trimmed=trimmed)
    except GatewayError:
        raise
    except Exception as error:
        raise StartError(f"LiteLLM cannot be imported: {one_line(error)}", "build the gateway image again") from error
