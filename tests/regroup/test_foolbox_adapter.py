"""Where the Foolbox adapter deviates from Foolbox itself, the same for every attack."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from regroup.attacks import AttackSpec, make_attack, run_attack
from regroup.attacks.decision.boundary import Boundary
from regroup.attacks.decision.hop_skip_jump import HopSkipJump
from regroup.attacks.gradient.carlini_wagner import CarliniWagner
from regroup.attacks.gradient.deepfool import DeepFool
from regroup.errors import ConfigurationError
from tests.regroup.foolbox_subjects import (
    Affine,
    Subject,
    affine,
    boundary_distances,
    conv_subject,
    foolbox_model,
    library,
    random_pixels,
)

QUICK_CW = CarliniWagner(steps=40, binary_searches=3, step_size=0.05, initial_const=1.0)
QUICK_BOUNDARY = Boundary(steps=20)
QUICK = [DeepFool(), QUICK_CW, QUICK_BOUNDARY, HopSkipJump(steps=2, probes=20)]
MARK = 0.9


def each_attack(specs: Sequence[AttackSpec] = QUICK) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("spec", specs, ids=lambda spec: spec.name)


class Sick(Affine):
    """Falls ill on images whose first pixel is near `MARK`, but not on those where it is exact."""

    remedy: Callable[[Tensor, Tensor], Tensor]

    def forward(self, pixels: Tensor) -> Tensor:
        first = pixels[:, 0, 0, 0]
        return self.remedy(super().forward(pixels), (first != MARK) & ((first - MARK).abs() < 0.1))


def sick(remedy: Callable[[Tensor, Tensor], Tensor], row: int) -> Subject:
    """Eight samples, of which `row` makes the network ill once it is touched."""
    healthy = affine(3)
    model = Sick(healthy.weight.data, healthy.bias.data)
    model.remedy = remedy
    pixels = random_pixels(8)
    pixels[row, 0, 0, 0] = MARK
    return Subject(model, pixels)


def with_nan(logits: Tensor, ill: Tensor) -> Tensor:
    return torch.where(ill[:, None], torch.nan, logits)


def with_exception(logits: Tensor, ill: Tensor) -> Tensor:
    if bool(ill.any()):
        raise RuntimeError("no such\nimage")
    return logits


# ---- one sample's misfortune


@each_attack([DeepFool(), QUICK_CW])
@pytest.mark.parametrize("row", [0, 5])
@pytest.mark.parametrize(
    ("remedy", "why"),
    [(with_nan, "NaN or infinity"), (with_exception, "RuntimeError: no such image")],
)
def test_one_ill_sample_does_not_take_the_others_down(
    spec: AttackSpec, row: int, remedy: Any, why: str
) -> None:
    subject = sick(remedy, row)
    result = subject.attack(spec)
    assert list(result.failures) == [row]
    assert why in result.failures[row]
    assert result.claimed.tolist() == [i != row for i in range(8)]
    np.testing.assert_array_equal(result.images[row], subject.pixels[row].numpy())
    others = [i for i in range(8) if i != row]
    alone = subject.attack(spec, others)
    np.testing.assert_array_equal(result.images[others], alone.images)
    # What was tried in vain is counted too.
    assert (result.queries[others] >= alone.queries).all()


def test_in_foolbox_one_nan_ends_carlini_wagner_for_all() -> None:
    subject = sick(with_nan, 5)
    kernel = library().L2CarliniWagnerAttack(steps=40, binary_search_steps=3)
    images = kernel.run(foolbox_model(subject.model), subject.pixels, subject.labels)
    assert not images.any()


def test_when_every_sample_fails_each_says_why() -> None:
    class Hollow(Affine):
        def forward(self, pixels: Tensor) -> Tensor:
            if torch.is_grad_enabled():
                raise ValueError("hollow")
            return super().forward(pixels)

    model = affine(3)
    result = Subject(Hollow(model.weight.data, model.bias.data), random_pixels(3)).attack(
        DeepFool()
    )
    assert result.failures == dict.fromkeys(range(3), "ValueError: hollow")
    assert not result.claimed.any()


@each_attack([DeepFool(), QUICK_CW])
def test_no_memory_is_not_the_samples_fault(spec: AttackSpec) -> None:
    def full(logits: Tensor, ill: Tensor) -> Tensor:
        if bool(ill.any()):
            raise torch.OutOfMemoryError("full")
        return logits

    with pytest.raises(torch.OutOfMemoryError):
        sick(full, 2).attack(spec)


# ---- success


def test_a_nan_logit_is_no_success_though_foolbox_says_so() -> None:
    from foolbox.criteria import Misclassification

    labels, nan = torch.zeros(1, dtype=torch.int64), torch.tensor([[0.0, torch.nan]])
    assert Misclassification(labels)(nan, nan).tolist() == [True]
    subject = sick(with_nan, 0)
    assert not subject.attack(DeepFool()).claimed[0]


@each_attack([DeepFool(), QUICK_CW, HopSkipJump(steps=2, probes=20)])
def test_success_is_judged_on_the_image_that_is_kept_not_on_a_clipped_one(spec: AttackSpec) -> None:
    model, pixels = affine(3), random_pixels(8)
    subject = Subject(model, pixels)
    result = subject.attack(spec)
    limit = float(boundary_distances(model, pixels).min()) / 2
    kernel = library().L2DeepFoolAttack()
    raw, clipped, success = kernel(
        foolbox_model(subject.model), subject.pixels, subject.labels, epsilons=limit
    )
    # Foolbox: no success, though the image that it returns first fools the network.
    assert not success.any()
    assert (subject.model(raw).argmax(dim=1) != subject.labels).all()
    assert not torch.equal(raw, clipped)
    assert result.claimed.all()
    assert (result.l2 > limit).all()
    kept = subject.model(torch.from_numpy(result.images)).argmax(dim=1)
    assert (kept != subject.labels).all()


@each_attack()
def test_misclassified_samples_are_refused_though_foolbox_attacks_them(spec: AttackSpec) -> None:
    subject = Subject(affine(2), random_pixels(3))
    wrong = subject.labels.clone()
    wrong[1] = 1 - wrong[1]
    images = library().L2DeepFoolAttack().run(foolbox_model(subject.model), subject.pixels, wrong)
    assert torch.equal(images[1], subject.pixels[1])  # a "success" at distance zero
    with pytest.raises(ValueError, match=r"misclassified: image-001$"):
        run_attack(spec, subject.model, subject.pixels, wrong, subject.names)


@each_attack()
def test_images_are_float32_in_bounds_and_claims_hold(spec: AttackSpec) -> None:
    subject = conv_subject(16)
    result = subject.attack(spec)
    assert result.images.dtype == np.float32
    assert result.images.min() >= 0
    assert result.images.max() <= 1
    assert result.claimed.any()
    classes = subject.model(torch.from_numpy(result.images)).argmax(dim=1)
    assert (classes != subject.labels).numpy()[result.claimed].all()
    assert np.isnan(result.epsilon).all()


# ---- what it took


@each_attack()
def test_passes_are_those_that_the_network_saw(spec: AttackSpec) -> None:
    subject = conv_subject(1)
    forward, backward = [0], [0]

    def count_backward(_: Tensor) -> None:
        backward[0] += 1

    def count(_module: Any, _inputs: Any, logits: Tensor) -> None:
        forward[0] += 1
        if logits.requires_grad:
            logits.register_hook(count_backward)  # type: ignore[no-untyped-call]

    labels = subject.labels
    handle = subject.model.register_forward_hook(count)
    # One sample, in batches of one: nothing is padded.
    result = run_attack(spec, subject.model, subject.pixels, labels, ["a"], rows=1)
    handle.remove()
    assert result.queries.tolist() == forward
    assert result.backward_passes.tolist() == backward
    cost = spec.cost()
    assert result.queries[0] <= cost.forward + 1
    assert result.backward_passes[0] <= cost.backward


@each_attack()
def test_the_network_sees_batches_of_one_size(spec: AttackSpec) -> None:
    subject, seen = conv_subject(7), set()
    labels = subject.labels
    handle = subject.model.register_forward_pre_hook(lambda _, args: seen.add(len(args[0])))
    run_attack(spec, subject.model, subject.pixels, labels, subject.names)
    handle.remove()
    assert seen == {16}


# ---- what is left behind


@each_attack()
def test_global_generators_neither_matter_nor_change(spec: AttackSpec) -> None:
    subject, results = conv_subject(3), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        before = torch.get_rng_state(), str(np.random.get_state())
        results.append(subject.attack(spec).images)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert str(np.random.get_state()) == before[1]
    np.testing.assert_array_equal(results[0], results[1])


@each_attack([QUICK_BOUNDARY, HopSkipJump(steps=2, probes=20)])
def test_examples_of_random_kernels_depend_on_the_seed(spec: AttackSpec) -> None:
    subject = conv_subject(3)
    first, second = (make_attack(spec.name, steps=2, seed=seed) for seed in (0, 1))
    assert not np.array_equal(subject.attack(first).images, subject.attack(second).images)


@each_attack([DeepFool(steps=2), QUICK_CW])
def test_parameters_of_the_network_get_no_gradient(spec: AttackSpec) -> None:
    subject = conv_subject(3)
    subject.attack(spec)
    parameters = list(subject.model.parameters())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in parameters)


@each_attack()
def test_an_attack_runs_where_gradients_are_switched_off(spec: AttackSpec) -> None:
    subject = conv_subject(3)
    expected = subject.attack(spec).images
    with torch.no_grad():
        np.testing.assert_array_equal(subject.attack(spec).images, expected)


# ---- what is refused


class NoGrad(Affine):
    def forward(self, pixels: Tensor) -> Tensor:
        with torch.no_grad():
            return super().forward(pixels)


@each_attack([DeepFool(), QUICK_CW])
def test_a_white_box_attack_needs_gradients(spec: AttackSpec) -> None:
    model = affine(3)
    subject = Subject(NoGrad(model.weight.data, model.bias.data), random_pixels(3))
    with pytest.raises(ConfigurationError, match="the network gives no gradient with respect to"):
        subject.attack(spec)


def test_a_decision_based_attack_does_not() -> None:
    model = affine(3)
    subject = Subject(NoGrad(model.weight.data, model.bias.data), random_pixels(3))
    assert subject.attack(QUICK_BOUNDARY).claimed.all()


@each_attack()
def test_a_missing_library_is_named(spec: AttackSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "foolbox"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "foolbox", None)
    with pytest.raises(ConfigurationError, match="pip install foolbox"):
        conv_subject(1).attack(spec)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("deepfool", {"epsilon": 2.0}, "deepfool looks for the smallest .* takes no epsilon"),
        ("carlini-wagner", {"epsilon": 4.0}, "takes no epsilon"),
        ("boundary", {"epsilon": 2.0}, "takes no epsilon"),
        ("hop-skip-jump", {"epsilon": 0.1}, "takes no epsilon"),
        ("deepfool", {"norm": "linf"}, "unknown norm of deepfool 'linf': choose from l2"),
        ("deepfool", {"protocol": "budget"}, "choose from minimal"),
        ("deepfool", {"targeted": True}, "supports only untargeted"),
        ("deepfool", {"candidates": 1}, "candidates is 1: give at least 2"),
        ("deepfool", {"steps": 0}, "steps is 0"),
        ("deepfool", {"overshoot": 0.0}, "overshoot is 0: it must be positive"),
        ("deepfool", {"loss": "hinge"}, "unknown loss of deepfool 'hinge'"),
        ("carlini-wagner", {"binary_searches": 0}, "binary_searches is 0"),
        ("carlini-wagner", {"kappa": -1.0}, "kappa is -1: give at least 0"),
        ("carlini-wagner", {"confidence": 0.9}, "not support a confidence"),
        ("carlini-wagner", {"initial_const": 0.0}, "initial_const is 0: it must be positive"),
        ("boundary", {"targeted": True}, "supports only untargeted"),
        ("boundary", {"directions": 0}, "directions is 0"),
        ("boundary", {"step_adaptation": 0.5}, "step_adaptation is 0.5"),
        ("hop-skip-jump", {"probes": 0}, "probes is 0"),
        ("hop-skip-jump", {"gamma": 0.0}, "gamma is 0"),
    ],
)
def test_a_bad_parameter_is_named(name: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make_attack(name, **change)


@each_attack()
def test_attacks_say_whether_a_group_runs_together(spec: AttackSpec) -> None:
    group = spec.facts.group
    assert group == (None if spec.name == "deepfool" else 16)
    assert spec.describe().get("group") == group
