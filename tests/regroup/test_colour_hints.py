"""The pieces of cAdv on their own: segments, hints and the optimiser."""

import numpy as np
import torch

from regroup.attacks.colour.cadv import Adam
from regroup.attacks.colour.hints import colour_segments, hint_pixels, most_certain_segments


def test_segments_are_the_groups_of_colours() -> None:
    random = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [40.0, 0.0], [0.0, 40.0], [40.0, 40.0]])
    group = random.integers(0, 4, 300)
    colours = centres[group] + random.normal(0, 1, (300, 2))
    for seed in range(5):
        found = colour_segments(colours, 4, np.random.default_rng(seed))
        pairs = set(zip(group.tolist(), found.tolist(), strict=True))
        assert len(pairs) == 4  # one to one


def test_fewer_colours_than_segments() -> None:
    grey = np.zeros((20, 2))
    assert set(colour_segments(grey, 8, np.random.default_rng(0)).tolist()) == {0}
    grey[:5] = 3
    found = colour_segments(grey, 8, np.random.default_rng(0))
    assert len(set(found[:5].tolist())) == len(set(found[5:].tolist())) == 1
    assert found[0] != found[5]


def test_the_surest_segments_by_hand() -> None:
    segment = np.array([0, 0, 1, 1, 3, 3, 3])
    entropy = np.array([1.0, 3.0, 9.0, 1.0, 0.0, 1.0, 2.0])  # means 2, 5, (none), 1
    assert most_certain_segments(segment, entropy, 2).tolist() == [3, 0]
    assert sorted(most_certain_segments(segment, entropy, 8).tolist()) == [0, 1, 3]


def test_hint_pixels_are_different_and_of_the_kept_segments() -> None:
    segment = np.repeat([0, 1, 2], 10)
    random = np.random.default_rng(0)
    chosen = hint_pixels(segment, np.array([0, 2]), 12, random)
    assert len(set(chosen.tolist())) == 12
    assert not set(chosen.tolist()) & set(range(10, 20))
    every = hint_pixels(segment, np.array([1]), 50, random)
    assert sorted(every.tolist()) == list(range(10, 20))


def test_adam_steps_as_torch_s_with_rows_that_end() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, values = Adam(torch.zeros(4, 3), 0.01), torch.zeros(4, 3)
    theirs = [torch.zeros(3, requires_grad=True) for _ in range(4)]
    oracles = [torch.optim.Adam([x], lr=0.01) for x in theirs]
    rows = torch.arange(4)
    for step in range(12):
        rows = rows[: 4 - step // 4]
        gradient = torch.randn((len(rows), 3), generator=generator)
        values[rows] += ours.move(rows, gradient)
        for row in rows.tolist():
            theirs[row].grad = gradient[row].clone()
            oracles[row].step()
    torch.testing.assert_close(values, torch.stack([x.detach() for x in theirs]))
