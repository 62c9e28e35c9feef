"""One run of the benchmark: subjects are started, driven in turns, asked whether their money is right, and stopped."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Final

from distribank.benchmarks import parts, seeding
from distribank.benchmarks.cases import ONE_WAY, Case, Run, Scale
from distribank.benchmarks.figures import percentile
from distribank.benchmarks.load import Plan, Seen
from distribank.benchmarks.subjects import CannotRun, Network, Subject, WrongMoney, resident
from distribank.breakages import Breakage

Say = Callable[[str], None]

AUDIT_S: Final = "one audit of the loaded network, s"
READY: Final = "start to ready"
RECOVERY: Final = "ready after a kill under load"
KILLED_AFTER_S: Final = 2.0
MOST_REFUSED: Final = 0.001
"""The part of requests that may be answered with anything but success, before a run says nothing about speed."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn of one run gave. Rates are per second, latencies in milliseconds, CPU in microseconds per transfer
    by role and of the generator per request; *cores* were at work for the subject, *elsewhere* for what is no part of
    the measurement; flushes and requests between banks are per transfer, all banks together.
    """

    rate: float
    p50: float
    p95: float
    p99: float
    cpu: dict[str, float]
    cores: float
    elsewhere: float
    generator: float
    flushes: float | None
    requests: float | None
    resident: dict[str, float]


@dataclass(slots=True)
class Results:
    """Everything a run of the benchmark gave: turns by run's name, other quantities by name (one value a turn), which
    subjects could not run and why, which runs gave nothing and why, and whose money was wrong.
    """

    turns: dict[str, list[Turn]] = field(default_factory=dict)
    others: dict[str, list[float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        self.others.setdefault(name, []).append(value)

    def take(self, other: Results) -> None:
        """Add what another one has, and strike out the runs that gave nothing even once."""
        for name in other.failed:
            other.turns.pop(name, None)
        for mine, others in zip(fields(self), fields(other), strict=True):
            getattr(self, mine.name).update(getattr(other, others.name))


class Unfit(Breakage):
    """What came back says nothing about speed."""


@dataclass(slots=True)
class _Driven:
    """One subject of a case: what clients were told it did."""

    subject: Subject
    committed: int = 0
    legs: int = 0
    unsure: bool = False
    """Whether some answer did not say what was committed."""


async def run_case(
    case: Case, scale: Scale, directory: Path, base_port: int | None, results: Results, say: Say
) -> None:
    """Run *case* and add what it gave to *results*, once its money has been found right."""
    found = Results()
    async with _started(case, scale, directory, base_port, found, say) as driven:
        runs = [run for run in case.runs if run.subject in driven]
        left = scale.repeats * len(runs)
        for turn in range(1, scale.repeats + 1):
            for run in runs:
                each = scale.warm_up + scale.seconds
                say(f"{case.name}, turn {turn} of {scale.repeats}: {run.name}; {left * each:.0f} s of load to go")
                left -= 1
                try:
                    measured = await _measure(run, driven[run.subject], scale, found)
                except WrongMoney as wrong:
                    found.wrong[run.subject] = str(wrong)
                except Unfit as unfit:
                    found.failed[run.name] = str(unfit)
                    say(f"{run.name}: {unfit}")
                else:
                    found.turns.setdefault(run.name, []).append(measured)
            if case.parts:
                network = next(one.subject for one in driven.values() if isinstance(one.subject, Network))
                say(f"{case.name}, turn {turn} of {scale.repeats}: flushes, requests and signatures by themselves")
                for name, value in (await parts.measured(network.banks, directory)).items():
                    found.add(name, value)
        await _verify(case, driven, found, say)
        if case.starts:
            for one in driven.values():
                await _starts(one.subject, scale, found, say)
    results.take(found)


@asynccontextmanager
async def _started(
    case: Case, scale: Scale, directory: Path, base_port: int | None, found: Results, say: Say
) -> AsyncIterator[dict[str, _Driven]]:
    """The subjects of *case* that can run here, ready inside the block and gone behind it."""
    driven: dict[str, _Driven] = {}
    begun: list[Subject] = []
    try:
        for place, subject in enumerate(case.subjects(scale)):
            say(f"{case.name}: starting {subject.name}")
            begun.append(subject)
            port = base_port + 20 * place if base_port is not None else None
            try:
                await subject.start(directory / f"{case.name}-{place + 1}", port, say)
            except CannotRun as why:
                say(f"{subject.name} cannot run here: {why}")
                found.missing[subject.name] = str(why)
            else:
                driven[subject.name] = _Driven(subject)
        yield driven
    finally:
        for subject in begun:
            await subject.stop()


async def _measure(run: Run, one: _Driven, scale: Scale, found: Results) -> Turn:
    subject = one.subject
    plan = run.shape.plan(subject, run.clients, scale.warm_up, scale.seconds)
    before = await subject.counts()
    if run.audited:
        assert isinstance(subject, Network), f"{subject.name} has no audit"
        seen = await _audited(subject, plan, found)
    else:
        seen = await drive(plan)
    after = await subject.counts()
    one.committed += seen.committed
    one.legs += seen.committed * run.shape.legs
    asked = sum(seen.statuses.values())
    one.unsure |= seen.committed != seen.statuses.get(201, 0) * plan.transfers or asked != seen.statuses.get(201, 0)
    if not seen.transfers:
        raise Unfit(f"nothing was committed within the {seen.seconds:.1f} s; answers by status were {seen.statuses}")
    if asked - seen.statuses.get(201, 0) > MOST_REFUSED * asked:
        raise Unfit(f"answers by status were {seen.statuses}, such as {seen.samples}")
    roles = {pid: role for role, pid in subject.pids().items()}
    cpu = {roles[pid]: seconds for pid, seconds in seen.cpu.items() if pid in roles}
    latencies = sorted(seen.latencies)
    counted = None
    if before is not None and after is not None and seen.committed:
        counted = (
            (after.flushes - before.flushes) / seen.committed,
            (after.requests - before.requests) / seen.committed,
        )
    return Turn(
        rate=seen.transfers / seen.seconds,
        p50=percentile(latencies, 0.5) / 1000,
        p95=percentile(latencies, 0.95) / 1000,
        p99=percentile(latencies, 0.99) / 1000,
        cpu={role: seconds / seen.transfers * 1e6 for role, seconds in cpu.items()},
        cores=sum(cpu.values()) / seen.seconds,
        elsewhere=max(0.0, seen.all_cpu - sum(cpu.values()) - seen.own_cpu) / seen.seconds,
        generator=seen.own_cpu / max(1, len(latencies)) * 1e6,
        flushes=counted[0] if counted else None,
        requests=counted[1] if counted else None,
        resident={role: mib for role, pid in subject.pids().items() if (mib := resident(pid)) is not None},
    )


async def _audited(network: Network, plan: Plan, found: Results) -> Seen:
    """Drive it while one audit follows the other."""
    over = asyncio.Event()

    async def look() -> None:
        while not over.is_set():
            found.add(AUDIT_S, await network.audit_once())

    driven, _ = await asyncio.gather(_then(drive(plan), over), look())
    return driven


async def _then(driving: Awaitable[Seen], over: asyncio.Event) -> Seen:
    try:
        return await driving
    finally:
        over.set()


async def drive(plan: Plan) -> Seen:
    """Have the load generator carry out *plan*, in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "distribank.benchmarks.load"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        said, _ = await process.communicate(json.dumps(asdict(plan)).encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise Breakage(f"the load generator ended with status {process.returncode}")
    document = json.loads(said)
    document["statuses"] = {int(status): count for status, count in document["statuses"].items()}
    document["cpu"] = {int(pid): seconds for pid, seconds in document["cpu"].items()}
    return Seen(**document)


async def _verify(case: Case, driven: dict[str, _Driven], found: Results, say: Say) -> None:
    """Strike out whatever was measured on a subject whose money is wrong."""
    for name, one in driven.items():
        say(f"{case.name}: the books of {name}")
        try:
            told = (None, None) if one.unsure else (one.committed, one.legs)
            await one.subject.verify(*told)
        except Breakage as wrong:  # one that cannot be asked has no figures either
            found.wrong[name] = str(wrong)
        if name in found.wrong:
            for run in case.runs:
                if run.subject == name:
                    found.turns.pop(run.name, None)
            found.others.clear()


async def _starts(subject: Subject, scale: Scale, found: Results, say: Say) -> None:
    """How long the coordinator takes until it is ready: stopped in order, and killed with transfers under way."""
    assert isinstance(subject, Network), f"{subject.name} has no bank to start again"
    if subject.name in found.wrong:
        return
    coordinator = subject.processes[0]
    for count in range(scale.starts):
        say(f"{subject.name}: started again, {count + 1} of {scale.starts}")
        await coordinator.stop()
        coordinator.start()
        found.add(f"{READY}, {subject.name}, s", await coordinator.wait_ready(seeding.READY_S))
        driving = asyncio.gather(drive(ONE_WAY.plan(subject, 64, scale.warm_up, 2 * KILLED_AFTER_S)))
        await asyncio.sleep(scale.warm_up + KILLED_AFTER_S)
        coordinator.kill()
        coordinator.start()
        found.add(f"{RECOVERY}, {subject.name}, s", await coordinator.wait_ready(seeding.READY_S))
        await driving
    try:
        await subject.verify_money()
    except WrongMoney as wrong:
        found.wrong[subject.name] = str(wrong)
