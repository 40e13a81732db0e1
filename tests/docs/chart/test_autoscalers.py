"""What autoscalers ask Prometheus: metrics that there are, and numbers that are what they promise."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from nestvec.observability.metrics import Metrics
from prometheus_client import CollectorRegistry

from deploy.helm.checks.rendering import MANIFESTS
from tests.docs.chart.manifests import of_kind


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
