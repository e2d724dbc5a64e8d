"""Presets: ready routing tables, their cost, the one that suits this machine, and putting one in place."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files as package_files

from io3ops.adapters import files
from io3ops.adapters.machine import Machine
from io3ops.errors import HandEdited, SettingInvalid
from io3ops.routing.load import parse_table
from io3ops.routing.plan import make_plan
from io3ops.settings import Settings

NAMES = ("starter", "laptop", "workstation")


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One ready table. `download` and `memory` in MB; `memory`: all first choices loaded together. `modes`: (mode, chain)."""

    name: str
    title: str
    download: int
    memory: int
    needs_hub: bool
    modes: tuple[tuple[str, str], ...]
    text: bytes


def load(name: str) -> Preset:
    """Read a preset from the package."""
    text = package_files("io3ops.presets").joinpath(f"{name}.yaml").read_bytes()
    table = parse_table(text, f"{name}.yaml")
    plan = make_plan(table)
    first = {plan.chain(mode)[0].model for mode in plan.modes}
    return Preset(
        name=name,
        title=table.title,
        download=sum(m.model.download_mb for m in plan.models),
        memory=sum(m.model.memory_mb for m in plan.models if m.model.name in first),
        needs_hub=any(m.model.source.kind == "ollama" for m in plan.models),
        modes=tuple((mode.name, " → ".join(table.model(n).source.name for n in mode.chain)) for mode in table.modes),
        text=text,
    )


def all_presets() -> tuple[Preset, ...]:
    """Return every preset, the smallest first."""
    return tuple(load(name) for name in NAMES)


def recommend(machine: Machine, memory: int, presets: tuple[Preset, ...]) -> Preset:
    """Return the largest preset that needs at most half of the memory (bytes) and is fast enough on this machine. Pure."""
    cores_needed = {"starter": 1, "laptop": 4, "workstation": 8}
    card = machine.nvidia or machine.amd
    fitting = [
        p for p in presets if p.memory * 10**6 <= memory // 2 and (card or machine.cores >= cores_needed[p.name])
    ]
    return max(fitting, key=lambda p: p.memory) if fitting else presets[0]


def current(settings: Settings, presets: tuple[Preset, ...]) -> str:
    """Return the name of the preset that equals routing.yaml; '' when the table is the user's own."""
    data = files.read_bytes(settings.table)
    return next((p.name for p in presets if p.text == data), "")


def apply(settings: Settings, name: str, *, force: bool = False) -> bool:
    """Write the preset to routing.yaml; return False when it is there already.

    Raises HandEdited when routing.yaml is the user's own table. With `force` that table is kept as routing.yaml.bak.
    """
    if name not in NAMES:
        raise SettingInvalid(f"unknown preset {name!r}", hint=f"choose one of {', '.join(NAMES)}")
    presets = all_presets()
    data = files.read_bytes(settings.table)
    if data is not None and data.strip() and not current(settings, presets):
        if not force:
            raise HandEdited(
                "runtime/routing.yaml is your own table",
                hint=f"`io3ops preset {name} --force` replaces it and keeps a copy as runtime/routing.yaml.bak",
            )
        files.write_atomic(settings.table.with_suffix(".yaml.bak"), data)
    return files.write_atomic(settings.table, next(p.text for p in presets if p.name == name))


def text(presets: tuple[Preset, ...], best: Preset, now: str, machine: Machine) -> str:
    """Render the list of presets for people."""
    lines = [
        f"This machine: {machine.cores} cores, {machine.memory / 2**30:.0f} GiB of memory{', a graphics card' if machine.nvidia or machine.amd else ''}",
        "",
    ]
    for preset in presets:
        marks = [m for m, on in (("in use", preset.name == now), ("recommended here", preset.name == best.name)) if on]
        lines.append(f"{preset.name}{'  [' + ', '.join(marks) + ']' if marks else ''}")
        lines.append(f"  {preset.title}")
        lines.append(
            f"  download {_size(preset.download)}, memory {_size(preset.memory)}, {'from Ollama’s library' if preset.needs_hub else 'from PyPI, no model hub'}"
        )
        lines += [f"    {mode:<12} {chain}" for mode, chain in preset.modes]
        lines.append("")
    return "\n".join([*lines, "`io3ops preset NAME` puts one in place; then run `make up`"])


def _size(megabytes: int) -> str:
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes} MB"
