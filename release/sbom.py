"""The software bill of materials, CycloneDX 1.6: the wheel, and the libraries of requirements-serve.lock."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import NamedTuple
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

_REQUIREMENT = re.compile(r"^([\w.-]+)==(\S+)", re.MULTILINE)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


class Locked(NamedTuple):
    """A line of a lock file. Each hash is that of one file of the library."""

    name: str
    version: str
    hashes: list[str]


def locked(text: str) -> Iterator[Locked]:
    """The libraries of a lock file."""
    found = list(_REQUIREMENT.finditer(text))
    ends = [match.start() for match in found[1:]] + [len(text)]
    for match, end in zip(found, ends, strict=True):
        yield Locked(match[1], match[2], _HASH.findall(text[match.end() : end]))


def write(path: Path, lock: str, version: str, wheel_sha256: str, epoch: int) -> None:
    """Writes the bill of a wheel and of the libraries in `lock`. The same arguments make the same file."""
    bom = Bom(serial_number=uuid5(NAMESPACE_URL, f"notifier {version} {wheel_sha256} {lock}"))
    bom.metadata.timestamp = datetime.fromtimestamp(epoch, UTC)
    root = _component("postgres-notifier", version, [wheel_sha256], ComponentType.APPLICATION)
    bom.metadata.component = root
    components = [_component(*each) for each in locked(lock)]
    for component in components:
        bom.components.add(component)
    bom.register_dependency(root, components)
    outputter = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6)
    path.write_text(outputter.output_as_string(indent=2) + "\n", encoding="utf-8")


def _component(
    name: str, version: str, hashes: list[str], kind: ComponentType = ComponentType.LIBRARY
) -> Component:
    purl = PackageURL("pypi", None, name.lower().replace("_", "-"), version)
    return Component(
        name=name,
        version=version,
        type=kind,
        purl=purl,
        bom_ref=purl.to_string(),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=each) for each in hashes],
        licenses=_licenses(name),
    )


def _licenses(name: str) -> list[LicenseExpression]:
    """The licence that an installed library declares as an SPDX expression, if it does."""
    try:
        declared = metadata.metadata(name)
    except metadata.PackageNotFoundError:  # of another platform
        return []
    if "License-Expression" not in declared:
        return []
    return [LicenseExpression(declared["License-Expression"])]
