import errno
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from types import SimpleNamespace

import pytest

pytest.importorskip("torch", reason="bayescale[trainer] is not installed")

import torch
from bayescale_trainer import executors
from bayescale_trainer.cli import main
from bayescale_trainer.flops import training_flops
from bayescale_trainer.ladder import Engine, LadderError, read_ladder, settled_sizes, tasks_of, workers_of
from bayescale_trainer.progress import Display, clock, forecast_seconds, makespan, print_plan, short
from bayescale_trainer.recipe import RecipeError
from bayescale_trainer.records import MEASURED, append_records, mend_records, read_records, write_table
from bayescale_trainer.train import train

import bayescale as bs
from tests.trainer.conftest import TINY

RUNS = """
[[runs]]
params = [2e3, 6e3]
tokens = [4e3, 8e3]
seeds = [0, 1]
"""


def _by_id(records):
    return {r["run_id"]: {k: v for k, v in r.items() if k not in MEASURED} for r in records}


def _results(folder):
    path = folder / "runs.jsonl"
    return _by_id(read_records(path)), len(path.read_text().splitlines())


def _runs(path, tmp_path):
    ladder = read_ladder(path)
    return ladder.runs(ladder.open_source(tmp_path / "cache"))


def test_groups_multiply_out_and_equal_runs_are_one(write_ladder, tmp_path):
    again = "[[runs]]\nparams = 2e3\ntokens = [4e3]\nseeds = 2\nlearning_rate_factor = [0.5, 1]\n"
    runs = _runs(write_ladder(RUNS + RUNS + again), tmp_path)
    assert len(runs) == len({run.id for run in runs}) == 8 + 2
    assert {run.learning_rate_factor for run in runs} == {0.5, 1.0}
    assert read_ladder(write_ladder(RUNS + RUNS + again)).asked == 8 + 8 + 2


def test_whole_numbers_written_without_a_point_make_no_other_runs(write_ladder, tmp_path):
    sweep = RUNS + "learning_rate_factor = [0.5, {}, 2{}]\n"
    recipe = (
        "[recipe]\nends_at = {0}\nclip = {0}\nbatch_tokens = 1024{1}\n[model]\ncontext = 12\naspect = 64{1}\n"
    )
    tiny = '[source]\nkind = "zipf-bigram"\nsymbols = 16\nexponent = {}\nvalidation_tokens = 9600\n'
    ids = []
    for one, point in (("1", ""), ("1.0", ".0")):
        text = tiny.format(one) + recipe.format(one, point) + sweep.format(one, point)
        (tmp_path / "written.toml").write_text(text)
        ids.append([run.id for run in _runs(tmp_path / "written.toml", tmp_path)])
    assert ids[0] == ids[1]
    plain = (tmp_path / "written.toml").read_text() + RUNS
    (tmp_path / "written.toml").write_text(plain)
    assert [run.id for run in _runs(tmp_path / "written.toml", tmp_path)] == ids[1]


def test_rows_of_a_stack_are_alike_and_no_run_is_left_out(write_ladder, tmp_path):
    runs = _runs(write_ladder(RUNS), tmp_path)
    for stack, expected in ((1, 8), (2, 4), (32, 4)):
        tasks = tasks_of(runs, stack)
        assert len(tasks) == expected
        assert sorted(run.id for task in tasks for run in task.runs) == sorted(r.id for r in runs)
        for task in tasks:
            assert len({(run.shape, run.steps) for run in task.runs}) == 1
        work = [sum(training_flops(r.shape, r.tokens)["compute"] for r in task.runs) for task in tasks]
        assert work == sorted(work, reverse=True)  # the dearest first, or the last to end would be long alone


def test_trunks_of_other_lengths_share_no_stack(write_ladder, tmp_path):
    trunk = '[recipe]\nschedule = "trunk"\nbatch_rule = "fixed"\nbatch_tokens = 96\n'
    groups = "".join(
        f"[[runs]]\nparams = 2e3\ntokens = {tokens}\nseeds = {seed}\n"
        for seed, tokens in enumerate(([4e3, 8e3], [4e3, 8e3], [4e3, 16e3], [4e3]))
    )
    tasks = tasks_of(_runs(write_ladder(groups, TINY.replace("[recipe]\n", trunk)), tmp_path), 4)
    assert sorted(sorted({run.seed for run in task.runs}) for task in tasks) == [[0, 1], [2], [3]]
    for branch in (branch for task in tasks for branch in task.branches):
        assert len({run.steps for run in branch}) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no runs"),
        ("[[runs]]\nparams = 2e3\n", "tokens"),
        ("[[runs]]\nparams = -1\ntokens = 1e3\n", "params"),
        ('[[runs]]\nparams = "big"\ntokens = 1e3\n', "params"),
        ("[[runs]]\nparams = 1e3\ntokens = 1e3\nsteps = 3\n", "steps"),
        ("[[runs]]\nparams = 1e3\ntokens = 1e3\nunique_tokens = 0\n", "unique_tokens"),
        ('[optimizer]\nname = "adam"\n' + RUNS, "optimizer"),
        ('[engine]\ndevice = "tpu"\n' + RUNS, "tpu"),
        ("[engine]\nworkers = -2\n" + RUNS, "workers"),
        ('[model]\nmlp = "moe"\n' + RUNS, "mlp"),
        ("[model]\nhead_width = 12\n" + RUNS, "head_width"),
        ("not toml", "cannot be read"),
        ("[engine]\nstack = 1.5\n" + RUNS, "stack = 1.5: expected a whole number"),
        ("[engine]\ncheckpoint_seconds = nan\n" + RUNS, "checkpoint_seconds = nan"),
        ("[model]\naspect = nan\n" + RUNS, "aspect = nan"),
        ("[[runs]]\nparams = 1e300\ntokens = 1e3\n", "params = 1e.300: expected a number from"),
        ("[[runs]]\nparams = 1e3\ntokens = 1e3\nseeds = 1048576\n", "seeds = 1048576: .* to 1048575"),
        ("[[runs]]\nparams = 1e3\ntokens = 1e3\nunique_tokens = inf\n", "unique_tokens = inf"),
        (
            "[[runs]]\nparams = 1e3\ntokens = 1e14\nunique_tokens = 1e13\n",
            r"unique_tokens = 1e\+13: at most 6.4",
        ),
        ("[recipe]\nreference_width = 0\n" + RUNS, "reference_width = 0"),
        ("[recipe]\nlearning_rate = inf\n" + RUNS, "learning_rate = inf"),
        ("[recipe]\nbeta2_half_life_tokens = nan\n" + RUNS, "beta2_half_life_tokens = nan"),
        ("[recipe]\nwarmup_tokens_per_param = -1\n" + RUNS, "warmup_tokens_per_param = -1"),
    ],
)
def test_bad_ladders_are_refused_in_words(tmp_path, text, message):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises((LadderError, RecipeError), match=message):
        read_ladder(path)


def test_bad_input_ends_in_a_sentence_not_a_traceback(write_ladder, tmp_path, capsys):
    assert main([str(tmp_path / "none.toml")]) == 2
    assert main([str(write_ladder('[[runs]]\nparams = "x"\ntokens = 1\n'))]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert "none.toml" in errors[0]
    assert "params" in errors[1]


def test_dry_run_prints_every_run_and_trains_none(write_ladder, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    path = write_ladder(RUNS.replace("[0, 1]", "[0, 123456]"))
    command = [str(path), "-o", str(tmp_path / "out"), "--dry-run"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", "66")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # as in a terminal
    assert main(command) == 0
    narrow = capsys.readouterr().out
    for run in _runs(path, tmp_path):
        (row,) = (line.split() for line in printed.splitlines() if run.id in line)
        numbers = [str(n) for n in (run.seed, run.batch_tokens, run.steps)]
        assert row[4:7] == numbers
        assert run.id not in narrow
        (row,) = (line.split() for line in narrow.splitlines() if line.startswith(run.id[:3]))
        assert row[4:7] == numbers
    assert "8 runs" in printed
    assert not (tmp_path / "out" / "runs.jsonl").exists()


def test_a_torn_last_line_is_cut_and_whole_records_kept(tmp_path):
    path = tmp_path / "runs.jsonl"
    append_records(path, [{"run_id": "a"}, {"run_id": "b"}])
    with path.open("a") as file:
        file.write('{"run_id": "c", "lo')
    torn = path.read_bytes()
    assert [record["run_id"] for record in read_records(path)] == ["a", "b"]
    assert path.read_bytes() == torn  # to read is not to write
    mend_records(path)
    append_records(path, [{"run_id": "d"}])
    assert [record["run_id"] for record in read_records(path)] == ["a", "b", "d"]
    path.write_bytes(path.read_bytes()[:-1])  # a whole record, but for the line's end
    assert [record["run_id"] for record in read_records(path)] == ["a", "b", "d"]
    mend_records(path)
    append_records(path, [{"run_id": "a"}, {"run_id": "e"}])
    assert [record["run_id"] for record in read_records(path)] == ["a", "b", "d", "e"]


@pytest.mark.parametrize("text", ["", '{"a": 1}\n', "[1]\n", '{"run_id": "a"}\n', "\n"])
def test_what_holds_no_records_is_not_found_valid(tmp_path, capsys, text):
    path = tmp_path / "runs.jsonl"
    path.write_text(text)
    assert main([str(path), "--check"]) == 2
    assert main([str(tmp_path / "absent.jsonl"), "--check"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert "record" in errors[0]
    assert "no run records" in errors[1]


@pytest.mark.parametrize("recipe", ["", 'schedule = "trunk"\nbatch_rule = "fixed"\nbatch_tokens = 96\n'])
def test_of_a_ladder_that_grew_only_new_runs_are_trained(write_ladder, tmp_path, capsys, recipe):
    text = TINY.replace("[recipe]\n", f"[recipe]\n{recipe}")

    def grown(seeds, tokens):
        groups = f"[[runs]]\nparams = 2e3\ntokens = {tokens}\nseeds = {seeds}\n"
        return write_ladder(f"stack = 4\n{groups}", text)

    out = tmp_path / "out"
    assert main([str(grown([0, 1], [4096])), "-o", str(out)]) == 0
    first = _by_id(read_records(out / "runs.jsonl"))
    assert "2 runs asked" not in capsys.readouterr().err
    ladder = grown([0, 1, 2], [4096, 4097, 8192])
    assert main([str(ladder), "-o", str(out), "--dry-run"]) == 0
    assert capsys.readouterr().out.count("done") == 2
    assert main([str(ladder), "-o", str(out)]) == 0
    printed = capsys.readouterr().err
    assert "9 runs asked for; sizes come in steps, which makes 6 of them" in printed
    assert "[6/6]" in printed
    assert "[7/6]" not in printed
    after = read_records(out / "runs.jsonl")
    assert len(after) == 6
    assert len((out / "runs.jsonl").read_text().splitlines()) == 6
    assert _by_id(after).items() >= first.items()


def test_a_folder_that_cannot_be_is_told(write_ladder, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main([str(write_ladder(RUNS)), "-o", str(tmp_path / "file")]) == 2
    assert "give a folder with --out" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["runs.jsonl", "checkpoints", "runs.csv"])
def test_what_is_in_the_way_of_a_ladders_files_is_told_in_a_line(write_ladder, tmp_path, capsys, name):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("") if name == "checkpoints" else (out / name).mkdir()
    path = write_ladder("checkpoint_seconds = 0\n[[runs]]\nparams = 2e3\ntokens = 2e3\n")
    assert main([str(path), "-o", str(out)]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert name in last
    assert "give another folder with --out" in last
    assert not list(out.glob(".runs.*"))  # nothing half-written


def test_a_full_disk_is_told_in_a_line(write_ladder, tmp_path, capsys, monkeypatch):
    def full(path, records):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("bayescale_trainer.conduct.append_records", full)
    path = write_ladder("[[runs]]\nparams = 2e3\ntokens = 2e3\n")
    assert main([str(path), "-o", str(tmp_path / "out")]) == 2
    assert f"{tmp_path / 'out'}: No space left on device" in capsys.readouterr().err.splitlines()[-1]


def test_a_spoilt_checkpoint_is_named(write_ladder, tmp_path, capsys):
    path, out = write_ladder(RUNS), tmp_path / "out"
    ladder = read_ladder(path)
    task = tasks_of(ladder.runs(ladder.open_source(tmp_path)), 1)[0]
    (out / "checkpoints").mkdir(parents=True)
    (out / "checkpoints" / f"{task.id}.pt").write_bytes(b"PK")
    assert main([str(path), "-o", str(out)]) == 2
    assert f"{task.id}.pt is no checkpoint of this version: delete it" in capsys.readouterr().err


def test_leftovers_of_kills_are_removed_and_files_of_others_are_not(write_ladder, tmp_path):
    path, out = write_ladder("[[runs]]\nparams = 2e3\ntokens = 2e3\n"), tmp_path / "out"
    (out / "checkpoints").mkdir(parents=True)
    (out / "checkpoints" / "0123456789abcdef.4711").write_bytes(b"half a chec")
    for name, junk in (("a.pt", b"\x80\x02"), ("b.pt", b"u\xff"), ("notes.txt", b""), ("notes.2024", b"")):
        (out / "checkpoints" / name).write_bytes(junk)
    assert main([str(path), "-o", str(out)]) == 0
    assert (out / "runs.csv").exists()
    assert {p.name for p in (out / "checkpoints").iterdir()} == {"a.pt", "b.pt", "notes.txt", "notes.2024"}


def test_sizes_are_settled_as_they_are_trained(write_ladder, tmp_path):
    ladder = read_ladder(write_ladder(RUNS))
    source = ladder.open_source(tmp_path)
    sizes = settled_sizes(ladder, source, [(2e3, 4e3), (2.1e3, 4e3), (6e3, 8e3)])
    runs = {(run.shape.parameters()["total"], run.tokens) for run in ladder.runs(source)}
    assert sizes[0] == sizes[1]
    assert {(s["params"], s["tokens"]) for s in sizes} <= runs
    for asked, settled in zip((4e3, 4e3, 8e3), sizes, strict=True):
        assert settled["tokens"] == pytest.approx(asked, rel=0.05)
        (run,) = (
            run
            for run in ladder.runs(source)
            if run.seed == 0 and (run.shape.parameters()["total"], run.tokens) == tuple(settled.values())[:2]
        )
        assert settled["compute"] == training_flops(run.shape, run.tokens)["compute"]


def test_a_system_that_knows_no_affinity_trains_on_all_its_cores(monkeypatch):
    assert 1 <= workers_of(Engine(), "cpu") <= os.cpu_count()
    monkeypatch.delattr(os, "sched_getaffinity")
    assert workers_of(Engine(), "cpu") == os.cpu_count()


def _start(path, out):
    return subprocess.Popen(
        [sys.executable, "-m", "bayescale_trainer", str(path), "-o", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


LONGER = """checkpoint_seconds = 0.3
[[runs]]
params = [2e3, 6e3]
tokens = [24e3, 60e3]
seeds = [0, 1]
"""


def test_killed_in_the_middle_a_ladder_goes_on_and_ends_the_same(write_ladder, tmp_path):
    path = write_ladder(LONGER)
    ladder = read_ladder(path)
    source = ladder.open_source(tmp_path)
    whole = [r for task in tasks_of(ladder.runs(source), 1) for r in train(task, source)]

    out = tmp_path / "killed"
    killed = _start(path, out)
    while killed.poll() is None and len(read_records(out / "runs.jsonl")) < 2:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL, killed.stderr.read()
    kept, _ = _results(out)
    assert 2 <= len(kept) < 8

    last = _start(path, out)
    _, errors = last.communicate(timeout=120)
    assert last.returncode == 0, errors
    found, count = _results(out)
    assert count == 8
    assert found == _by_id(whole)
    assert errors.count("finished") == 8 - len(kept)
    assert not list((out / "checkpoints").glob("*.pt"))


def test_a_second_ladder_in_the_same_folder_is_refused(write_ladder, tmp_path, capsys):
    import fcntl

    (tmp_path / "out").mkdir()
    with (tmp_path / "out" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main([str(write_ladder(RUNS)), "-o", str(tmp_path / "out")]) == 2
    assert "another ladder" in capsys.readouterr().err


def test_the_run_table_has_a_row_per_run_and_its_entropy_rate(write_ladder, tmp_path, capsys):
    import csv
    import tomllib

    out = tmp_path / "out"
    runs = RUNS + "[[runs]]\nparams = 2e3\ntokens = 4e3\nlearning_rate_factor = [2.0, 1e5]\n"
    assert main([str(write_ladder(runs)), "-o", str(out)]) == 1  # a run diverged
    records = {record["run_id"]: record for record in read_records(out / "runs.jsonl")}
    rows = list(csv.DictReader((out / "runs.csv").open()))
    finite = [record for record in records.values() if record["loss"] is not None]
    assert len(records) == 10
    assert len(rows) == len(finite)
    for row in rows:
        record = records[row["run_id"]]
        assert float(row["loss"]) == record["loss"]
        assert float(row["compute"]) == record["compute"]
        assert (row["outlier"] == "true") == (
            record["status"] != "finished" or record["learning_rate_factor"] != 1
        )
    meta = tomllib.loads((out / "runs.toml").read_text())
    source = read_ladder(write_ladder(runs)).open_source(tmp_path)
    assert meta["entropy_rate"] == source.entropy_rate
    assert meta["seeds_taken"] == 2
    assert meta["priors"].keys() == {"A", "B", "beta"}
    assert meta["loss_unit"] == "nats/token"
    assert "blew up" in capsys.readouterr().out


def test_seeds_of_runs_that_blew_up_are_taken_and_those_that_diverged_have_a_row(tmp_path):
    import csv
    import tomllib

    common = {"params": 1, "tokens": 1, "learning_rate_factor": 1.0, "loss_unit": "nats/token", "kl": None}
    common |= {"source": {"kind": "files", "fingerprint": "f", "tokenizer": "bytes", "entropy_rate": None}}
    common |= {"compute_convention": "c"}
    found = ((0, 1.0, "finished"), (3, 9.0, "diverged"), (7, None, "nan"))
    records = [
        common | {"run_id": str(seed), "seed": seed, "loss": loss, "status": status, "outlier": seed > 0}
        for seed, loss, status in found
    ]
    write_table(tmp_path / "runs.csv", records, "t")
    rows = list(csv.DictReader((tmp_path / "runs.csv").open()))
    assert [(row["seed"], row["outlier"]) for row in rows] == [("0", "false"), ("3", "true")]
    meta = tomllib.loads((tmp_path / "runs.toml").read_text())
    assert meta["seeds_taken"] == 8
    assert meta["shared_evaluation"] is True


def test_a_run_table_of_any_name_is_read_back(write_ladder, tmp_path):
    out = tmp_path / "out"
    text = TINY.replace('"tiny"', '"zwölf 🙂 \\"facts\\""')
    assert main([str(write_ladder("[[runs]]\nparams = 2e3\ntokens = 2e3\n", text)), "-o", str(out)]) == 0
    assert bs.load(str(out / "runs.csv")).meta.name == 'zwölf 🙂 "facts"'


def test_a_users_text_is_trained_on_and_scored_in_bits_per_byte(write_ladder, tmp_path):
    (tmp_path / "text.txt").write_text("abcdefgh ijkl mnop. " * 300)
    text = (
        '[source]\nkind = "files"\npaths = ["text.txt"]\nvalidation_tokens = 600\n'
        '[model]\ncontext = 12\n[engine]\ndevice = "cpu"\n'
        "[[runs]]\nparams = 9e3\ntokens = 12e3\nunique_tokens = 3e3\n"
    )
    out = tmp_path / "out"
    assert main([str(write_ladder("", text)), "-o", str(out)]) == 0
    (record,) = read_records(out / "runs.jsonl")
    assert record["source"]["entropy_rate"] is None
    assert "priors" not in (out / "runs.toml").read_text()
    assert record["kl"] is None
    assert record["unique_tokens"] == 3_000
    assert record["training"]["epochs"] == pytest.approx(record["tokens"] / 3_000)
    assert record["validation"]["bits_per_byte"] == pytest.approx(record["loss"] / 0.693147, rel=1e-4)
    assert record["loss"] < 3.0


def test_records_are_plain_json(write_ladder, tmp_path):
    out = tmp_path / "out"
    assert main([str(write_ladder("[[runs]]\nparams = 2e3\ntokens = 2e3\n")), "-o", str(out)]) == 0
    (line,) = (out / "runs.jsonl").read_text().splitlines()
    record = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    top = "run_id params params_non_embedding tokens unique_tokens compute loss loss_se seed trunk status"
    assert set(top.split()) <= set(record)
    assert os.sep + "tmp" not in line


def test_a_gpu_too_small_for_a_stack_says_what_to_lower(write_ladder, tmp_path, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(executors, "train", full)
    ladder = read_ladder(write_ladder(RUNS))
    task = tasks_of(_runs(ladder.path, tmp_path), 2)[0]
    with pytest.raises(executors.ExecutorError, match=r"2 runs at a time of [\d,]+ parameters.*lower.*stack"):
        executors.train_at(task, executors.Workplace(ladder, tmp_path, "cpu", 1))


def test_a_source_that_changes_while_its_ladder_runs_is_told(write_ladder, tmp_path, monkeypatch):
    monkeypatch.setattr(executors, "_source", None)  # as in a new worker
    path = write_ladder(RUNS)
    task = tasks_of(_runs(path, tmp_path), 1)[0]
    changed = read_ladder(write_ladder(RUNS, TINY.replace("symbols = 16", "symbols = 17")))
    with pytest.raises(executors.ExecutorError, match=r"files have changed since the ladder was read"):
        executors.train_at(task, executors.Workplace(changed, tmp_path, "cpu", 1))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (BrokenProcessPool(), r"died 3 times.* 2 tasks are left.*a script must train under `if __name__"),
        (torch.AcceleratorError("launch\nhelp"), r"lost its GPU \(launch\).* 2 tasks are left.*are kept$"),
    ],
)
def test_tasks_of_a_worker_that_fails_are_begun_again(error, words, write_ladder, tmp_path, monkeypatch):
    ladder = read_ladder(write_ladder(RUNS))
    place = executors.Workplace(ladder, tmp_path, "cpu", 1)
    tasks = tasks_of(_runs(ladder.path, tmp_path), 2)
    asked = []

    def one_each_of_two(left, *_):
        asked.append(len(left))
        if len(left) > 2:
            yield left[0], []
        raise error

    monkeypatch.setattr(executors, "_one_pool", one_each_of_two)
    trained = executors.run_in_processes(tasks, place, print)
    assert [next(trained)[0] for _ in range(2)] == tasks[:2]
    with pytest.raises(executors.ExecutorError, match=words):
        next(trained)
    assert asked == [4, 3, 2, 2]  # only those in a row count, before which no task ended


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (41_200, "41.2k"),
        (999_499, "999k"),
        (999_999, "1M"),
        (2.5e9, "2.5G"),
        (1.4e12, "1.4T"),
        (3e15, "3P"),
        (12.34, "12.3"),
    ],
)
def test_numbers_have_three_digits_and_a_prefix(number, words):
    assert short(number) == words
    assert short(number, "B") == f"{words}B"


def test_workers_take_the_next_task_when_free():
    assert makespan([5, 3, 2, 4], 2) == 9  # one takes 5 and 4, the other 3 and 2
    assert makespan([5, 3, 2, 4], 1) == 14
    assert makespan([], 2) == 0


@pytest.mark.parametrize("stack", [1, 2])
def test_a_plan_forecasts_steps_and_evaluations_and_adds_up(
    write_ladder, tmp_path, monkeypatch, capsys, stack
):
    """Of steps of a second each: a branch ends in an evaluation, a third of a step per batch of tokens."""
    monkeypatch.setattr("bayescale_trainer.progress.step_seconds", lambda *_: 1.0)
    trunk = '[recipe]\nschedule = "trunk"\nbatch_rule = "fixed"\nbatch_tokens = 96\n'
    ladder = read_ladder(write_ladder(f"stack = {stack}\n{RUNS}", TINY.replace("[recipe]\n", trunk)))
    source = ladder.open_source(tmp_path)
    runs = ladder.runs(source)
    tasks = tasks_of(runs, stack)
    seconds = forecast_seconds(tasks, source, "cpu")
    for task in tasks:
        short_, long = (branch[0] for branch in task.branches)
        steps = long.steps + short_.cooldown_steps + 2 * 4_800 / long.batch_tokens / 3
        assert seconds[task.id] == pytest.approx(steps)
    print_plan(runs, tasks, source, "cpu", 1)
    printed = capsys.readouterr().out
    flops = sum(training_flops(run.shape, run.tokens)["compute"] for run in runs)
    assert f"8 runs, {flops:.3e} FLOPs, about {clock(sum(seconds.values()))} with 1 at a time" in printed
    first = tasks[0].runs[0]
    (row,) = (line for line in printed.splitlines() if first.id in line)
    assert row.endswith(f"{seconds[tasks[0].id] / (2 * stack):.1f} s")


def test_what_is_left_of_a_ladder_is_told_by_its_work(monkeypatch):
    """After a quarter of the work in ten seconds thirty are left."""
    now = [0.0]
    monkeypatch.setattr("bayescale_trainer.progress.time.perf_counter", lambda: now[0])
    monkeypatch.setattr("bayescale_trainer.progress.cost", lambda task: task.work)
    machine = SimpleNamespace(ceiling_flops=1.0)
    monkeypatch.setattr("bayescale_trainer.progress.measure", lambda *_: machine)
    one, other = (SimpleNamespace(id=name, work=work) for name, work in (("a", 1.0), ("b", 3.0)))
    display = Display([], [one, other], (), "cpu")
    assert display._eta() == "?"
    now[0] = 10.0
    display.finished(one, [])
    assert display._eta() == "0:30"


@pytest.mark.parametrize(
    ("seconds", "words"), [(75, "1:15"), (3675, "1:01:15"), (254_058, "70:34:18"), (0.4, "0:00")]
)
def test_durations_are_read_at_a_glance(seconds, words):
    assert clock(seconds) == words
