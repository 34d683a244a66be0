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
