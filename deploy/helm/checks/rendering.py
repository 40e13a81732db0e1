"""Renders the chart with each set of values: the manifests of `deploy/kubernetes`, which are its golden files too.

A set's folder has `nestvec.yaml` with Kubernetes' own kinds, `custom.yaml` with kinds of others where there are any,
and a `kustomization.yaml` over both. What only Helm understands is left out.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[3]
CHART: Final = ROOT / "deploy/helm/nestvec"
VALUES: Final = ROOT / "deploy/helm/values"
MANIFESTS: Final = ROOT / "deploy/kubernetes"
NAMESPACE: Final = "nestvec"
# Beside the chart's own values, which are the set "default".
SETS: Final = ("default", *sorted(path.stem for path in VALUES.glob("*.yaml")))
# Groups of kinds that every cluster has.
BUILT_IN: Final = re.compile(r"v1|(apps|autoscaling|policy|batch)/.*|networking\.k8s\.io/.*")
OF_HELM: Final = re.compile(
    r"^ *(helm\.sh/[a-z-]+|app\.kubernetes\.io/managed-by): .*\n|^# Source: .*\n", re.MULTILINE
)
# Of a known version, as another may write the same objects in another way.
HELM: Final = ROOT / ".venv-chart/bin/helm"
LOWEST_VERSION: Final = "1.30.0"
# In C where it is there: ten times as fast.
LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class RenderingError(Exception):
    """Helm refused; the message is its own."""


def call_helm(*arguments: str) -> str:
    """Run helm and return what it prints.

    Raises:
        RenderingError: It ends with an error.
    """
    if not HELM.is_file():
        raise RenderingError(f"{HELM} is absent: `make chart-check` brings it")
    # Nothing of this user's Helm is read: neither its plugins nor its settings.
    environment = {"PATH": os.environ.get("PATH", ""), "HELM_PLUGINS": "/nonexistent"}
    done = subprocess.run(
        [str(HELM), *arguments], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        raise RenderingError(done.stderr.strip() or done.stdout.strip())
    return done.stdout


def value_arguments(name: str) -> list[str]:
    """Return the flags that choose a set of values."""
    return [] if name == "default" else ["--values", str(VALUES / f"{name}.yaml")]


def render(name: str, *further: str, version: str = LOWEST_VERSION) -> str:
    """Return what the chart renders to with a set of values, for a version of Kubernetes.

    Raises:
        RenderingError: The values or the templates are wrong.
    """
    flags = [*value_arguments(name), "--namespace", NAMESPACE, "--kube-version", version]
    return call_helm("template", "nestvec", str(CHART), *flags, *further)


def objects_in(text: str) -> list[dict[str, Any]]:
    """Return the objects of a manifest."""
    return [item for item in yaml.load_all(text, LOADER) if item]


def manifests(name: str) -> dict[str, str]:
    """Return the files of a set's folder, by their names."""
    head = f"# Made by `make charts` of deploy/helm/nestvec with the values of the set {name!r}; not edited by hand.\n"
    parts = [
        OF_HELM.sub("", part).strip()
        for part in re.split(r"^---\n", render(name), flags=re.MULTILINE)
    ]
    files: dict[str, list[str]] = {"nestvec.yaml": [], "custom.yaml": []}
    for part in filter(None, parts):
        (item,) = objects_in(part)
        own = BUILT_IN.fullmatch(item["apiVersion"])
        files["nestvec.yaml" if own else "custom.yaml"].append(part)
    written = {file: head + "\n---\n".join(found) + "\n" for file, found in files.items() if found}
    listed = "".join(f"  - {file}\n" for file in written)
    kustomization = (
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
        f"namespace: {NAMESPACE}\nresources:\n{listed}"
    )
    return {**written, "kustomization.yaml": head + kustomization}


def write(names: Sequence[str] = SETS) -> None:
    """Write the folders of some sets anew."""
    for name in names:
        folder = MANIFESTS / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file, text in manifests(name).items():
            (folder / file).write_text(text, "utf-8")


def differences(name: str, folder: Path = MANIFESTS) -> list[str]:
    """Return the files of a set that are not as the chart renders them now."""
    wanted = manifests(name)
    there = {path.name: path.read_text("utf-8") for path in sorted((folder / name).glob("*"))}
    return [
        f"{name}/{file}"
        for file in sorted({*wanted, *there})
        if wanted.get(file) != there.get(file)
    ]


if __name__ == "__main__":
    write()
