"""What runs first in a worker, and refuses a node whose code is not the driver's.

Ray imports what is sent to a worker by name, from whatever its node has installed: another version
perhaps, or nothing. What is in this module is sent whole instead. It imports nothing of ours, and
unpickles nothing of ours, before the code was compared.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import ray
from ray import cloudpickle

from regroup_cluster import code_version
from regroup_cluster.code_version import other_code

if TYPE_CHECKING:
    from regroup_cluster.code_version import OtherCode
    from regroup_cluster.dispatch.attempt import AttemptError, StartError
    from regroup_cluster.dispatch.blocks import BlockReport
    from regroup_cluster.dispatch.worker_log import DispatchLabel

_ray_util: Any = ray.util  # without types

# The worker's code differs: what it has, and the address of its node. A tuple, since a class of
# ours might be another one there.
Differs = tuple["OtherCode", str]


class _OfThisProcess(set[str]):
    """A set that arrives empty in another process."""

    def __reduce__(self) -> tuple[type[_OfThisProcess], tuple[()]]:
        return _OfThisProcess, ()


# Codes of drivers that this process was found to have.
_accepted = _OfThisProcess()


def differs(code: dict[str, str]) -> Differs | None:
    """Return how the code here differs from the driver's `code_digests`; looked at once."""
    wanted = " ".join(code.values())
    if wanted in _accepted:
        return None
    other = other_code(code)
    if other is not None:
        return other, str(_ray_util.get_node_ip_address())
    _accepted.add(wanted)
    return None


class GuardedActor:
    """The actor: a `WorkerActor` of the driver's code, or none."""

    def __init__(self) -> None:
        self._actor: Any = None

    def ready(
        self, dispatch: str, sent: list[Any], code: dict[str, str]
    ) -> str | StartError | Differs:
        """Return what `WorkerActor.ready` does, unless the code here differs from the driver's.

        Args:
            dispatch: id of the dispatch.
            sent: an ObjectRef of the actor's class and its work, in a list so that Ray does not
                unpickle them before.
            code: the driver's `code_digests`.
        """
        if (found := differs(code)) is not None:
            return found
        actor_class, work = ray.get(sent[0])
        self._actor = self._actor or actor_class()
        answer: str | StartError = self._actor.ready(dispatch, work)
        return answer

    def process(self, block: int, number: int, label: DispatchLabel) -> BlockReport | AttemptError:
        """Run attempt `number` at `block` by the worker that `ready` built."""
        if self._actor is None:
            raise RuntimeError("the worker was not built")
        outcome: BlockReport | AttemptError = self._actor.process(block, number, label)
        return outcome


def guarded_task(
    dispatch: str, sent: list[Any], block: int, number: int, code: dict[str, str]
) -> BlockReport | AttemptError | Differs:
    """Run an attempt as a task, unless the code here differs.

    Args:
        dispatch: id of the dispatch.
        sent: an ObjectRef of the function that runs an attempt, its work and its label, in a list.
        block: index of the block.
        number: of the attempt, from 1.
        code: the driver's `code_digests`.
    """
    if (found := differs(code)) is not None:
        return found
    run, work, label = ray.get(sent[0])
    outcome: BlockReport | AttemptError = run(dispatch, work, block, number, label)
    return outcome


_send_whole: Any = cloudpickle.register_pickle_by_value
for _module in (code_version, sys.modules[__name__]):
    _send_whole(_module)
