"""The manifests: valid for the releases of Kubernetes in use, and of RayCluster only known keys."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tests.docker.manifests import DOCKER, documents

from streamlift.config import load_config

CORE = [
    document
    for path in sorted((DOCKER / "kubernetes").glob("*.yaml"))
    for document in documents(path)
    if not document["apiVersion"].startswith("ray.io/")
]
(RAY,) = (
    document
    for document in documents(DOCKER / "kubernetes" / "raycluster.yaml")
    if document["kind"] == "RayCluster"
)
CLUSTER: dict[str, type] = {
    "rayVersion": str,
    "headGroupSpec": dict,
    "workerGroupSpecs": list,
}
"""Keys of RayCluster's spec (ray.io/v1) that are used here, by KubeRay's reference of its API."""
HEAD: dict[str, type] = {"rayStartParams": dict, "template": dict}
GROUP: dict[str, type] = {
    "groupName": str,
    "replicas": int,
    "minReplicas": int,
    "maxReplicas": int,
    "rayStartParams": dict,
    "template": dict,
}
START = {"num-cpus", "include-dashboard", "object-store-memory", "labels"}
"""Options of `ray start` that are used here."""


@pytest.mark.parametrize("version", ["1.30", "1.37"])
@pytest.mark.parametrize("document", CORE, ids=lambda d: f"{d['kind']}-{d['metadata']['name']}")
def test_a_manifest_is_valid(document: dict[str, Any], version: str) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate").validate
    validate(document, version, strict=True)


def _holds(found: dict[str, Any], known: dict[str, type]) -> None:
    assert set(found) == set(known)
    for key, kind in known.items():
        assert type(found[key]) is kind, key


def test_the_ray_cluster_has_the_keys_that_kuberay_knows() -> None:
    assert (RAY["apiVersion"], RAY["kind"]) == ("ray.io/v1", "RayCluster")
    _holds(RAY["spec"], CLUSTER)
    _holds(RAY["spec"]["headGroupSpec"], HEAD)
    for group in RAY["spec"]["workerGroupSpecs"]:
        _holds(group, GROUP)
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def nodes() -> list[dict[str, Any]]:
    return [RAY["spec"]["headGroupSpec"], *RAY["spec"]["workerGroupSpecs"]]


def test_options_of_ray_start_are_known_and_strings() -> None:
    for node in nodes():
        assert set(node["rayStartParams"]) <= START
        assert all(isinstance(value, str) for value in node["rayStartParams"].values())


@pytest.mark.parametrize("node", nodes(), ids=["head", "h100", "rtx5090"])
def test_the_pods_of_the_ray_cluster_are_valid(node: dict[str, Any]) -> None:
    """KubeRay's templates are those of Kubernetes: checked as the pods that come of them."""
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate").validate
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **node["template"]}
    validate(pod, "1.37", strict=True)


def test_all_nodes_of_ray_have_one_environment_with_a_token_and_patience() -> None:
    """Ray ends its processes a minute after the head is gone, unless told to wait longer."""
    environments = [
        container["env"] for node in nodes() for container in node["template"]["spec"]["containers"]
    ]
    assert all(environment == environments[0] for environment in environments)
    plain = {entry["name"]: entry.get("value") for entry in environments[0]}
    assert plain["RAY_AUTH_MODE"] == "token"
    assert plain["RAY_AUTH_TOKEN"] is None  # from a secret
    assert int(plain["RAY_gcs_rpc_server_reconnect_timeout_s"] or 0) >= 3600
    assert plain["RAY_USAGE_STATS_ENABLED"] == "0"


def test_pods_run_without_root() -> None:
    pods = [node["template"]["spec"] for node in nodes()]
    pods += [d["spec"]["template"]["spec"] for d in CORE if d["kind"] == "Deployment"]
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False


def test_the_anchor_has_a_backend_of_rays_workers_and_what_they_are_reached_with(
    tmp_path: Path,
) -> None:
    anchor = {d["kind"]: d for d in documents(DOCKER / "kubernetes" / "anchor.yaml")}
    (container,) = anchor["Deployment"]["spec"]["template"]["spec"]["containers"]
    file = tmp_path / "streamlift.yaml"
    file.write_text(anchor["ConfigMap"]["data"]["streamlift.yaml"])
    given = {entry["name"]: entry.get("value", "x" * 32) for entry in container["env"]}
    (place,) = (a.partition("=")[2] for a in container["args"] if a.startswith("--cluster="))
    config = load_config(file, {**given, "STREAMLIFT_CLUSTER__PLACEMENT": place})
    assert config.backends is not None
    assert [b.link for b in config.backends if b.name == "flashvsr"] == ["remote"]
    assert config.cluster.token == "x" * 32
    rays = {
        entry["name"]: entry for entry in nodes()[0]["template"]["spec"]["containers"][0]["env"]
    }
    mine = {entry["name"]: entry for entry in container["env"]}
    for name in ("STREAMLIFT_CLUSTER__TOKEN", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        assert mine[name] == rays[name]
    secret = [entry["valueFrom"]["secretKeyRef"] for entry in mine.values() if "valueFrom" in entry]
    named = {reference["key"] for reference in secret}
    text = (DOCKER / "kubernetes" / "anchor.yaml").read_text()
    assert named == set(re.findall(r"--from-literal=([\w-]+)=", text))
