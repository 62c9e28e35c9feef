"""One transfer as one trace over all its banks, told to an OTLP/HTTP collector. Off unless an endpoint is configured.

Several transfers' messages share one request between banks, so that no header of it could carry a trace. Nothing is
carried at all: a transaction's id is at every bank that takes part in it, and everything is derived from it. The trace
id is the beginning of its SHA-256; the spans that others hang from (the transfer's own, and each participant's
prepare, commit and abort) have ids derived likewise, so that a participant names its parent without having been told.
What recovery tries later, at whichever bank, falls into the same trace.

Spans are given to a queue of bounded length, and a thread of their own sends them: a collector that is slow or away
costs spans, never a transfer, and never more than ``LAST_WORDS_S`` when the bank stops. This module is loaded only
where it is wanted: it alone needs the extra ``otel``.
"""

from __future__ import annotations

import hashlib
import logging
import random
import threading
import time
from asyncio import Future
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from distribank import __version__
from distribank.api.interbank import Receiver
from distribank.core.protocol import (
    Abort,
    Answer,
    Commit,
    Inquire,
    Message,
    No,
    Outcome,
    Prepare,
    Record,
    RecordKind,
    Refused,
    State,
)
from distribank.logs import masked
from distribank.ports import Peers, PeerView

log = logging.getLogger("distribank.tracing")

EXPORT_S: Final = 1.0
"""How long one attempt to send may take; what was in it is then lost."""
EVERY_MS: Final = 1000
"""How long a span waits at most for others to travel with."""
MAX_WAITING: Final = 8192
"""Spans that may wait; the oldest are dropped for more."""
AT_ONCE: Final = 512
LAST_WORDS_S: Final = 1.0
"""How long the end of a bank may be held up by spans that still wait."""

KINDS: Final[dict[type[Message], str]] = {
    Prepare: "prepare",
    Commit: "commit",
    Abort: "abort",
    Inquire: "inquire",
}
"""The messages that are about one transfer, and how their spans are called."""

ROOT: Final = "transfer"
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)


@lru_cache(maxsize=4096)
def trace_id(transaction: str) -> int:
    """The trace of *transaction*: the first 16 bytes of its SHA-256."""
    return int.from_bytes(hashlib.sha256(transaction.encode()).digest()[:16], "big")


@lru_cache(maxsize=16_384)
def span_id(transaction: str, name: str, bank: str = "") -> int:
    """The span called *name*, of what *bank* is asked, of *transaction*: the same wherever it is worked out."""
    return int.from_bytes(hashlib.sha256(f"{transaction} {name} {bank}".encode()).digest()[:8], "big")


class Tracing:
    """What bank *code* tells the collector at *endpoint*. Implements ``ports.Traces``; nothing in it waits."""

    def __init__(self, code: str, endpoint: str) -> None:
        self._code = code
        self._resource = Resource.create(
            {"service.name": code, "service.namespace": "distribank", "service.version": __version__}
        )
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # every attempt would be told; ours tells changes
        self._sender = BatchSpanProcessor(
            _Exporter(endpoint),
            max_queue_size=MAX_WAITING,
            schedule_delay_millis=EVERY_MS,
            max_export_batch_size=AT_ONCE,
        )

    # What ports.Traces promises -----------------------------------------------------------------------------------

    def ordered(self, transaction: str, began_ns: int) -> None:
        self.tell(transaction, "order", began_ns, kind=SpanKind.SERVER)

    def driven(self, transaction: str, finished: Future[None]) -> None:
        began_ns = time.time_ns()

        def end(drive: Future[None]) -> None:
            error = None if drive.cancelled() else drive.exception()
            why = str(error) if error else ""
            self.tell(transaction, ROOT, began_ns, own=span_id(transaction, ROOT), parent=0, error=why)

        finished.add_done_callback(end)

    def recorded(self, records: Iterable[Record], durable: Future[None] | None, began_ns: int) -> None:
        for record in records:
            if durable is None:
                self._tell_record(record, began_ns)
            else:
                durable.add_done_callback(partial(self._tell_record, record, began_ns))

    def _tell_record(self, record: Record, began_ns: int, _durable: Future[None] | None = None) -> None:
        """One line of the log, from its decision until it was durable (or queued, where nobody waits for that)."""
        own = parent = None
        if record.kind is RecordKind.DECIDED and record.before == State.NOTHING:
            own, parent = span_id(record.transaction, ROOT), 0  # decided as it was ordered: there is nothing to drive
        elif record.kind is RecordKind.PREPARED:
            parent = span_id(record.transaction, "prepare", self._code)
        attributes = {"distribank.from": record.before, "distribank.to": record.after}
        attributes["distribank.because"] = masked(record.detail)
        self.tell(record.transaction, record.kind.lower(), began_ns, own=own, parent=parent, attributes=attributes)

    # What stands around a bank ------------------------------------------------------------------------------------

    def peers(self, peers: Peers, drives: Callable[[str], bool]) -> Peers:
        """*peers*, whose questions about a transfer are told; *drives* knows what a live task drives here."""
        return _TracedPeers(self, peers, drives)

    def receiver(self, bank: Receiver) -> Receiver:
        """*bank*, whose answers about a transfer are told."""
        return _TracedReceiver(self, bank, self._code)

    def stop(self) -> None:
        """Send what still waits, for ``LAST_WORDS_S`` at most, and let go of it then."""
        sending = threading.Thread(target=self._sender.shutdown, name="last spans", daemon=True)
        sending.start()
        sending.join(LAST_WORDS_S)

    def tell(
        self,
        transaction: str,
        name: str,
        began_ns: int,
        *,
        own: int | None = None,
        parent: int | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[str, str | bool] | None = None,
        error: str = "",
    ) -> None:
        """A span from *began_ns* until now, below *parent*: the transfer's own span if none is given; 0: nothing."""
        trace = trace_id(transaction)
        above = span_id(transaction, ROOT) if parent is None else parent
        self._sender.on_end(
            ReadableSpan(
                name,
                _context(trace, own or random.getrandbits(64) or 1),
                _context(trace, above) if above else None,
                self._resource,
                {"distribank.transaction": transaction, **(attributes or {})},
                kind=kind,
                status=Status(StatusCode.ERROR, masked(error)) if error else Status(),
                start_time=began_ns,
                end_time=max(time.time_ns(), began_ns),
            )
        )


class _TracedPeers:
    """Implements ``ports.Peers``: what is asked about a transfer becomes a span from the question to its answer."""

    def __init__(self, tracing: Tracing, peers: Peers, drives: Callable[[str], bool]) -> None:
        self._tracing = tracing
        self._peers = peers
        self._drives = drives

    @property
    def on_return(self) -> Callable[[str], None]:
        return self._peers.on_return

    @on_return.setter
    def on_return(self, call: Callable[[str], None]) -> None:
        self._peers.on_return = call

    @property
    def requests(self) -> Mapping[tuple[str, str], int]:
        return self._peers.requests

    def ask(self, bank: str, message: Message, until: float | None = None) -> Future[Answer]:
        asked = self._peers.ask(bank, message, until)
        name = KINDS.get(type(message))
        if name is not None:
            self._watch(bank, _transaction_of(message), name, asked)
        return asked

    def _watch(self, bank: str, transaction: str, name: str, asked: Future[Answer]) -> None:
        began_ns = time.time_ns()
        # The participant hangs its spans from this one. Recovery, which asks again, has others beside it.
        first = self._drives(transaction)
        own = span_id(transaction, name, bank) if first else None

        def end(asked: Future[Answer]) -> None:
            error = None if asked.cancelled() else asked.exception()
            said = "" if asked.cancelled() or error else _in_words(asked.result())
            self._tracing.tell(
                transaction,
                name,
                began_ns,
                own=own,
                kind=SpanKind.CLIENT,
                attributes={"distribank.peer": bank, "distribank.answer": said, "distribank.again": not first},
                error=str(error) if error else "",
            )

        asked.add_done_callback(end)

    def view(self, bank: str) -> PeerView | None:
        return self._peers.view(bank)

    def views(self) -> list[PeerView]:
        return self._peers.views()


class _TracedReceiver:
    """A bank as the interbank routes see it: what it decides for another becomes a span until it may be answered."""

    def __init__(self, tracing: Tracing, bank: Receiver, code: str) -> None:
        self._tracing = tracing
        self._bank = bank
        self._code = code

    @property
    def incarnation(self) -> str:
        return self._bank.incarnation

    def clock_now(self) -> int:
        return self._bank.clock_now()

    async def receive(self, sender: str, clock: int, messages: Sequence[Message]) -> list[Answer]:
        began_ns = time.time_ns()
        answers = await self._bank.receive(sender, clock, messages)
        for message, answer in zip(messages, answers, strict=True):
            name = KINDS.get(type(message))
            if name is not None:
                transaction = _transaction_of(message)
                self._tracing.tell(
                    transaction,
                    f"decide {name}",
                    began_ns,
                    parent=span_id(transaction, name, self._code),
                    kind=SpanKind.SERVER,
                    attributes={"distribank.peer": sender, "distribank.answer": _in_words(answer)},
                )
        return answers


class _Exporter(SpanExporter):
    """Sends spans to one collector, past any proxy, and says in one line when that begins or ceases to fail."""

    def __init__(self, endpoint: str) -> None:
        import requests  # not above: what it rests on binds a socket as it is imported
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        session = requests.Session()
        session.trust_env = False
        self._endpoint = endpoint
        self._inner = OTLPSpanExporter(f"{endpoint}/v1/traces", timeout=EXPORT_S, session=session)
        self._taken = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._inner.export(spans)
        taken = result is SpanExportResult.SUCCESS
        if taken is not self._taken:
            self._taken = taken
            log.warning("%s %s traces", self._endpoint, "takes" if taken else "does not take")
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()  # type: ignore[no-untyped-call]


def _transaction_of(message: Message) -> str:
    assert isinstance(message, Prepare | Commit | Abort | Inquire), f"{message} is about no transfer"
    return message.transaction


def _context(trace: int, span: int) -> SpanContext:
    return SpanContext(trace, span, is_remote=False, trace_flags=_SAMPLED)


def _in_words(answer: Answer) -> str:
    """An answer by its name and, where it is no yes, its reason's code: nothing of the holder's."""
    if isinstance(answer, No):
        return f"no: {answer.because.code}"
    if isinstance(answer, Outcome):
        return str(answer.fate)
    return f"refused: {answer.code}" if isinstance(answer, Refused) else type(answer).__name__.lower()
