"""The manifests as they are in the repository."""

from collections.abc import Iterator
from functools import cache
from typing import Any, Final

import yaml

from deploy.helm.checks import rendering
from deploy.helm.checks.rendering import MANIFESTS, SETS

RUNTIME: Final = "kserve/serving-runtime.yaml"


@cache
def objects(name: str) -> list[dict[str, Any]]:
    """Return the objects of a set of values, as they are in the repository."""
    files = sorted((MANIFESTS / name).glob("[!k]*.yaml"))
    return [item for file in files for item in rendering.objects_in(file.read_text("utf-8"))]


def of_kind(name: str, kind: str) -> list[dict[str, Any]]:
    """Return the objects of a kind in a set."""
    return [item for item in objects(name) if item["kind"] == kind]


def pods() -> Iterator[tuple[str, dict[str, Any], list[dict[str, Any]]]]:
    """Yield what runs the server: where it stands, its container, the volumes."""
    for name in SETS:
        (deployment,) = of_kind(name, "Deployment")
        spec = deployment["spec"]["template"]["spec"]
        yield name, spec["containers"][0], spec["volumes"]
    spec = yaml.safe_load((MANIFESTS / RUNTIME).read_text("utf-8"))["spec"]
    yield RUNTIME, spec["containers"][0], spec["volumes"]


def env_of(container: dict[str, Any]) -> dict[str, str]:
    """Return a container's variables; those from Secrets are empty."""
    return {entry["name"]: entry.get("value", "") for entry in container["env"]}
