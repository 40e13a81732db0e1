"""Checks the chart and the plain manifests: `make chart-check`. No cluster is needed, and none was ever seen.

Each line of its output is one promise. Beside what must pass it plants typos, and each of them has to be found.
"""

import copy
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from deploy.helm.checks.rendering import (
    CHART,
    MANIFESTS,
    ROOT,
    SETS,
    RenderingError,
    call_helm,
    differences,
    manifests,
    objects_in,
    render,
    value_arguments,
)
from deploy.helm.checks.schemas import VERSIONS, problems_of

TOOLS: Final = ROOT / ".venv-chart"
KSERVE: Final = TOOLS / "kserve"
# Values with a mistake, and what the refusal says.
BAD_VALUES: Final = {
    "replicass=2": "'replicass' not allowed",
    "image.tagg=x": "'tagg' not allowed",
    "settings.presicion=int8": "'presicion' not allowed",
    "settings.precision=int9": "/settings/precision",
    "settings.max_json_depth=1000": "/settings/max_json_depth",
    "autoscaling.kind=kedda": "/autoscaling/kind",
    "keys.secret=": "keys.secret: name a Secret",
    "keys.allowUnauthenticated=true": "keys.allowUnauthenticated",
    "keys.apiKeysItem=": "keys: a secret is named",
    "files.store=shared": "files.shared.filesUrl",
    "files.store=volume,replicas=2": "files.store",
    "files.store=volume,autoscaling.kind=hpa": "files.store",
    "cache.kind=claim,replicas=2": "cache.accessModes",
    "cache.kind=existingClaim": "cache.existingClaim",
    "cache.readOnly=true": "cache.readOnly",
    "model.offline=true": "model.offline",
    "autoscaling.kind=hpa,autoscaling.minReplicas=20": "autoscaling.minReplicas",
    "monitoring.serviceMonitor=true,settings.protect_operations=true": "settings.protect_operations",
    "inferencePool.enabled=true": "inferencePool.endpointPicker",
}
# Places in rendered objects at which a field is misspelt: the set, the kind, the way to the field's holder, the field.
PLANTED: Final[tuple[tuple[str, str, tuple[str | int, ...], str], ...]] = (
    ("cpu", "Deployment", ("spec", "template", "spec"), "enableServiceLinks"),
    ("cpu", "Deployment", ("spec", "template", "spec", "containers", 0, "startupProbe"), "httpGet"),
    ("cpu", "Deployment", ("spec", "template", "spec", "volumes", 0, "emptyDir"), "sizeLimit"),
    ("cpu", "PodDisruptionBudget", ("spec",), "maxUnavailable"),
    ("cpu", "NetworkPolicy", ("spec", "ingress", 0, "ports", 0), "protocol"),
    ("cpu", "Service", ("spec", "ports", 0), "targetPort"),
    ("cpu", "PersistentVolumeClaim", ("spec",), "accessModes"),
    ("cpu", "ServiceMonitor", ("spec", "endpoints", 0), "interval"),
    ("cpu", "PrometheusRule", ("spec", "groups", 2, "rules", 0), "annotations"),
    ("autoscaled", "ScaledObject", ("spec", "triggers", 0), "metricType"),
    ("autoscaled", "ScaledObject", ("spec",), "pollingInterval"),
    ("autoscaled-hpa", "HorizontalPodAutoscaler", ("spec", "metrics", 0, "pods"), "target"),
)
PLANTED_IN_RUNTIME: Final[tuple[tuple[tuple[str | int, ...], str], ...]] = (
    (("spec",), "protocolVersions"),
    (("spec", "supportedModelFormats", 0), "autoSelect"),
    (("spec", "containers", 0), "args"),
)


def check_lint() -> Iterator[str]:
    """`helm lint --strict` takes every set of values."""
    for name in SETS:
        try:
            call_helm("lint", "--strict", str(CHART), *value_arguments(name))
        except RenderingError as error:
            yield f"{name}: {error}"


def check_bad_values() -> Iterator[str]:
    """Values that are misspelt, or that cannot work together, are refused by name."""
    for values, wanted in BAD_VALUES.items():
        try:
            render("default", "--set", values)
            yield f"--set {values}: accepted"
        except RenderingError as error:
            if wanted not in str(error):
                yield f"--set {values}: refused, but not for {wanted!r}: {error}"


def check_golden() -> Iterator[str]:
    """`deploy/kubernetes` is what the chart renders now; a changed line is seen."""
    for name in SETS:
        yield from (f"{file} differs: `make charts`" for file in differences(name))
    with tempfile.TemporaryDirectory() as folder:
        changed = Path(folder, "default")
        changed.mkdir()
        for file, text in manifests("default").items():
            (changed / file).write_text(text.replace("periodSeconds: 2", "periodSeconds: 3", 1))
        if differences("default", Path(folder)) != ["default/nestvec.yaml"]:
            yield "a changed line of a golden file was not seen"


def check_schemas() -> Iterator[str]:
    """Every object of every set fits the schema of its kind, strictly, in the oldest and the newest version."""
    for name in SETS:
        for version in VERSIONS:
            for item in objects_in(render(name, version=version)):
                yield from (f"{name}: {problem}" for problem in problems_of(item, KSERVE))
    yield from problems_of(runtime(), KSERVE)


def check_planted() -> Iterator[str]:
    """A misspelt field is found in every kind."""
    rendered = {name: objects_in(render(name)) for name in {place[0] for place in PLANTED}}
    for name, kind, way, field in PLANTED:
        item = next(item for item in rendered[name] if item["kind"] == kind)
        yield from not_found(item, way, field)
    for way, field in PLANTED_IN_RUNTIME:
        yield from not_found(runtime(), way, field)


def not_found(item: dict[str, Any], way: tuple[str | int, ...], field: str) -> Iterator[str]:
    """Misspell a field of an object; yield a problem where no schema minds."""
    changed = copy.deepcopy(item)
    holder: Any = changed
    for step in way:
        holder = holder[step]
    holder[f"{field}x"] = holder.pop(field)
    # By its name, or by the one that is missing now.
    if not any(field in problem for problem in problems_of(changed, KSERVE)):
        yield f"{item['kind']}: {field}x was taken for a field"


def check_kustomize() -> Iterator[str]:
    """`kubectl kustomize` builds every folder, with all of its objects in the namespace."""
    for name in SETS:
        done = subprocess.run(
            [TOOLS / "bin/kubectl", "kustomize", MANIFESTS / name],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            yield f"{name}: {done.stderr.strip()}"
            continue
        built = objects_in(done.stdout)
        if len(built) != len(objects_in(render(name))):
            yield f"{name}: {len(built)} objects"
        if {item["metadata"].get("namespace") for item in built} != {"nestvec"}:
            yield f"{name}: an object is in another namespace"


def runtime() -> dict[str, Any]:
    """Return KServe's ServingRuntime."""
    (item,) = objects_in((MANIFESTS / "kserve/serving-runtime.yaml").read_text("utf-8"))
    return item


CHECKS: Final[tuple[Callable[[], Iterator[str]], ...]] = (
    check_lint,
    check_bad_values,
    check_golden,
    check_schemas,
    check_planted,
    check_kustomize,
)


def main() -> None:
    """Run all checks, and end with status 1 where one of them has a problem."""
    failed = False
    for check in CHECKS:
        found = list(check())
        failed = failed or bool(found)
        print("FAILED" if found else "ok    ", (check.__doc__ or "").splitlines()[0])
        for problem in found:
            print("      ", problem)
    sys.exit(failed)


if __name__ == "__main__":
    main()
