"""The Kubernetes manifests: valid, and in agreement with the code and each other."""

import json
import shlex
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import all_versions

from dtq.cli.commands import main
from tests.deploy.conftest import DEPLOY

FOLDER = DEPLOY / "kubernetes"
NOT_FOR_THE_CLUSTER = {"kustomization.yaml", "prometheus-adapter.yaml"}  # of kustomize, of Helm
OBJECTS = {
    f"{file.name}-{each['kind']}-{each['metadata']['name']}": each
    for file in sorted(FOLDER.glob("*.yaml"))
    if file.name not in NOT_FOR_THE_CLUSTER
    for each in yaml.safe_load_all(file.read_text())
}
OLDEST = "1.27"  # whose PodDisruptionBudget knows unhealthyPodEvictionPolicy
VERSIONS = all_versions()
POLICIES = ("allowPrivilegeEscalation", "readOnlyRootFilesystem", "capabilities")

Manifests = dict[tuple[str, str], dict[str, Any]]


@pytest.mark.parametrize("name", OBJECTS)
def test_object_fits_the_schema_of_all_versions(name: str) -> None:
    versions = VERSIONS[VERSIONS.index(f"{OLDEST}.0") :]
    assert len(versions) > 8
    for version in versions:
        kubernetes_validate.validate(OBJECTS[name], version, strict=True)


def test_the_schema_refuses_a_mistake() -> None:
    wrong = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "dtq", "lables": {}}}
    with pytest.raises(kubernetes_validate.ValidationError, match="lables"):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_kustomization_names_every_file() -> None:
    kustomization = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    others = {"secret.example.yaml", *NOT_FOR_THE_CLUSTER}
    assert set(kustomization["resources"]) == {file.name for file in FOLDER.glob("*.yaml")} - others


def pod(manifests: Manifests, kind: str, name: str) -> dict[str, Any]:
    spec: dict[str, Any] = manifests[kind, name]["spec"]["template"]["spec"]
    return spec


def container(manifests: Manifests, kind: str, name: str) -> dict[str, Any]:
    (only,) = pod(manifests, kind, name)["containers"]
    return dict(only)


WORKLOADS = [("Deployment", "gateway"), ("Deployment", "worker"), ("StatefulSet", "redis")]


@pytest.mark.parametrize(("kind", "name"), WORKLOADS)
def test_a_pod_fits_the_restricted_standard(manifests: Manifests, kind: str, name: str) -> None:
    security = pod(manifests, kind, name)["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    given = container(manifests, kind, name)["securityContext"]
    assert [given[policy] for policy in POLICIES] == [False, True, {"drop": ["ALL"]}]
    assert pod(manifests, kind, name)["automountServiceAccountToken"] is False
    assert container(manifests, kind, name)["resources"].keys() == {"requests", "limits"}


@pytest.mark.parametrize(("kind", "name"), WORKLOADS)
def test_selectors_find_their_pods(manifests: Manifests, kind: str, name: str) -> None:
    labels = manifests[kind, name]["spec"]["template"]["metadata"]["labels"]
    assert manifests[kind, name]["spec"]["selector"]["matchLabels"] == labels
    selecting = [found["spec"] for (other, called), found in manifests.items() if called == name]
    for spec in selecting:
        selector = spec.get("selector") or spec.get("podSelector") or {"matchLabels": labels}
        assert selector.get("matchLabels", selector) == labels


def test_a_worker_has_time_to_finish_its_task(manifests: Manifests) -> None:
    worker = container(manifests, "Deployment", "worker")
    drain = {each["name"]: each.get("value") for each in worker["env"]}["DTQ_DRAIN_TIMEOUT"]
    assert pod(manifests, "Deployment", "worker")["terminationGracePeriodSeconds"] > float(drain)
    program, name, *arguments = worker["command"]
    assert program == "dtq"
    main.commands[name].make_context(name, arguments)


def test_no_container_is_killed_because_redis_is_away(manifests: Manifests) -> None:
    assert "livenessProbe" not in container(manifests, "Deployment", "worker")
    gateway = container(manifests, "Deployment", "gateway")
    assert gateway["livenessProbe"].keys() & {"httpGet", "exec"} == set()
    assert gateway["readinessProbe"]["httpGet"]["path"] == "/health"


def test_redis_is_that_of_compose(manifests: Manifests, compose: dict[str, Any]) -> None:
    ours, theirs = container(manifests, "StatefulSet", "redis"), compose["services"]["redis"]
    assert ours["image"] == theirs["image"]
    assert ours["args"] == [
        word.replace("secret", "$(REDISCLI_AUTH)") for word in shlex.split(theirs["command"])
    ]
    uid, gid = theirs["user"].split(":")
    security = pod(manifests, "StatefulSet", "redis")["securityContext"]
    assert (security["runAsUser"], security["runAsGroup"]) == (int(uid), int(gid))


def test_secrets_are_those_that_the_example_has(manifests: Manifests) -> None:
    example = manifests["Secret", "dtq-redis"]
    env = [each for kind, name in WORKLOADS for each in container(manifests, kind, name)["env"]]
    references = [each["valueFrom"]["secretKeyRef"] for each in env if "valueFrom" in each]
    assert {each["name"] for each in references} == {example["metadata"]["name"]}
    assert {each["key"] for each in references} == set(example["stringData"])
    assert "CHANGE-ME" in json.dumps(example)


def test_disruptions_and_updates_leave_somebody_at_work(manifests: Manifests) -> None:
    assert manifests["PodDisruptionBudget", "gateway"]["spec"]["minAvailable"] >= 1
    assert manifests["Deployment", "gateway"]["spec"]["replicas"] > 1
    assert manifests["HorizontalPodAutoscaler", "worker"]["spec"]["minReplicas"] > 1
    assert "replicas" not in manifests["Deployment", "worker"]["spec"], "their number is the autoscaler's"


def test_workers_are_scaled_by_the_depth_of_the_queue(manifests: Manifests) -> None:
    scaler = manifests["HorizontalPodAutoscaler", "worker"]["spec"]
    target = scaler["scaleTargetRef"]
    assert (target["kind"], target["name"]) in manifests
    (metric,) = scaler["metrics"]
    (rule,) = yaml.safe_load((FOLDER / "prometheus-adapter.yaml").read_text())["rules"]["external"]
    assert metric["external"]["metric"]["name"] == rule["name"]["as"]
    assert rule["seriesQuery"].startswith('dtq_tasks{place="pending"')
