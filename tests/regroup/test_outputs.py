"""Where the logits are in what a classifier returns: one way for extraction, attacks and models."""

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from regroup.accumulators import Extractor
from regroup.attacks.network import AttackedNetwork, cross_entropy
from regroup.errors import ConfigurationError
from regroup.models.outputs import logits_of, several_outputs

LOGITS = torch.rand(2, 5)
IMAGES = torch.rand(2, 3, 4, 4)
Inception = namedtuple("Inception", ["logits", "aux_logits"])


@dataclass
class ImageClassifierOutput:
    loss: None
    logits: Tensor


class Returning(nn.Module):
    """A linear classifier whose logits are wrapped by `wrap(logits, features)`."""

    def __init__(self, wrap: Callable[[Tensor, Tensor], object]) -> None:
        super().__init__()
        self.wrap, self.head = wrap, nn.Linear(48, 5)

    def forward(self, x: Tensor) -> object:
        features = torch.relu(x.flatten(1))
        return self.wrap(self.head(features), features)


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        (LOGITS, None),
        [LOGITS],
        (torch.rand(2, 3, 8, 8), LOGITS),
        (None, LOGITS, torch.rand(2, 7)),
        Inception(LOGITS, torch.rand(2, 5)),
        SimpleNamespace(logits=LOGITS),
        ImageClassifierOutput(None, LOGITS),
        {"logits": LOGITS, "hidden": torch.rand(2, 9)},
        {"scores": LOGITS},
        {"features": torch.rand(2, 3, 4, 4), "y": LOGITS},
        OrderedDict(aux=torch.rand(2, 5), out=LOGITS),
    ],
)
def test_the_logits_are_found(output: object) -> None:
    assert logits_of(output, 2) is LOGITS


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (LOGITS[0], r"returned \(5,\) for 2 samples"),
        (torch.rand(2, 3, 4), r"returned \(2, 3, 4\)"),
        (torch.rand(3, 5), r"returned \(3, 5\)"),
        ((), "returned tuple for"),
        (None, "returned NoneType"),
        ("text", "returned str"),
        ((torch.rand(2), None), r"returned tuple \(\(2,\), NoneType\)"),
        ({"a": torch.rand(2)}, r"returned dict \(a: \(2,\)\)"),
        ({"a": LOGITS, "b": LOGITS}, "a dictionary in which a, b could each be the logits"),
        ({"out": LOGITS, "pred": LOGITS}, "out, pred could each"),
    ],
)
def test_an_output_without_logits_is_described(output: object, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        logits_of(output, 2)
    assert "\n" not in str(caught.value)


def test_quantised_and_sparse_logits_become_plain() -> None:
    exact = torch.tensor([[1.0, -2.0], [0.0, 3.0]])
    for output in (torch.quantize_per_tensor(exact, 1.0, 0, torch.qint8), exact.to_sparse()):
        assert torch.equal(logits_of(output, 2), exact)


def test_of_several_that_could_be_the_logits_the_first_is_named() -> None:
    assert "((2, 5), (2, 7)): the first" in str(several_outputs((LOGITS, torch.rand(2, 7)), 2))
    assert several_outputs((LOGITS, torch.rand(2, 3, 4)), 2) is None
    assert several_outputs(Inception(LOGITS, LOGITS), 2) is None
    assert several_outputs(LOGITS, 2) is None


@pytest.mark.parametrize(
    "wrap",
    [
        lambda logits, _: SimpleNamespace(logits=logits),
        lambda logits, features: (logits, features),
        lambda logits, _: {"out": logits, "loss": None},
    ],
)
def test_extraction_and_attacks_take_a_bare_module_of_any_output(
    wrap: Callable[[Tensor, Tensor], object],
) -> None:
    network = Returning(wrap).eval()
    expected = network.head(torch.relu(IMAGES.flatten(1)))
    extraction = Extractor(network, "preactivation", IMAGES)(IMAGES)
    torch.testing.assert_close(extraction.logits, expected)
    attacked = AttackedNetwork(network)
    torch.testing.assert_close(attacked.logits(IMAGES), expected.detach())
    labels = torch.tensor([0, 1])
    seen, gradient = attacked.gradient(IMAGES, cross_entropy, labels)
    torch.testing.assert_close(seen, expected.detach())
    # d loss / d x = W^T (softmax - onehot), where x > 0: by hand.
    slope = expected.detach().softmax(1) - nn.functional.one_hot(labels, 5)
    by_hand = (slope @ network.head.weight.detach()) * (IMAGES.flatten(1) > 0)
    torch.testing.assert_close(gradient.flatten(1), by_hand)


def test_a_network_that_writes_into_its_input_leaves_the_callers_images_alone() -> None:
    class InPlace(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x.sub_(0.5).mul_(2)).mean((2, 3))

    images = IMAGES.clone()
    Extractor(InPlace().eval(), "preactivation", images)(images)
    attacked = AttackedNetwork(InPlace())
    attacked.logits(images)
    attacked.gradient(images, cross_entropy, torch.tensor([0, 1]))
    assert torch.equal(images, IMAGES)
