import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from bayescale_trainer import recipe as rules
from bayescale_trainer.batches import stacked
from bayescale_trainer.recipe import Recipe, RecipeError
from bayescale_trainer.run import plan_run
from bayescale_trainer.shape import shape_of_width
from bayescale_trainer.sources import ZipfFacts

SOURCE = ZipfFacts(12, symbols=16, validation_tokens=480)


def _shape(width=32):
    return shape_of_width(width, vocabulary=16, context=12)


def _run(recipe=None, tokens=10_000, **options):
    return plan_run(recipe or Recipe(), SOURCE, _shape(), tokens, seed=options.pop("seed", 0), **options)


def test_cosine_rises_then_ends_at_d():
    run = _run()
    shares = [run.share(step) for step in range(run.steps)]
    assert shares[0] == pytest.approx(1 / run.warmup_steps)
    assert max(shares) == pytest.approx(1)
    assert shares[-1] < 0.01
    assert np.all(np.diff(shares[run.warmup_steps :]) <= 0)


def test_trunk_is_constant_until_each_branch_cools_down():
    recipe = Recipe(schedule="trunk", batch_rule="fixed", batch_tokens=96)
    short, long = (_run(recipe, tokens) for tokens in (10_000, 20_000))
    assert short.trunk == long.trunk
    assert short.id != long.id
    for step in range(short.branch_step):
        assert short.share(step) == long.share(step)
    shares = [short.share(step) for step in range(short.branch_step, short.steps)]
    assert np.all(np.diff(shares) < 0)
    assert shares[-1] < 0.1
    assert _run(recipe, seed=1).trunk != short.trunk


def test_shares_of_the_peak_rate_are_those_of_the_papers():
    """A linear rise; half a cosine to the final share; and 1 - sqrt over a cooldown, as if a step longer."""
    cosine = {"warmup": 10, "schedule": "cosine", "final": 0.1, "cooldown": 0}

    def share(step, ends_at=1.0):
        return rules.schedule_share(step, steps=110, ends_at=ends_at, **cosine)

    assert [share(step) for step in (0, 4, 9, 10)] == pytest.approx([0.1, 0.5, 1.0, 1.0])
    assert share(60) == pytest.approx(0.1 + 0.9 / 2)
    assert share(109) == pytest.approx(0.1 + 0.45 * (1 + np.cos(0.99 * np.pi)))
    assert share(109, ends_at=0.5) == pytest.approx(0.1)
    assert share(60, ends_at=2.0) == pytest.approx(0.1 + 0.45 * (1 + np.cos(50 / 210 * np.pi)))
    fixed = {"batch_rule": "fixed", "batch_tokens": 96, "least_batch_tokens": 96}
    trunk = Recipe(schedule="trunk", cooldown_share=0.2, warmup_tokens_per_param=0, **fixed)
    run = _run(trunk, 9_600)
    assert (run.steps, run.cooldown_steps, run.branch_step) == (100, 20, 80)
    cooled = [run.share(step) for step in range(79, 100)]
    assert cooled == pytest.approx([1 - np.sqrt(i / 21) for i in range(21)])


def test_mup_lowers_the_inner_rates_in_proportion_to_width():
    narrow, wide = (rules.learning_rates(Recipe(), _shape(width), 1e6) for width in (32, 128))
    assert wide["matrix"] == pytest.approx(narrow["matrix"] / 4)
    assert wide["head"] == pytest.approx(narrow["head"] / 4)
    assert wide["embedding"] == narrow["embedding"]


def test_published_rules_at_a_hand_computed_point():
    shape = shape_of_width(512, vocabulary=4096, context=48, aspect=128)
    size = shape.parameters()["non_embedding"]
    porian = Recipe(learning_rate_rule="porian", batch_rule="porian")
    with_head = size + 4096 * 512
    for tied in (True, False):
        rates = rules.learning_rates(porian, replace(shape, tied=tied), 1e9)
        assert rates["matrix"] == pytest.approx(3.7 / with_head**0.36)
    step_law = Recipe(learning_rate_rule="step-law", batch_rule="step-law")
    rate = rules.learning_rates(step_law, shape, 1e9)["matrix"]
    assert rate == pytest.approx(1.79 * size**-0.713 * 1e9**0.307)
    assert rules.batch_tokens(step_law, shape, 1e9) == pytest.approx(0.58 * 1e9**0.571, rel=0.01)
    assert rules.batch_tokens(porian, shape, 1e9) == pytest.approx(
        0.00037 * with_head**0.703 * 2048, rel=0.01
    )
    few = Recipe(batch_rule="fixed", batch_tokens=100, least_batch_tokens=960)
    assert rules.batch_tokens(few, shape, 1e9) == 960


def test_second_moment_remembers_the_same_tokens_at_any_batch():
    recipe = Recipe()
    small, large = rules.beta2(recipe, 500), rules.beta2(recipe, 1000)
    assert small**2 == pytest.approx(large)
    half_life = rules.beta2(Recipe(beta2_half_life_tokens=5_000), 500)
    assert half_life**10 == pytest.approx(0.5)
    assert (rules.beta2(recipe, 1), rules.beta2(recipe, 10**6)) == (0.999, 0.9)


def test_warm_up_is_bounded_by_its_share_of_d():
    run = _run(tokens=5_000)
    assert run.warmup_steps <= 0.1 * run.steps + 1
    size = _shape().parameters()["total"]
    once = Recipe(batch_rule="fixed", batch_tokens=96, least_batch_tokens=96, warmup_share=0.5)
    assert _run(once, 40 * size).warmup_steps == -(-size // 96)


def test_a_trunks_warm_up_is_as_long_whatever_branches_from_it():
    trunk = Recipe.from_table(TRUNK | {"warmup_tokens_per_param": 0.5})
    size = _shape().parameters()["total"]
    runs = [_run(trunk, tokens) for tokens in (size, 20 * size)]
    assert [run.warmup_steps for run in runs] == 2 * [math.ceil(0.5 * size / runs[0].batch_tokens)]


TRUNK = {"schedule": "trunk", "batch_rule": "fixed"}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"learning_rat": 1}, "unknown"),
        ({"learning_rate": "high"}, "expected"),
        ({"learning_rate": -1.0}, "above 0"),
        ({"schedule": "wsd"}, "use one of"),
        ({"schedule": "trunk"}, "depend on D"),
        ({"warmup_share": 1.5}, r"\[0, 1\)"),
        (TRUNK | {"warmup_share": 0.1}, r"warmup_share = 0.1 does nothing .* set warmup_tokens_per_param"),
        (TRUNK | {"ends_at": 1}, "ends_at = 1 does nothing"),
        ({"cooldown_share": 0.1}, "cooldown_share = 0.1 does nothing"),
    ],
)
def test_bad_recipes_are_refused_in_words(table, message):
    with pytest.raises(RecipeError, match=message):
        Recipe.from_table(table)


@pytest.mark.parametrize(("asked", "steps"), [(4_800, 50), (4_840, 50), (4_860, 51), (10, 1)])
def test_tokens_are_the_nearest_whole_number_of_steps(asked, steps):
    fixed = Recipe(batch_rule="fixed", batch_tokens=96, least_batch_tokens=96)
    run = _run(fixed, asked)
    assert (run.steps, run.tokens) == (steps, 96 * steps)


def test_a_pool_is_no_larger_than_its_source_nor_than_the_tokens_trained_on():
    finite = SimpleNamespace(fingerprint="f", train_windows=50)
    for asked, windows in ((None, 50), (1_200, 50), (480, 40)):
        run = plan_run(Recipe(), finite, _shape(), 10_000, seed=0, unique_tokens=asked)
        assert run.pool_windows == windows
        assert run.unique_tokens == 12 * windows
    assert _run(unique_tokens=10**6).unique_tokens == _run().tokens


def test_a_factor_multiplies_every_rate():
    one, double = (dict(_run(learning_rate_factor=f).learning_rate) for f in (1.0, 2.0))
    assert double == pytest.approx({kind: 2 * rate for kind, rate in one.items()})


def test_id_changes_with_everything_that_changes_the_result():
    runs = [
        _run(),
        _run(seed=1),
        _run(tokens=20_000),
        _run(unique_tokens=1_200),
        _run(learning_rate_factor=2.0),
        _run(Recipe(weight_decay=0.01)),
        _run(precision="bf16"),
    ]
    assert len({run.id for run in runs}) == len(runs)
    assert _run().id == _run().id


def test_unlimited_text_never_repeats_and_seeds_read_apart():
    runs = [_run(seed=0), _run(seed=1)]
    seen = np.concatenate([stacked(runs, SOURCE, step).flatten(0, 1) for step in (0, 1, 2)])
    again = stacked(runs[:1], SOURCE, 1)[0].numpy()
    np.testing.assert_array_equal(seen[2 * len(again) : 3 * len(again)], again)
    assert len(np.unique(seen, axis=0)) > 0.99 * len(seen)
    assert runs[0].unique_tokens == runs[0].tokens


def test_a_pool_is_read_in_whole_epochs_each_in_its_own_order():
    run = _run(unique_tokens=40 * 12)
    assert run.unique_tokens == 480
    count = run.batch_tokens // 12
    windows = np.concatenate([stacked([run], SOURCE, step)[0] for step in range(80 // count + 1)])
    pool = SOURCE.windows(np.arange(40), "train")
    for epoch in (windows[:40], windows[40:80]):
        np.testing.assert_array_equal(np.unique(epoch, axis=0), np.unique(pool, axis=0))
    assert (windows[:40] != windows[40:80]).any()
    other = stacked([_run(unique_tokens=40 * 12, seed=1)], SOURCE, 0)[0].numpy()
    assert (windows[: len(other)] != other).any()
