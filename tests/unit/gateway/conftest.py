"""Fixtures of the gateway's unit tests."""

from pathlib import Path

import pytest


@pytest.fixture
def certificate() -> bytes:
    """A self-signed authority whose key was thrown away."""
    return Path(__file__).with_name("company.pem").read_bytes()
