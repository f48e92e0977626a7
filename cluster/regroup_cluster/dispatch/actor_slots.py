"""Actors as slots for blocks: `WorkerActor` runs in the actor, `ActorSlots` in the driver."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import ray
from ray.exceptions import ActorUnavailableError, RayError

from regroup_cluster.code_version import code_digests, refusal
from regroup_cluster.dispatch.attempt import (
    REASON_CHARACTERS,
    OpenedWork,
    StartError,
    attempt,
    is_usage_error,
    traceback_text,
)
from regroup_cluster.dispatch.progress import last
from regroup_cluster.dispatch.scheduler import ANSWER_S, TICK_S
from regroup_cluster.errors import ClusterError, ClusterUsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from regroup_cluster.dispatch.attempt import AttemptError
    from regroup_cluster.dispatch.blocks import BlockReport, BlockWork
    from regroup_cluster.dispatch.code_guard import Differs
    from regroup_cluster.dispatch.worker_log import DispatchLabel
    from regroup_cluster.resources import Capacity

# Where no worker can be built, each wanted one is tried this often before the dispatch ends.
START_ROUNDS = 3


class WorkerActor:
    """The actor: holds the worker of the current dispatch."""

    def __init__(self) -> None:
        self._opened = OpenedWork()

    def ready(self, dispatch: str, work: BlockWork) -> str | StartError:
        """Return the id of this node once the worker of `dispatch` is built."""
        try:
            self._opened.worker(dispatch, work)
        except Exception as error:
            trace = traceback_text(error)
            return StartError(str(error)[:REASON_CHARACTERS], trace, is_usage_error(error))
        node: str = ray.get_runtime_context().get_node_id()
        return node

    def process(self, block: int, number: int, label: DispatchLabel) -> BlockReport | AttemptError:
        """Run attempt `number` at `block` by the worker that `ready` built."""
        return attempt(self._opened.current, block, number, label)


@dataclass(eq=False)
class ActorHandle:
    """The driver's view of one actor.

    Attributes:
        actor: Ray's handle.
        state: "spare" while this dispatch does not need it, "starting" until `ready` has answered.
        ref: the ObjectRef awaited, of `ready` or of a block.
        asked: monotonic seconds when the actor was first asked to be ready.
        again: monotonic seconds before which an unavailable actor is not asked again.
        node: id of its node, known once it was ready.
    """

    actor: Any
    state: Literal["spare", "starting", "idle", "busy"] = "spare"
    ref: Any = None
    asked: float = 0.0
    again: float = 0.0
    node: str = ""


@dataclass(frozen=True)
class ActorDispatch:
    """What one dispatch has its actors do.

    Attributes:
        work: opened inside each actor.
        label: names the dispatch in the logs.
        ready_s: seconds that an actor may take to be placed and to open the work.
    """

    work: BlockWork
    label: DispatchLabel
    ready_s: float


class ActorSlots:
    """Slots of one dispatch over the actors of a pool.

    The list `actors` is shared with the pool and changed as actors start and die.
    """

    placement_s = 0.0  # a block goes only to an actor that is placed and ready

    def __init__(
        self,
        actors: list[ActorHandle],
        create: Callable[[], Any],
        dispatch: ActorDispatch,
        capacity: Capacity,
    ) -> None:
        self._actors, self._create = actors, create
        self._dispatch, self._capacity = dispatch, capacity
        # In a list: an argument that is a reference itself is unpickled before the code is checked.
        self._sent = [ray.put((WorkerActor, dispatch.work))]
        self._id = self._sent[0].hex()
        self._failures = 0
        self._error: str = ""
        self._alive_at = time.monotonic()
        for handle in actors:
            handle.state, handle.ref = "spare", None

    def tend(self, wanted: int) -> int:
        """Start actors while the cluster has capacity, and take in those that are ready."""
        capacity = self._capacity.workers()
        target = min(capacity, wanted)
        self._take_answers()
        self._ask_again()
        self._shrink(capacity)
        while len(self._active()) < target and self._failures < START_ROUNDS * target:
            self._ask(self._spare(), first=True)
        self._refuse_hopeless()
        return sum(handle.state == "idle" for handle in self._actors)

    def awaited(self) -> list[Any]:
        """Return the outstanding answers of `ready`."""
        return [h.ref for h in self._actors if h.state == "starting" and h.ref is not None]

    def start(self, block: int, number: int, apart_from: Any = None) -> Any:
        """Send `block` to an idle actor, on another node than `apart_from` runs on if possible."""
        shunned = [h.node for h in self._actors if apart_from is not None and h.ref == apart_from]
        idle = [handle for handle in self._actors if handle.state == "idle"]
        handle = min(idle, key=lambda handle: handle.node in shunned)
        handle.state = "busy"
        handle.ref = handle.actor.process.remote(block, number, self._dispatch.label)
        return handle.ref

    def lost(self) -> list[Any]:
        """Return the attempts of actors on nodes that Ray has declared dead."""
        living = self._capacity.per_node()
        return [h.ref for h in self._actors if h.state == "busy" and h.node not in living]

    def finished(self, ref: Any, error: RayError | None) -> None:
        """Free the actor; one that Ray cannot reach is asked again before it is replaced."""
        handle = next(handle for handle in self._actors if handle.ref == ref)
        if error is None:
            handle.state, handle.ref = "idle", None
        elif isinstance(error, ActorUnavailableError):
            handle.asked = time.monotonic()
            self._postpone(handle)
        else:
            self._drop(handle)

    def abandon(self, ref: Any) -> None:
        """Kill the actor that runs the attempt `ref`."""
        self._drop(next(handle for handle in self._actors if handle.ref == ref))

    def _active(self) -> list[ActorHandle]:
        return [handle for handle in self._actors if handle.state != "spare"]

    def _shrink(self, capacity: int) -> None:
        """Stop waiting for actors beyond the capacity, the last asked first."""
        waiting = [handle for handle in self._actors if handle.state == "starting"]
        surplus = max(0, len(self._active()) - capacity)
        for handle in sorted(waiting, key=lambda handle: -handle.asked)[:surplus]:
            self._drop(handle)

    def _spare(self) -> ActorHandle:
        """Return an actor of an earlier dispatch, else a new one."""
        for handle in self._actors:
            if handle.state == "spare":
                return handle
        self._actors.append(ActorHandle(self._create()))
        return self._actors[-1]

    def _drop(self, handle: ActorHandle) -> None:
        ray.kill(handle.actor)
        self._actors.remove(handle)

    def _ask(self, handle: ActorHandle, *, first: bool) -> None:
        if first:
            handle.asked = time.monotonic()
        handle.state = "starting"
        handle.ref = handle.actor.ready.remote(self._id, self._sent, code_digests())

    def _postpone(self, handle: ActorHandle) -> None:
        """The actor may come back (a slow network, a busy node): ask again in a while."""
        handle.state, handle.ref, handle.again = "starting", None, time.monotonic() + TICK_S

    def _ask_again(self) -> None:
        now = time.monotonic()
        for handle in [handle for handle in self._actors if handle.state == "starting"]:
            if now - handle.asked > self._dispatch.ready_s:
                self._drop(handle)
            elif handle.ref is None and now >= handle.again:
                self._ask(handle, first=False)

    def _take_answers(self) -> None:
        refs = self.awaited()
        done = ray.wait(refs, num_returns=len(refs), timeout=0)[0] if refs else []
        for handle in [handle for handle in self._actors if handle.ref in done]:
            self._take_answer(handle)

    def _take_answer(self, handle: ActorHandle) -> None:
        try:
            answer: str | StartError | Differs = ray.get(handle.ref, timeout=ANSWER_S)
        except ActorUnavailableError:
            self._postpone(handle)
        except RayError as error:
            self._count_failure(handle, " ".join(str(error).split()))
        else:
            if isinstance(answer, str):
                handle.state, handle.ref, handle.node, self._failures = "idle", None, answer, 0
            elif isinstance(answer, tuple):
                raise ClusterUsageError(refusal(*answer))
            elif answer.usage:
                raise ClusterUsageError(answer.message)
            else:
                self._count_failure(handle, answer.traceback)

    def _count_failure(self, handle: ActorHandle, error: str) -> None:
        self._failures += 1
        self._error = error
        self._drop(handle)

    def _refuse_hopeless(self) -> None:
        """Raise ClusterError when no worker lives and none can be expected."""
        now = time.monotonic()
        active = self._active()
        if any(handle.state != "starting" for handle in active):
            self._alive_at = now
        elif not active:
            hopeless = ClusterError(
                f"no worker could be started, {self._failures} attempts failed, the last with: "
                f"{last(self._error)}"
            )
            hopeless.add_note(self._error)
            raise hopeless
        elif now - self._alive_at > self._dispatch.ready_s:
            raise ClusterError(
                f"no worker became ready within {self._dispatch.ready_s:g} s: the cluster has no "
                f"capacity for {self._capacity.share.describe()}, or a worker takes longer to "
                "build; free resources, request less per worker, or wait longer (committed blocks "
                "are kept)"
            )
