"""The Ray executor on two simulated nodes, one of which is taken away in mid-ladder."""

import os
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="bayescale[trainer] is not installed")
ray = pytest.importorskip("ray", reason="bayescale[ray] is not installed")

import bayescale_trainer
from bayescale_trainer.conduct import train_ladder
from bayescale_trainer.executors import EXECUTORS, run_on_ray
from bayescale_trainer.ladder import read_ladder
from bayescale_trainer.records import MEASURED, read_records

RUNS = """
[[runs]]
params = 6e3
tokens = [12e3, 24e3]
seeds = [0, 1]
"""


@pytest.fixture
def cluster(monkeypatch):
    """A head without CPUs for tasks and two nodes of one each, on this machine."""
    from ray.cluster_utils import Cluster

    # Workers import the trainer as this process does, installed or not.
    folder = str(Path(bayescale_trainer.__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([folder, *sys.path]))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    options = {"include_dashboard": False, "object_store_memory": 80_000_000}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **options})
    made.nodes = [made.add_node(num_cpus=1, object_store_memory=80_000_000) for _ in range(2)]
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


def test_a_lost_node_costs_no_run_and_changes_no_record(cluster, write_ladder, tmp_path, monkeypatch):
    ladder = read_ladder(write_ladder(RUNS))
    train_ladder(ladder, tmp_path / "processes", "process")
    local = read_records(tmp_path / "processes" / "runs.jsonl")

    def run_and_lose_a_node(tasks, place, report):
        for count, finished in enumerate(run_on_ray(tasks, place, report), 1):
            if count == 1:
                cluster.remove_node(cluster.nodes[1], allow_graceful=False)
            yield finished

    monkeypatch.setitem(EXECUTORS, "ray", run_and_lose_a_node)
    train_ladder(ladder, tmp_path / "out", "ray")
    found = read_records(tmp_path / "out" / "runs.jsonl")
    # Ray notices a lost node by its heartbeat, which on a busy machine can come after the ladder's end.
    patience = time.monotonic() + 60
    while sum(node["Alive"] for node in ray.nodes()) > 2 and time.monotonic() < patience:
        time.sleep(0.2)
    assert sum(node["Alive"] for node in ray.nodes()) == 2
    assert len(found) == len(local) == 4

    def results(records):
        return {r["run_id"]: {k: v for k, v in r.items() if k not in MEASURED} for r in records}

    assert results(found) == results(local)
