"""The Boundary attack and the starting points of decision-based attacks."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from regroup.attacks import run_attack
from regroup.attacks.batch import AttackBatch
from regroup.attacks.decision.boundary import Boundary
from regroup.attacks.decision.starting_points import Starts, starting_points
from regroup.attacks.network import AttackedNetwork
from regroup.attacks.random_streams import stream
from tests.regroup.foolbox_subjects import (
    MEASURES,
    SHAPE,
    SIZE,
    Affine,
    Subject,
    affine,
    boundary_distances,
    cifar_subject,
    conv_subject,
    foolbox_model,
    library,
    random_pixels,
)

QUICK = Boundary(steps=20)


@pytest.fixture(params=["conv", "cifar"])
def subject(request: pytest.FixtureRequest) -> Subject:
    if request.param == "conv":
        return conv_subject(9)
    return cifar_subject(request.getfixturevalue("shared_data"), 4)


def begin(subject: Subject, rows: list[int], directions: int = 1000, blends: int = 50) -> Starts:
    names = tuple(subject.names[row] for row in rows)
    untargeted = torch.full((len(rows),), -1)
    batch = AttackBatch(subject.pixels[rows], subject.labels[rows], untargeted, names)
    network = AttackedNetwork(subject.model)
    return starting_points(QUICK, network, batch, directions, blends)


def mostly_bright() -> Subject:
    """Class 1 above a mean of 0.2, as all noise is: the two bright samples cannot be started."""
    weight = torch.stack((torch.zeros(SIZE), torch.full((SIZE,), 1 / SIZE)))
    model = Affine(weight, torch.tensor([0.0, -0.2]))
    return Subject(model, torch.stack([torch.full(SHAPE, x) for x in (0.1, 0.6, 0.15, 0.7)]))


# ---- starting points


def test_a_start_is_the_least_share_of_the_first_noise_that_fools() -> None:
    model = affine(2)
    subject = Subject(model, random_pixels(8))
    starts = begin(subject, list(range(8)))
    assert starts.found.all()
    tries = []
    for row, clean in enumerate(subject.pixels):
        generator = stream(QUICK, subject.names[row], 0)

        def wrong(image: Tensor, row: int = row) -> bool:
            return bool(model(image[None]).argmax() != subject.labels[row])

        drawn = (torch.from_numpy(generator.random(SHAPE, dtype=np.float32)) for _ in range(99))
        count, noise = next((i, noise) for i, noise in enumerate(drawn, 1) if wrong(noise))
        shares = [share / 50 for share in range(1, 51)]
        place, share = next(
            (i, s) for i, s in enumerate(shares, 1) if wrong((1 - s) * clean + s * noise)
        )
        torch.testing.assert_close(starts.images[row], (1 - share) * clean + share * noise)
        assert starts.queries[row] == count + place
        tries.append(count)
    assert max(tries) > 1  # not only first draws


@pytest.mark.parametrize("blends", [1, 2])
def test_the_whole_noise_is_taken_where_no_mixture_fools(blends: int) -> None:
    subject = conv_subject(4)
    starts = begin(subject, [0, 1, 2, 3], blends=blends)
    assert starts.found.all()
    wrong = subject.model(starts.images).argmax(dim=1) != subject.labels
    assert wrong.all()


def test_starts_are_the_same_for_any_batch(subject: Subject) -> None:
    rows = list(range(len(subject.pixels)))
    whole, alone = begin(subject, rows), begin(subject, [2])
    backwards = begin(subject, rows[::-1])
    assert whole.found.all()
    assert torch.equal(whole.images[2:3], alone.images)
    assert torch.equal(whole.images, backwards.images.flip(0))
    assert torch.equal(whole.queries, backwards.queries.flip(0))


def test_a_sample_that_no_noise_fools_is_a_failed_attack_and_the_others_go_on() -> None:
    subject = mostly_bright()
    kernel = library().BoundaryAttack(
        library().LinearSearchBlendedUniformNoiseAttack(directions=30, steps=50), steps=20
    )
    with (
        pytest.warns(UserWarning, match="failed to draw"),
        pytest.raises(ValueError, match="init_attack failed for 2"),
    ):
        kernel.run(foolbox_model(subject.model), subject.pixels, subject.labels)
    result = subject.attack(Boundary(steps=20, directions=30))
    assert result.claimed.tolist() == [True, False, True, False]
    assert result.failures == {}
    np.testing.assert_array_equal(result.images[1::2], subject.pixels[1::2].numpy())
    assert result.queries[1::2].tolist() == [30 + 1] * 2  # all noise, and the check beforehand
    assert result.steps.tolist() == [20, 0, 20, 0]
    neighbours = subject.attack(Boundary(steps=20, directions=30), [0, 2])
    np.testing.assert_array_equal(neighbours.images, result.images[::2])


def test_no_start_at_all_is_no_error() -> None:
    result = mostly_bright().attack(Boundary(directions=5), [1, 3])
    assert not result.claimed.any()
    assert result.queries.tolist() == [6, 6]


@pytest.mark.parametrize("kind", ["nan", "exception"])
def test_a_sample_that_the_network_cannot_take_leaves_the_others_alone(kind: str) -> None:
    class Sick(Affine):
        """Cannot take what is mixed from the noise of `poison`."""

        poison: Tensor

        def forward(self, pixels: Tensor) -> Tensor:
            ill = (pixels == self.poison).flatten(1).all(dim=1)
            if kind == "exception" and bool(ill.any()):
                raise RuntimeError("no such image")
            return torch.where(ill[:, None], torch.nan, super().forward(pixels))

    healthy = affine(3)
    model = Sick(healthy.weight.data, healthy.bias.data)
    model.poison = torch.from_numpy(stream(QUICK, "image-002", 0).random(SHAPE, dtype=np.float32))
    subject = Subject(model, random_pixels(6))
    result = subject.attack(QUICK)
    assert list(result.failures) == [2]
    assert result.claimed.tolist() == [row != 2 for row in range(6)]
    others = [0, 1, 3, 4, 5]
    np.testing.assert_array_equal(subject.attack(QUICK, others).images, result.images[others])


# ---- the walk


def test_it_walks_towards_the_image_but_not_below_the_closed_form() -> None:
    model, pixels = affine(4), random_pixels(8)
    subject = Subject(model, pixels)
    starts = begin(subject, list(range(8)))
    started = torch.linalg.vector_norm((starts.images - pixels).flatten(1), dim=1).numpy()
    nearest = boundary_distances(model, pixels).amin(dim=1).numpy()
    far = subject.attack(Boundary(steps=1500)).l2
    assert (far < started * 0.9).all()
    assert (far >= nearest * (1 - 1e-5)).all()
    assert (far <= subject.attack(QUICK).l2).all()


def test_from_the_same_starts_as_far_as_foolbox(subject: Subject) -> None:
    count = len(subject.pixels)
    starts = begin(subject, list(range(count)))
    spec = Boundary(steps=40)
    result = subject.attack(spec)
    torch.manual_seed(0)
    images = (
        library()
        .BoundaryAttack(steps=40)
        .run(
            foolbox_model(subject.model),
            subject.pixels,
            subject.labels,
            starting_points=starts.images,
        )
    )
    theirs = torch.linalg.vector_norm((images - subject.pixels).flatten(1), dim=1).numpy()
    assert result.claimed.all()
    # Other random directions: alike, not the same.
    np.testing.assert_allclose(np.median(result.l2), np.median(theirs), rtol=0.15)


def test_foolbox_shares_its_directions_so_a_group_runs_together() -> None:
    subject = conv_subject(1)
    twins = subject.pixels.expand(2, -1, -1, -1).contiguous()
    starts = begin(subject, [0]).images.expand(2, -1, -1, -1).contiguous()
    model, kernel = foolbox_model(subject.model), library().BoundaryAttack(steps=20)
    labels = subject.labels.expand(2)
    runs = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        runs.append(kernel.run(model, twins, labels, starting_points=starts))
    torch.testing.assert_close(runs[0][0], runs[0][1])  # one direction for both
    assert not torch.allclose(runs[0], runs[1], atol=1e-3)  # from wherever the global generator is
    # Ours: of the group's own seed; and names tell twins apart, at their starts.
    assert Boundary.facts.group == 16
    spec, names = Boundary(steps=20), ["a", "b"]
    results = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        results.append(run_attack(spec, subject.model, twins, labels, names))
    for name in MEASURES:
        first, second = (getattr(result, name) for result in results)
        np.testing.assert_array_equal(first, second, err_msg=name)
    assert not np.array_equal(results[0].images[0], results[0].images[1])


@pytest.mark.parametrize(("steps", "update"), [(5, 10), (20, 10), (9, 1)])
def test_queries_by_hand(steps: int, update: int) -> None:
    subject = conv_subject(3)
    result = subject.attack(Boundary(steps=steps, update_every=update))
    # Check, start, a look at the start, the walk, the spherical candidates, one last look.
    walk = 1 + 1 + steps + steps // update + 1
    expected = begin(subject, [0, 1, 2]).queries.numpy() + walk
    np.testing.assert_array_equal(result.queries, expected)
    assert result.steps.tolist() == [steps] * 3
    assert result.backward_passes.tolist() == [0] * 3


def test_a_network_without_gradients_will_do() -> None:
    class Decision(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            return nn.functional.one_hot((pixels.mean(dim=(1, 2, 3)) > 0.5).long(), 2).float()

    pixels = torch.stack([torch.full(SHAPE, level) for level in (0.45, 0.55)])
    result = Subject(Decision(), pixels).attack(QUICK)
    assert result.claimed.all()
