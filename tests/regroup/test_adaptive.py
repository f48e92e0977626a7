"""The adaptive attack: its members, their order, who wins, and what a member's failure means."""

import sys
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from regroup.attacks.adaptive import Adaptive
from regroup.attacks.apgd.attack import APGD
from regroup.attacks.score.square import Square
from regroup.attacks.views import DefendedNetwork, Views
from regroup.errors import ConfigurationError
from tests.regroup.attack_subjects import (
    SHAPE,
    BadGradient,
    Bent,
    assert_any_batch_gives_the_same,
    attack,
    samples,
)

pytest.importorskip("pyautoattack", reason="needs pyautoattack")
SHORT: dict[str, Any] = {"steps": 5, "restarts": 1, "target_classes": 1, "squares": 50}


class Doors(DefendedNetwork):
    """Class 1 is won where one pixel has grown; each surrogate follows a pixel of its own."""

    surrogates: ClassVar[tuple[str, ...]] = ("first", "second")

    def __init__(self, door: int, needed: float = 0.53) -> None:
        super().__init__()
        self.door, self.needed = door, needed

    def forward(self, pixels: Tensor) -> Tensor:
        won = (pixels.flatten(1)[:, self.door] > self.needed).float()
        return torch.stack((torch.full_like(won, 0.5), won), dim=1)

    def views(self, pixels: Tensor, surrogate: str) -> Views:
        followed = pixels.flatten(1)[:, self.surrogates.index(surrogate)]
        # Pixels beside the followed one must not rise by a random start's accident.
        scores = torch.stack(
            (torch.zeros_like(followed), followed - pixels.flatten(1)[:, 2:].sum(1)), 1
        )
        return Views(self(pixels.detach()), scores, scores)


class Locked(Doors):
    surrogates: ClassVar[tuple[str, ...]] = ()


def test_a_defended_network_is_attacked_by_every_surrogate_then_aimed_then_blindly() -> None:
    members = Adaptive(**SHORT).members(["a", "b"])
    assert list(members) == ["apgd-a", "apgd-b", "apgd-targeted", "square"]
    assert isinstance(members["apgd-b"], APGD)
    assert members["apgd-b"].surrogate == "b"
    assert members["apgd-b"].loss == "margin"
    aimed = members["apgd-targeted"]
    assert isinstance(aimed, APGD)
    assert (aimed.surrogate, aimed.restarts, aimed.target_classes) == ("a", 0, 1)
    assert isinstance(members["square"], Square)
    assert len({member.seed for member in members.values()}) == 4


def test_a_bare_network_is_attacked_by_losses_on_logits() -> None:
    members = Adaptive(epsilon=0.1, norm="l2", seed=7).members(None)
    assert list(members) == ["apgd-cross-entropy", "apgd-dlr", "apgd-targeted", "square"]
    assert {(member.norm, member.epsilon) for member in members.values()} == {("l2", 0.1)}
    assert members["apgd-cross-entropy"].seed == 7


def test_without_gradients_square_is_left_and_without_squares_nothing() -> None:
    assert list(Adaptive(**SHORT).members([])) == ["square"]
    assert list(Adaptive(**SHORT | {"squares": 0}).members([])) == []


@pytest.mark.parametrize("door", [0, 1])
def test_the_member_that_wins_is_recorded(door: int) -> None:
    clean = torch.full((2, *SHAPE), 0.5)
    result = attack(Adaptive(epsilon=0.04, **SHORT), Doors(door), clean)
    assert result.claimed.all()
    assert result.member.tolist() == [door, door]
    assert (result.linf <= 0.04 * (1 + 1e-5)).all()


def test_a_defense_without_gradients_is_beaten_blindly() -> None:
    result = attack(Adaptive(epsilon=0.04, **SHORT), Locked(0), torch.full((1, *SHAPE), 0.5))
    assert result.claimed.all()
    assert result.member.tolist() == [0]
    assert result.backward_passes.tolist() == [0]


def test_what_holds_has_been_attacked_by_all_and_keeps_the_first_ones_image() -> None:
    clean, spec = torch.full((1, *SHAPE), 0.5), Adaptive(epsilon=0.02, **SHORT)
    result = attack(spec, Doors(0), clean)
    first = attack(spec.members(["first", "second"])["apgd-first"], Doors(0), clean)
    assert not result.claimed.any()
    assert result.member.tolist() == [-1]
    assert np.array_equal(result.images, first.images)
    # Two surrogates and one target, six looks each; the target is chosen by one more.
    assert result.backward_passes.tolist() == [18]
    assert result.queries[0] >= 1 + 18 + 1 + 50


def test_later_members_attack_only_what_earlier_ones_left() -> None:
    pixels, model = samples(20), Bent()
    spec = Adaptive(epsilon=0.02, **SHORT)
    result = attack(spec, model, pixels)
    first = attack(spec.members(None)["apgd-cross-entropy"], model, pixels)
    assert np.array_equal(result.member == 0, first.claimed)
    won = first.claimed
    assert 0 < won.sum() < len(won)
    assert np.array_equal(result.images[won], first.images[won])
    assert np.array_equal(result.queries[won], first.queries[won])
    assert (result.queries[~won] > first.queries[~won]).all()


def test_a_sample_that_a_gradient_attack_fails_on_may_be_square_s() -> None:
    pixels = samples(8)
    pixels[:, 0, 0, 0] = 1.0  # no gradient is a number there
    spec = Adaptive(epsilon=0.05, **SHORT)
    result = attack(spec, BadGradient(Bent()), pixels)
    members = list(spec.members(None))
    blindly = result.member == members.index("square")
    assert blindly.any()
    assert result.claimed[blindly].all()
    assert set(result.failures) == set(np.flatnonzero(~result.claimed).tolist()) != set()


def test_groups_of_sixteen_give_the_same_again() -> None:
    spec, pixels = Adaptive(epsilon=0.02, **SHORT), samples(16)
    one, other = attack(spec, Bent(), pixels), attack(spec, Bent(), pixels)
    assert np.array_equal(one.images, other.images)
    alone = Adaptive(epsilon=0.02, **SHORT | {"squares": 0})
    assert_any_batch_gives_the_same(alone, Bent(), pixels)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"epsilon": None}, "needs an epsilon"),
        ({"steps": 0}, "steps is 0"),
        ({"restarts": 0}, "restarts is 0"),
        ({"squares": -1}, "squares is -1"),
        ({"protocol": "minimal"}, "unknown protocol of adaptive"),
    ],
)
def test_parameters_out_of_range(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Adaptive(**parameters)


def test_without_its_library_it_says_so_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyautoattack.square", None)
    clean, easy = torch.full((1, *SHAPE), 0.5), Adaptive(epsilon=0.04, **SHORT)
    with pytest.raises(ConfigurationError, match="pip install pyautoattack"):
        attack(easy, Doors(0), clean)
    assert attack(Adaptive(epsilon=0.04, **SHORT | {"squares": 0}), Doors(0), clean).claimed.all()
