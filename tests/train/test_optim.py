from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from trainserve.spec.classifier import TrainSpec
from trainserve.train.architecture import build
from trainserve.train.metrics import Sums
from trainserve.train.optim import lr_at, sgd


def train(**fields) -> TrainSpec:
    return TrainSpec.model_validate({"epochs": 10, "lr": 0.4, "warmupEpochs": 1, **fields})


def test_warm_up_is_linear_and_reaches_the_peak():
    assert [lr_at(step, train(), 4) for step in range(5)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])


def test_cosine_is_half_way_down_in_the_middle_and_ends_at_zero():
    spec = train(warmupEpochs=0)
    assert lr_at(0, spec, 10) == pytest.approx(0.4)
    assert lr_at(50, spec, 10) == pytest.approx(0.2)
    assert lr_at(100, spec, 10) == pytest.approx(0)


def test_step_and_constant():
    spec = train(schedule="step", stepEpochs=3, warmupEpochs=0)
    assert [lr_at(e * 4, spec, 4) for e in (0, 2, 3, 6)] == pytest.approx([0.4, 0.4, 0.04, 0.004])
    assert lr_at(39, train(schedule="constant"), 4) == 0.4


@given(st.sampled_from(["cosine", "step", "constant"]), st.integers(0, 200), st.floats(0, 5), st.integers(1, 20))
def test_the_rate_is_never_negative_nor_above_the_peak(schedule, step, warmup, per_epoch):
    rate = lr_at(step, train(schedule=schedule, warmupEpochs=warmup), per_epoch)
    assert 0 <= rate <= 0.4 * (1 + 1e-9)


def test_norm_and_bias_do_not_decay():
    model = build("resnet18", 3, "small")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, free = sgd(model, train(weightDecay=0.1)).param_groups
    assert free["weight_decay"] == 0
    assert decayed["weight_decay"] == 0.1
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    wanted = {f"{norm}.{part}" for norm in norms for part in ("weight", "bias")} | {"fc.bias"}
    assert {names[id(p)] for p in free["params"]} == wanted


def test_no_momentum_is_plain_sgd():
    assert sgd(build("resnet18", 2, "small"), train(momentum=0)).param_groups[0]["nesterov"] is False


def test_top_5_is_clamped_and_ignored_labels_do_not_count():
    sums = Sums()
    logits = torch.tensor([[3.0, 1.0], [3.0, 1.0], [0.0, 9.0]])
    sums.add(logits, torch.tensor([0, 1, -100]), torch.tensor([0.5, 1.5, 0.0]))
    assert sums.count == 2
    assert sums.means() == pytest.approx((1.0, 0.5, 1.0))
    assert Sums().means() == (0, 0, 0)
