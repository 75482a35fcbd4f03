"""The files that start a cluster: valid to Ray's own eyes, and of one version with constraints.txt."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
LAUNCHER: dict[str, Any] = yaml.safe_load((ROOT / "cluster" / "cluster.yaml").read_text())
RAYJOB: dict[str, Any] = yaml.safe_load((ROOT / "cluster" / "rayjob.yaml").read_text())
RAY = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]  # type: ignore[index]
PYTHON = re.search(r"^ARG PYTHON=(\S+)$", DOCKERFILE, re.MULTILINE)[1]  # type: ignore[index]


def valid(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration as Ray's launcher completes it. Raises what Ray raises for one that it refuses."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared: dict[str, Any] = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def containers() -> list[dict[str, Any]]:
    """Of the head's pod and of each kind of worker's."""
    cluster = RAYJOB["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [container for group in groups for container in group["template"]["spec"]["containers"]]


def test_ray_accepts_the_launchers_file_and_its_workers_come_from_zero_on_spot() -> None:
    nodes = valid(LAUNCHER)["available_node_types"]
    head, gpu = nodes["head"], nodes["gpu"]
    assert head["resources"]["CPU"] == 0 and "InstanceMarketOptions" not in head["node_config"]
    assert gpu["min_workers"] == 0 and gpu["max_workers"] == LAUNCHER["max_workers"]
    assert gpu["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert gpu["node_config"]["ImageId"] == head["node_config"]["ImageId"]


def test_ray_would_refuse_a_mistake_in_it() -> None:
    for name, value in (("head_node_type", "heat"), ("workers", 3), ("idle_timeout_minutes", "five")):
        with pytest.raises((ValidationError, ValueError, RuntimeError)):
            valid({**LAUNCHER, name: value})


def test_what_its_comments_say_of_google_and_of_machines_of_ones_own_is_valid_as_well() -> None:
    google = copy.deepcopy(LAUNCHER)
    google["provider"] = {"type": "gcp", "region": "us-west1", "availability_zone": "us-west1-a", "project_id": "p"}
    for node in google["available_node_types"].values():
        node["node_config"] = {"machineType": "n1-standard-4", "scheduling": [{"preemptible": True}]}
    valid(google)
    own = {
        name: value
        for name, value in LAUNCHER.items()
        if name not in ("available_node_types", "head_node_type", "idle_timeout_minutes")
    }
    own["provider"] = {"type": "local", "head_ip": "10.0.0.1", "worker_ips": ["10.0.0.2"]}
    own["max_workers"] = 1
    valid(own)


def test_rays_autoscaler_reads_the_kubernetes_cluster() -> None:
    """All that can be asked of Ray. KubeRay's own schema, which no package holds, was asked by hand."""
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    resource = {"metadata": {"name": "sweep", "namespace": "default"}, "spec": RAYJOB["spec"]["rayClusterSpec"]}
    nodes = _derive_autoscaling_config_from_ray_cr(resource)["available_node_types"]
    assert nodes["headgroup"]["resources"]["CPU"] == 0
    assert (nodes["gpu"]["min_workers"], nodes["gpu"]["resources"]["GPU"]) == (0, 1)


def test_every_node_has_one_image_whose_tag_is_what_the_dockerfile_installs() -> None:
    images = {LAUNCHER["docker"]["image"], *(container["image"] for container in containers())}
    assert len(images) == 1
    assert images.pop().endswith(f"/sweep:ray{RAY}-py{PYTHON}")
    assert RAYJOB["spec"]["rayClusterSpec"]["rayVersion"] == RAY
    assert set(re.findall(r"sweep:(ray\S+-py[\d.]+)", DOCKERFILE)) == {f"ray{RAY}-py{PYTHON}"}


def test_the_image_is_nobodys_root_and_runs_whatever_it_is_told() -> None:
    assert re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE) == ["sweep"]
    assert "ENTRYPOINT" not in DOCKERFILE, "Ray's launcher starts its containers with `bash`"
    user = re.search(r"useradd --uid (\d+)", DOCKERFILE)[1]  # type: ignore[index]
    pods = [RAYJOB["spec"]["rayClusterSpec"]["headGroupSpec"], *RAYJOB["spec"]["rayClusterSpec"]["workerGroupSpecs"]]
    assert {pod["template"]["spec"]["securityContext"]["runAsUser"] for pod in pods} == {int(user)}
    assert f"-o {user} -g {user} " in " ".join(LAUNCHER["initialization_commands"])


def test_the_builder_gets_all_that_the_dockerfile_copies_and_nothing_that_is_not_there() -> None:
    copied = re.findall(r"^COPY (?:--\S+ )?(.+) \S+$", DOCKERFILE, re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {source.split("/")[0] for source in sources} == sent
    assert [source for source in sources if not (ROOT / source).exists()] == []
