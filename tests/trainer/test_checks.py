import copy

import pytest
from bayescale_trainer.checks import check_ladder, check_records, records_of_ladder
from bayescale_trainer.cli import main
from bayescale_trainer.ladder import read_ladder

SOUND = """
[[runs]]
params = [2e3, 6e3, 20e3]
tokens = [40e3, 80e3, 160e3]
seeds = [0, 1]
[[runs]]
params = [2e3, 20e3]
tokens = 40e3
learning_rate_factor = [0.5, 2]
"""


@pytest.fixture
def records(write_ladder, tmp_path):
    """A sound ladder's records, with results as a law would give them."""
    ladder = read_ladder(write_ladder(SOUND))
    found = records_of_ladder(ladder, ladder.open_source(tmp_path))
    for record in found:
        record["status"] = "finished"
        record["loss"] = 1 + (record["learning_rate_factor"] != 1) / 10
        record["training"]["gradient_noise_scale_tokens"] = 1e6
    return found


def _codes(records):
    return [finding.code for finding in check_records(records)]


def test_a_sound_ladder_has_no_findings(records, write_ladder, tmp_path):
    assert _codes(records) == []
    assert check_ladder(read_ladder(write_ladder(SOUND)), tmp_path) == []


def _without_sweep(records):
    records[:] = [r for r in records if r["learning_rate_factor"] == 1]


def _sweep_ends_at_best(records):
    for record in records:
        record["loss"] = 2 - record["learning_rate_factor"] / 10


def _one_seed(records):
    records[:] = [r for r in records if r["seed"] == 0]


def _one_size(records):
    for record in records:
        record["params"] = 2_000


def _every(path, value):
    def change(records):
        for record in records:
            inner = record
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = value

    return change


def _last(path, value):
    return lambda records: _every(path, value)(records[-1:])


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (_without_sweep, "learning-rate-not-swept"),
        (_sweep_ends_at_best, "learning-rate-at-edge"),
        (_every(["training", "ends_at"], 2.0), "schedule-not-ended"),
        (_every(["training", "final_share"], 0.5), "schedule-not-ended"),
        (_last(["training", "warmup_steps"], 10_000), "warm-up-too-long"),
        (_last(["training", "gradient_noise_scale_tokens"], 10.0), "batch-above-critical"),
        (_last(["training", "gradient_noise_scale_tokens"], 0.0), "batch-above-critical"),
        (_one_seed, "too-few-seeds"),
        (_last(["training", "optimiser"], "muon"), "mixed-optimiser"),
        (_last(["source", "tokenizer"], "bpe-1"), "mixed-tokenizer"),
        (_last(["unique_tokens"], 100), "data-repeated"),
        (_one_size, "too-few-params"),
        (_last(["status"], "nan"), "run-nan"),
        (_every(["trunk"], "a"), "shared-trunk"),
    ],
)
def test_each_fault_is_found_and_told_with_a_remedy_and_a_source(records, change, code):
    changed = copy.deepcopy(records)
    change(changed)
    found = {finding.code: finding for finding in check_records(changed)}
    assert code in found
    assert len(found[code].sentence) > 40
    assert found[code].citation.startswith("arXiv:")


@pytest.mark.parametrize(
    ("path", "inside", "outside", "code"),
    [
        (["training", "warmup_steps"], 0.19, 0.21, "warm-up-too-long"),
        (["training", "final_share"], 0.1, 0.11, "schedule-not-ended"),
        (["training", "ends_at"], 1, 0.9, "schedule-not-ended"),
        (["unique_tokens"], 1 / 3.9, 1 / 4.1, "data-repeated"),
        (["training", "gradient_noise_scale_tokens"], 1.01, 0.99, "batch-above-critical"),
    ],
)
def test_faults_begin_where_they_are_said_to(records, path, inside, outside, code):
    """Values of the last run; of warm-up, tokens and noise as shares of steps, tokens and batch."""
    last = records[-1]
    of = {"warm-up-too-long": last["training"]["steps"], "data-repeated": last["tokens"]}
    unit = (of | {"batch-above-critical": last["batch_tokens"]}).get(code, 1)
    for value, told in ((inside, False), (outside, True)):
        changed = copy.deepcopy(records)
        _last(path, value * unit)(changed)
        assert (code in _codes(changed)) is told


def test_findings_tell_the_worst(records):
    for record, share, scale in zip(records, (0.5, 0.3), (100.0, 10.0), strict=False):
        record["training"]["warmup_steps"] = share * record["training"]["steps"]
        record["training"]["gradient_noise_scale_tokens"] = scale
        record["batch_tokens"] = 200
    said = {finding.code: finding.sentence for finding in check_records(records)}
    assert said["warm-up-too-long"].startswith(
        "2 runs warm up for more than 20% of their steps (at most 50%)"
    )
    assert "2 of " in said["batch-above-critical"]
    assert "200 tokens against 10)" in said["batch-above-critical"]


@pytest.mark.parametrize("best", [0.5, 1.0, 2.0])
def test_a_best_rate_at_either_edge_of_its_sweep_is_told(records, best):
    for record in records:
        record["loss"] = 1 + abs(record["learning_rate_factor"] - best)
    found = [f.sentence for f in check_records(records) if f.code == "learning-rate-at-edge"]
    assert len(found) == (0 if best == 1 else 2)
    assert all(f"the best learning rate is {best:g} times" in sentence for sentence in found)


def test_a_sweep_at_one_size_and_seeds_off_the_rule_are_not_enough(records):
    least = min(r["params"] for r in records)
    one = [r for r in records if r["params"] == least or r["learning_rate_factor"] == 1]
    said = {f.code: f.sentence for f in check_records(one)}
    assert "is swept at 1 sizes" in said["learning-rate-not-swept"]
    off = copy.deepcopy(records)
    for record in off:
        if record["seed"] == 1:
            record["learning_rate_factor"] = 2.0
    assert (
        "seeds repeat at 0 model sizes" in {f.code: f.sentence for f in check_records(off)}["too-few-seeds"]
    )


def test_runs_that_diverged_are_told_and_trunks_of_one_branch_are_not(records):
    changed = copy.deepcopy(records)
    changed[0]["status"] = changed[1]["status"] = "diverged"
    (said,) = (f.sentence for f in check_records(changed) if f.code == "run-diverged")
    assert said.startswith("2 runs ended as diverged")
    for number, record in enumerate(changed):
        record["trunk"] = f"trunk {number}"
    assert "shared-trunk" not in _codes(changed)
    changed[1]["trunk"] = changed[0]["trunk"]
    assert "shared-trunk" in _codes(changed)


def test_one_ratio_is_found_however_sizes_are_rounded(write_ladder, tmp_path):
    sizes = [2e3, 6e3, 20e3, 60e3]
    for ratio in (20, 0.1):
        groups = [f"[[runs]]\nparams = {n}\ntokens = {ratio * n}\n" for n in sizes]
        ladder = read_ladder(write_ladder("".join(groups)))
        settled = records_of_ladder(ladder, ladder.open_source(tmp_path))
        assert len({r["tokens"] / r["params"] for r in settled}) > 1
        (found,) = (f for f in check_records(settled) if f.code == "fixed-ratio")
        assert " to " in found.sentence
    groups = [f"[[runs]]\nparams = {n}\ntokens = [{0.1 * n}, {0.4 * n}]\n" for n in sizes]
    ladder = read_ladder(write_ladder("".join(groups)))
    assert "fixed-ratio" not in _codes(records_of_ladder(ladder, ladder.open_source(tmp_path)))


def test_the_command_prints_findings_and_says_so_by_its_status(write_ladder, capsys):
    assert main([str(write_ladder(SOUND)), "--check"]) == 0
    assert main([str(write_ladder("[[runs]]\nparams = 2e3\ntokens = 4e3\n")), "--check"]) == 1
    printed = capsys.readouterr().out
    assert "nothing on the validity list" in printed
    assert "too-few-seeds" in printed
