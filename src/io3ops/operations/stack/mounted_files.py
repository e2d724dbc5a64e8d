"""The generated files that containers mount beside the configuration: provider keys, the proxies' rules, the observer's labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from io3ops.adapters import files
from io3ops.operations.stack import observe
from io3ops.operations.table.provider_key_files import needed_keys
from io3ops.routing.egress import egress
from io3ops.routing.plan import Plan
from io3ops.settings import Settings


@dataclass(frozen=True, kw_only=True)
class MountedFiles:
    """The content of each folder, by file name."""

    keys: Mapping[str, bytes]
    egress: Mapping[str, bytes]
    observer: Mapping[str, bytes] = field(default_factory=dict)
    outlet: Mapping[str, bytes] = field(default_factory=dict)


def wanted(settings: Settings, plan: Plan) -> MountedFiles:
    """Return the files that a plan needs."""
    return MountedFiles(
        keys=needed_keys(settings, plan),
        egress={"egress.conf": egress_rules(settings, plan).encode()},
        observer=observe.label_files(plan),
        outlet=observe.outlet_files(settings, plan),
    )


def on_disk(settings: Settings) -> MountedFiles:
    """Return the files that the containers have now."""
    return MountedFiles(
        keys=files.read_folder(settings.mounted_keys),
        egress=files.read_folder(settings.egress_folder),
        observer=files.read_folder(settings.observer_folder),
        outlet=files.read_folder(settings.outlet_folder),
    )


def write(settings: Settings, mounted: MountedFiles, owner: tuple[int, int] | None) -> None:
    """Write the files for the gateway's user. Raises NotWritable or KeyFileUnsafe."""
    files.sync_private(settings.mounted_keys, mounted.keys, owner)
    files.sync_private(settings.egress_folder, mounted.egress, owner)
    for folder, content in ((settings.observer_folder, mounted.observer), (settings.outlet_folder, mounted.outlet)):
        if content or folder.is_dir():
            files.sync_private(folder, content, owner)


def egress_rules(settings: Settings, plan: Plan) -> str:
    """Return the egress proxy's rules for a plan."""
    proxies = settings.proxies
    return egress(plan.outside, proxies["HTTPS_PROXY"], [name.strip() for name in proxies["NO_PROXY"].split(",")])
