import math
from dataclasses import replace

import pytest

pytest.importorskip("torch", reason="bayescale[trainer] is not installed")

import torch
from bayescale_trainer.device import compiles_kernels
from bayescale_trainer.flops import forward_flops, training_flops
from bayescale_trainer.model import (
    cross_entropy,
    logits,
    rotation,
    start_weights,
    views,
    weights_of,
)
from bayescale_trainer.shape import shape_of_size, shape_of_width
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

SHAPES = [
    shape_of_width(32, vocabulary=64, context=24),
    shape_of_width(48, vocabulary=100, context=16, mlp="swiglu"),
    shape_of_width(16, vocabulary=64, context=24, tied=True, aspect=4.0),
]


def _predict(shape, flat, tokens):
    turn = rotation(shape, tokens.device, flat.dtype)
    return logits(shape, views(shape, flat), tokens, turn)


@pytest.mark.parametrize("shape", SHAPES)
def test_parameters_by_kind_are_what_the_model_holds(shape):
    held = dict.fromkeys(("embedding", "head", "matrix"), 0)
    for weight in weights_of(shape):
        held[weight.kind] += weight.size
    counts = shape.parameters()
    assert held["matrix"] == counts["non_embedding"]
    assert (held["embedding"], held["head"]) == (counts["embedding"], counts["head"])
    assert start_weights(shape, [0]).shape == (1, counts["total"])


@pytest.mark.parametrize("shape", SHAPES)
def test_flops_are_those_of_a_counter_on_a_meta_device_model(shape):
    batch = 3
    flat = torch.empty(1, shape.parameters()["total"], device="meta", requires_grad=True)
    tokens = torch.empty(1, batch, shape.context, dtype=torch.long, device="meta")
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as forward:
        predicted = _predict(shape, flat, tokens)
    term = forward_flops(shape)
    expected = batch * shape.context * (term["matmul"] + term["head"] + term["attention_full"])
    assert forward.get_total_flops() == expected
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as backward:
        predicted.sum().backward()
    assert backward.get_total_flops() == 2 * expected


def test_causal_attention_is_the_average_over_positions():
    shape = SHAPES[0]
    per_key = forward_flops(shape)["attention_full"] / shape.context
    pairs = sum(position + 1 for position in range(shape.context))
    assert forward_flops(shape)["attention_causal"] == per_key * pairs / shape.context


def test_training_compute_is_three_forwards_and_6nd_its_shorthand():
    shape = SHAPES[0]
    compute = training_flops(shape, 1000)
    term = forward_flops(shape)
    assert compute["compute"] == 3000 * (term["matmul"] + term["head"] + term["attention_causal"])
    full = term["matmul"] + term["head"] + term["attention_full"]
    assert compute["compute_full_attention"] == 3000 * full
    assert compute["compute_6nd"] == 6 * shape.parameters()["non_embedding"] * 1000
    assert compute["compute_6nd_total"] == 6 * shape.parameters()["total"] * 1000


@pytest.mark.parametrize("shape", SHAPES)
def test_the_future_is_not_seen(shape):
    flat = start_weights(shape, [0]) + 0.02 * torch.randn(1, shape.parameters()["total"])
    tokens = torch.randint(0, shape.vocabulary, (1, 2, shape.context))
    changed = tokens.clone()
    changed[..., 10:] = (changed[..., 10:] + 1) % shape.vocabulary
    before, after = _predict(shape, flat, tokens), _predict(shape, flat, changed)
    torch.testing.assert_close(before[:, :, :10], after[:, :, :10])
    assert (before[:, :, 10:] - after[:, :, 10:]).abs().max() > 1e-3


@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_agrees_with_finite_differences(shape):
    shape = replace(shape, context=6)
    torch.manual_seed(0)
    flat = (start_weights(shape, [0]).double() + 0.1 * torch.randn(1, 1)).requires_grad_()
    tokens = torch.randint(0, shape.vocabulary, (1, 2, 7))

    def loss(flat):
        return cross_entropy(_predict(shape, flat, tokens[..., :-1]), tokens[..., 1:]).double().mean()

    (gradient,) = torch.autograd.grad(loss(flat), flat)
    for _ in range(3):
        direction = torch.randn_like(flat)
        direction /= direction.norm()
        step = 1e-3
        with torch.no_grad():
            slope = (loss(flat + step * direction) - loss(flat - step * direction)) / (2 * step)
        assert (gradient * direction).sum().item() == pytest.approx(slope.item(), rel=0.02, abs=2e-4)


def test_untied_head_starts_at_the_uniform_loss():
    shape = SHAPES[0]
    tokens = torch.randint(0, 64, (1, 4, 25))
    predicted = _predict(shape, start_weights(shape, [0]), tokens[..., :-1])
    assert cross_entropy(predicted, tokens[..., 1:]).mean().item() == pytest.approx(math.log(64))


def test_starting_weights_depend_on_a_rows_seed_alone():
    stacked = start_weights(SHAPES[0], [3, 1])
    assert torch.equal(stacked[1], start_weights(SHAPES[0], [1])[0])
    assert not torch.equal(stacked[0], stacked[1])


@pytest.mark.parametrize("size", [5e3, 14e3, 40e3, 130e3, 1e6, 25e6])
def test_shape_of_size_is_the_nearest_of_its_rule(size):
    shape = shape_of_size(size, vocabulary=256, context=48)
    assert shape.width % 8 == 0
    assert abs(math.log(shape.parameters()["total"] / size)) < 0.4
    assert shape.layers == max(2, round(shape.width / shape.aspect))


@pytest.mark.parametrize(
    ("width", "aspect", "layers"), [(160, 64.0, 2), (176, 64.0, 3), (64, 16.0, 4), (32, 64.0, 2)]
)
def test_layers_are_the_nearest_to_the_aspect_and_both_kinds_of_block_hold_as_much(width, aspect, layers):
    made = [
        shape_of_width(width, vocabulary=64, context=24, aspect=aspect, mlp=mlp)
        for mlp in ("relu2", "swiglu")
    ]
    for shape in made:
        assert shape.layers == layers
        per_block = shape.parameters()["non_embedding"] / layers
        # A hidden unit more or less is 3 widths; hidden units come in eights.
        assert per_block == pytest.approx(12 * width**2, abs=3 * width * 4)


@pytest.mark.parametrize("lacking", ["Triton", "a C compiler", "Python.h", None])
def test_a_gpu_without_what_kernels_take_is_said_to_be_slower(lacking, tmp_path, monkeypatch, recwarn):
    if lacking != "Python.h":
        (tmp_path / "Python.h").touch()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("bayescale_trainer.device.find_spec", lambda name: lacking != "Triton" or None)
    monkeypatch.setattr("sysconfig.get_paths", lambda scheme: {"include": str(tmp_path)})
    monkeypatch.setattr("shutil.which", lambda name: None if lacking == "a C compiler" else name)
    monkeypatch.delenv("CC", raising=False)
    assert compiles_kernels.__wrapped__() == (lacking is None)
    assert [lacking in str(warning.message) for warning in recwarn] == [True] * (lacking is not None)
