"""The chart's values: each has a place in the schema and a row on the page; its versions and packages are pinned."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nestvec
import pytest
import yaml
from nestvec.config.settings import Settings

from deploy.helm.checks import rendering, settings_schema, tools
from deploy.helm.checks.rendering import CHART, ROOT, SETS
from deploy.helm.checks.schemas import VERSIONS


def test_the_schema_of_values_knows_every_setting() -> None:
    """`make docs` has written the settings into it, those that the chart has values of its own for left out."""
    assert settings_schema.SCHEMA.read_text("utf-8") == settings_schema.filled()
    assert frozenset(Settings.model_fields) >= settings_schema.OF_THE_CHART
    schema = json.loads(settings_schema.SCHEMA.read_text("utf-8"))
    assert not open_places(schema, "values", ("settings",))


def open_places(schema: dict[str, Any], place: str, without: tuple[str, ...] = ()) -> list[str]:
    """Return the objects of a schema that name their fields and take others too."""
    found = []
    if "properties" in schema and schema.get("additionalProperties") is not False:
        found.append(place)
    for name, inner in schema.get("properties", {}).items():
        if name not in without:
            found += open_places(inner, f"{place}.{name}")
    return found


def values_of(schema: dict[str, Any], place: str = "") -> Iterator[str]:
    """Yield the values of a schema by their dotted names; one whose fields are not ours counts as a whole."""
    for name, inner in schema["properties"].items():
        if inner.get("additionalProperties") is False and name != "settings":
            yield from values_of(inner, f"{place}{name}.")
        elif name not in ("global", "claims"):
            yield f"{place}{name}"


def test_every_value_has_a_row() -> None:
    """The page's table has each value of the schema, and no other; so have the chart's own values."""
    schema = json.loads(settings_schema.SCHEMA.read_text("utf-8"))
    known = set(values_of(schema))
    page = (ROOT / "docs/deployment/kubernetes.md").read_text("utf-8")
    table = page.partition("\n## Values\n")[2].partition("\n\nFixed")[0]
    rows = [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`([\w.]+)`", row)} == known
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    for name in known:
        holder: Any = values
        for part in name.split("."):
            assert part in holder, name
            holder = holder[part]


def test_every_set_of_values_is_described() -> None:
    """A set that is rendered has a row on the page."""
    page = (ROOT / "docs/deployment/kubernetes.md").read_text("utf-8")
    rows = set(re.findall(r"^\| `([\w-]+)\.yaml` \|", page, re.MULTILINE))
    assert rows | {"default"} == set(SETS)


@pytest.mark.skipif(not rendering.HELM.is_file(), reason="no helm: `make chart-check` brings it")
@pytest.mark.parametrize("name", SETS)
def test_the_manifests_are_what_the_chart_renders(name: str) -> None:
    """`make charts` was run after the last change of chart or values."""
    assert not rendering.differences(name)


def test_the_charts_version_is_the_packages() -> None:
    """A chart installs the version that it comes with, on the versions of Kubernetes that are checked."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert chart["appVersion"] == nestvec.__version__
    assert chart["kubeVersion"] == f">={VERSIONS[0]}-0"


def test_what_the_check_installs_is_pinned() -> None:
    """Every package has a version and a hash, and no host is named."""
    for lock in ("charts", "charts-tools"):
        text = (ROOT / f"requirements/{lock}.txt").read_text("utf-8")
        pinned = re.findall(
            r"^[a-z0-9][\w.-]*==\S+(?: ;.*)? \\\n    --hash=sha256:", text, re.MULTILINE
        )
        assert pinned
        assert len(pinned) == len(re.findall(r"^[a-z0-9]", text, re.MULTILINE))
        assert "://" not in text
        assert "--index" not in text


def test_a_folder_of_wheels_with_two_of_a_kind_is_refused(tmp_path: Path) -> None:
    """Which of two versions was meant is not guessed."""
    for version in (1, 2):
        (tmp_path / f"kserve-{version}.whl").touch()
    with pytest.raises(FileNotFoundError, match="2 files"):
        tools.only(tmp_path, "kserve-*.whl")
