"""The gateway's settings: defaults, overrides, and numbers that are none."""

import pytest

from io3ops_gateway.errors import ConfigError
from io3ops_gateway.settings import Settings, from_environment


def test_an_empty_environment_gives_the_defaults() -> None:
    assert from_environment({}) == Settings()


def test_an_empty_value_counts_as_not_set() -> None:
    assert from_environment({"IO3_PORT": "", "IO3_CONFIG": ""}) == Settings()


def test_values_from_the_environment_win() -> None:
    settings = from_environment({"IO3_PORT": "4100", "IO3_CONFIG": "/x.yaml", "IO3_HOST": "::1"})
    assert (settings.port, str(settings.config), settings.host) == (4100, "/x.yaml", "::1")


@pytest.mark.parametrize("text", ["0", "65536", "-1", "4000 ", "four", "4_000", "٤"])
def test_a_port_that_is_none_names_its_variable(text: str) -> None:
    with pytest.raises(ConfigError, match="IO3_PORT"):
        from_environment({"IO3_PORT": text})
