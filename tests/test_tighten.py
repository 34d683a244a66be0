"""Tighten: killed anywhere it goes on to the same end, and it says what was predicted and what came."""

import json
import os
import signal
import subprocess
import sys
import time
import tomllib

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("torch", reason="bayescale[trainer] is not installed")

from bayescale_trainer.ladder import read_ladder, settled_sizes
from bayescale_trainer.records import MEASURED, read_records

import bayescale as bs
from bayescale.cli.training import settle_with
from bayescale.errors import BayescaleError
from bayescale.ladders import read_ladder as read_template
from bayescale.ladders import run_groups
from bayescale.plots import plot_rounds
from bayescale.proposals import Proposal
from bayescale.rounds import Tightening, inside, read_tightening
from bayescale.tablefiles import write_runs
from bayescale.targets import Target
from bayescale.tightening import tighten
from tests.conftest import simulated_table
from tests.test_plots import rounds_of
from tests.trainer.conftest import TINY

START = TINY.replace("tiny", "start") + "[[runs]]\nparams = [2e3, 6e3]\ntokens = [4e3, 8e3, 16e3]\n"
OPTIONS = ("--target", "params=12e3,tokens=32e3", "--budget", "3e9", "--width", "0.09")


def start(folder, *options):
    command = [sys.executable, "-m", "bayescale", "tighten", folder.parent / "start.toml", *OPTIONS]
    return subprocess.Popen(
        [*map(str, command), *options, "-o", str(folder)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def state(folder):
    """Return all that must not depend on when the loop was stopped."""
    texts = {p.name: p.read_text() for p in folder.glob("*.toml")}
    texts |= {name: (folder / name).read_text() for name in ("rounds.jsonl", "runs.csv")}
    records = read_records(folder / "runs.jsonl")
    assert len((folder / "runs.jsonl").read_text().splitlines()) == len(records)
    return texts, {r["run_id"]: {k: v for k, v in r.items() if k not in MEASURED} for r in records}


def test_killed_at_several_moments_it_ends_the_same(tmp_path):
    (tmp_path / "start.toml").write_text(START)
    whole = tmp_path / "whole"
    reference = start(whole, "--json")
    output, errors = reference.communicate(timeout=300)
    assert reference.returncode in (0, 1), errors
    report = json.loads(output)
    rounds = [json.loads(line) for line in (whole / "rounds.jsonl").read_text().splitlines()]
    assert report["rounds"] == rounds
    assert len(rounds) >= 2
    assert rounds[1]["predicted_width"] == rounds[0]["plan"]["predicted_width"]
    assert rounds[-1]["spent"] <= 3e9 * 1.02
    assert rounds[-1]["width"] < rounds[0]["width"]
    assert all(r["entropy_rate"] > 0 and len(r["floor_band"]) == 2 for r in rounds)
    assert report["check"]["inside"] is (
        report["check"]["band"][0] <= report["check"]["loss"] <= report["check"]["band"][1]
    )

    folder = tmp_path / "killed"
    moments = (
        lambda: len(read_records(folder / "runs.jsonl")) >= 2,
        lambda: (folder / "rounds.jsonl").exists(),
        lambda: (folder / "ladder-1.toml").exists() and len(read_records(folder / "runs.jsonl")) > 6,
    )
    for reached in moments:
        process = start(folder)
        while process.poll() is None and not reached():
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    last = start(folder)
    output, errors = last.communicate(timeout=300)
    assert last.returncode == reference.returncode, errors
    assert "stopped: " in output
    assert "90% band of a new run" in output
    assert state(folder) == state(whole)
    read = read_tightening(folder)
    assert read.rounds == rounds
    assert read.check == report["check"]
    assert "target run trained" in read.verdict()
    assert not list(folder.glob(".*.part"))[3:]  # a kill in mid-write leaves its own aside file, no more


@pytest.mark.parametrize(
    ("law", "target", "said"),
    [
        ("muennighoff", "params=1e9,tokens=2e10,unique_tokens=1e9", "needs unique_tokens, which no ladder"),
        (
            "chinchilla",
            Target({"params": np.array([1e9, 2e9]), "tokens": np.array([2e10] * 2)}),
            "found 2 runs",
        ),
    ],
)
def test_what_no_loop_can_aim_at_is_told_before_anything_is_trained(tmp_path, law, target, said):
    with pytest.raises(bs.BayescaleError, match=said):
        tighten(tmp_path / "start.toml", target, 1e20, 0.01, tmp_path / "out", train=None, law=law)
    assert not (tmp_path / "out").exists()


def test_a_folder_keeps_to_its_ladder_and_target(tmp_path):
    ladder, folder = tmp_path / "start.toml", tmp_path / "out"
    ladder.write_text(START)

    def fails(path, place):
        return 2

    with pytest.raises(BayescaleError, match="training failed"):
        tighten(ladder, "E", 1e9, 0.1, folder, train=fails)
    assert (folder / "ladder-0.toml").exists()
    begun = {"target": "E", "law": "chinchilla", "priors": {}, "seed": 0}
    (folder / "rounds.jsonl").write_text(json.dumps(begun) + "\n")
    for other, options in (
        ("target", {"target": "beta"}),
        ("law", {"law": "kaplan-floor"}),
        ("priors", {"priors": {"alpha": "LogNormal(0.3, 0.2)"}}),
        ("seed", {"seed": 1}),
    ):
        with pytest.raises(BayescaleError, match=f"rounds of another {other}"):
            tighten(**({"ladder": ladder, "target": "E", "budget": 1e9, "width": 0.1, "folder": folder,
                        "train": fails} | options))  # fmt: skip
    (folder / "rounds.jsonl").unlink()
    (folder / "ladder-1.toml").write_text((folder / "ladder-0.toml").read_text())
    with pytest.raises(BayescaleError, match=r"ladders of 2 rounds, and rounds.jsonl tells of 0"):
        tighten(ladder, "E", 1e9, 0.1, folder, train=fails)
    (folder / "ladder-1.toml").unlink()
    ladder.write_text(START + "seeds = [0, 1]\n")
    with pytest.raises(BayescaleError, match="training failed"):  # nothing was trained: it may be mended
        tighten(ladder, "E", 1e9, 0.1, folder, train=fails)
    assert tomllib.loads((folder / "ladder-0.toml").read_text())["runs"][0]["seeds"] == [0, 1]
    ladder.write_text(START)
    (folder / "runs.jsonl").touch()
    (folder / "ladder-old.toml").write_text("none of ours")
    with pytest.raises(BayescaleError, match="another ladder"):
        tighten(ladder, "E", 1e9, 0.1, folder, train=fails)
    # How fast it is trained is for whoever goes on to say, how precisely is not.
    ladder.write_text(START.replace("workers = 1", "workers = 2") + "seeds = [0, 1]\n")
    with pytest.raises(BayescaleError, match="training failed"):
        tighten(ladder, "E", 1e9, 0.1, folder, train=fails)
    assert tomllib.loads((folder / "ladder-0.toml").read_text())["engine"]["workers"] == 2
    ladder.write_text(ladder.read_text().replace("workers = 2", 'precision = "bf16"'))
    with pytest.raises(BayescaleError, match="another ladder"):
        tighten(ladder, "E", 1e9, 0.1, folder, train=fails)
    ladder.write_text("x = 1\n")
    with pytest.raises(BayescaleError, match="source"):
        tighten(ladder, "E", 1e9, 0.1, tmp_path / "other", train=fails)
    with pytest.raises(BayescaleError, match="width"):
        tighten(ladder, "E", 1e9, -1, folder, train=fails)
    for target, budget, match in (
        ("gamma", 1e9, "no parameter"),
        ("E", -1, "budget"),
        ("streams=2", 1, "streams"),
        ("params=14e3", 1, "'tokens' is not given"),
        ("params=14e3,tokens=2e5,compute=1e20", 1, "give two of the three"),
    ):
        with pytest.raises(BayescaleError, match=match):
            tighten(ladder, target, budget, 0.1, folder, train=fails)
    with pytest.raises(BayescaleError, match="gamma"):
        tighten(ladder, "E", 1e9, 0.1, folder, train=fails, priors={"gamma": "LogNormal(1, 1)"})
    assert not (tmp_path / "other").exists() or os.listdir(tmp_path / "other") == []


def test_a_folder_may_be_a_link(tmp_path):
    (tmp_path / "text.txt").write_text("to train on")
    (tmp_path / "start.toml").write_text('[source]\nkind = "files"\npaths = ["text.txt"]\n')
    (tmp_path / "far" / "off").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "off")
    (found,) = read_template(tmp_path / "start.toml", tmp_path / "link")["source"]["paths"]
    assert (tmp_path / "far" / "off" / found).read_text() == "to train on"


@pytest.mark.parametrize("paths", ["5", "[5]", '"a.txt"'])
def test_paths_that_are_no_list_of_names_are_for_the_trainer_to_refuse(tmp_path, paths):
    ladder = tmp_path / "start.toml"
    ladder.write_text(f'[source]\nkind = "files"\npaths = {paths}\n[[runs]]\nparams = 1e3\ntokens = 1e4\n')
    command = [sys.executable, "-m", "bayescale", "tighten", ladder, *OPTIONS, "-o", tmp_path / "out"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "paths" in done.stderr


def test_runs_that_blow_up_are_paid_for_and_end_the_loop(tmp_path):
    ladder, folder = tmp_path / "start.toml", tmp_path / "out"
    ladder.write_text(START)

    def only_the_first_runs_end(path, place):
        table = simulated_table(rows=12)
        write_runs(bs.RunTable(table.frame.assign(seed=0), table.meta), place / "runs.csv")
        return 1

    how = {"train": only_the_first_runs_end, "seed": 1}
    assert len(tighten(ladder, "E", 1e21, 10.0, tmp_path / "narrow", **how).rounds) == 1
    found = tighten(ladder, "params=1e9,tokens=2e10", 1e21, 1e-4, folder, **how)
    assert len(found.rounds) == 2
    assert found.rounds[1]["spent"] == pytest.approx(found.rounds[0]["plan"]["cost"])
    assert "no run of this round came to its end" in found.rounds[1]["stop"]


@pytest.mark.parametrize("status", ["nan", "diverged"])
def test_a_target_run_that_blows_up_is_told_and_costs_no_round(tmp_path, status):
    ladder, folder = tmp_path / "start.toml", tmp_path / "out"
    ladder.write_text(START)

    def only_the_check_blows_up(path, place):
        table = simulated_table(rows=12)
        if place.name != "check":
            write_runs(table, place / "runs.csv")
            return 0
        if status == "nan":  # no loss, no row
            (place / "runs.csv").write_text("params,tokens,loss\n")
        else:
            flagged = table.frame.head(1).assign(outlier=True)
            write_runs(bs.RunTable(flagged, table.meta), place / "runs.csv")
        return 1

    target = "params=1e9,tokens=2e10"
    found = tighten(ladder, target, 1e21, 10.0, folder, train=only_the_check_blows_up)
    assert found.check == {"params": 1e9, "tokens": 2e10, "loss": None}
    assert read_tightening(folder).check == found.check
    assert "target run (1e+09 params, 2e+10 tokens) blew up" in found.verdict()
    assert not plot_rounds(found).get_lines()  # no line for a loss that is not there


@pytest.mark.parametrize(("target", "budget"), [("E", 1e26), ("compute=1e24", 1e26)])
def test_a_budget_beyond_all_candidates_buys_the_dearest(tmp_path, target, budget):
    """It was said that no run could be afforded."""
    (tmp_path / "start.toml").write_text(START)

    def once(ladder, folder):
        if ladder.name == "ladder-1.toml":
            raise KeyboardInterrupt
        write_runs(simulated_table(rows=12), folder / "runs.csv")
        return 0

    with pytest.raises(KeyboardInterrupt):
        tighten(tmp_path / "start.toml", target, budget, 1e-4, tmp_path / "out", train=once)
    assert (tmp_path / "out/ladder-1.toml").is_file()


def test_the_target_run_is_trained_however_its_size_is_written(tmp_path):
    (tmp_path / "start.toml").write_text(START)
    table = simulated_table(rows=12)

    def train(ladder, folder):
        write_runs(table.where(np.arange(12) < (1 if folder.name == "check" else 12)), folder / "runs.csv")
        return 0

    out = tmp_path / "out"
    found = tighten(tmp_path / "start.toml", "params=1e9,compute=1.2e20", 1e21, 10.0, out, train=train)
    assert found.check is not None
    (run,) = tomllib.loads((out / "check/ladder.toml").read_text())["runs"]
    assert (run["params"], run["tokens"]) == pytest.approx((1e9, 2e10))


def test_interrupted_training_is_no_failure_and_a_budget_that_buys_nothing_an_end(tmp_path):
    ladder = tmp_path / "start.toml"
    ladder.write_text(START)
    with pytest.raises(KeyboardInterrupt):
        tighten(ladder, "E", 1e9, 0.1, tmp_path / "out", train=lambda path, place: 130)

    def trained(path, place):
        write_runs(simulated_table(rows=12), place / "runs.csv")
        return 0

    found = tighten(ladder, "params=1e9,tokens=2e10", 1.0, 1e-4, tmp_path / "poor", train=trained)
    assert len(found.rounds) == 1
    assert found.rounds[0]["stop"].startswith("no run that would help can be afforded")


def test_runs_are_planned_at_sizes_that_can_be_trained(tmp_path):
    ladder = tmp_path / "start.toml"
    ladder.write_text(START)
    settle = settle_with(ladder, tmp_path)
    fitted = bs.fit(simulated_table(rows=30), method="fast", seed=1)
    least = {"params": fitted.table.column("params").min(), "tokens": fitted.table.column("tokens").min()}

    def steps(runs):  # sizes in steps of ten, and twice as dear as the table's
        n = 10 ** np.ceil(np.log10(runs["params"]))
        return pd.DataFrame({"params": n, "tokens": runs["tokens"], "compute": 12 * n * runs["tokens"]})

    found = bs.plan(fitted, "E", 1e21, settle=steps)
    assert len(found.runs)
    assert np.allclose(np.log10(found.runs["params"]) % 1, 0)
    assert np.allclose(found.runs["compute"], 12 * found.runs["params"] * found.runs["tokens"])
    assert not found.candidates.duplicated(["params", "tokens"]).any()
    assert least["tokens"] <= found.runs["tokens"].min()
    asked = pd.DataFrame({"params": [2e3, 3e3], "tokens": [4e3, 4e3]})
    assert settle(asked)["params"].tolist() == [s["params"] for s in sizes_of(ladder, tmp_path, asked)]
    ladder.write_text(START.replace("params", "parms"))
    with pytest.raises(BayescaleError, match=r"start.toml: \[\[runs\]\] has no option 'parms'"):
        settle(asked)


def sizes_of(ladder, folder, runs):
    found = read_ladder(ladder)
    return settled_sizes(found, found.open_source(folder), zip(runs["params"], runs["tokens"], strict=True))


def test_a_pool_with_unique_tokens_in_some_rows_keeps_all_its_runs():
    runs = pd.DataFrame(
        {"params": [1e6, 2e6], "tokens": 1e7, "unique_tokens": [np.nan, 5e6], "compute": 1e13, "seed": [0, 1],
         "gain": 0.1}
    )  # fmt: skip
    groups = run_groups(runs)
    assert groups == [
        {"params": 1e6, "tokens": 1e7, "seeds": [0]},
        {"params": 2e6, "tokens": 1e7, "unique_tokens": 5e6, "seeds": [1]},
    ]
    pool = runs.drop(columns=["seed", "gain"])
    assert len(Proposal(runs=runs, candidates=pool, warnings=[], failed=[]).grouped()) == 2


def test_a_row_and_a_verdict_say_what_a_round_found():
    rounds = rounds_of().rounds
    for r in rounds:
        r["entropy_rate"] = 1.15
    rows = Tightening(rounds, rounds_of().check).summary()
    pd.testing.assert_frame_equal(
        rows,
        pd.DataFrame(
            {"round": [0, 1], "runs": [6, 9], "spent_FLOP": [0.0, 2e12], "low": [1.2, 1.23],
             "high": [1.3, 1.27], "width": [0.1, 0.04], "predicted_width": [np.nan, 0.05],
             "floor_low": [0.9, 1.0], "floor_high": [1.2, 1.1], "entropy_rate": 1.15, "held": ["yes", "no"]}
        ),
    )  # fmt: skip
    trained = "target run trained (1e+06 params, 2e+07 tokens, 1.2e+14 FLOP apart): loss 1.2500 nats/token, "
    where = {True: "inside", False: "OUTSIDE"}
    for within, word in where.items():
        said = Tightening(rounds, rounds_of().check | {"inside": within}).verdict().splitlines()
        assert said[1] == f"{trained}{word} the 90% band of a new run, 1.2200 - 1.2800"
    assert [inside(x, (1.0, 2.0)) for x in (0.9, 1.0, 1.5, 2.0, 2.1)] == [False, True, True, True, False]


def test_a_folder_without_rounds_or_with_spoilt_ones_is_refused(tmp_path):
    with pytest.raises(BayescaleError, match=r"holds no rounds.jsonl; expected a folder that"):
        read_tightening(tmp_path)
    (tmp_path / "rounds.jsonl").write_text('{"round": 0}\n{"rou')
    with pytest.raises(BayescaleError, match=r"rounds.jsonl, line 2: not JSON"):
        read_tightening(tmp_path)
