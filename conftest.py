"""What all tests share: their order, and what is made once for many of them."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long tests begin first, in each of the heaps that pytest-xdist deals to its workers: who is done takes from the
    end of another's, and none is left with many long ones."""
    workers: int = getattr(config, "workerinput", {"workercount": 1})["workercount"]
    long = [item for item in items if item.get_closest_marker("slow")]
    short = [item for item in items if not item.get_closest_marker("slow")]
    dealt: list[pytest.Item] = []
    for worker in range(workers):
        own, size = long[worker::workers], (len(items) - len(dealt)) // (workers - worker)
        rest = max(size - len(own), 0)
        dealt += own + short[:rest]
        del short[:rest]
    items[:] = dealt


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without experiments: making its tables takes seconds, so that is done once."""
    mlflow = pytest.importorskip("mlflow")
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path
