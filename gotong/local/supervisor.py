"""Our own supervisor: starts programs in stages, keeps them running, stops them in order.

The order is what ready-made ones lack: the database and the broker answer before the first service starts, and they
stop after the last one. Whatever dies is started again; whatever a killed supervisor left is ended by the next.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from gotong.local.process import POLL_S, LocalError, Program, end_leftover, popen_arguments, write_pid

# All is over in ten seconds, whoever takes how long.
STOP_WITHIN_S = 9.5
BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 10.0
# A child that ran this long was well; its next fall is counted as its first.
WELL_AFTER_S = 30.0
# Falls in a row before the first readiness after which starting is given up.
FALLS_MAX = 5
COLOURS = (36, 33, 32, 35, 34, 31, 96, 93, 92, 95)


@dataclass(kw_only=True)
class Child:
    """One program under supervision.

    `prepare` is called before each start and may be slow. `forgets`: its memory is gone with it (the embedded broker),
    so after its restart the hook runs again and what depends on it is started anew. `stop_within_s`: patience at stop;
    the very last to stop, the database, gets all that is left of the ten seconds.
    """

    prepare: Callable[[], Program]
    name: str
    forgets: bool = False
    stop_within_s: float = 4.0
    program: Program | None = field(default=None, init=False)
    process: Process | None = field(default=None, init=False)
    falls: int = field(default=0, init=False)
    begun: float = field(default=0.0, init=False)

    @property
    def alive(self) -> bool:
        """Whether its process runs now."""
        return self.process is not None and self.process.returncode is None


class Log:
    """Lines of many programs on one stream, each with its program's name; in JSON, as one object a line."""

    def __init__(self, names: Sequence[str], stream: TextIO = sys.stderr, style: str = "text") -> None:
        self.stream = stream
        self.style = style
        self.width = max((len(name) for name in names), default=0)
        colours = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)}
        self.colours = colours if stream.isatty() and "NO_COLOR" not in os.environ else {}

    def write(self, name: str, line: str) -> None:
        """One line of one program. What is gone wrong with the stream itself stops nobody."""
        with contextlib.suppress(OSError, ValueError):
            self.stream.write(self._form(name, line) + "\n")
            self.stream.flush()

    def _form(self, name: str, line: str) -> str:
        if self.style == "json":
            try:
                entry = json.loads(line)
            except ValueError:
                entry = {"message": line}
            return json.dumps({"process": name} | (entry if isinstance(entry, dict) else {"message": line}))
        prefix = f"{name:<{self.width}} |"
        if name in self.colours:
            prefix = f"\x1b[{self.colours[name]}m{prefix}\x1b[0m"
        return f"{prefix} {line}"


class Supervisor:
    """Runs stages of children until it is told to stop.

    `hook` runs when the first stage is ready, before the second starts, and again when a child that forgets came back.
    """

    def __init__(
        self, stages: Sequence[Sequence[Child]], hook: Callable[[], Awaitable[None]], log: Log, name: str = "gotong"
    ) -> None:
        self.stages = [list(stage) for stage in stages]
        self.hook = hook
        self.log = log
        self.name = name
        self.stopping = asyncio.Event()
        self.hurry = asyncio.Event()
        self.settled = False
        self._watchers: list[asyncio.Task[None]] = []
        self._outputs: list[asyncio.Task[None]] = []
        self._failure: asyncio.Future[None] | None = None

    async def run(self, ready: Callable[[], Awaitable[None]]) -> None:
        """Start all, call `ready`, and keep on until SIGTERM, Ctrl-C or `stopping`; then stop all in order.

        Raises LocalError when something cannot be started, after having stopped what was.
        """
        loop = asyncio.get_running_loop()
        self._failure = loop.create_future()
        for word in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(word, self._asked_to_stop)
        work: asyncio.Future[Any] = asyncio.ensure_future(self._start_all(ready))
        asked: asyncio.Future[Any] = asyncio.ensure_future(self.stopping.wait())
        try:
            await asyncio.wait([work, asked, self._failure], return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
                await asyncio.wait([asked, self._failure], return_when=asyncio.FIRST_COMPLETED)
            if self._failure.done():
                self._failure.result()
        finally:
            self.stopping.set()
            for task in (work, asked):
                task.cancel()
            await asyncio.gather(work, asked, return_exceptions=True)
            self._failure.cancel()
            await self._stop_all()

    def _asked_to_stop(self) -> None:
        # A second Ctrl-C means: now.
        (self.hurry if self.stopping.is_set() else self.stopping).set()

    async def _start_all(self, ready: Callable[[], Awaitable[None]]) -> None:
        for place, stage in enumerate(self.stages):
            await asyncio.gather(*(self._start(child) for child in stage))
            self._watchers += [asyncio.create_task(self._watch(child)) for child in stage]
            if place == 0:
                await self.hook()
        await ready()
        self.settled = True

    async def _start(self, child: Child) -> None:
        """Start one child and wait until it is ready; LocalError when it ends or stays silent instead."""
        # Files are made and jars fetched in a thread. The child itself is started here, in the main thread: on Linux
        # it would be ended together with the thread that started it.
        program = child.program = await asyncio.to_thread(child.prepare)
        await asyncio.to_thread(end_leftover, program)
        arguments = popen_arguments(program) | {"stdin": DEVNULL}
        child.process = await asyncio.create_subprocess_exec(*program.argv, stdout=PIPE, stderr=STDOUT, **arguments)
        child.begun = time.monotonic()
        write_pid(program.pid_file, child.process.pid)
        self._outputs.append(asyncio.create_task(self._relay_output(child, child.process)))
        deadline = time.monotonic() + program.ready_within_s
        while not await asyncio.to_thread(program.ready, child.process.pid):
            if child.process.returncode is not None:
                raise LocalError(f"{child.name} ended with {_ending(child.process)}; its last lines are above.")
            if time.monotonic() > deadline:
                raise LocalError(
                    f"{child.name} did not get ready within {program.ready_within_s:.0f} s; its last lines are above."
                )
            await asyncio.sleep(POLL_S)

    async def _relay_output(self, child: Child, process: Process) -> None:
        assert process.stdout is not None
        rest = b""
        # Not by lines: a line longer than the reader's limit would end the reading, and then block the child.
        while chunk := await process.stdout.read(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self.log.write(child.name, line.decode(errors="replace").rstrip())
        if rest:
            self.log.write(child.name, rest.decode(errors="replace").rstrip())

    async def _watch(self, child: Child) -> None:
        """Start a child again whenever it ends, with growing pauses."""
        while True:
            assert child.process is not None
            await child.process.wait()
            if self.stopping.is_set():
                return
            child.falls = 1 if time.monotonic() - child.begun > WELL_AFTER_S else child.falls + 1
            self.log.write(self.name, f"{child.name} ended with {_ending(child.process)}")
            if not self.settled and child.falls >= FALLS_MAX:
                self._give_up(LocalError(f"{child.name} cannot be started; its last lines are above."))
                return
            pause_s = 0.0 if child.falls == 1 else min(BACKOFF_FIRST_S * 2 ** (child.falls - 2), BACKOFF_MAX_S)
            await asyncio.sleep(pause_s)
            try:
                await self._start(child)
                self.log.write(self.name, f"{child.name} is running again")
                if child.forgets:
                    await self._after_loss(child)
            except LocalError as error:
                self.log.write(self.name, str(error))
                await _end(child.process, signal.SIGKILL, 5)  # the loop starts it once more

    async def _after_loss(self, lost: Child) -> None:
        """Make anew what a child forgot, and end those that knew the old one; their watchers start them again."""
        await self.hook()
        for child in (child for stage in self.stages[1:] for child in stage):
            if child.process is not None and child.alive:
                self.log.write(self.name, f"{child.name} is started again, as {lost.name} forgot all it had")
                await _end(child.process, signal.SIGTERM, child.stop_within_s)

    def _give_up(self, error: LocalError) -> None:
        if self._failure is not None and not self._failure.done():
            self._failure.set_exception(error)

    async def _stop_all(self) -> None:
        """Stop the last stage first; within the first stage the children stop in the reverse of their order."""
        for task in self._watchers:
            task.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        hurried = asyncio.create_task(self._kill_when_hurried())
        deadline = time.monotonic() + STOP_WITHIN_S
        for stage in reversed(self.stages[1:]):
            await asyncio.gather(*(self._stop(child, child.stop_within_s) for child in stage))
        for child in reversed(self.stages[0][1:]):
            await self._stop(child, child.stop_within_s)
        for child in self.stages[0][:1]:
            await self._stop(child, deadline - time.monotonic())
        hurried.cancel()
        # An output ends with its process; a grandchild that keeps it open is not waited for.
        if self._outputs:
            _, late = await asyncio.wait(self._outputs, timeout=0.5)
            for task in late:
                task.cancel()

    async def _stop(self, child: Child, within_s: float) -> None:
        if child.process is None or child.program is None:
            return
        if not await _end(child.process, child.program.stop_signal, within_s):
            self.log.write(self.name, f"{child.name} did not stop within {within_s:.1f} s and was killed")
        child.program.pid_file.unlink(missing_ok=True)

    async def _kill_when_hurried(self) -> None:
        await self.hurry.wait()
        for child in (child for stage in self.stages for child in stage):
            if child.process is not None and child.alive:
                child.process.kill()


def _ending(process: Process) -> str:
    code = process.returncode
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


async def _end(process: Process, word: signal.Signals, within_s: float) -> bool:
    """Send a signal and wait; SIGKILL and False when it took too long."""
    if process.returncode is not None:
        return True
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(word)
    try:
        await asyncio.wait_for(process.wait(), within_s)
        return True
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        return False
