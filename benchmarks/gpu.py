"""Adversarial training on a GPU: samples a second, the share of what the device can multiply, and trials that share it.

    python benchmarks/gpu.py

ResNet-18 on 32x32 pixels in PGD-10 adversarial training, by the engine, with one measure more in each row; the share is
of the rate at which the same device multiplies two large matrices in bfloat16, in the same run. Then LeNet-5 with 1, 4
and 16 trials at once, each a process of its own, as Ray starts them. The engine alone: no ray is needed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from threading import Barrier
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from sweep.configuration import TrialConfig
from sweep.datasets import Split
from sweep.models.network import Network
from sweep.registry import validated
from sweep.training import State, train
from sweep.trial import Trial

ATTACK_STEPS = 10
CIFAR, MNIST = (3, 32), (1, 28)  # channels, side
ROWS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16": {"precision": "bfloat16"},
    "bfloat16, compiled": {"precision": "bfloat16", "compile": True},
}


def config(model: Any, batch: int, **changes: Any) -> TrialConfig:
    whole = {
        "dataset": "digits",
        "model": model,
        "threat_model": {"name": "linf", "epsilon": 8 / 255},
        "defense": {
            "name": "adversarial_training",
            "epsilon": 8 / 255,
            "attack": {"name": "pgd", "num_steps": ATTACK_STEPS},
        },
        "epochs": 1,
        "batch_size": batch,
        **changes,
    }
    return validated(TrialConfig, whole, "the benchmark")


def epochs(given: TrialConfig, channels: int, side: int, steps: int) -> Callable[[], object]:
    """Epochs of `steps` batches of random pixels on the trial's device: what is in them costs nothing."""
    plan = Trial(given).plan
    core = given.model.build(channels, (side, side), 10)
    network = Network(core, [0.5], [0.25], precision=given.precision, compiles=given.compile).to(plan.device)
    count = steps * given.batch_size
    pixels = torch.randint(256, (count, channels, side, side), dtype=torch.uint8, device=plan.device)
    split = Split(pixels, torch.randint(10, (count,), device=plan.device))
    optimizer = given.optimizer.build(network.parameters())
    plan = replace(plan, network=network, optimizer=optimizer, train=split, epochs=10**9, validate_every=10**9)
    results = train(plan, State())
    return lambda: next(results)


def timed(epoch: Callable[[], object], rounds: int) -> list[float]:
    """Seconds of each of `rounds` epochs, after two that warm up and compile."""
    seconds = []
    for number in range(rounds + 2):
        _settle()
        began = time.perf_counter()
        epoch()
        _settle()
        if number >= 2:
            seconds.append(time.perf_counter() - began)
    return seconds


def matrix_rate(device: torch.device, side: int = 8192) -> float:
    """Floating-point operations a second of a product of two square matrices in bfloat16."""
    first, second = torch.randn(2, side, side, device=device, dtype=torch.bfloat16)
    return 2 * side**3 / min(timed(lambda: first @ second, 10))


def operations(given: TrialConfig) -> int:
    """Of one training step: forward and back to the input in each step of the attack, and to the weights as well."""
    images = torch.zeros(given.batch_size, CIFAR[0], CIFAR[1], CIFAR[1])
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        given.model.build(CIFAR[0], (CIFAR[1], CIFAR[1]), 10)(images)
    return int(counter.get_total_flops()) * (2 * ATTACK_STEPS + 3)


def resnet(batch: int, steps: int, rounds: int, device: torch.device) -> None:
    rate = matrix_rate(device)
    print(f"{torch.cuda.get_device_name(device)}: {rate / 1e12:.0f} T operations a second in bfloat16\n")
    print("| ResNet-18, PGD-10 | samples a second, median | least | most | share of the matrix rate |")
    print("|---|---|---|---|---|")
    for name, changes in ROWS.items():
        given = config("resnet18", batch, **changes)
        epoch = epochs(given, *CIFAR, steps)
        rates = sorted(batch * steps / seconds for seconds in timed(epoch, rounds))
        middle = statistics.median(rates)
        share = middle / batch * operations(given) / rate
        print(f"| {name} | {middle:.0f} | {rates[0]:.0f} | {rates[-1]:.0f} | {share:.1%} |", flush=True)


def lenets(batch: int, steps: int, rounds: int) -> None:
    print("\n| LeNet-5 trials at once | samples a second of all | times one |\n|---|---|---|")
    alone = 0.0
    for count in (1, 4, 16):
        context = get_context("spawn")
        with context.Manager() as manager, ProcessPoolExecutor(count, context) as pool:
            together = manager.Barrier(count)
            found = [pool.submit(_lenet, batch, steps, rounds, together) for _ in range(count)]
            total = sum(batch * steps / statistics.median(each.result()) for each in found)
        alone = alone or total
        print(f"| {count} | {total:.0f} | {total / alone:.2f} |", flush=True)


def _lenet(batch: int, steps: int, rounds: int, together: Barrier) -> list[float]:
    epoch = epochs(config({"name": "lenet5", "variant": "madry"}, batch), *MNIST, steps)
    epoch()
    together.wait()
    return timed(epoch, rounds)


def _settle() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=50, help="of an epoch, which is what is timed")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("torch finds no GPU here: this benchmark measures one")
    resnet(given.batch, given.steps, given.rounds, torch.device("cuda"))
    lenets(given.batch, given.steps, given.rounds)


if __name__ == "__main__":
    main()
