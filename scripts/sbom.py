"""Writes the software bill of materials of an image: CycloneDX 1.6 JSON, made offline. The same image gives the same bytes.

usage: .venv/bin/python scripts/sbom.py IMAGE [-o FILE]
       .venv/bin/python scripts/sbom.py --all -o FOLDER     the images that this clone would start

It reads the contents from the image itself: dpkg's database, the metadata of Python distributions, the build information that Go
leaves in a program, and the files in program folders that none of these lists (with their hash).
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from io3ops.operations.stack.images import EGRESS_INPUTS, GATEWAY_INPUTS, RUNTIME_INPUTS, digest

ROOT = Path(__file__).resolve().parents[1]
LOCK = "requirements/gateway.lock"
# The gateway's image contains the packages of both.
LOCKS = (LOCK, "requirements/observer.lock")
OLLAMA = "/usr/bin/ollama"
OF_THIS_CLONE = {
    "gateway": ("io3ops/gateway", GATEWAY_INPUTS),
    "runtime": ("io3ops/ollama", RUNTIME_INPUTS),
    "egress": ("io3ops/egress", EGRESS_INPUTS),
}

# Runs inside the image; works with any image that has bash and dpkg. Each part begins with a line "== name".
# dpkg lists Debian's /usr/lib/python3; the metadata of its distributions describe a virtual environment.
LOOK = r"""
export LC_ALL=C
echo '== os';     cat /etc/os-release
echo '== deb';    dpkg-query -W -f '${db:Status-Abbrev}\t${Package}\t${Version}\t${Architecture}\t${source:Package}\t${source:Version}\n'
echo '== python'; find /opt /usr /srv -path /usr/lib/python3 -prune -o -path '*.dist-info/METADATA' \
                      -exec grep -HE -m2 '^(Name|Version): ' {} +
echo '== squid';  if [ -x /usr/sbin/squid ]; then /usr/sbin/squid -v | head -n 1; fi
echo '== ollama'; if [ -x /usr/bin/ollama ]; then HOME=/tmp /usr/bin/ollama --version 2>&1; fi
echo '== files'
comm -13 \
    <(cat /var/lib/dpkg/info/*.list | sed -E 's,^/(bin|sbin|lib|lib64)/,/usr/\1/,' | sort -u) \
    <(find /usr/bin /usr/sbin /usr/lib /usr/libexec /usr/local /opt/io3ops -type f ! -name '*.pyc' 2>/dev/null |
          grep -v /site-packages/ | sort -u) |
    tr '\n' '\0' | xargs -0 -r sha256sum --
"""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What an image contains. `name` has no tag, because one image may have several."""

    name: str
    identity: str
    parts: Mapping[str, str]
    ollama: bytes = b""


def split(text: str) -> dict[str, str]:
    """Split the output of LOOK into its parts."""
    pieces = re.split(r"^== (\w+)\n", text, flags=re.MULTILINE)[1:]
    return dict(zip(pieces[::2], pieces[1::2], strict=True))


def assignments(text: str) -> dict[str, str]:
    """Parse the lines NAME=value or NAME="value" of an os-release file."""
    return {name: value for name, value in re.findall(r'^(\w+)="?([^"\n]*)"?$', text, re.MULTILINE)}


def pins(lock: str) -> dict[tuple[str, str], list[str]]:
    """Return the SHA-256 hashes that a lock allows, by (name, version)."""
    found: dict[tuple[str, str], list[str]] = {}
    for block in re.split(r"\n(?=\S)", lock):
        if pin := re.match(r"([A-Za-z0-9._-]+)==([^\s;\\]+)", block):
            found[normal(pin[1]), pin[2]] = sorted(re.findall(r"--hash=sha256:([0-9a-f]{64})", block))
    return found


def normal(name: str) -> str:
    """Return the normalised name of a distribution (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def distributions(text: str) -> Iterator[tuple[str, str]]:
    """Yield (name, version) from grep's lines PATH:Name: x and PATH:Version: y."""
    fields: dict[str, dict[str, str]] = {}
    for path, field, value in re.findall(r"^(.+/METADATA):(Name|Version): (.+)$", text, re.MULTILINE):
        fields.setdefault(path, {})[field] = value.strip()
    for path in sorted(fields):
        yield normal(fields[path]["Name"]), fields[path]["Version"]


def build_information(program: bytes) -> tuple[str, str]:
    """Return Go's version and module lines, like `go version -m` (Go 1.18 and newer); ('', '') for other programs."""
    at = -1
    while (at := program.find(b"\xff Go buildinf:", at + 1)) >= 0:
        if at % 16 == 0 and program[at + 15] & 2:
            version, end = _text(program, at + 32)
            modules, _ = _text(program, end)
            # Go writes 16 marker bytes before and after the module lines.
            return version.decode(), modules[16:-16].decode() if len(modules) >= 33 else ""
    return "", ""


def _text(program: bytes, at: int) -> tuple[bytes, int]:
    """Read a text with its length before it (a varint); return it and its end."""
    length = shift = 0
    while True:
        byte = program[at]
        at += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return program[at : at + length], at + length


def modules(lines: str) -> Iterator[tuple[str, str, str]]:
    """Yield (path, version, sum) of the modules in a program; a replacement counts instead of the module that it replaces."""
    found: list[tuple[str, str, str]] = []
    for line in lines.splitlines():
        kind, *fields = line.split("\t")
        path, version, checksum = (*fields, "", "", "")[:3]
        if kind == "=>":
            found.pop()
        if kind in ("dep", "=>"):
            found.append((path, version, checksum))
    yield from found


def components(contents: Contents, lock: str) -> Iterator[Component]:
    """Yield every component of an image."""
    system = assignments(contents.parts["os"])
    yield Component(
        type=ComponentType.OPERATING_SYSTEM, name=system["ID"], version=system["VERSION_ID"],
        bom_ref=f"os:{system['ID']}", description=system.get("PRETTY_NAME"),
    )  # fmt: skip
    for line in contents.parts["deb"].splitlines():
        status, name, version, architecture, source, source_version = line.split("\t")
        if status.strip() == "ii":
            where = {"arch": architecture, "distro": system.get("VERSION_CODENAME", system["VERSION_ID"])}
            # Debian's advisories name source packages.
            properties = [Property(name="io3ops:deb:source", value=f"{source} {source_version}")]
            yield _package(PackageURL("deb", system["ID"], name, version, where), properties=properties)
    allowed = pins(lock)
    for name, version in distributions(contents.parts["python"]):
        url = PackageURL("pypi", None, name, version)
        yield _package(url, references=_allowed_files(url, allowed.get((name, version), [])))
    yield from _programs(contents)
    for line in contents.parts["files"].splitlines():
        checksum, path = line.split(maxsplit=1)
        if path != OLLAMA:
            yield Component(
                type=ComponentType.FILE, name=path, bom_ref=f"file:{path}",
                hashes=[HashType(alg=HashAlgorithm.SHA_256, content=checksum)],
            )  # fmt: skip


def _programs(contents: Contents) -> Iterator[Component]:
    """Yield the programs that were copied as files, so that their package's metadata is not in the image."""
    if squid := re.search(r"Version (\S+)", contents.parts["squid"]):
        yield Component(
            type=ComponentType.APPLICATION, name="squid", version=squid[1], bom_ref=f"squid@{squid[1]}",
            purl=PackageURL("generic", None, "squid", squid[1]),
            cpe=f"cpe:2.3:a:squid-cache:squid:{squid[1]}:*:*:*:*:*:*:*",
            description="the program of Debian's package squid, copied without dpkg's metadata; the version is upstream's",
        )  # fmt: skip
    if ollama := re.search(r"version is (\S+)", contents.parts["ollama"]):
        own = "github.com/ollama/ollama"
        yield Component(
            type=ComponentType.APPLICATION, name="ollama", version=ollama[1], bom_ref=f"ollama@{ollama[1]}",
            purl=_go(own, f"v{ollama[1]}"),
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=checksum) for checksum in _of_ollama(contents)],
        )  # fmt: skip
        go, lines = build_information(contents.ollama)
        if go:
            yield _package(_go("stdlib", go.removeprefix("go").split()[0]))
        for path, version, checksum in modules(lines):
            if path != own:
                properties = [Property(name="io3ops:go:sum", value=checksum)] if checksum else []
                yield _package(_go(path, version), name=path, properties=properties)


def _of_ollama(contents: Contents) -> list[str]:
    return re.findall(rf"^([0-9a-f]{{64}})  {OLLAMA}$", contents.parts["files"], re.MULTILINE)


def _go(path: str, version: str) -> PackageURL:
    namespace, _, name = path.rpartition("/")
    return PackageURL("golang", namespace or None, name, version or None)


def _package(
    url: PackageURL,
    *,
    name: str = "",
    properties: Iterable[Property] = (),
    references: Iterable[ExternalReference] = (),
) -> Component:
    return Component(
        type=ComponentType.LIBRARY, name=name or url.name, version=url.version, purl=url, bom_ref=url.to_string(),
        properties=properties, external_references=references,
    )  # fmt: skip


def _allowed_files(url: PackageURL, hashes: list[str]) -> list[ExternalReference]:
    # A distribution has one file per platform, and an installed one does not reveal which it was, so the component itself has no
    # hash. The reference names no index, because users have their own.
    if not hashes:
        return []
    return [
        ExternalReference(
            type=ExternalReferenceType.DISTRIBUTION,
            url=XsUri(url.to_string()),
            comment=f"one of the files that {' or '.join(LOCKS)} allows",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=content) for content in hashes],
        )
    ]


def document(contents: Contents, lock: str) -> str:
    """Return the bill of materials as JSON text."""
    inside = list({part.bom_ref.value: part for part in components(contents, lock)}.values())
    image = Component(
        type=ComponentType.CONTAINER,
        name=contents.name,
        version=contents.identity,
        bom_ref=f"image:{contents.identity}",
    )
    # By default the serial number is random and the document dated. Both would differ in each run.
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_OID, contents.identity), components=inside)
    bom.metadata.component = image
    bom.metadata.timestamp = None  # type: ignore[assignment]  # the schema allows none
    bom.register_dependency(image, inside)
    return JsonV1Dot6(bom).output_as_string(indent=1) + "\n"


class Failed(Exception):
    """An error that is printed as one line, without a traceback."""


def docker(*argv: str) -> bytes:
    """Run the docker command and return its output. Raises Failed."""
    program = shutil.which("docker")
    if program is None:
        raise Failed("docker is not installed")
    done = subprocess.run([program, *argv], capture_output=True, check=False)
    if done.returncode != 0:
        raise Failed(
            done.stderr.decode(errors="replace").strip() or f"docker {argv[0]} failed (exit code {done.returncode})"
        )
    return done.stdout


def look(image: str) -> Contents:
    """Read a local image. Its programs run without network, privileges or a writable folder."""
    identity = json.loads(docker("image", "inspect", image))[0]["Id"]
    run = ("run", "--rm", "--pull=never", "--network=none", "--read-only", "--cap-drop=ALL", "--log-driver=none")
    parts = split(docker(*run, "--entrypoint=bash", identity, "-c", LOOK).decode())
    program = docker(*run, "--entrypoint=cat", identity, OLLAMA) if parts["ollama"] else b""
    return Contents(name=re.sub(r":[^:/]*$|@.*$", "", image), identity=identity, parts=parts, ollama=program)


def images_of_this_clone() -> dict[str, str]:
    """Return the tags of this clone's images by name; '' for one that is not built."""
    here = docker("image", "ls", "--format={{.Repository}}:{{.Tag}}").decode().split()
    return {
        name: next((tag for tag in sorted(here) if tag.startswith(f"{repository}:") and tag.endswith(digest(ROOT, inputs))), "")
        for name, (repository, inputs) in OF_THIS_CLONE.items()
    }  # fmt: skip


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description="Write the software bill of materials of an image as CycloneDX 1.6 JSON."
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("image", nargs="?", metavar="IMAGE", help="a local image")
    which.add_argument("--all", action="store_true", help="every image of this clone, each in its own file")
    parser.add_argument("-o", "--output", type=Path, help="file (default: stdout); with --all a folder (required)")
    options = parser.parse_args(arguments)
    if options.all and options.output is None:
        parser.error("--all needs -o FOLDER")
    lock = "\n".join((ROOT / name).read_text("utf-8") for name in LOCKS)
    try:
        if not options.all:
            text = document(look(options.image), lock)
            if options.output:
                options.output.write_text(text, "utf-8")
            else:
                sys.stdout.write(text)
            return 0
        folder: Path = options.output
        folder.mkdir(parents=True, exist_ok=True)
        tags = images_of_this_clone()
        for name, tag in tags.items():
            if tag:
                (folder / f"{name}.cdx.json").write_text(document(look(tag), lock), "utf-8")
            print(f"{name:8} {tag or 'not built'}", file=sys.stderr)
        # Only a table with targets outside the stack needs the egress image; the other two are always needed.
        return 0 if tags["gateway"] and tags["runtime"] else 1
    except Failed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
