"""What a set of values makes: confined containers, parts that fit one another, replicas that share what they write."""

import yaml

from deploy.helm.checks.rendering import CHART, ROOT, SETS
from tests.docs.chart.manifests import env_of, of_kind, pods


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
