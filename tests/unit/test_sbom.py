"""The bill of materials: read from an image's own words, the same bytes every time, and valid CycloneDX."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from scripts import sbom

H1, H2 = "1" * 64, "2" * 64
LOCK = f"""# made by: make lock
Foo_Bar==1.0 ; sys_platform == 'linux' \\
    --hash=sha256:{H2} \\
    --hash=sha256:{H1}
    # via baz
baz==2.1.post1 \\
    --hash=sha256:{H1}
"""
LOOKED = f"""== os
PRETTY_NAME="Debian GNU/Linux 13 (trixie)"
ID=debian
VERSION_ID="13"
VERSION_CODENAME=trixie
== deb
ii \tlibc6\t2.41-12\tamd64\tglibc\t2.41-12
ii \tllama.cpp-tools\t1:0.7.0+dfsg-2\tamd64\tllama.cpp\t1:0.7.0+dfsg-2
rc \tgone\t1\tall\tgone\t1
== python
/opt/gateway/lib/python3.13/site-packages/foo_bar-1.0.dist-info/METADATA:Name: Foo_Bar
/opt/gateway/lib/python3.13/site-packages/foo_bar-1.0.dist-info/METADATA:Version: 1.0
/opt/gateway/lib/python3.13/site-packages/other-3.dist-info/METADATA:Name: other
/opt/gateway/lib/python3.13/site-packages/other-3.dist-info/METADATA:Version: 3
== squid
Squid Cache: Version 6.13
== ollama
Warning: could not connect to a running Ollama instance
Warning: client version is 0.32.15
== files
{H1}  /usr/bin/ollama
{H2}  /usr/lib/libsomething.so.1
"""
MODULES = "\n".join(
    (
        "path\tgithub.com/ollama/ollama",
        "mod\tbuild\t(devel)\t",
        "dep\tgithub.com/ollama/ollama\tv0.32.15\th1:a=",
        "dep\tgolang.org/x/net\tv1.0.0",
        "=>\texample.org/fork/net\tv1.0.1\th1:b=",
        "dep\tgopkg.in/yaml.v3\tv3.0.1\th1:c=",
        "build\t-buildmode=exe\n",
    )
)


def program(modules: str, *, before: int = 64) -> bytes:
    """A program as Go's linker leaves it: two texts with their length, behind an aligned marker."""

    def text(content: bytes) -> bytes:
        length, out = len(content), b""
        while length >= 0x80:
            out, length = out + bytes([length & 0x7F | 0x80]), length >> 7
        return out + bytes([length]) + content

    header = b"\xff Go buildinf:" + bytes([8, 2]) + bytes(16)
    return b"\x7fELF".ljust(before, b"\0") + header + text(b"go1.27.3") + text(b"x" * 16 + modules.encode() + b"y" * 16)


CONTENTS = sbom.Contents(
    name="io3ops/ollama", identity="sha256:abc", parts=sbom.split(LOOKED), ollama=program(MODULES)
)  # fmt: skip


@pytest.fixture
def made() -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(sbom.document(CONTENTS, LOCK))
    return parsed


def by_name(made: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {part["name"]: part for part in made["components"]}


def refusal(text: str) -> object:
    """Why the standard's own schema refuses a document, or None."""
    # Here, because it takes two seconds: the schema's formats are grammars that the import compiles.
    from cyclonedx.validation.json import JsonStrictValidator

    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)


def test_the_document_is_valid_and_the_same_every_time(made: dict[str, Any]) -> None:
    text = sbom.document(CONTENTS, LOCK)
    assert refusal(text) is None
    assert made["specVersion"] == "1.6" and made["metadata"]["component"]["version"] == "sha256:abc"
    assert text == sbom.document(CONTENTS, LOCK) and "timestamp" not in text


def test_another_image_is_another_document(made: dict[str, Any]) -> None:
    other = sbom.Contents(name=CONTENTS.name, identity="sha256:def", parts=CONTENTS.parts, ollama=CONTENTS.ollama)
    assert json.loads(sbom.document(other, LOCK))["serialNumber"] != made["serialNumber"]


def test_a_broken_document_is_not_taken(made: dict[str, Any]) -> None:
    """The validator that the tests trust does refuse."""
    made["components"][0]["type"] = "nonsense"
    assert refusal(json.dumps(made)) is not None


def test_debian_packages_have_their_source_and_those_removed_are_left_out(made: dict[str, Any]) -> None:
    names = by_name(made)
    assert "gone" not in names
    assert names["llama.cpp-tools"]["purl"].startswith("pkg:deb/debian/llama.cpp-tools@1:0.7.0%2Bdfsg-2?arch=amd64")
    assert names["libc6"]["properties"] == [{"name": "io3ops:deb:source", "value": "glibc 2.41-12"}]


def test_python_distributions_have_the_hashes_of_the_lock_where_it_knows_them(made: dict[str, Any]) -> None:
    names = by_name(made)
    (reference,) = names["foo-bar"]["externalReferences"]
    assert names["foo-bar"]["purl"] == "pkg:pypi/foo-bar@1.0"
    assert [h["content"] for h in reference["hashes"]] == [H1, H2]
    assert "externalReferences" not in names["other"]


def test_programs_without_a_package_are_named(made: dict[str, Any]) -> None:
    names = by_name(made)
    assert names["squid"]["version"] == "6.13" and "squid-cache:squid:6.13" in names["squid"]["cpe"]
    assert names["ollama"]["purl"] == "pkg:golang/github.com/ollama/ollama@v0.32.15"
    assert names["ollama"]["hashes"] == [{"alg": "SHA-256", "content": H1}]
    assert [part["name"] for part in made["components"] if part["type"] == "file"] == ["/usr/lib/libsomething.so.1"]


def test_go_modules_replacements_and_standard_library(made: dict[str, Any]) -> None:
    found = {part["purl"] for part in made["components"] if part.get("purl", "").startswith("pkg:golang/")}
    assert found == {
        "pkg:golang/github.com/ollama/ollama@v0.32.15",
        "pkg:golang/example.org/fork/net@v1.0.1",
        "pkg:golang/gopkg.in/yaml.v3@v3.0.1",
        "pkg:golang/stdlib@1.27.3",
    }


@pytest.mark.parametrize(
    "data",
    [b"", b"no program of Go", b"\xff Go buildinf:\x08\x00" + bytes(40), program(MODULES, before=65)],
    ids=["empty", "other", "older than Go 1.18", "a marker that is not aligned"],
)
def test_a_program_without_readable_build_information(data: bytes) -> None:
    assert sbom.build_information(data) == ("", "")


def test_the_gateways_lock_is_read_whole(root: Path) -> None:
    text = (root / sbom.LOCK).read_text("utf-8")
    found = sbom.pins(text)
    assert len(found) == len(re.findall(r"^[a-z0-9._-]+==", text, re.MULTILINE)) and all(found.values())
    assert sum(map(len, found.values())) == text.count("--hash=sha256:")


def test_the_exceptions_of_the_audit_are_those_that_are_written_down(root: Path) -> None:
    """A finding is left out of CI's audit only with a row in docs/security.md, and a row leaves when its finding does."""
    page = (root / "docs/security.md").read_text("utf-8")
    table = page.partition("## Exceptions")[2].partition("\n## ")[0]
    written = set(re.findall(r"^\| [^|]+ \| ((?:PYSEC|GHSA|CVE)-[\w-]+) \|", table, re.MULTILINE))
    workflow = (root / ".github/workflows/test.yml").read_text("utf-8")
    assert set(re.findall(r"--ignore-vuln[ =]((?:PYSEC|GHSA|CVE)-[\w-]+)", workflow)) == written
