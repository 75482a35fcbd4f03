"""Three Ray nodes that share nothing but an object store, behind a token, and MLflow over PostgreSQL: a digits sweep,
in whose midst a node's power goes and another joins. By the journal's account no trial is lost, and none run twice.
"""

from __future__ import annotations

import secrets
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest
from machines import Machine, network, refusal
from processes import paused, pausing
from team_server import needs_postgres, object_store, team
from tiny_study import events

from sweep.orchestration.folder import StudyFolder
from sweep.orchestration.storage import Storage, below
from sweep.tracking.check import check

pytestmark = [needs_postgres, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
PATIENCE = 400.0  # seconds for anything that a busy machine may take its time over
EPOCHS, TRIALS = 16, 8
STUDY = f"""
from sweep.study import *

STUDY = Study(
    name="digits",
    space=SearchSpace(
        dataset="digits",
        model=dict(name="small_cnn", width=8),
        threat_model=dict(name="linf", epsilon=0.1),
        epochs={EPOCHS},
        optimizer=dict(name="sgd", learning_rate=LogUniform(0.003, 0.3)),
        defense=OneOf(standard={{}}, adversarial_training=dict(epsilon=0.1, attack=dict(name="pgd", num_steps=3))),
    ),
    search_attack=dict(name="pgd", num_steps=5), sampler="random",
    objective=Maximize("validation/pgd_5/adversarial_accuracy"), budget=Budget(trials={TRIALS}),
)
"""
ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),
    "RAY_AUTH_MODE": "token",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",  # which other tests in this process have forbidden
    "RAY_memory_monitor_refresh_ms": "0",
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_EC2_METADATA_DISABLED": "true",
    "RAY_health_check_period_ms": "1000",  # a lost node is noticed within five seconds rather than fifteen
}


def ray(*machines: Machine, options: tuple[str, ...]) -> None:
    """Start a Ray node of one CPU on each of these machines."""
    left = machines
    for _ in range(6):  # Ray gives a node 30 seconds to begin, and a crowded machine may take longer
        started = [(machine, machine.start(*command(machine, options), log="ray.log")) for machine in left]
        codes = {machine.name: process.wait(PATIENCE) for machine, process in started}
        left = tuple(machine for machine in left if codes[machine.name])
        if not left:
            return
        for machine in left:
            machine.kill()
    pytest.fail("\n".join(machine.said("ray.log") for machine in left))


def command(machine: Machine, options: tuple[str, ...]) -> list[str]:
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--disable-usage-stats", "--num-cpus=1"]
    memory = "--object-store-memory=100000000"
    return [*start, f"--node-ip-address={machine.address}", f"--temp-dir={machine.folder / 'ray'}", memory, *options]


def far_in(machine: str) -> str:
    """The moment at which all machines have begun trials, and one on this machine is in the middle of its epochs."""
    nodes = "{event['trial']: event['node'] for event in told if event['event'] == 'started'}"
    middle = f"told[-1]['event'] == 'reported' and 2 <= told[-1]['epoch'] <= {EPOCHS // 2}"
    return f"{middle} and {nodes}[told[-1]['trial']] == {machine!r} and {{'a', 'b', 'c'}} <= set({nodes}.values())"


def test_a_node_goes_another_joins_and_nothing_is_lost_or_run_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason := refusal():
        pytest.skip(reason)
    with (
        network(**ENVIRONMENT, RAY_AUTH_TOKEN=secrets.token_hex(32)) as net,
        object_store(tmp_path, "bucket", host=net.address) as store,
        team(tmp_path, host=net.address) as server,
    ):
        for name, value in (store.environment | server.environment).items():
            monkeypatch.setenv(name, value)
        storage = f"s3://bucket/studies?endpoint_override={store.endpoint}&region=us-east-1"
        head, lost, other = (net.join(name) for name in ("a", "b", "c"))
        ray(head, options=("--head", "--port=6379", "--include-dashboard=false"))
        join = (f"--address={head.address}:6379",)
        ray(lost, other, options=join)
        (head.folder / "digits.py").write_text(STUDY)
        search = ["run", "digits.py", "--address", f"{head.address}:6379", "--storage", storage]
        driver = head.start(*pausing(far_in("b")), *search, log="run.log", **server.environment)
        study = head.folder / "studies" / "digits"
        paused(driver)
        lost.kill()
        driver.send_signal(signal.SIGCONT)
        ray(net.join("d"), options=join)
        assert driver.wait(PATIENCE) == 0, head.said("run.log")
        account(study)
        assert (found := check(study, server.uri, "digits")).is_faithful and found.runs == TRIALS + 1
        assert not (study / "trials").exists()  # the head saw none of what the others wrote
        there = StudyFolder.find(tmp_path / "laptop", below(storage, "digits"))
        assert there.journal.read_bytes() == (study / "journal.log").read_bytes()
        assert there.trial(0).joinpath("best.safetensors").exists()
        kept = Storage(storage).files()
        assert not [name for name in kept if name.endswith(("checkpoint.pt", "lock.json"))]


def places(study: Path) -> list[str]:
    """The machines on which trials were begun, or begun again, in order."""
    return [event["node"] for event in events(study, "started")]


def account(study: Path) -> None:
    """What the journal says of a search in which the node b was lost, and d joined."""
    assert [event["trial"] for event in events(study, "asked")] == list(range(TRIALS))
    assert Counter(event["end"] for event in events(study, "ended")) == {"completed": TRIALS}
    told = Counter((event["trial"], event["epoch"]) for event in events(study, "reported"))
    assert told == {(trial, epoch): 1 for trial in range(TRIALS) for epoch in range(1, EPOCHS + 1)}
    losses = [event["error"]["node"] for event in events(study, "lost")]
    assert losses == ["b"]
    assert len(places(study)) == TRIALS + len(losses)
    assert {"a", "b", "c"} <= set(places(study))  # and d, where it came early enough
