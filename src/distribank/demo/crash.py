"""The chapter in which the coordinator dies between the votes and the decision, and comes back.

To have time for it, one participant is frozen: the others have voted yes, the coordinator waits for the last vote, and
is killed. From then on nobody can know the outcome. Money stays held where a bank has voted, for as long as it takes;
whatever does not need the dead bank goes on.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Final

from distribank.demo.stage import Balances, Cast, Stage, brl, doubt_about, free, listed, ms, posted, why

PARTS: Final = (40_00, 30_00, 20_00)
"""What A, B and C are debited; D is credited with the sum."""
MEANWHILE: Final = 5_00
"""What goes from B to D while A is dead."""
VOTE_DEADLINE_SECONDS: Final = 5.0
"""How long the banks of the demo wait for votes: longer than banks usually do, so that A dies before it gives up."""
FAST_SECONDS: Final = 1.0
"""How soon a transfer is refused, on however busy a machine, that needs a bank known to be offline: none is asked."""
FIRST_INQUIRY_SECONDS: Final = VOTE_DEADLINE_SECONDS + 1
"""How long behind its vote a participant asks for the outcome for the first time."""


@dataclass(frozen=True, slots=True)
class Crash:
    """The transfer whose coordinator was killed, when that was, and the balances before it."""

    transfer_id: str
    killed_at: float
    before: Balances


async def killed_with_the_votes_cast(stage: Stage, cast: Cast) -> None:
    """The whole chapter."""
    stage.claims.chapter("The coordinator is killed behind the votes, before it could decide")
    crash = await _kill_behind_the_votes(stage, cast)
    await _the_money_is_held(stage, cast, crash)
    await _the_others_go_on(stage, cast)
    await _time_releases_nothing(stage, cast, crash)
    await _the_coordinator_returns(stage, cast, crash)


async def _kill_behind_the_votes(stage: Stage, cast: Cast) -> Crash:
    """Order A + B + C → D with D frozen; kill A when B and C have voted yes; thaw D."""
    claims, (a, b, c, d) = stage.claims, stage.clients
    coordinator, frozen = stage.processes[0], stage.processes[3]
    await asyncio.gather(*(bank.operator() for bank in stage.clients))  # signed in before every moment counts
    before = await cast.balances()
    parts = list(zip(cast.own, PARTS, strict=True))
    claims.say(f"Maria orders {listed(PARTS)} from her three accounts to the bakery, at {a.name}, the coordinator;")
    claims.say(f"{d.name} is frozen, so that its vote is missing and {a.name} has to wait")
    frozen.freeze()
    try:
        ordered = await cast.maria[0].transfer(parts, [(cast.bakery, sum(PARTS))], prefer="respond-async")
        transfer_id: str = ordered.expect(202)["transfer_id"]

        async def voted() -> bool:
            return all([await doubt_about(transfer_id, bank) for bank in (b, c)])

        took = await stage.until(voted, f"{b.name} and {c.name} have voted")
        coordinator.kill()
        killed_at = time.monotonic()
    finally:
        frozen.thaw()
    claims.check(
        ordered.status == 202, f"without {d.name}'s vote, the order is taken and pending", f"202, {ms(ordered)}"
    )
    claims.check(
        took < VOTE_DEADLINE_SECONDS,
        f"{b.name} and {c.name} vote yes",
        f"listed as in doubt there after {took * 1000:.0f} ms",
    )
    claims.check(
        coordinator.exit_status == -9, f"{a.name} is killed, {d.name} thawed", f"exit status {coordinator.exit_status}"
    )
    return Crash(transfer_id, killed_at, before)


async def _the_money_is_held(stage: Stage, cast: Cast, crash: Crash) -> None:
    claims, b, maria = stage.claims, stage.clients[1], cast.maria[1]
    now, available = await maria.balances(cast.own[1])
    claims.check(
        now == crash.before[1][0] and available == now - PARTS[1],
        f"Maria's part at {b.name} is held: still hers, not hers to spend",
        f"posted {brl(now)}, available {brl(available)}",
    )
    greedy = await maria.withdraw(cast.own[1], now)
    claims.check(greedy.code == "insufficient_funds", "what is held cannot be taken out", why(greedy))
    seen = await maria.transfer_status(crash.transfer_id)
    claims.check(
        seen["in_doubt"] is True and seen["status"] == "pending",
        "she sees her transfer as in doubt, not as failed",
        f"status {seen['status']}, in_doubt {str(seen['in_doubt']).lower()}",
    )
    doubt = await doubt_about(crash.transfer_id, b)
    claims.check(doubt is not None and bool(doubt["why"]), "its operator sees why", doubt and doubt["why"])


async def _the_others_go_on(stage: Stage, cast: Cast) -> None:
    claims, (a, b, _, d) = stage.claims, stage.clients
    maria = cast.maria[1]
    paid = await maria.pay(cast.own[1], cast.bakery, MEANWHILE)
    claims.check(
        paid.status == 201, f"a transfer from {b.name} to {d.name} does not need {a.name} and is done", ms(paid)
    )

    async def noticed() -> bool:
        return (await b.network())[a.code] == "offline"

    took = await stage.until(noticed, f"{b.name} has noticed")
    claims.check(True, f"{b.name} has noticed that {a.name} is offline", f"{took:.1f} s later")
    refused = await maria.pay(cast.own[1], cast.household, MEANWHILE)
    claims.check(
        refused.code == "bank_unreachable"
        and "is offline; nothing moved" in refused.body["detail"]
        and refused.seconds < FAST_SECONDS,
        f"a transfer that needs {a.name} is refused at once",
        f"{why(refused)} after {refused.seconds * 1000:.1f} ms",
    )


async def _time_releases_nothing(stage: Stage, cast: Cast, crash: Crash) -> None:
    """Behind its vote a bank asks around. Either somebody can promise that nothing was decided, or the hold stands."""
    claims, b = stage.claims, stage.clients[1]

    async def asked() -> bool:
        doubt = await doubt_about(crash.transfer_id, b)
        return doubt is None or bool(doubt["asked"]) or time.monotonic() - crash.killed_at > 2 * FIRST_INQUIRY_SECONDS

    await stage.until(asked, f"{b.name} has asked the other banks for the outcome")
    doubt = await doubt_about(crash.transfer_id, b)
    since = time.monotonic() - crash.killed_at
    now, available = await cast.maria[1].balances(cast.own[1])
    if doubt is None:
        claims.check(now == available, f"{b.name} learnt the outcome from a bank that had not voted", f"{since:.1f} s")
        return
    names = {bank.code: bank.name for bank in stage.clients}
    answers = ", ".join(f"{names[said['bank']]}: {said['said']}" for said in doubt["asked"])
    claims.check(now - available == PARTS[1], f"{since:.0f} s on, time alone has released nothing", f"asked: {answers}")


async def _the_coordinator_returns(stage: Stage, cast: Cast, crash: Crash) -> None:
    claims, a = stage.claims, stage.clients[0]
    claims.say(f"{a.name} is started again; where its log holds no commit, the outcome is abort")
    seconds = await stage.processes[0].restart()  # a ``Breakage`` if it does not get there
    claims.check(True, f"{a.name} is back, its log read", f"ready {seconds:.2f} s after its start")
    took = await stage.until(stage.nothing_in_doubt, "no bank is in doubt")
    views = await _views(cast, crash.transfer_id)
    outcomes = {"committed" if view["status"] == "completed" else view["status"] for view in views}
    reason = views[0].get("reason", {}).get("code", "")
    claims.check(
        len(outcomes) == 1 and outcomes <= {"aborted", "committed"},
        "every bank knows the outcome, and all say the same",
        f"{' and '.join(sorted(outcomes))} {reason}".strip() + f" at {len(views)} banks, {took:.1f} s after the return",
    )
    share = (*PARTS, -sum(PARTS)) if outcomes == {"committed"} else (0, 0, 0, 0)
    meanwhile = (0, MEANWHILE, 0, -MEANWHILE)
    due = [was - one - other for was, one, other in zip(posted(crash.before), share, meanwhile, strict=True)]
    after = await cast.balances()
    claims.check(
        after == free(*due),
        "nothing is held any more, and only what was paid meanwhile has moved",
        listed(posted(after)),
    )


async def _views(cast: Cast, transfer_id: str) -> list[dict[str, Any]]:
    """The transfer as each bank knows it. One that was never asked to prepare may not know it at all."""
    answers = [await session.get(f"/v1/transfers/{transfer_id}") for session in (*cast.maria, cast.carlos)]
    return [answer.expect(200) for answer in answers if answer.status != 404]
