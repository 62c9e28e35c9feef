"""What a bank says of itself, line by line, for people (``text``) or for programs (``json``: an object a line).

Nothing of a request's body or headers comes here; it is not logged anywhere. What remains is made safe at this one
door: a CPF or CNPJ is masked wherever it stands, and of an exception only its class and the places in the code are
told, with its words only where they are this program's own. A line of JSON has the fields of ``FIELDS`` and no others.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

from distribank.breakages import TELLING
from distribank.config import LogFormat, Settings
from distribank.core.documents import mask_cpf, parse_cnpj, parse_cpf
from distribank.moments import format_ms

FIELDS: Final = (
    "time",
    "level",
    "logger",
    "bank",
    "message",
    "transaction",
    "from",
    "to",
    "because",
    "exception",
)
"""Everything that a line of JSON may have, in this order; what does not concern it is left out."""
TRANSITION: Final = ("from", "to", "because")
"""What the rhythm adds to a line that tells a transition."""
PLACES: Final = 12
"""The innermost places in the code that are told of an exception."""

_TRANSACTION: Final = re.compile(r"\b[0-9A-Z]{8}\.[0-9a-f]{32}\.[0-9a-f]{32}\b", re.ASCII)
_CPF: Final = re.compile(r"(?<![0-9A-Za-z])[0-9]{3}\.?[0-9]{3}\.?[0-9]{3}-?[0-9]{2}(?![0-9A-Za-z])", re.ASCII)
_CNPJ: Final = re.compile(
    r"(?<![0-9A-Za-z])[0-9A-Z]{2}\.?[0-9A-Z]{3}\.?[0-9A-Z]{3}/?[0-9A-Z]{4}-?[0-9]{2}(?![0-9A-Za-z])", re.ASCII
)


def begin(settings: Settings) -> None:
    """From now on this process says what it says to stderr, in the settings' format; nothing else changes."""
    line = JsonLine(settings.bank_code) if settings.log_format is LogFormat.JSON else TextLine()
    stderr = logging.StreamHandler(sys.stderr)
    stderr.setFormatter(line)
    logging.basicConfig(level=settings.log_level, handlers=[stderr], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)


def masked(words: str) -> str:
    """*words* with every CPF and CNPJ in them masked; other numbers of their length stay."""
    return _CNPJ.sub(_hide(parse_cnpj, _mask_cnpj), _CPF.sub(_hide(parse_cpf, mask_cpf), words))


class TextLine(logging.Formatter):
    """Lines for people: the time, the level, the words, and an exception's traceback."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return masked(super().format(record))


class JsonLine(logging.Formatter):
    """Lines for programs: what *bank* says, one JSON object each."""

    def __init__(self, bank: str) -> None:
        super().__init__()
        self._bank = bank

    def format(self, record: logging.LogRecord) -> str:
        said = record.getMessage()
        if not _is_ours(record.name):  # others put what they were working on behind their first line
            said = said.partition("\n")[0]
        known: dict[str, Any] = {
            "time": format_ms(int(record.created * 1000)),
            "level": record.levelname,
            "logger": record.name,
            "bank": self._bank,
            "message": masked(said),
        }
        about = _TRANSACTION.search(said)
        if about is not None:
            known["transaction"] = about[0]
        for name in TRANSITION:
            words = record.__dict__.get(name)
            if words is not None:
                known[name] = masked(str(words))
        if record.exc_info and record.exc_info[0] is not None:
            known["exception"] = _told(*record.exc_info)
        return json.dumps(known, ensure_ascii=False)


def _is_ours(logger: str) -> bool:
    return logger == "distribank" or logger.startswith("distribank.")


def _told(kind: type[BaseException], error: BaseException | None, where: TracebackType | None) -> dict[str, Any]:
    """An exception's class, its words if they are ours, and where it passed, outermost first: no values."""
    told: dict[str, Any] = {"class": kind.__qualname__}
    if isinstance(error, TELLING):
        told["words"] = masked(str(error))
    places = traceback.extract_tb(where)[-PLACES:]
    told["stack"] = [f"{place.filename}:{place.lineno} in {place.name}" for place in places]
    return told


def _hide(parse: Callable[[str], str], mask: Callable[[str], str]) -> Callable[[re.Match[str]], str]:
    def hide(found: re.Match[str]) -> str:
        try:
            return mask(parse(found[0]))
        except ValueError:
            return found[0]

    return hide


def _mask_cnpj(cnpj: str) -> str:
    """A CNPJ as others may see it: ``**.222.333/****-**``."""
    return f"**.{cnpj[2:5]}.{cnpj[5:8]}/****-**"
