"""The event loop of the simulation: its clock moves only when nothing else is left to do, its order is drawn.

What is ready in one turn runs in the order that *chance* gives it (in the order of arrival without one). Nothing on it
may wait for the world outside: it has no threads and no sockets, and where nobody will ever wake anybody again it says
so instead of hanging.

A ``Process`` is what dies at once: every task and callback begun in its context. ``kill`` cancels its tasks; what they
still do while they unwind is run apart from the others' turns, so that the dead cannot disturb what is drawn.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from asyncio import Handle, TimerHandle
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from random import Random
from typing import Any, NoReturn, TypeVar, TypeVarTuple

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

log = logging.getLogger("asyncio")


class Process:
    """Tasks that die together. *on_step* is called after *countdown* more of their steps, before the next: a crash.

    *kept* is what they would do by now, while they are frozen.
    """

    __slots__ = ("alive", "countdown", "kept", "name", "on_step", "tasks")

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.countdown = 0
        self.kept: list[Handle] | None = None
        self.on_step: Callable[[], None] | None = None
        self.tasks: list[asyncio.Task[Any]] = []

    def context(self) -> Context:
        """A context in which everything belongs to this process."""
        context = Context()
        context.run(PROCESS.set, self)
        return context

    def step(self) -> None:
        """One more of its steps is about to run."""
        self.countdown -= 1
        if self.countdown <= 0 and self.on_step is not None:
            crash, self.on_step = self.on_step, None
            crash()


PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)


class SimulatedLoop(asyncio.AbstractEventLoop):
    """See the module."""

    def __init__(self, chance: Random | None = None) -> None:
        self._chance = chance
        self._now = 0.0
        self._ready: list[tuple[Handle, Process | None]] = []
        self._ghosts: deque[Handle] = deque()
        self._timers: list[tuple[float, int, TimerHandle, Process | None]] = []
        self._count = 0
        self._running = self._closed = self._stopping = False
        self._failure: BaseException | None = None
        self._handler: Callable[[Any, dict[str, Any]], object] | None = None

    def time(self) -> float:
        return self._now

    def fail(self, error: BaseException) -> None:
        """Stop at once: whoever runs this loop gets *error*, the first one if there are several."""
        self._failure = self._failure or error

    def kill(self, process: Process) -> None:
        """None of its steps runs any more, but those by which its cancelled tasks unwind."""
        process.alive = False
        self.thaw(process)
        for task in process.tasks:
            task.cancel()
        process.tasks.clear()

    def freeze(self, process: Process) -> None:
        """None of its steps runs until it thaws; time goes on without it."""
        if process.kept is None:
            process.kept = []

    def thaw(self, process: Process) -> None:
        """It goes on where it was, and does at once all that it has missed."""
        kept, process.kept = process.kept, None
        for handle in kept or ():
            if process.alive:
                self._ready.append((handle, process))
            else:
                self._ghosts.append(handle)

    # Scheduling ---------------------------------------------------------------------------------------------------

    def call_soon(self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None) -> Handle:
        handle = Handle(callback, args, self, context)
        process = handle._context.get(PROCESS)  # type: ignore[attr-defined]
        if process is not None and not process.alive:
            self._ghosts.append(handle)
        else:
            self._ready.append((handle, process))
        return handle

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> TimerHandle:
        timer = TimerHandle(when, callback, args, self, context)
        self._count += 1
        process = timer._context.get(PROCESS)  # type: ignore[attr-defined]
        heapq.heappush(self._timers, (when, self._count, timer, process))
        return timer

    def _timer_handle_cancelled(self, handle: TimerHandle) -> None:
        """asyncio tells its loop: a timer that was cancelled is skipped when its moment comes."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Any, *, name: str | None = None, context: Context | None = None, **_options: Any
    ) -> asyncio.Task[Any]:
        process = PROCESS.get() if context is None else context.get(PROCESS)
        task = asyncio.Task(coro, loop=self, name=name or "", context=context)
        if process is not None:
            process.tasks.append(task)
            if len(process.tasks) > 500:
                process.tasks = [each for each in process.tasks if not each.done()]
        return task

    # Running ------------------------------------------------------------------------------------------------------

    def run_until_complete(self, future: Any) -> Any:
        main = future if isinstance(future, asyncio.Future) else asyncio.Task(future, loop=self)
        self._run(main.done)
        return main.result()

    def run_forever(self) -> None:
        self._stopping = False
        self._run(lambda: self._stopping)

    def stop(self) -> None:
        self._stopping = True

    def _run(self, finished: Callable[[], bool]) -> None:
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        self._running = True
        try:
            while not finished():
                self._turn()
                if self._failure is not None:
                    failure, self._failure = self._failure, None
                    raise failure
        finally:
            self._running = False
            asyncio._set_running_loop(before)

    def _turn(self) -> None:
        """Run all that is ready now, once; if nothing is, first move the clock to the next timer."""
        while self._ghosts:
            ghost = self._ghosts.popleft()
            if not ghost.cancelled():
                ghost._run()
        timers, ready = self._timers, self._ready
        while timers and (not ready or timers[0][0] <= self._now):
            when, _, timer, process = heapq.heappop(timers)
            if timer.cancelled() or (process is not None and not process.alive):
                continue
            self._now = max(self._now, when)
            ready.append((timer, process))
        if not ready:
            raise RuntimeError("everybody waits, and nothing will ever happen again")
        self._ready = []
        if self._chance is not None and len(ready) > 1:
            self._chance.shuffle(ready)
        for handle, process in ready:
            if handle.cancelled():
                continue
            if process is not None:
                if process.kept is not None:
                    process.kept.append(handle)
                    continue
                if process.on_step is not None and process.alive:
                    process.step()
                if not process.alive:
                    self._ghosts.append(handle)
                    continue
            handle._run()

    # What asyncio asks of a loop besides --------------------------------------------------------------------------

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        self._closed = True

    def get_debug(self) -> bool:
        return False

    def set_debug(self, enabled: bool) -> None:
        """There is nothing more to say."""

    def get_task_factory(self) -> None:
        return None

    def set_task_factory(self, factory: Any) -> None:
        assert factory is None, "tasks are made by the loop"

    async def shutdown_asyncgens(self) -> None:
        """Generators end with whoever iterates over them."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - asyncio's own
        """There is none."""

    def run_in_executor(self, *work: Any) -> NoReturn:  # type: ignore[override]
        raise RuntimeError(f"no threads in a simulation: {work}")

    def set_exception_handler(self, handler: Callable[[Any, dict[str, Any]], object] | None) -> None:
        self._handler = handler

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self._handler is not None:
            self._handler(self, context)
        else:
            log.error(context.get("message"), exc_info=context.get("exception"))


def run(main: Coroutine[Any, Any, R], chance: Random | None = None) -> R:
    """Run *main* in virtual time to its end, in the order that *chance* draws."""
    with asyncio.Runner(loop_factory=lambda: SimulatedLoop(chance)) as runner:  # type: ignore[abstract]
        return runner.run(main)
