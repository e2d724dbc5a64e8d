"""The recommendation of a preset for a machine."""

from __future__ import annotations

import pytest

from io3ops.adapters.machine import Machine
from io3ops.operations.table.preset import all_presets, recommend


@pytest.mark.parametrize(
    ("gib", "cores", "card", "name"),
    [
        (2, 2, False, "starter"),
        (16, 2, False, "starter"),
        (16, 8, False, "laptop"),
        (128, 16, False, "workstation"),
        (128, 2, True, "workstation"),
        (4, 16, True, "starter"),
    ],
)
def test_a_preset_is_recommended_by_memory_and_cores(gib: int, cores: int, card: bool, name: str) -> None:
    machine = Machine(
        system="Linux", distribution="debian", codename="trixie", memory=gib * 2**30, cores=cores, root=False,
        systemd=True, nvidia=card, amd=False,
    )  # fmt: skip
    assert recommend(machine, machine.memory, all_presets()).name == name
