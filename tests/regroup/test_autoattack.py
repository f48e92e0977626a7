"""AutoAttack and Square: closed forms of a linear classifier, the library itself as oracle."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from regroup.attacks import predictions
from regroup.attacks.autoattack import AutoAttack
from regroup.attacks.libraries.pyautoattack import CountedNetwork
from regroup.attacks.random_streams import group_seed
from regroup.attacks.score.square import Square
from regroup.errors import ConfigurationError
from tests.regroup.autoattack_subjects import (
    FAST,
    Linear,
    attack,
    middle,
    names,
    network_of,
    radii,
    samples,
)

pytest.importorskip(
    "pyautoattack", reason="pyautoattack is not installed: pip install 'regroup-ray[attacks]'"
)

# ---- AutoAttack


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_success_exactly_where_the_ball_reaches_another_class(norm: Any) -> None:
    model, pixels = Linear(), samples(16)
    needed = radii(model, pixels, norm)
    epsilon = middle(needed)
    spec = AutoAttack(norm=norm, epsilon=epsilon, **FAST)
    result = attack(spec, model, pixels)
    np.testing.assert_array_equal(result.claimed, needed < epsilon)
    assert result.failures == {}
    size = result.linf if norm == "linf" else result.l2
    assert (size <= epsilon * (1 + 1e-4)).all()
    assert (size[result.claimed] > needed[result.claimed] * 0.999).all()
    assert (size[~result.claimed] == 0).all()  # nothing found: the clean image
    # The first kernel reaches the corner of the ball: the check, the package's own seven, the count
    # of classes, a look, 11 gradients, our look, and the last one. The others take all that `cost`
    # promises.
    assert result.queries[result.claimed].tolist() == [1 + 7 + 1 + 1 + 11 + 1 + 1] * 8
    assert result.backward_passes[result.claimed].tolist() == [11] * 8
    assert result.queries[~result.claimed].tolist() == [1 + spec.cost().forward] * 8
    assert result.backward_passes[~result.claimed].tolist() == [spec.cost().backward] * 8


def test_images_stay_in_the_bounds_at_the_edge_of_pixel_space() -> None:
    pixels = samples(8).round()  # black and white
    result = attack(AutoAttack(epsilon=0.3, **FAST), Linear(), pixels)
    assert result.images.dtype == np.float32
    assert result.images.min() >= 0
    assert result.images.max() <= 1
    assert result.claimed.any()
    assert (result.linf <= 0.3 + 1e-6).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_examples_are_those_of_the_librarys_own_standard_version(norm: Any) -> None:
    from pyautoattack import AutoAttack as Oracle

    model, pixels = Linear(), samples(6)
    epsilon = middle(radii(model, pixels, norm))
    spec = AutoAttack(norm=norm, epsilon=epsilon, steps=100, target_classes=2, squares=30)
    ours = attack(spec, model, pixels)
    seed = group_seed(spec, tuple(names(6)))
    oracle = Oracle(model, norm={"linf": "Linf", "l2": "L2"}[norm], eps=epsilon, seed=seed)
    oracle.square.n_queries = 30  # the defaults would take a minute
    oracle.apgd_targeted.n_target_classes = oracle.fab.n_target_classes = 2
    state = torch.get_rng_state()
    theirs, _ = oracle.run_standard_evaluation(pixels, predictions(model, pixels))
    torch.set_rng_state(state)
    assert ours.claimed.sum() == 3
    np.testing.assert_allclose(ours.images, theirs.detach().numpy(), atol=1e-6)


def test_the_defaults_are_those_of_the_librarys_standard_version() -> None:
    from pyautoattack import AutoAttack as Oracle

    oracle = Oracle(Linear(), eps=4 / 255, seed=7)
    oracle.fab.targeted = True  # as it does before it runs "fab-t"
    assert oracle.attacks_to_run == ["apgd-ce", "apgd-t", "fab-t", "square"]
    theirs = (oracle.apgd, oracle.apgd_targeted, oracle.fab, oracle.square)
    seen = CountedNetwork(network_of(Linear()), samples(1), "linf")
    kernels: list[Any] = [*AutoAttack()._kernels(seen, 7), *Square()._kernels(seen, 7)]
    for ours, their in zip(kernels, [*theirs, oracle.square], strict=True):
        ignored = {"model", "predict", "device", "logger"}
        kernel = ours.__self__
        assert type(kernel) is type(their)
        assert {k: v for k, v in vars(kernel).items() if k not in ignored} == {
            k: v for k, v in vars(their).items() if k not in ignored
        }


def test_fewer_classes_are_all_aimed_at_and_three_are_too_few() -> None:
    pixels = samples(4)
    model = Linear(classes=5)
    spec = AutoAttack(epsilon=1e-5, **FAST)
    result = attack(spec, model, pixels)
    four = AutoAttack(epsilon=1e-5, target_classes=4, **FAST)
    assert result.failures == {}
    assert result.queries.tolist() == [1 + four.cost().forward] * 4
    with pytest.raises(ConfigurationError, match=r"needs 4 classes .* the model has 3"):
        attack(spec, Linear(classes=3), pixels)


# ---- Square


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_square_never_breaks_what_the_ball_does_not_reach(norm: Any) -> None:
    model, pixels = Linear(), samples(16)
    needed = radii(model, pixels, norm)
    epsilon = middle(needed)
    result = attack(Square(norm=norm, epsilon=epsilon, steps=40), model, pixels)
    assert not (result.claimed & (needed > epsilon)).any()
    size = result.linf if norm == "linf" else result.l2
    assert (size <= epsilon * (1 + 1e-4)).all()
    assert (result.backward_passes == 0).all()
    assert (result.queries <= 1 + Square(steps=40).cost().forward).all()


def test_square_finds_what_lies_well_inside_the_ball_and_stops_there() -> None:
    model, pixels = Linear(), samples(16)
    needed = radii(model, pixels, "linf")
    result = attack(Square(epsilon=20 * float(np.median(needed)), steps=400), model, pixels)
    assert result.claimed.all()
    # The clean image, the start, and the looks: four, of which run_attack's; then a pass a square.
    assert result.queries.min() == 6
    assert len(set(result.queries.tolist())) > 3
    assert result.images.min() >= 0
    assert result.images.max() <= 1


def test_a_tie_of_every_class_is_no_error() -> None:
    class Tied(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            return 0 * pixels.flatten(1)[:, :4]

    result = attack(Square(epsilon=0.1, steps=5), Tied(), samples(3))
    assert result.failures == {}
    assert not result.claimed.any()  # the first of equal classes is the prediction
