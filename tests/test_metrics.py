"""What ``GET /metrics`` says: every series that operators were promised, with what has just happened in it."""

from __future__ import annotations

from math import isnan

from distribank.bank.metrics import Metrics
from tests.counter_hall import Hall, hall, leg, order

A, B, C = "99990001", "99990002", "99990003"

NONE: set[str] = set()
PROMISED = {
    "distribank_transfers_total": {"outcome"},
    "distribank_phase_seconds": {"phase", "peer"},
    "distribank_in_doubt": NONE,
    "distribank_oldest_in_doubt_seconds": NONE,
    "distribank_forced": NONE,
    "distribank_unacknowledged_commits": NONE,
    "distribank_undecided": NONE,
    "distribank_lock_wait_seconds": NONE,
    "distribank_flush_seconds": NONE,
    "distribank_flush_batch_size": NONE,
    "distribank_peer_up": {"peer"},
    "distribank_interbank_requests": {"peer", "kind"},
    "distribank_position_centavos": {"peer"},
    "distribank_alarms_total": NONE,
    "distribank_audit_ok": NONE,
    "distribank_audit_findings": NONE,
    "distribank_audit_timestamp_seconds": NONE,
}


def of(banks: Hall, code: str) -> Metrics:
    return banks.world.banks[code].bank.metrics


async def test_every_series_that_was_promised_is_there_with_its_labels_and_no_other() -> None:
    async with hall(2) as banks:
        here, there = await banks.account("300.00"), await banks.account("0.00", 1, B)
        assert (await order(banks, [leg(A, here, "5.00")], [leg(B, there, "5.00")])).status_code == 201
        await banks.client(A).get("/metrics", headers=await banks.operator())

        said: dict[str, set[str]] = {}
        for family in of(banks, A).registry.collect():
            name = family.name + ("_total" if family.type == "counter" else "")
            said[name] = {label for sample in family.samples for label in sample.labels} - {"le"}
        assert said == PROMISED


async def test_each_peers_phases_are_timed_on_their_own() -> None:
    async with hall(3) as banks:
        here = await banks.account("300.00")
        at_b, at_c = await banks.account("0.00", 1, B), await banks.account("0.00", 1, C)
        both = await order(banks, [leg(A, here, "5.00")], [leg(B, at_b, "2.00"), leg(C, at_c, "3.00")])
        one = await order(banks, [leg(A, here, "5.00")], [leg(C, at_c, "5.00")])
        assert (both.status_code, one.status_code) == (201, 201)

        def times(phase: str, peer: str) -> float | None:
            return of(banks, A).registry.get_sample_value(
                "distribank_phase_seconds_count", {"phase": phase, "peer": peer}
            )

        assert [times(phase, B) for phase in ("vote", "acknowledge")] == [1, 1]
        assert [times(phase, C) for phase in ("vote", "acknowledge")] == [2, 2]


async def test_the_last_audit_is_told_with_its_time_and_none_before_the_first() -> None:
    async with hall(2) as banks:
        metrics = of(banks, A)
        assert isnan(metrics.audit_ok._value.get())
        assert metrics.audited_at._value.get() == 0

        await banks.client().post("/v1/operator/audit", headers=await banks.operator())
        assert (metrics.audit_ok._value.get(), metrics.audit_findings._value.get()) == (1, 0)
        assert metrics.audited_at._value.get() * 1000 == banks.world.clock.wall_ms()

        await banks.world.crash(B)
        await banks.client().post("/v1/operator/audit", headers=await banks.operator())
        assert metrics.audit_ok._value.get() == 0
        assert metrics.audit_findings._value.get() > 0
