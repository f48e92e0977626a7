"""Actors as slots for blocks: `WorkerHost` runs in the actor, `ActorSlots` in the driver."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import ray
from ray.exceptions import ActorUnavailableError, RayError

from regroup_cluster.dispatch.scheduler import ANSWER_S, TICK_S
from regroup_cluster.dispatch.worker_log import REASON_CHARACTERS, AttemptError, Label, attempt
from regroup_cluster.errors import ClusterError, ClusterUsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from regroup_cluster.dispatch.blocks import BlockReport, BlockWorker, WorkerFactory
    from regroup_cluster.resources import Room

# A worker that cannot be built is tried again this many times round, if none can.
START_ROUNDS = 3


@dataclass(frozen=True)
class StartError:
    """Why a worker could not be built: the message, the whole traceback, whose fault it is."""

    message: str
    traceback: str
    usage: bool


class WorkerHost:
    """The actor: holds the worker of the current dispatch."""

    def __init__(self) -> None:
        self._dispatch: str | None = None
        self._worker: BlockWorker | None = None
        self._label = Label()

    def ready(self, dispatch: str, factory: WorkerFactory, label: Label) -> str | StartError:
        """The id of this node, once the worker of `dispatch` is built; at once when it is."""
        node: str = ray.get_runtime_context().get_node_id()
        if dispatch == self._dispatch:
            return node
        # The last worker's memory (its network) is freed before the next one is built.
        self._dispatch = self._worker = None
        try:
            self._worker = factory()
        except Exception as error:
            usage = getattr(error, "exit_status", 1) == 2
            trace = traceback.format_exc()[-REASON_CHARACTERS:]
            return StartError(str(error)[:REASON_CHARACTERS], trace, usage)
        self._dispatch, self._label = dispatch, label
        return node

    def process(self, block: int, number: int) -> BlockReport | AttemptError:
        """Attempt `number` at `block` by the worker that `ready` built."""
        if self._worker is None:
            return AttemptError("the worker was not built")
        return attempt(self._worker.process, block, number, self._label)


@dataclass(eq=False)
class Host:
    """The driver's view of one actor.

    Attributes:
        actor: its handle.
        state: "spare" while this dispatch has no need of it, "starting" until `ready` has answered.
        ref: the answer that is awaited, of `ready` or of a block.
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
class HostedJob:
    """What one dispatch has its hosts do.

    Attributes:
        factory: makes the worker, inside the actor.
        label: names the dispatch in the logs.
        ready_s: seconds that a host may take to be placed and to build its worker.
    """

    factory: WorkerFactory
    label: Label
    ready_s: float


class ActorSlots:
    """Slots of one dispatch over the hosts of a pool (`hosts` is shared with it and changed)."""

    placement_s = 0.0  # a block goes only to an actor that is placed and ready

    def __init__(
        self, hosts: list[Host], create: Callable[[], Any], job: HostedJob, room: Room
    ) -> None:
        self._hosts, self._create = hosts, create
        self._job, self._room = job, room
        self._factory = ray.put(job.factory)
        self._dispatch = self._factory.hex()
        self._failures = 0
        self._error: str = ""
        self._alive_at = time.monotonic()
        for host in hosts:
            host.state, host.ref = "spare", None

    def tend(self, wanted: int) -> int:
        """See `Slots.tend`; starts actors while there is room and takes in ready ones."""
        room = self._room.workers()
        target = min(room, wanted)
        self._take_answers()
        self._ask_again()
        self._shrink(room)
        while len(self._active()) < target and self._failures < START_ROUNDS * target:
            self._ask(self._spare(), first=True)
        self._refuse_hopeless()
        return sum(host.state == "idle" for host in self._hosts)

    def awaited(self) -> list[Any]:
        """Answers of `ready` that are outstanding."""
        return [h.ref for h in self._hosts if h.state == "starting" and h.ref is not None]

    def start(self, block: int, number: int, apart_from: Any = None) -> Any:
        """Hand `block` to an idle actor, on another node than `apart_from` runs on if there is."""
        shunned = [h.node for h in self._hosts if apart_from is not None and h.ref == apart_from]
        idle = [host for host in self._hosts if host.state == "idle"]
        host = min(idle, key=lambda host: host.node in shunned)
        host.state = "busy"
        host.ref = host.actor.process.remote(block, number)
        return host.ref

    def lost(self) -> list[Any]:
        """Blocks of actors on nodes that Ray has given up."""
        living = self._room.places()
        return [h.ref for h in self._hosts if h.state == "busy" and h.node not in living]

    def finished(self, ref: Any, error: RayError | None) -> None:
        """Free the actor; one that Ray cannot reach is asked again before it is replaced."""
        host = next(host for host in self._hosts if host.ref == ref)
        if error is None:
            host.state, host.ref = "idle", None
        elif isinstance(error, ActorUnavailableError):
            host.asked = time.monotonic()
            self._postpone(host)
        else:
            self._drop(host)

    def abandon(self, ref: Any) -> None:
        """Kill the actor that runs the attempt `ref`."""
        self._drop(next(host for host in self._hosts if host.ref == ref))

    def _active(self) -> list[Host]:
        return [host for host in self._hosts if host.state != "spare"]

    def _shrink(self, room: int) -> None:
        """Stop waiting for actors that no longer have a place, the last asked first."""
        waiting = [host for host in self._hosts if host.state == "starting"]
        surplus = max(0, len(self._active()) - room)
        for host in sorted(waiting, key=lambda host: -host.asked)[:surplus]:
            self._drop(host)

    def _spare(self) -> Host:
        """A host of an earlier dispatch, else a new one."""
        for host in self._hosts:
            if host.state == "spare":
                return host
        self._hosts.append(Host(self._create()))
        return self._hosts[-1]

    def _drop(self, host: Host) -> None:
        ray.kill(host.actor)
        self._hosts.remove(host)

    def _ask(self, host: Host, *, first: bool) -> None:
        if first:
            host.asked = time.monotonic()
        host.state = "starting"
        host.ref = host.actor.ready.remote(self._dispatch, self._factory, self._job.label)

    def _postpone(self, host: Host) -> None:
        """The actor may come back (a slow network, a busy node): ask again in a while."""
        host.state, host.ref, host.again = "starting", None, time.monotonic() + TICK_S

    def _ask_again(self) -> None:
        now = time.monotonic()
        for host in [host for host in self._hosts if host.state == "starting"]:
            if now - host.asked > self._job.ready_s:
                self._drop(host)
            elif host.ref is None and now >= host.again:
                self._ask(host, first=False)

    def _take_answers(self) -> None:
        refs = self.awaited()
        done = ray.wait(refs, num_returns=len(refs), timeout=0)[0] if refs else []
        for host in [host for host in self._hosts if host.ref in done]:
            self._take_answer(host)

    def _take_answer(self, host: Host) -> None:
        try:
            answer: str | StartError = ray.get(host.ref, timeout=ANSWER_S)
        except ActorUnavailableError:
            self._postpone(host)
        except RayError as error:
            self._count_failure(host, " ".join(str(error).split()))
        else:
            if isinstance(answer, str):
                host.state, host.ref, host.node, self._failures = "idle", None, answer, 0
            elif answer.usage:
                raise ClusterUsageError(answer.message)
            else:
                self._count_failure(host, answer.traceback)

    def _count_failure(self, host: Host, error: str) -> None:
        self._failures += 1
        self._error = error
        self._drop(host)

    def _refuse_hopeless(self) -> None:
        """Raise when no worker lives and none can be expected."""
        now = time.monotonic()
        active = self._active()
        if any(host.state != "starting" for host in active):
            self._alive_at = now
        elif not active:
            last = self._error.strip().splitlines()[-1]
            raise ClusterError(
                f"no worker could be started, {self._failures} attempts failed, the last with: "
                f"{last}\n{self._error}"
            )
        elif now - self._alive_at > self._job.ready_s:
            raise ClusterError(
                f"no worker became ready within {self._job.ready_s:g} s: the cluster has "
                f"no room for {self._room.share.describe()}, or the worker takes longer to build; "
                "free resources, ask for less per worker, or wait longer. Committed blocks stay"
            )
