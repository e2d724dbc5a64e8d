"""Files that are mounted into the container are checked before LiteLLM reads them."""

import ssl
from pathlib import Path

import pytest

from io3ops_gateway.errors import CertificateError, ConfigError, KeyFileError
from io3ops_gateway.server import startup_checks


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a mapping"),
        (b"- 1\n", "not a mapping"),
        (b"a: 1\n", "no model_list"),
        (b"model_list: []\n", "no model_list"),
        (b"model_list: x\n", "no model_list"),
        (b"a: [1\nb: 2\n", "line 2"),
        (b"a:\n\tb: 1\n", "line 2, column 1"),
        (b"a: \x00\n", "not valid YAML"),
        (b"\xff\xfe\x00", "not UTF-8"),
    ],
)
def test_a_malformed_config_is_one_line_with_the_place(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "litellm.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=reason) as raised:
        startup_checks.check_config(file)
    assert "\n" not in str(raised.value)


def test_a_missing_config_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        startup_checks.check_config(tmp_path / "none.yaml")


def test_a_config_with_models_passes(tmp_path: Path) -> None:
    file = tmp_path / "litellm.yaml"
    file.write_text("model_list:\n- model_name: executor\n")
    startup_checks.check_config(file)


def test_the_key_loses_its_line_end(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("sk-abc\r\n")
    assert startup_checks.read_master_key(file) == "sk-abc"


@pytest.mark.parametrize("content", [b"", b" \n", b"sk-1234\n", b"two words", b"a\nb", b"\xc3\xa4", b"a\x00b"])
def test_an_unusable_key_is_refused_and_not_printed(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(KeyFileError) as raised:
        startup_checks.read_master_key(file)
    assert not content.strip() or content.strip().decode("latin-1") not in str(raised.value)


def test_a_missing_key_names_the_user_who_must_read_it(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"readable for user \d+:\d+"):
        startup_checks.read_master_key(tmp_path / "none")


def test_without_extra_certificates_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "README").write_text("not a certificate")
    assert startup_checks.combined_ca_bundle(tmp_path, scratch=tmp_path) is None
    assert startup_checks.combined_ca_bundle(tmp_path / "none", scratch=tmp_path) is None


def test_the_bundle_holds_the_systems_authorities_and_the_extra_ones(tmp_path: Path, certificate: bytes) -> None:
    (tmp_path / "company.crt").write_bytes("# Gerät\n".encode() + certificate)
    bundle = startup_checks.combined_ca_bundle(tmp_path, scratch=tmp_path)
    assert bundle is not None
    assert certificate.strip() in bundle.read_bytes()
    system = ssl.get_default_verify_paths().cafile
    assert system is None or Path(system).read_bytes() in bundle.read_bytes()


def test_a_file_that_is_not_a_certificate_is_named(tmp_path: Path) -> None:
    (tmp_path / "wrong.pem").write_text("nonsense")
    with pytest.raises(CertificateError, match=r"wrong\.pem cannot be used: not a PEM certificate"):
        startup_checks.combined_ca_bundle(tmp_path, scratch=tmp_path)
