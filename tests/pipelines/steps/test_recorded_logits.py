"""What workers load is what the driver recorded; elements are of the network that is used now."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from regroup.attacks.colour.cadv import CAdv
from regroup.attacks.pgd.attack import PGD
from regroup.errors import ConfigurationError
from regroup.models import save_weights
from regroup.models.colouriser import Colouriser, colouriser_sha256
from regroup.models.digits import DigitsCNN
from regroup.models.seeding import seeded_where
from regroup_cluster.dispatch.stopwatch import BlockClock
from regroup_cluster.workers.attack import AttackWork
from regroup_cluster.workers.extraction import ExtractionWork
from regroup_cluster.workers.images import IndexSpec
from regroup_cluster.workers.latency import LatencyWork
from regroup_pipelines.configs.options import ModelOptions
from regroup_pipelines.errors import UsageError
from regroup_pipelines.steps.network import Network, open_network
from regroup_pipelines.steps.recorded_logits import probe_of, recorded_of, require_same_logits
from regroup_pipelines.steps.scoring import check_network
from regroup_store.format.element import BlockElement
from regroup_store.format.store import Store, open_store
from regroup_store.kinds.adversarials import adversarials_spec
from regroup_store.kinds.banks import StoredBank
from regroup_store.kinds.features import features_spec
from tests.regroup.own_project import OwnProject, net

if TYPE_CHECKING:
    from collections.abc import Callable

OUTSIDE = "from pathlib import Path\nv = float(Path(__file__).with_name('v.txt').read_text())\n"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"), create=True)


def features(store: Store, network: Network) -> BlockElement:
    """Features of two images of an index that is not there."""
    spec = features_spec(
        "f",
        model=network.description,
        taps=network.taps,
        policy=network.policy,
        source={"index": "0" * 64},
        num_classes=network.num_classes,
        rows=2,
        block_rows=2,
    )
    return BlockElement.create(store, spec, recorded_of(network))


def extract(store: Store, network: Network) -> None:
    ref = features(store, network).ref
    work = ExtractionWork(store.uri, ref, IndexSpec("gone", None, 0), network.spec, "linear", 2)
    work.open()


def attack(store: Store, network: Network) -> None:
    spec = adversarials_spec(
        "a",
        model=network.description,
        attack={},
        index_fingerprint="0" * 64,
        image_shape=(3, 8, 8),
        rows=2,
        block_rows=2,
    )
    ref = BlockElement.create(store, spec, {}).ref
    images = IndexSpec("gone", None, 0)
    AttackWork(store.uri, ref, images, network.spec, PGD(epsilon=0.1), 2).open()


def time(store: Store, network: Network) -> None:
    LatencyWork(
        store.uri, "study", "ref", {}, "gone", "gone", (), "both", network.spec, "linear", 1, "cpu"
    ).open().process(0, BlockClock())


LOADS = {"extract": extract, "attack": attack, "time": time}


@pytest.mark.parametrize("load", LOADS)
def test_a_worker_refuses_weights_that_were_replaced(
    load: str, store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(DigitsCNN(), path, {})
    network = open_network(ModelOptions(model="digits-cnn", weights=str(path)))
    save_weights(DigitsCNN(), path, {})
    with pytest.raises(
        ConfigurationError, match=r"weights_sha256 is .*same weights file"
    ) as caught:
        LOADS[load](store, network)
    assert getattr(caught.value, "fatal", False), "said once, not at each attempt"


@pytest.mark.parametrize("load", LOADS)
def test_a_worker_refuses_another_source(load: str, store: Store, own: OwnProject) -> None:
    network = open_network(ModelOptions(model="mine:Net", crop=8))
    own.write(net(first="x = 1 - x"))
    own.forget()
    with pytest.raises(ConfigurationError, match=r"source_sha256 is .*the same sources"):
        LOADS[load](store, network)


def test_a_worker_refuses_another_colouriser(tmp_path: Path) -> None:
    """The driver gives the sha256 of the file that it found, where the user gave none."""
    path = tmp_path / "colours.safetensors"
    save_weights(Colouriser(1), path, {})
    sent = CAdv(colouriser=str(path)).pinned()
    assert sent.describe() == CAdv(colouriser=str(path)).describe()
    save_weights(Colouriser(2), path, {})
    with pytest.raises(ConfigurationError, match=r"has sha256 .* instead of"):
        sent.describe()
    assert sent.colouriser_sha256 != colouriser_sha256(str(path))


def changed_outside(own: OwnProject) -> Callable[[str], Network]:
    """A network that multiplies its input by what a file says, which no fingerprint can see."""
    own.write(net(head=OUTSIDE, first="x = x * v"))

    def opened(value: str) -> Network:
        own.write(value, "v.txt")
        own.forget()
        return open_network(ModelOptions(model="mine:Net", crop=8))

    return opened


def test_features_of_a_network_that_has_changed_are_not_gone_on_with(
    store: Store, own: OwnProject
) -> None:
    opened = changed_outside(own)
    first = opened("1")
    made = features(store, first)
    require_same_logits(first, made.manifest, "features/f")
    second = opened("1.5")
    again = features(store, second)
    assert again.ref == made.ref, "the fingerprint does not tell them apart"
    with pytest.raises(
        UsageError, match=r"other logits than when features/f was made .by 0.*"
    ) as e:
        require_same_logits(second, again.manifest, "features/f")
    assert "an attribute of the network (self.version = 2)" in str(e.value)
    require_same_logits(opened("1.00001"), made.manifest, "features/f")


def test_a_release_that_computes_something_else_is_noticed(store: Store) -> None:
    """A network under a name of ours: the advice is another one."""
    network = open_network(ModelOptions(model="cifar-resnet20", weights="random"))
    probe: Any = recorded_of(network)["probe"]
    assert [len(row) for row in probe["logits"]] == [10, 10]
    moved = {"recorded": {"probe": {"logits": [[2 * x for x in row] for row in probe["logits"]]}}}
    with pytest.raises(
        UsageError, match=r"the release of torch .*or give another --store"
    ) as caught:
        require_same_logits(network, moved, "banks/b")
    assert caught.value.exit_status == 2


def test_a_bank_of_another_network_is_refused_with_the_reason(own: OwnProject) -> None:
    network = open_network(ModelOptions(model="mine:Net", crop=8))
    probe: Any = recorded_of(network)["probe"]
    moved = {"probe": {"logits": [[1 + x for x in row] for row in probe["logits"]]}}
    own_keys = ("source_sha256", "attributes_sha256")
    earlier = {k: v for k, v in network.description.items() if k not in own_keys}
    for model, recorded, message in (
        (network.description, {"probe": probe}, None),
        (network.description, moved, "other logits than when banks/b-0{16} was made"),
        (
            {**network.description, "source_sha256": "f" * 64},
            {},
            "source_sha256 of the bank: f{64}",
        ),
        (earlier, {}, "built before the source of a network was part of its description"),
    ):
        inputs = {"model": model, "policy": network.policy}
        manifest = {"name": "b", "fingerprint": "0" * 64, "inputs": inputs, "recorded": recorded}
        bank = StoredBank((), (), np.zeros(0, np.int64), (), manifest)
        if message is None:
            check_network(bank, network)
        else:
            with pytest.raises(UsageError, match=message):
                check_network(bank, network)


def test_an_element_of_an_earlier_release_is_not_compared(own: OwnProject) -> None:
    network = open_network(ModelOptions(model="mine:Net", crop=8))
    manifests: list[dict[str, Any]] = [{}, {"recorded": {"versions": {}}}]
    for manifest in manifests:
        require_same_logits(network, manifest, "features/f")
        assert probe_of(manifest) == {}


def test_a_stochastic_network_is_said_and_not_compared(
    own: OwnProject, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    own.write(net(kept="self.stochastic = True", first="x = x + torch.randn_like(x)"))
    network = open_network(ModelOptions(model="mine:Net", crop=8))
    assert "mine:Net declares itself stochastic: what is made of it is one draw" in (
        capsys.readouterr().err
    )
    assert network.description["stochastic"] is True
    assert recorded_of(network) == {}
    require_same_logits(network, features(store, network).manifest, "features/f")


def test_a_block_of_a_stochastic_network_repeats_its_draws() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    draws = []
    for stochastic, block in ((True, 3), (True, 3), (True, 4)):
        with seeded_where(stochastic, block):
            draws.append(float(torch.rand(1)))
    assert draws[0] == draws[1] != draws[2]
    with seeded_where(False, 3):
        assert torch.rand(1) == expected, "no other network's generator is touched"
