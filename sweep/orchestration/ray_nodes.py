"""A question put to every node of a Ray cluster, by a task of a moment that takes no trial's place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sweep.orchestration.doctor import Answer
from sweep.orchestration.ray_connection import connected  # which sets what ray reads when it is imported

# isort: split
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

PATIENCE = 180.0  # seconds for every node to answer: each imports torch, and may decode a dataset first


def ask(address: str, question: Callable[..., Mapping[str, Any]], *arguments: Any) -> list[Answer]:
    """What each node of the cluster at `address` answers, in the order of their names."""
    with connected(address):
        asked = {}
        for node in ray.nodes():
            if node["Alive"]:
                there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                task = ray.remote(question).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
                asked[task.remote(*arguments)] = node
        ray.wait(list(asked), num_returns=len(asked), timeout=PATIENCE)
        return sorted((_answer(task, node) for task, node in asked.items()), key=lambda answer: answer.node)


def _answer(task: Any, node: Mapping[str, Any]) -> Answer:
    name, gpus = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})", node["Resources"].get("GPU", 0.0)
    try:
        return Answer(name, gpus, said=ray.get(task, timeout=0))
    except ray.exceptions.GetTimeoutError:
        return Answer(name, gpus, silence=f"no answer in {PATIENCE:g} seconds")
    except ray.exceptions.RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return Answer(name, gpus, silence=lines[-1] if lines else type(error).__name__)
