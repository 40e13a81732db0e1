"""Grafana's dashboards: what their source says, over metrics that the server has, in PromQL."""

import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).parents[2]
GRAFANA: Final = ROOT / "deploy/grafana"
FILES: Final = sorted((GRAFANA / "dashboards").glob("*.json"))


def source(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the module that writes the dashboards."""
    monkeypatch.syspath_prepend(str(GRAFANA))
    spec = importlib.util.spec_from_file_location("dashboards", GRAFANA / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def expressions() -> Iterator[tuple[str, str]]:
    """Return the queries of all panels with their places, as Prometheus is asked them."""
    for file in FILES:
        content: dict[str, Any] = json.loads(file.read_text("utf-8"))
        for panel in content["panels"]:
            for target in panel.get("targets", ()):
                expression = target["expr"].replace("$__rate_interval", "1m")
                expression = expression.replace("$__range", "1h")
                yield f"{file.stem}: {panel['title']}", re.sub(r"\$\w+", ".*", expression)


def test_the_files_are_what_their_source_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """`make dashboards` writes them."""
    module = source(monkeypatch)
    assert {file.stem for file in FILES} == set(module.DASHBOARDS)
    for file in FILES:
        assert file.read_text("utf-8") == module.build(file.stem), "make dashboards"


def test_panels_do_not_overlap_and_have_names_of_their_own() -> None:
    """Each has a place and a unit; no two of a dashboard are called the same."""
    for file in FILES:
        panels = json.loads(file.read_text("utf-8"))["panels"]
        places = {(p["gridPos"]["x"], p["gridPos"]["y"]) for p in panels}
        assert len(places) == len(panels)
        titles = [p["title"] for p in panels if p["type"] != "row"]
        assert len(titles) == len(set(titles)), file.stem


def test_every_query_is_of_documented_metrics() -> None:
    """A panel over a metric that was renamed would stay empty."""
    documented = set(
        re.findall(r"^\| `(nestvec_\w+)`", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
    )
    for place, expression in expressions():
        for metric in re.findall(r"\bnestvec_\w+", expression):
            assert re.sub(r"_(bucket|count|sum)$", "", metric) in documented, place


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool: Debian's prometheus")
def test_every_query_is_promql(tmp_path: Path) -> None:
    """As promtool reads it, which takes them for rules."""
    rules = [
        {"record": f"panel:{number}", "expr": expression}
        for number, (_, expression) in enumerate(expressions())
    ]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}), "utf-8")
    command = ["promtool", "check", "rules", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_provisions_them() -> None:
    """Grafana finds the data source by the service's name, and the files where they are mounted."""
    grafana = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"][
        "grafana"
    ]
    mounts = dict(volume.split(":")[:2] for volume in grafana["volumes"])
    assert mounts["./deploy/grafana/dashboards"] == "/dashboards"
    assert mounts["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"
    folder = GRAFANA / "provisioning"
    data = yaml.safe_load((folder / "datasources/prometheus.yml").read_text("utf-8"))
    assert data["datasources"][0]["url"] == "http://prometheus:9090"
    provider = yaml.safe_load((folder / "dashboards/nestvec.yml").read_text("utf-8"))
    assert provider["providers"][0]["options"]["path"] == "/dashboards"
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (GRAFANA / "dashboards" / Path(home).name).is_file()
