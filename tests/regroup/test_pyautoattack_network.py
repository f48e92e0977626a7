"""Passes that pyautoattack spends on each sample, attributed by the images it passes."""

from regroup.attacks.libraries.pyautoattack import CountedNetwork, nearest_in_order
from tests.regroup.autoattack_subjects import Linear, network_of, samples


def test_images_are_given_to_the_nearest_samples_in_their_order() -> None:
    assert nearest_in_order([[0.0, 5.0, 9.0], [9.0, 4.0, 1.0]]) == [0, 2]
    # Equal samples 0 and 2: the later image is the later one.
    assert nearest_in_order([[0.0, 5.0, 0.0], [0.0, 5.0, 0.0]]) == [0, 2]
    assert nearest_in_order([[3.0, 2.0, 2.5]]) == [1]


def test_passes_are_counted_for_the_samples_that_a_library_goes_on_with() -> None:
    clean = samples(4)
    seen = CountedNetwork(network_of(Linear()), clean, "linf")
    near = clean + 0.001
    seen.look(near)
    seen.look(near[[1, 3]])
    images = (near[[1, 3]] + 0.5).requires_grad_()  # as many as before: the same, however far
    seen(images).sum().backward()
    seen.look(near[[3]])
    seen.look(near[[0, 1, 3]])
    assert seen.forwards.tolist() == [2, 4, 1, 5]
    assert seen.backwards.tolist() == [0, 1, 0, 1]
