"""What Ray says of dead processes, as the search hears it; and a memory monitor that kills one of several trials."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_study import events, searching, tiny

from sweep.errors import StudyError
from sweep.orchestration.bridge import CUT_OFF, DIED, KILLED_FOR_MEMORY, NODE_DIED, Bridge, death
from sweep.study import Budget, Resources

# As Ray 2.60 words them, shortened.
KILLED = """The actor died unexpectedly before finishing this task.
\tclass_name: ResourceTrainable
\tpid: 9453
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker \
unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the process was"""
NODE = """The actor died unexpectedly before finishing this task.
\tpid: 9453
The actor died because its node has died. Node Id: 7a84 its node was terminated unexpectedly: health check failed"""
SEVERED = """The actor 77e210af70e8319ce6644e5201000000 is unavailable: The actor is temporarily unavailable: \
RpcError: RPC error: Socket closed rpc_code: 14. The task may or may not have been executed on the actor."""
BROKEN = """Failure # 1 (occurred at 2026-11-21_14-00-00)
The actor died because of an error raised in its creation task, ray::TrialActor.__init__() (pid=1, ip=127.0.0.1)
  File "worker.py", line 1, in <module>
builtins.ModuleNotFoundError: No module named 'sweep'
"""
MONITOR = """2 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 127.0.0.1) was \
4.07GB used / 23.54GB limit (0.17)
Considered workers: [
Selected to kill: (Actor(3144): job ID=01, task name=T.train, required resources={{CPU: 1}}, pid={pid}, actual memory)
(Actor(5555): job ID=01, task name=T.train, required resources={{CPU: 1}}, pid=102, actual memory used=0.05GB)
]
Top 10 memory users: PID\tMEM(GB)\tCOMMAND
102\t0.90\tpython"""


def test_equal_deaths_are_equal_lines() -> None:
    assert death(KILLED) == death(KILLED.replace("9453", "17")) == death("") == DIED
    assert death(SEVERED) == CUT_OFF and death(NODE) == NODE_DIED and death(MONITOR) == KILLED_FOR_MEMORY
    assert death(BROKEN) == {"class": "ModuleNotFoundError", "message": "No module named 'sweep'"}


def begun(bridge: Bridge, name: str, pid: int) -> None:
    assignment = bridge.ask(name)
    assert assignment is not None
    message = {"trial": assignment.number, "node": "here", "pid": pid, "log": None}
    assert bridge.hear(name, {"message": json.dumps(message)})


@pytest.mark.parametrize(("pid", "lost"), [(101, {0}), (999, {0, 1, 2})])
def test_a_memory_monitors_victim_alone_is_charged_where_it_is_known(pid: int, lost: set[int], tmp_path: Path) -> None:
    with searching(tmp_path, tiny(budget=Budget(trials=4))) as search:
        search.attempts.node = Resources(cpus=4)
        bridge = Bridge(search)
        for name, process in (("a", 101), ("b", 102), ("c", 103)):
            begun(bridge, name, process)
        assert bridge.ask("d") is not None  # and has not begun
        bridge.lost_for_memory(RuntimeError(MONITOR.format(pid=pid)))
        assert {event["trial"] for event in events(tmp_path / "tiny", "lost")} == lost
        assert [event["share"] for event in events(tmp_path / "tiny", "lost")] == [2] * len(lost)
        again = set()
        while (assignment := search.ask()) is not None:  # all four are taken up again
            again.add(assignment.number)
            search.started(assignment.number, "here", 1)
        assert again == {0, 1, 2, 3} and bridge.failure is None and not search.is_over


def test_a_worker_that_never_starts_ends_the_sweep_with_what_it_said(tmp_path: Path) -> None:
    with (
        pytest.raises(StudyError, match="no worker can start: ModuleNotFoundError: No module"),
        searching(tmp_path) as search,
    ):
        bridge = Bridge(search)
        for name in "abc":
            assert bridge.ask(name) is not None
            bridge.died(name, BROKEN)
            bridge.lost(name)
        assert bridge.is_over and bridge.failure is not None
        raise bridge.failure
