"""Validates objects by the schemas of their kinds, strictly: a field that a kind does not have is a problem.

Kubernetes' own kinds by its JSON schemas of each version; those of KEDA and of the Prometheus operator by pydantic
models made from their definitions, which drop unknown fields, so what comes back is compared; KServe's by the tables of
fields in its Python client, and the containers in it as those of a pod.
"""

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Final

VERSIONS: Final = ("1.30.0", "1.37.0")
MODELS: Final = {
    "monitoring.coreos.com/v1": "cloudcoil.models.prometheus_operator.v1",
    "keda.sh/v1alpha1": "cloudcoil.models.keda.v1alpha1",
}
KSERVE: Final = "serving.kserve.io/v1alpha1"
# No package of an index has a schema of these: docs/deployment/kubernetes.md says how they were checked.
WITHOUT_SCHEMA: Final = ("inference.networking.k8s.io/v1",)


def problems_of(item: dict[str, Any], kserve: Path) -> Iterator[str]:
    """Yield what is wrong with an object, in every supported version.

    Args:
        item: The object.
        kserve: Folder with the modules of KServe's client.
    """
    api, kind = item["apiVersion"], item["kind"]
    if api in WITHOUT_SCHEMA:
        return
    if api in MODELS:
        yield from _by_model(getattr(import_module(MODELS[api]), kind), item)
    elif api == KSERVE:
        yield from _of_kserve(item, f"{kind}", kserve)
        spec = {key: item["spec"][key] for key in ("containers", "volumes")}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}
        yield from _by_kubernetes(pod)
    else:
        yield from _by_kubernetes(item)


def _by_kubernetes(item: dict[str, Any]) -> Iterator[str]:
    """Validate one of Kubernetes' own kinds."""
    validate = import_module("kubernetes_validate")
    for version in VERSIONS:
        try:
            validate.validate(item, version, strict=True)
        except (validate.ValidationError, validate.SchemaNotFoundError) as error:
            yield f"{version}: {item['kind']}: {getattr(error, 'message', error)}"


def _by_model(model: Any, item: dict[str, Any]) -> Iterator[str]:  # noqa: ANN401 - made by cloudcoil
    """Validate by a pydantic model, and compare what it kept with what it was given."""
    pydantic = import_module("pydantic")
    try:
        kept = model.model_validate(item).model_dump(by_alias=True, exclude_unset=True)
    except pydantic.ValidationError as error:
        for detail in error.errors():
            yield f"{item['kind']}: {'.'.join(map(str, detail['loc']))}: {detail['msg']}"
        return
    yield from _lost(item, kept, item["kind"])


def _lost(given: Any, kept: Any, place: str) -> Iterator[str]:  # noqa: ANN401 - any JSON
    """Yield the places that a model dropped."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for key, value in given.items():
            if key not in kept:
                yield f"{place}.{key}: no such field"
            else:
                yield from _lost(value, kept[key], f"{place}.{key}")
    elif isinstance(given, list) and isinstance(kept, list):
        for index, (one, other) in enumerate(zip(given, kept, strict=True)):
            yield from _lost(one, other, f"{place}[{index}]")


def _of_kserve(item: dict[str, Any], kind: str, folder: Path) -> Iterator[str]:
    """Compare an object's fields with those of KServe's client, and those below as far as they are KServe's own."""
    module = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in kind)
    source = (folder / f"v1alpha1{module}.py").read_text("utf-8")
    tables = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id in ("openapi_types", "attribute_map")
    }
    types = {tables["attribute_map"][name]: kind for name, kind in tables["openapi_types"].items()}
    for key, value in item.items():
        if key not in types:
            yield f"{kind}.{key}: no such field"
            continue
        inner = types[key].removeprefix("list[").removesuffix("]")
        if inner.startswith("V1alpha1"):
            for part in value if isinstance(value, list) else [value]:
                yield from _of_kserve(part, inner.removeprefix("V1alpha1"), folder)
