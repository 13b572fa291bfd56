"""The rendered manifests for Kubernetes are valid and agree with the settings, and their commands run and stop."""

import subprocess
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from celery_daemons.settings import DEFAULTS
from tests.conftest import NewProject
from tests.support.commands import BIN, DeployedCommand, free_port, is_ok
from tests.support.projects import PRELUDE, ROOT
from tests.support.servers import Server
from tests.support.waiting import wait_until
from tests.support.workers import READY, CeleryProcess

#: These tests need kubectl, and start workers.
pytestmark = pytest.mark.heavy

MANIFESTS = ROOT / "deploy" / "kubernetes"
#: Seconds within which something happens, on a loaded machine.
SOON = 60.0
#: Of the Prometheus operator; the rest is part of Kubernetes.
FOREIGN_KINDS = {"PodMonitor"}


@cache
def rendered(folder: str) -> list[dict[str, Any]]:
    """Return the manifests of a folder, as ``kubectl apply --kustomize`` sends them."""
    import yaml

    done = subprocess.run(
        [BIN / "kubectl", "kustomize", MANIFESTS / folder], capture_output=True, text=True, check=True
    )
    return list(yaml.safe_load_all(done.stdout))


def one(folder: str, kind: str, name: str) -> dict[str, Any]:
    """Return a manifest by kind and name."""
    (found,) = [
        manifest for manifest in rendered(folder) if manifest["kind"] == kind and manifest["metadata"]["name"] == name
    ]
    return found


WORKLOADS = [("StatefulSet", "worker", READY), ("Deployment", "monitor", "candidate started")]


@pytest.mark.parametrize("folder", ["base", "example"])
def test_rendered_manifests_are_valid_and_have_no_unknown_field(folder: str) -> None:
    import kubernetes_validate

    for manifest in rendered(folder):
        if manifest["kind"] not in FOREIGN_KINDS:
            kubernetes_validate.validate(manifest, "1.34", strict=True)

    assert {manifest["kind"] for manifest in rendered(folder)} >= {"StatefulSet", "Deployment", "PodDisruptionBudget"}


def test_the_overlay_changes_image_replicas_and_settings_of_the_base() -> None:
    worker = one("example", "StatefulSet", "worker")
    (container,) = worker["spec"]["template"]["spec"]["containers"]
    (settings,) = [manifest for manifest in rendered("example") if manifest["kind"] == "ConfigMap"]
    (secret,) = [manifest for manifest in rendered("example") if manifest["kind"] == "Secret"]

    assert worker["spec"]["replicas"] == 5
    assert container["image"] == "registry.example.com/shop:1.0"
    assert settings["data"]["CELERY_APP"] == "shop"
    # The base's settings are still there, and the pods refer to the generated names.
    assert "CELERY_DAEMONS_HTTP" in settings["data"]
    assert container["envFrom"] == [
        {"configMapRef": {"name": settings["metadata"]["name"]}},
        {"secretRef": {"name": secret["metadata"]["name"]}},
    ]


@pytest.mark.parametrize(("kind", "name"), [workload[:2] for workload in WORKLOADS])
def test_selectors_and_budgets_match_the_pods_of_one_workload_only(kind: str, name: str) -> None:
    workload = one("base", kind, name)
    labels = workload["spec"]["template"]["metadata"]["labels"]
    budget = one("base", "PodDisruptionBudget", name)
    other = {"worker": "monitor", "monitor": "worker"}[name]

    assert workload["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert labels["app.kubernetes.io/component"] != other
    assert workload["spec"]["replicas"] > budget["spec"]["maxUnavailable"]


@pytest.mark.parametrize(("kind", "name"), [workload[:2] for workload in WORKLOADS])
def test_a_pod_has_longer_to_stop_than_its_drain_takes(kind: str, name: str) -> None:
    (settings,) = [manifest for manifest in rendered("base") if manifest["kind"] == "ConfigMap"]
    grace = one("base", kind, name)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]

    assert grace > float(settings["data"]["CELERY_DAEMONS_DRAIN_TIMEOUT"]) + 10
    assert one("base", "StatefulSet", "worker")["spec"]["minReadySeconds"] > DEFAULTS["settle_delay"]


def test_the_pod_monitor_scrapes_a_port_that_all_pods_have() -> None:
    monitor = one("example", "PodMonitor", "celery-daemons")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]

    assert endpoint["path"] == "/metrics"
    for kind, name, _ in WORKLOADS:
        template = one("example", kind, name)["spec"]["template"]
        (container,) = template["spec"]["containers"]
        assert endpoint["port"] in [port["name"] for port in container["ports"]]
        assert monitor["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()


@pytest.mark.parametrize(("kind", "name", "ready"), WORKLOADS)
def test_the_command_of_a_pod_passes_its_probes_and_ends_on_sigterm(
    kind: str,
    name: str,
    ready: str,
    valkey: Server,
    new_project: NewProject,
    run_process: Callable[[CeleryProcess], None],
) -> None:
    # Given: what the kubelet would start.
    pod = one("base", kind, name)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (settings,) = [manifest for manifest in rendered("base") if manifest["kind"] == "ConfigMap"]
    host, _, port = settings["data"]["CELERY_DAEMONS_HTTP"].partition(":")
    assert [{"name": "probes", "containerPort": int(port)}] == container["ports"]
    assert host == "0.0.0.0"  # noqa: S104 - the kubelet connects to the pod's address
    local = free_port()
    env = {
        **settings["data"],
        **{entry["name"]: entry["value"] for entry in container["env"] if "value" in entry},
        "CELERY_DAEMONS_HTTP": f"127.0.0.1:{local}",
        "CELERY_BROKER_URL": valkey.url,
    }
    command = [part.replace("$(POD_NAME)", f"{name}-0") for part in container["command"]]
    project = new_project(PRELUDE)

    # When
    process = DeployedCommand(project, f"{name}-0", command, ready=ready, env=env)
    run_process(process)
    process.wait_ready()

    # Then
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        path = container[probe]["httpGet"]["path"]
        wait_until(
            lambda path=path: is_ok(f"http://127.0.0.1:{local}{path}"),  # type: ignore[misc]
            within=SOON,
            because=f"{probe} of a pod that has joined",
        )
    assert process.stop(timeout=pod["terminationGracePeriodSeconds"]) == 0
