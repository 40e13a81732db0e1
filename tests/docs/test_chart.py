"""The Helm chart and the plain manifests: their variables are settings, their parts fit, their queries count.

`make chart-check` holds what needs helm and the schemas of Kubernetes.
"""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import httpx
import nestvec
import pytest
import yaml
from nestvec.api.dialects import open_inference
from nestvec.api.routes import operations
from nestvec.config.loading import load_settings
from nestvec.config.settings import PREFIX, Settings
from nestvec.keys.records import KeyLimits, edit_key_file
from nestvec.observability.metrics import Metrics
from prometheus_client import CollectorRegistry

from deploy.helm.checks import rendering, settings_schema, tools
from deploy.helm.checks.rendering import CHART, MANIFESTS, ROOT, SETS
from deploy.helm.checks.schemas import VERSIONS
from tests.support.server import running_server
from tests.support.services import free_port

RUNTIME: Final = "kserve/serving-runtime.yaml"
# What Secrets hold, by the variable that is taken from them.
SECRETS: Final = {
    "NESTVEC_DATABASE_URL": "postgresql+psycopg://nestvec:secret@db/nestvec",
    "NESTVEC_RATES_URL": "redis://redis:6379/0",
}


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


def test_every_variable_is_a_setting_with_a_value_that_it_takes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The settings of each set load, and no variable of ours is anything else."""
    (tmp_path / "api-keys").write_text("a-key\n")
    with edit_key_file(tmp_path / "keys.json") as keys:
        keys.add("search", KeyLimits())
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for name, container, _ in pods():
        with monkeypatch.context() as patch:
            variables = [entry for entry in container["env"] if entry["name"].startswith(PREFIX)]
            assert len({entry["name"] for entry in variables}) == len(variables), name
            for entry in variables:
                assert entry["name"] in known, name
                value = entry.get("value") or SECRETS[entry["name"]]
                patch.setenv(entry["name"], value.replace("/etc/nestvec/keys", str(tmp_path)))
            settings = load_settings()
            assert not settings.is_loopback
            assert (settings.port, str(settings.cache_dir)) == (8080, "/models"), name


@pytest.mark.process
def test_a_server_runs_as_the_manifests_say(
    tiny_folder: Path, tiny_cache: Path, tmp_path: Path
) -> None:
    """It answers where probes ask, shows metrics on the operators' port alone, and sees a Secret that changes."""
    (deployment,) = of_kind("single", "Deployment")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    settings = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in env_of(container).items()
        if name.startswith(PREFIX)
    }
    secret = tmp_path / "keys"
    first = put_secret(secret, "first")
    settings |= {
        "host": "127.0.0.1",
        "port": "0",
        "operations_port": str(free_port()),
        "model": str(tiny_folder),
        "cache_dir": str(tiny_cache),
        "data_dir": str(tmp_path / "data"),
        "keys_file": str(secret / Path(settings["keys_file"]).name),
        "drain_grace_s": "0",
        "offline": "true",
    }
    with running_server(tmp_path, **settings) as server, httpx.Client(timeout=60) as client:

        def status(key: str) -> int:
            headers, body = {"authorization": f"Bearer {key}"}, {"input": "hi"}
            answer = client.post(f"{server.url}/v1/embeddings", json=body, headers=headers)
            return answer.status_code

        for probe in ("startup", "readiness", "liveness"):
            path = container[f"{probe}Probe"]["httpGet"]["path"]
            assert client.get(server.url + path).is_success, probe
        assert client.get(f"{server.url}/metrics").status_code == httpx.codes.NOT_FOUND
        operators = f"http://127.0.0.1:{settings['operations_port']}/metrics"
        assert "nestvec_queue_seconds{" in client.get(operators).text
        assert (status(first), status("another")) == (httpx.codes.OK, httpx.codes.UNAUTHORIZED)
        second = put_secret(secret, "second")
        deadline = time.monotonic() + 60
        while status(second) != httpx.codes.OK and time.monotonic() < deadline:
            time.sleep(0.1)
        assert (status(second), status(first)) == (httpx.codes.OK, httpx.codes.UNAUTHORIZED)
        assert server.terminate() == 0, server.logs()


def put_secret(folder: Path, version: str) -> str:
    """Give a Secret's volume a version with one key, as a kubelet does: new files, then one link is turned.

    Returns:
        The key.
    """
    (folder / f"..{version}").mkdir(parents=True)
    with edit_key_file(folder / f"..{version}/keys.json") as keys:
        _, key = keys.add("search", KeyLimits())
    (folder / "..new").symlink_to(f"..{version}")
    (folder / "..new").rename(folder / "..data")
    if not (folder / "keys.json").is_symlink():
        (folder / "keys.json").symlink_to("..data/keys.json")
    return key


def test_the_schema_of_values_knows_every_setting() -> None:
    """`make docs` has written the settings into it, those that the chart has values of its own for left out."""
    assert settings_schema.SCHEMA.read_text("utf-8") == settings_schema.filled()
    assert frozenset(Settings.model_fields) >= settings_schema.OF_THE_CHART
    schema = json.loads(settings_schema.SCHEMA.read_text("utf-8"))
    assert not open_places(schema, "values", ("settings",))


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


def open_places(schema: dict[str, Any], place: str, without: tuple[str, ...] = ()) -> list[str]:
    """Return the objects of a schema that name their fields and take others too."""
    found = []
    if "properties" in schema and schema.get("additionalProperties") is not False:
        found.append(place)
    for name, inner in schema.get("properties", {}).items():
        if name not in without:
            found += open_places(inner, f"{place}.{name}")
    return found


def test_probes_ask_paths_that_the_server_has() -> None:
    """Startup and readiness ask whether requests are served, liveness whether the process answers."""
    routes = {
        getattr(r, "path", "") for r in (*operations.router.routes, *open_inference.router.routes)
    }
    for name, container, _ in pods():
        paths = {
            probe: container[f"{probe}Probe"]["httpGet"]["path"]
            for probe in ("startup", "readiness", "liveness")
        }
        assert set(paths.values()) <= routes, name
        assert paths["startup"] == paths["readiness"], name
        assert paths["readiness"].endswith("/health/ready"), name
        assert paths["liveness"].endswith("/health/live"), name


def test_containers_are_confined() -> None:
    """A read-only root, no capabilities, no root user, bounded memory, and bounded places for all that is written."""
    for name, container, volumes in pods():
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] is True, name
        assert security["allowPrivilegeEscalation"] is False, name
        assert security["capabilities"] == {"drop": ["ALL"]}, name
        assert "memory" in container["resources"]["limits"], name
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert {"/data", "/models"} <= set(mounts.values()), name
        assert mounts["tmp"] == env_of(container)["HOME"], name
        assert set(mounts) == {volume["name"] for volume in volumes}, name
        assert all(volume["emptyDir"]["sizeLimit"] for volume in volumes if "emptyDir" in volume)
    for name in SETS:
        (deployment,) = of_kind(name, "Deployment")
        spec = deployment["spec"]["template"]["spec"]
        assert spec["enableServiceLinks"] is False, name
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        # The image says which; a user that is given here would keep clusters from choosing one.
        assert "runAsUser" not in spec["securityContext"], name


def test_a_pod_is_given_the_time_that_draining_takes() -> None:
    """It is not killed before `drain_grace_s` and `drain_timeout_s` are over."""
    for name in SETS:
        (deployment,) = of_kind(name, "Deployment")
        spec = deployment["spec"]["template"]["spec"]
        env = env_of(spec["containers"][0])
        needed_s = float(env["NESTVEC_DRAIN_GRACE_S"]) + float(env["NESTVEC_DRAIN_TIMEOUT_S"])
        assert spec["terminationGracePeriodSeconds"] > needed_s, name


def test_objects_of_a_set_fit_one_another() -> None:
    """Selectors select the pods, ports that are named are ports, claims that are mounted are made or said to exist."""
    for name in SETS:
        (deployment,) = of_kind(name, "Deployment")
        template = deployment["spec"]["template"]
        labels = template["metadata"]["labels"].items()
        ports = {port["name"] for port in template["spec"]["containers"][0]["ports"]}
        services = of_kind(name, "Service")
        for service in services:
            assert service["spec"]["selector"].items() <= labels
            assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
        (policy,) = of_kind(name, "NetworkPolicy")
        assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels
        for rule in policy["spec"]["ingress"]:
            assert {port["port"] for port in rule["ports"]} <= ports
        for monitor in of_kind(name, "ServiceMonitor"):
            wanted = monitor["spec"]["selector"]["matchLabels"].items()
            # One Service of them, or each pod would be scraped twice.
            (scraped,) = [s for s in services if wanted <= s["metadata"]["labels"].items()]
            assert monitor["spec"]["endpoints"][0]["port"] in {
                port["name"] for port in scraped["spec"]["ports"]
            }
            job = scraped["metadata"]["labels"][monitor["spec"]["jobLabel"]]
            assert job == "nestvec", "as alerts and dashboards have it"
        made = {claim["metadata"]["name"] for claim in of_kind(name, "PersistentVolumeClaim")}
        mounted = {
            volume["persistentVolumeClaim"]["claimName"]
            for volume in template["spec"]["volumes"]
            if "persistentVolumeClaim" in volume
        }
        assert mounted == ({"nestvec-models"} if name == "air-gapped" else made), name


def test_several_replicas_share_what_they_write_or_write_nothing() -> None:
    """Files and batches are off, or in a store that replicas share, wherever there may be two."""
    for name in SETS:
        (deployment,) = of_kind(name, "Deployment")
        spec = deployment["spec"]
        env = env_of(spec["template"]["spec"]["containers"][0])
        is_single = spec.get("replicas") == 1
        if env["NESTVEC_FILES_API"] == "true" and not is_single:
            assert {"NESTVEC_DATABASE_URL", "NESTVEC_FILES_URL"} <= set(env), name
        assert (spec["strategy"]["type"] == "Recreate") == (name == "single"), name
        assert bool(of_kind(name, "PodDisruptionBudget")) == (not is_single), name


def test_the_rules_are_those_of_the_repository() -> None:
    """The chart has no alerts of its own: it reads `deploy/prometheus/rules.yml`."""
    (rule,) = of_kind("cpu", "PrometheusRule")
    source = ROOT / "deploy/prometheus/rules.yml"
    assert (CHART / "files/rules.yml").resolve() == source
    assert rule["spec"]["groups"] == yaml.safe_load(source.read_text("utf-8"))["groups"]


def queries() -> dict[str, str]:
    """Return what autoscalers ask Prometheus, by names; the adapter's placeholders filled as it fills them."""
    (scaled,) = of_kind("autoscaled", "ScaledObject")
    found = {f"keda {t['name']}": t["metadata"]["query"] for t in scaled["spec"]["triggers"]}
    adapter = yaml.safe_load((MANIFESTS / "prometheus-adapter.yaml").read_text("utf-8"))
    for rule in adapter["rules"]["custom"]:
        query = rule["metricsQuery"].replace("<<.LabelMatchers>>", 'namespace="nestvec",pod=~"a|b"')
        found[f"hpa {rule['name']['as']}"] = query.replace("<<.GroupBy>>", "pod")
    return found


def test_autoscalers_ask_for_metrics_that_there_are() -> None:
    """Each name in a query is a metric of the server; the HPA asks for what the adapter's rules are called."""
    registry = CollectorRegistry()
    Metrics(registry)
    families = {family.name for family in registry.collect()}
    for query in queries().values():
        for metric in re.findall(r"nestvec_\w+", query):
            assert metric.removesuffix("_sum") in families, metric
    (hpa,) = of_kind("autoscaled-hpa", "HorizontalPodAutoscaler")
    asked = {f"hpa {metric['pods']['metric']['name']}" for metric in hpa["spec"]["metrics"]}
    assert asked == {name for name in queries() if name.startswith("hpa")}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool: Debian's prometheus")
def test_queries_of_autoscalers_count_what_they_promise(tmp_path: Path) -> None:
    """Two pods, one with two seconds of work waiting and full, the other idle, of two models each.

    One of the models does more than its capacity, which was a guess: it counts as full.
    """
    series = []
    for pod, queue, tokens in (("a", 2.0, 1000), ("b", 0.0, 0)):
        labels = f'namespace="nestvec",service="nestvec",job="nestvec",pod="{pod}"'
        for model, part in (("m", 1.5), ("n", 0.25)):
            of_model = f'{labels},model="{model}"'
            rate = f"0+{round(60 * tokens * part)}x10"
            series += [
                {"series": f"nestvec_queue_seconds{{{of_model}}}", "values": f"{queue / 2}x10"},
                {"series": f"nestvec_batch_tokens_sum{{{of_model}}}", "values": rate},
                {
                    "series": f"nestvec_capacity_tokens_per_second{{{of_model}}}",
                    "values": "1000x10",
                },
            ]
    series.append({"series": 'nestvec_queue_seconds{namespace="other",pod="a"}', "values": "9x10"})
    queue_each, share_each = {"a": 2, "b": 0}, {"a": 1.25, "b": 0}
    wanted: dict[str, list[dict[str, Any]]] = {
        "keda queue-seconds": [{"labels": "{}", "value": 2}],
        "keda used-share": [{"labels": "{}", "value": 1.25}],
        "hpa nestvec_queue_seconds": [
            {"labels": f'{{pod="{pod}"}}', "value": value} for pod, value in queue_each.items()
        ],
        "hpa nestvec_used_share": [
            {"labels": f'{{pod="{pod}"}}', "value": value} for pod, value in share_each.items()
        ],
    }
    tests = [
        {"expr": query, "eval_time": "8m", "exp_samples": wanted[name]}
        for name, query in queries().items()
    ]
    file = tmp_path / "tests.yml"
    group = {"interval": "1m", "input_series": series, "promql_expr_test": tests}
    file.write_text(json.dumps({"tests": [group]}), "utf-8")
    done = subprocess.run(
        ["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_charts_version_is_the_packages() -> None:
    """A chart installs the version that it comes with, on the versions of Kubernetes that are checked."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert chart["appVersion"] == nestvec.__version__
    assert chart["kubeVersion"] == f">={VERSIONS[0]}-0"


@pytest.mark.skipif(not rendering.HELM.is_file(), reason="no helm: `make chart-check` brings it")
@pytest.mark.parametrize("name", SETS)
def test_the_manifests_are_what_the_chart_renders(name: str) -> None:
    """`make charts` was run after the last change of chart or values."""
    assert not rendering.differences(name)


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
