"""The alerts of deploy/prometheus: each fires on its trouble, none in health, and each says what to do."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).parents[2]
RULES: Final = ROOT / "deploy/prometheus/rules.yml"
# Samples, one a minute: enough for windows of an hour, and for those of six.
MINUTES: Final = 100
HOURS: Final = 8 * 60
INSTANCE: Final = 'job="nestvec",instance="server:8080"'
MODEL: Final = f'{INSTANCE},model="m"'
REQUESTS: Final = f'nestvec_requests_total{{{MODEL},route="/v1/embeddings",dialect="openai",status='
DURATION: Final = (
    f'nestvec_request_duration_seconds_bucket{{{MODEL},route="/v1/embeddings",dialect="openai",'
    'outcome="ok",le='
)
ANSWERS: Final = (
    f'nestvec_request_duration_seconds_count{{{MODEL},route="/v1/embeddings",dialect="openai",'
    'outcome="ok"}'
)

# By alert: series as promtool writes them, each with its values a minute apart.
TROUBLES: Final[dict[str, dict[str, str]]] = {
    "NestvecDown": {f"up{{{INSTANCE}}}": f"0x{MINUTES}"},
    "NestvecNotReady": {f"nestvec_ready{{{INSTANCE}}}": f"0x{MINUTES}"},
    "NestvecErrorBudgetBurnsFast": {
        f'{REQUESTS}"200"}}': f"0+97x{MINUTES}",
        f'{REQUESTS}"500"}}': f"0+3x{MINUTES}",
    },
    "NestvecErrorBudgetBurnsSlow": {
        f'{REQUESTS}"200"}}': f"0+990x{HOURS}",
        f'{REQUESTS}"500"}}': f"0+10x{HOURS}",
    },
    "NestvecLatencyBudgetBurnsFast": {
        f'{DURATION}"0.5"}}': f"0+80x{MINUTES}",
        ANSWERS: f"0+100x{MINUTES}",
    },
    "NestvecLatencyBudgetBurnsSlow": {
        f'{DURATION}"0.5"}}': f"0+90x{HOURS}",
        ANSWERS: f"0+100x{HOURS}",
    },
    "NestvecRefuses": {
        f'{REQUESTS}"200"}}': f"0+90x{MINUTES}",
        f'{REQUESTS}"429"}}': f"0+10x{MINUTES}",
    },
    "NestvecQueueWaits": {
        f'nestvec_queue_wait_seconds_bucket{{{MODEL},le="4.0"}}': f"0+50x{MINUTES}",
        f'nestvec_queue_wait_seconds_bucket{{{MODEL},le="8.0"}}': f"0+100x{MINUTES}",
        f'nestvec_queue_wait_seconds_bucket{{{MODEL},le="+Inf"}}': f"0+100x{MINUTES}",
    },
    "NestvecQueueNearlyFull": {
        f"nestvec_queue_tokens{{{MODEL}}}": f"90x{MINUTES}",
        f"nestvec_queue_limit_tokens{{{MODEL}}}": f"100x{MINUTES}",
    },
    "NestvecQueueStands": {
        f'nestvec_queue_oldest_seconds{{{MODEL},priority="bulk"}}': f"0+60x{MINUTES}"
    },
    "NestvecEngineOverdue": {f"nestvec_engine_overdue_seconds{{{INSTANCE}}}": f"30x{MINUTES}"},
    "NestvecProcessRestarted": {
        f'nestvec_process_restarts_total{{{INSTANCE},role="core"}}': f"0x{MINUTES - 5} 1x5"
    },
    "NestvecInputsQuarantined": {f"nestvec_quarantined_inputs{{{INSTANCE}}}": f"2x{MINUTES}"},
    "NestvecModelNotLoaded": {
        f'nestvec_model_loads_total{{{MODEL},outcome="error"}}': f"0x{MINUTES - 5} 1x5"
    },
    "NestvecProbesFail": {
        f'nestvec_model_probes_total{{{MODEL},outcome="failed"}}': f"0x{MINUTES - 5} 1x5"
    },
    "NestvecMemoryShort": {f"nestvec_memory_shortages_total{{{MODEL}}}": f"0x{MINUTES - 5} 3x5"},
    "NestvecTruncates": {
        f"nestvec_truncated_inputs_total{{{MODEL}}}": f"0+10x{MINUTES}",
        f"nestvec_inputs_total{{{MODEL}}}": f"0+100x{MINUTES}",
    },
    "NestvecTextsDrift": {f"nestvec_drift_p{{{MODEL}}}": f"0.5x20 0.001x{MINUTES - 21}"},
    "NestvecPredictionsOff": {
        f'nestvec_batch_prediction_error_ratio_bucket{{{MODEL},le="0.5"}}': f"0+10x{MINUTES}",
        f'nestvec_batch_prediction_error_ratio_bucket{{{MODEL},le="1.0"}}': f"0+100x{MINUTES}",
        f'nestvec_batch_prediction_error_ratio_bucket{{{MODEL},le="+Inf"}}': f"0+100x{MINUTES}",
    },
    "NestvecEventLoopLags": {
        f'nestvec_event_loop_lag_seconds_bucket{{{INSTANCE},le="0.1"}}': f"0+500x{MINUTES}",
        f'nestvec_event_loop_lag_seconds_bucket{{{INSTANCE},le="0.5"}}': f"0+600x{MINUTES}",
        f'nestvec_event_loop_lag_seconds_bucket{{{INSTANCE},le="+Inf"}}': f"0+600x{MINUTES}",
    },
    "NestvecMemoryNearLimit": {
        f'nestvec_process_resident_memory_bytes{{{INSTANCE},role="core"}}': f"60x{MINUTES}",
        f'nestvec_process_resident_memory_bytes{{{INSTANCE},role="front-0"}}': f"35x{MINUTES}",
        f"nestvec_memory_limit_bytes{{{INSTANCE}}}": f"100x{MINUTES}",
    },
    "NestvecBatchesStand": {
        f'nestvec_batch_jobs{{{INSTANCE},status="in_progress"}}': f"1x{MINUTES}",
        f'nestvec_batch_job_lines_total{{{INSTANCE},outcome="completed"}}': f"7x{MINUTES}",
    },
    "NestvecBatchesFail": {
        f'nestvec_batch_jobs_ended_total{{{INSTANCE},status="expired"}}': f"0x{MINUTES - 5} 1x5"
    },
    "NestvecKeysUnreadable": {f"nestvec_keys_readable{{{INSTANCE}}}": f"0x{MINUTES}"},
    "NestvecStoreDown": {
        f"nestvec_usage_store_down{{{INSTANCE}}}": f"0x{MINUTES}",
        f"nestvec_rate_store_down{{{INSTANCE}}}": f"0x{MINUTES}",
        f"nestvec_batch_store_down{{{INSTANCE}}}": f"1x{MINUTES}",
    },
    "NestvecSpansLost": {
        f'nestvec_lost_spans_total{{{INSTANCE},reason="queue_full"}}': f"0+9x{MINUTES}",
        f'nestvec_lost_spans_total{{{INSTANCE},reason="not_exported"}}': f"0x{MINUTES}",
    },
    "NestvecGpuDown": {f'nestvec_gpu_up{{{INSTANCE},device="0"}}': f"0x{MINUTES}"},
    "NestvecGpuMemoryNearlyFull": {
        f'nestvec_gpu_memory_used_bytes{{{INSTANCE},device="0"}}': f"97x{MINUTES}",
        f'nestvec_gpu_memory_total_bytes{{{INSTANCE},device="0"}}': f"100x{MINUTES}",
    },
}

# Much is asked, and a little of it goes wrong, as it does.
HEALTH: Final[dict[str, str]] = {
    f"up{{{INSTANCE}}}": f"1x{HOURS}",
    f"nestvec_ready{{{INSTANCE}}}": f"1x{HOURS}",
    f'{REQUESTS}"200"}}': f"0+10000x{HOURS}",
    f'{REQUESTS}"400"}}': f"0+5000x{HOURS}",
    f'{REQUESTS}"429"}}': f"0+100x{HOURS}",
    f'{REQUESTS}"500"}}': f"0+5x{HOURS}",
    f'{DURATION}"0.5"}}': f"0+9950x{HOURS}",
    ANSWERS: f"0+10000x{HOURS}",
    f'nestvec_queue_wait_seconds_bucket{{{MODEL},le="4.0"}}': f"0+100x{HOURS}",
    f'nestvec_queue_wait_seconds_bucket{{{MODEL},le="+Inf"}}': f"0+100x{HOURS}",
    f"nestvec_queue_tokens{{{MODEL}}}": f"70x{HOURS}",
    f"nestvec_queue_limit_tokens{{{MODEL}}}": f"100x{HOURS}",
    f'nestvec_queue_tokens{{{INSTANCE},model="unloaded"}}': f"0x{HOURS}",
    f'nestvec_queue_limit_tokens{{{INSTANCE},model="unloaded"}}': f"0x{HOURS}",
    f"nestvec_engine_overdue_seconds{{{INSTANCE}}}": f"0x{HOURS}",
    f'nestvec_queue_oldest_seconds{{{MODEL},priority="interactive"}}': f"0x60 19x{HOURS - 60}",
    # A process that was replaced hours ago, and a model that could not be loaded then.
    f'nestvec_process_restarts_total{{{INSTANCE},role="core"}}': f"0x60 1x{HOURS - 60}",
    f'nestvec_model_loads_total{{{MODEL},outcome="error"}}': f"0x60 1x{HOURS - 60}",
    f'nestvec_model_probes_total{{{MODEL},outcome="failed"}}': f"0x60 1x{HOURS - 60}",
    f'nestvec_model_probes_total{{{MODEL},outcome="passed"}}': f"0+1x{HOURS}",
    f'nestvec_batch_jobs_ended_total{{{INSTANCE},status="failed"}}': f"0x60 1x{HOURS - 60}",
    f'nestvec_batch_jobs_ended_total{{{INSTANCE},status="completed"}}': f"0+1x{HOURS}",
    f"nestvec_quarantined_inputs{{{INSTANCE}}}": f"0x{HOURS}",
    f"nestvec_memory_shortages_total{{{MODEL}}}": f"3x{HOURS}",
    f"nestvec_truncated_inputs_total{{{MODEL}}}": f"0+3x{HOURS}",
    f"nestvec_inputs_total{{{MODEL}}}": f"0+100x{HOURS}",
    # One test of a few hundred says by chance that texts have moved.
    # A collector that was away for a while, hours ago.
    f'nestvec_lost_spans_total{{{INSTANCE},reason="not_exported"}}': f"0x60 512x{HOURS - 60}",
    f"nestvec_drift_p{{{MODEL}}}": f"0.4x100 0.004x14 0.7x{HOURS - 116}",
    f'nestvec_event_loop_lag_seconds_bucket{{{INSTANCE},le="0.1"}}': f"0+600x{HOURS}",
    f'nestvec_event_loop_lag_seconds_bucket{{{INSTANCE},le="+Inf"}}': f"0+600x{HOURS}",
    f'nestvec_process_resident_memory_bytes{{{INSTANCE},role="core"}}': f"60x{HOURS}",
    f"nestvec_memory_limit_bytes{{{INSTANCE}}}": f"100x{HOURS}",
    f'nestvec_batch_jobs{{{INSTANCE},status="in_progress"}}': f"1x{HOURS}",
    f'nestvec_batch_job_lines_total{{{INSTANCE},outcome="completed"}}': f"0+7x{HOURS}",
    f"nestvec_keys_readable{{{INSTANCE}}}": f"1x{HOURS}",
    f"nestvec_usage_store_down{{{INSTANCE}}}": f"0x{HOURS}",
    f'nestvec_gpu_up{{{INSTANCE},device="0"}}': f"1x{HOURS}",
}


def rules() -> list[dict[str, Any]]:
    """Return all rules, in order."""
    content = yaml.safe_load(RULES.read_text("utf-8"))
    return [rule for group in content["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    """Return the alerts by name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def test_every_alert_has_its_trouble_and_what_to_do() -> None:
    """A case below, a section of the operator's page, a severity; and no metric that the server does not have."""
    assert set(TROUBLES) == set(alerts())
    operations = (ROOT / "docs/operations.md").read_text("utf-8")
    documented = (ROOT / "docs/metrics.md").read_text("utf-8")
    for name, alert in alerts().items():
        assert f"\n### {name}\n" in operations, name
        assert alert["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"
        assert alert["labels"]["severity"] in {"page", "ticket"}
    metrics = {word for rule in rules() for word in re.findall(r"\bnestvec_\w+", rule["expr"])}
    for metric in metrics:
        base = re.sub(r"_(bucket|count|sum)$", "", metric)
        assert f"| `{base}` |" in documented, metric


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool: Debian's prometheus")
def test_alerts_fire_on_their_trouble_only(tmp_path: Path) -> None:
    """Each in a server that has nothing else; in a healthy one, which has an old restart and some refusals, none."""
    firing = 'count(ALERTS{alertstate="firing",alertname="%s"})'

    def group(series: dict[str, str], expression: str, count: int, minutes: int) -> dict[str, Any]:
        samples = [{"labels": "{}", "value": count}] if count else []
        return {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "promql_expr_test": [
                {"expr": expression, "eval_time": f"{minutes}m", "exp_samples": samples}
            ],
        }

    tests = [
        group(series, firing % name, 1, HOURS if name.endswith("Slow") else MINUTES)
        for name, series in TROUBLES.items()
    ]
    tests.append(group(HEALTH, 'count(ALERTS{alertstate="firing"})', 0, HOURS))
    file = tmp_path / "tests.yml"
    file.write_text(
        json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "2m", "tests": tests}),
        "utf-8",
    )
    for arguments in (["check", "rules", str(RULES)], ["test", "rules", str(file)]):
        done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
