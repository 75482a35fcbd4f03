"""Whether a sweep can run, judged by what every machine says of itself, with a remedy for what is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

ALIKE = ("python", "torch", "torchvision", "ray", "numpy")  # what figures, and Ray's own messages, depend on
ONE_IMAGE = "start every node from one image (Dockerfile), or install by constraints.txt everywhere"


@dataclass(frozen=True)
class Answer:
    """What came of asking a node: what it said of itself, or why it said nothing."""

    node: str
    offered: float  # GPUs that Ray gives to trials there
    said: Mapping[str, Any] | None = None
    silence: str | None = None


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. Without a remedy it is well."""

    node: str
    check: str
    found: str
    remedy: str | None = None


def findings(answers: list[Answer], expected: Mapping[str, str]) -> Iterator[Finding]:
    """Of every node, by what it said; its versions are to be the expected ones, which are the driver's."""
    for answer in answers:
        if answer.said is None:
            yield Finding(answer.node, "answers", str(answer.silence), ONE_IMAGE)
            continue
        yield _versions(answer.node, answer.said["versions"], expected)
        yield _gpus(answer)
        for check, (found, remedy) in answer.said["checks"].items():
            yield Finding(answer.node, check, found, remedy)


def _versions(node: str, has: Mapping[str, str], expected: Mapping[str, str]) -> Finding:
    others = [
        f"{name} {has.get(name, 'absent')} instead of {expected[name]}"
        for name in ALIKE
        if name in expected and has.get(name) != expected[name]
    ]
    if others:
        return Finding(node, "versions", ", ".join(others), ONE_IMAGE)
    return Finding(
        node, "versions", ", ".join(f"{name} {has[name]}" for name in (*ALIKE, "robust-sweep") if name in has)
    )


def _gpus(answer: Answer) -> Finding:
    gpus = list(answer.said["gpus"]) if answer.said else []
    found = ", ".join(gpus) or "none that torch can use"
    if answer.offered <= len(gpus):
        return Finding(answer.node, "GPUs", found)
    remedy = "install NVIDIA's driver there and a torch with CUDA, or start that node with --num-gpus=0"
    return Finding(answer.node, "GPUs", f"{found}, and Ray offers {answer.offered:g}", remedy)
