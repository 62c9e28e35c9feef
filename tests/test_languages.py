"""Problems in the language that was asked for: how it is chosen, that the catalogue is complete, and what is answered.

The catalogue is held to the source: every sentence that can become a detail is collected by ``ast``, each place in an
f-string as ``{}``, and must have a translation with as many places.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic_core._pydantic_core import list_all_errors

import distribank
from distribank.api import orders, portuguese
from distribank.api.languages import Language, language_of
from distribank.api.problems import TABLE, Invalid, Problem, broken, refused
from distribank.breakages import Breakage, Busy, DurabilityLost, KeyInProgress, KeyReused, OutcomeUnknown, Unreachable
from distribank.core.refusals import Code, Refusal
from tests.counter_hall import PASSWORD, Hall, hall
from tests.world import CPFS

PORTUGUESE = {"Accept-Language": "pt-BR"}

# The choice -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        "pt",
        "pt-BR",
        "PT-br",
        "pt-PT",
        "pt ; q=0.5",
        "pt-BR, en",
        "pt-BR,pt;q=0.9,en-US;q=0.8,en;q=0.7",
        "en;q=0.5, pt;q=0.6",
        "fr, pt;q=0.3, en;q=0.2",
        "en;q=0, *",
        "fr;q=nonsense, pt",
    ],
)
def test_portuguese_is_spoken_where_it_weighs_more(header: str) -> None:
    assert language_of(header) is Language.PORTUGUESE


@pytest.mark.parametrize(
    "header",
    [
        "",
        "en",
        "fr",
        "*",
        "en, pt-BR",
        "en-US,en;q=0.9,pt-BR;q=0.8",
        "en-US, pt;q=0.5",
        "pt;q=0.9, pt-BR;q=0.1, en;q=0.5",
        "pt-BR;q=0, *",
        "pt;q=0",
        "pt-BR;q=0.000",
        "*, pt;q=0.5",
    ],
)
def test_english_is_spoken_everywhere_else(header: str) -> None:
    assert language_of(header) is Language.ENGLISH


HOSTILE = [
    "pt;q=2",
    "pt;q=-1",
    "pt;q=NaN",
    "pt;q=1e9",
    "pt;q=0.1234",
    "pt;q=",
    "pt;q=0.5;q=1",
    ",;,;q=1,,",
    "p" * 10_000,
    "pt" + "-x" * 5_000,
    ";" * 10_000,
    " " * 10_000 + "!",
    "en," * 3_000 + "pt",
    "pt\xa0\xff",
    "{}%s\\",
]


@pytest.mark.parametrize("header", HOSTILE, ids=lambda header: header[:12])
def test_what_cannot_be_understood_counts_as_not_said(header: str) -> None:
    assert language_of(header) is Language.ENGLISH


# The catalogue ----------------------------------------------------------------------------------------------------

ROOT = Path(distribank.__file__).parent
TREES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for part in ("api", "bank", "core", "peers", "breakages.py", "strict_json.py")
    for path in ([ROOT / part] if part.endswith(".py") else sorted((ROOT / part).glob("*.py")))
}

DETAIL_OF = {"Refusal": 1, "Problem": 1, "Refused": 1, "_violation": 2, "_refuse": 2, "MalformedJSON": 0}
"""Calls that give a problem its detail, and where in them it stands."""

VALIDATORS = ("api/", "core/documents.py", "core/money.py")
"""Where a ``ValueError`` is what pydantic, or a route, tells the client."""

BREAKAGES_TOLD = {"KeyReused", "KeyInProgress", "Busy", "OutcomeUnknown"}
"""Breakages whose own words are told."""

PASSED_ON = {
    "str(breakage)": "a breakage's words, found at its class",
    "str(error)": "InvalidField: what banks alone tell one another of a broken message",
    "detail": "a variable or a parameter: found where it is assigned or given",
    "refusal.detail": "found at the refusal",
    "closed.detail": "found at the refusal",
    "because.detail": "found at the refusal",
    "said.detail": "found where a message is refused",
    "msg": "uvicorn's words for what is no HTTP: no header is read then",
    "read.text(answer, 'detail', MAX_DETAIL)": "another bank's words",
    "read.text(reason, 'detail', MAX_DETAIL)": "another bank's words",
    "_first_of(listed)": "pydantic's words, or a validator's",
}
"""What is a detail and no sentence, and why nothing is missed by that."""

PLACED = re.compile(r"^(body|query)\.[^ ]+: ")
"""Where a value stands, before what is wrong with it; what is then left may be an exception's words, found there."""


def skeleton(node: ast.expr | None, constants: Mapping[str, ast.expr]) -> list[str] | None:
    """The sentences that *node* may be, each with ``{}`` for a place; ``None`` if it is none."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        return ["".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)]
    if isinstance(node, ast.IfExp):
        branches = [skeleton(branch, constants) for branch in (node.body, node.orelse)]
        return [sentence for branch in branches for sentence in branch or []]
    if isinstance(node, ast.Name) and node.id in constants:
        return skeleton(constants[node.id], constants)
    return None


def said_in(name: str, tree: ast.Module) -> Iterator[tuple[int, ast.expr]]:
    """(line, expression) of everything in a module that becomes a detail."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            at = 0 if function == "ValueError" and name.startswith(VALIDATORS) else DETAIL_OF.get(function)
            if at is not None:
                named = [keyword.value for keyword in node.keywords if keyword.arg == "detail"]
                yield from ((node.lineno, value) for value in [*node.args[at : at + 1], *named])
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name) and target.id == "detail":
                    yield node.lineno, node.value
                elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    for left, right in zip(target.elts, node.value.elts, strict=True):
                        if isinstance(left, ast.Name) and left.id == "detail":
                            yield node.lineno, right
        elif isinstance(node, ast.ClassDef) and node.name in BREAKAGES_TOLD:
            yield from (
                (call.lineno, call.args[0])
                for call in ast.walk(node)
                if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "__init__" and call.args
            )


def constants_of(tree: ast.Module) -> dict[str, ast.expr]:
    """What names stand for at the top of a module."""
    found: dict[str, ast.expr] = {}
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            found[node.target.id] = node.value
    return found


TRANSLATED = {re.sub(r"\{\w+\}", "{}", english) for english in portuguese.SENTENCES}


@pytest.mark.parametrize("name", TREES)
def test_every_sentence_that_can_become_a_detail_has_a_translation(name: str) -> None:
    constants = constants_of(TREES[name])
    missing = []
    for line, expression in said_in(name, TREES[name]):
        sentences = skeleton(expression, constants)
        if sentences is None:
            passed_on = ast.unparse(expression)
            if passed_on not in PASSED_ON:
                missing.append(f"{name}:{line}: what is said here cannot be read: {passed_on}")
        else:
            bare = [PLACED.sub("", sentence) for sentence in sentences]
            unknown = [sentence for sentence in bare if sentence not in TRANSLATED and sentence != "{}"]
            missing += [f"{name}:{line}: add to portuguese.SENTENCES: {sentence!r}" for sentence in unknown]
    assert not missing, "\n".join(missing)


def test_the_collector_finds_sentences_of_every_kind() -> None:
    found = {
        sentence
        for name, tree in TREES.items()
        for _, expression in said_in(name, tree)
        for sentence in skeleton(expression, constants_of(tree)) or []
    }

    assert found >= {
        "the available balance does not cover this debit",  # detail = …, then Refusal(…, detail)
        "this debit is more than the consent allows",  # code, detail = …
        "a transfer has at most {} legs; this one has {}",  # an f-string
        "a time is written as in 2026-11-23T12:00:00Z (RFC 3339)",  # a constant of the module
        "too many transfers are under way; send this again in a moment",  # a breakage
        "the answer to a prepare was no vote",  # one branch of a conditional
        "only banks that take part may ask for this outcome",  # another bank's word
    }
    assert len(found) > 100


def test_every_code_has_a_title_in_portuguese() -> None:
    assert [code for code in TABLE if code not in portuguese.TITLES] == []


def test_a_code_without_a_portuguese_title_keeps_its_english_one() -> None:
    assert portuguese.title("a_code_of_tomorrow", "Tomorrow's") == "Tomorrow's"


@pytest.mark.parametrize("english", portuguese.SENTENCES)
def test_a_translation_has_the_places_of_its_sentence(english: str) -> None:
    places = sorted(re.findall(r"\{(\w+)\}", english))

    assert sorted(re.findall(r"\{(\w+)\}", portuguese.SENTENCES[english])) == places
    assert set(places) <= set(portuguese.PLACES)


def test_validation_messages_are_pydantics_own_kinds_and_name_only_what_it_gives() -> None:
    kinds: dict[str, Any] = {kind["type"]: kind for kind in list_all_errors()}

    for name, template in portuguese.VALIDATION.items():
        given = set(kinds[name].get("example_context") or {})
        assert set(re.findall(r"\{(\w+)\}", template)) <= given, name


def test_every_pattern_of_a_body_is_told_in_words_of_both_languages() -> None:
    """Regular expressions are for machines: a client reads what is asked for."""

    def patterns(schema: Any) -> Iterator[str]:
        if isinstance(schema, dict):
            if isinstance(schema.get("pattern"), str) and schema["type"] in ("str", "string"):
                yield schema["pattern"]
            schema = list(schema.values())
        if isinstance(schema, list):
            for member in schema:
                yield from patterns(member)

    models = [model for model in vars(orders).values() if isinstance(model, type) and issubclass(model, orders.Order)]
    found = {pattern for model in models for pattern in patterns(model.__pydantic_core_schema__)}

    assert found == set(orders.PATTERNS)
    assert set(orders.PATTERNS.values()) <= set(portuguese.SENTENCES)


@pytest.mark.parametrize(
    ("english", "expected"),
    [
        ("this account is closed", "esta conta está encerrada"),
        (
            "99990002 is offline; nothing moved, try again later with a new key",
            "99990002 está fora do ar; nenhum valor foi movimentado, tente mais tarde com uma chave nova",
        ),
        ("no vote in time from 99990002, 99990003", "sem resposta a tempo de 99990002, 99990003"),
        ("this needs the authority of a holder", "isto exige entrar como titular"),
        ("this needs the authority of the operator", "isto exige entrar como operador"),
        ("debits of 1.00 do not equal credits of 20.00", "os débitos somam 1.00 e os créditos, 20.00"),
        (
            "send application/x-www-form-urlencoded or multipart/form-data",
            "envie application/x-www-form-urlencoded ou multipart/form-data",
        ),
        (
            "the body is not JSON as this bank reads it: Expecting ',' delimiter at character 12",
            "o corpo não é JSON como este banco o lê: falta o delimitador ',' no caractere 12",
        ),
        (
            "the body is not JSON as this bank reads it: Unexpected UTF-8 BOM (decode using utf-8-sig) at character 0",
            "o corpo não é JSON como este banco o lê: há uma marca de ordem de bytes (BOM) no caractere 0",
        ),
        (
            "at most 1.00 can be reached; these banks did not answer: 99990002, 99990003",
            "é possível reunir no máximo 1.00; estes bancos não responderam: 99990002, 99990003",
        ),
        ("frozen_by_court: this account is closed", "frozen_by_court: esta conta está encerrada"),
    ],
)
def test_a_sentence_keeps_what_was_filled_in(english: str, expected: str) -> None:
    assert portuguese.sentence(english) == expected


@pytest.mark.parametrize(
    "english",
    [
        "",
        "a sentence of a later version",
        "{bank} {0} {why.__class__} %s",
        "x: " * 300 + "this account is closed",
        "send money or else",
        "at most ten consents on one account",
        "use " + "A, " * 300,
        "send " + " or ".join(["a/a/a"] * 100) + " !",  # many ways to match would take for ever
        "send " + "/" * 1000 + " !",
        "no vote in time from " + "99990002, " * 90 + "!",
    ],
)
def test_what_the_catalogue_does_not_know_stays_english(english: str) -> None:
    assert portuguese.sentence(english) == english


def test_braces_in_what_another_bank_says_are_only_braces() -> None:
    said = "x: {bank} {0.__class__}"

    assert portuguese.sentence(said) == said


# The documents ----------------------------------------------------------------------------------------------------

FOR_PEOPLE = {"title", "detail", "errors"}


def document(problem: Problem, language: Language) -> dict[str, Any]:
    response = problem.response("/v1/x", language)
    assert response.headers["content-language"] == language.value
    assert response.headers["vary"] == "Accept-Language"
    read: dict[str, Any] = json.loads(bytes(response.body))
    return read


@pytest.mark.parametrize(
    "breakage",
    [KeyReused(), KeyInProgress("t1"), Busy(), OutcomeUnknown("t1"), Unreachable("99990002", "x"), DurabilityLost("x")],
    ids=lambda breakage: type(breakage).__name__,
)
def test_a_breakage_is_told_in_portuguese(breakage: Breakage) -> None:
    english, translated = (document(broken(breakage), language) for language in Language)

    assert english["title"] != translated["title"]
    assert english["detail"] != translated["detail"]
    assert [name for name in english if english[name] != translated[name]] == ["title", "detail"]


def test_another_banks_unknown_sentence_stays_as_it_came_under_a_portuguese_title() -> None:
    problem = refused(Refusal(Code.BANK_REFUSED, "the moon is in the wrong house", "99990002"))

    translated = document(problem, Language.PORTUGUESE)

    assert (translated["title"], translated["detail"]) == ("Um banco recusou", "the moon is in the wrong house")


def test_a_kind_of_error_that_is_not_known_stays_english() -> None:
    error = {"type": "of_tomorrow", "loc": ("body", "x"), "msg": "Input should be better"}

    assert document(Invalid([error]), Language.PORTUGUESE)["detail"] == "body.x: Input should be better"


# Over HTTP --------------------------------------------------------------------------------------------------------


async def in_both(
    client: httpx.AsyncClient, method: str, path: str, status: int, code: str, **request: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same refusal asked for in English and in Portuguese, and that they differ in words alone."""
    headers = request.pop("headers", {})
    english = await client.request(method, path, headers=headers, **request)
    translated = await client.request(method, path, headers={**headers, **PORTUGUESE}, **request)
    for answer, language in ((english, "en"), (translated, "pt-BR")):
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
        assert answer.headers["content-language"] == language
        assert answer.headers["vary"] == "Accept-Language"
        assert answer.headers["content-type"] == "application/problem+json"
    first, second = english.json(), translated.json()
    assert list(first) == list(second)
    same = set(first) - FOR_PEOPLE - {"transfer_id", "instance"}  # two refused transfers have two ids
    assert {name: first[name] for name in same} == {name: second[name] for name in same}
    assert first["title"] != second["title"]
    assert second["title"] == portuguese.TITLES[code]
    assert first["detail"] != second["detail"] or first["detail"].startswith("use ")
    return first, second


async def test_what_is_refused_before_it_is_read_is_told_in_both() -> None:
    async with hall() as bank:
        who, client = await bank.sign_in(), bank.client()

        await in_both(client, "GET", "/v1/accounts", 401, "unauthorized")
        await in_both(client, "GET", "/v1/accounts", 401, "unauthorized", headers={"Authorization": "Bearer x"})
        await in_both(client, "GET", "/v1/operator/books", 403, "forbidden", headers=who)
        await in_both(client, "GET", "/v1/nothing", 404, "not_found")
        await in_both(client, "GET", "/v1/accounts/00000009-4", 404, "not_found", headers=who)
        await in_both(client, "PATCH", "/v1/transfers", 405, "method_not_allowed")
        await in_both(client, "POST", "/v1/holders", 413, "body_too_large", content=b" " * 70_000)
        await in_both(client, "POST", "/v1/holders", 415, "unsupported_media_type", content=b"x", headers=XML)
        for content in (b"", b"{", b'{"a": 1, "a": 2}', b"[NaN]", b"[" * 999, b"\xff", b'"\\ud800"', b"[1,]", b"1 2"):
            await in_both(client, "POST", "/v1/holders", 400, "malformed_json", content=content, headers=JSON)


XML = {"Content-Type": "application/xml"}
JSON = {"Content-Type": "application/json"}


async def test_what_is_not_valid_is_told_in_both_with_every_message() -> None:
    async with hall() as bank:
        who, client = await bank.sign_in(), bank.client()
        wrong: list[tuple[str, dict[str, str], Any, str]] = [
            ("/v1/holders", {}, {"name": "", "cpf": "1", "password": 5, "age": 1}, "invalid_request"),
            ("/v1/holders", {}, {"name": "M", "cpf": "52998224720", "password": "x"}, "invalid_cpf"),
            ("/v1/holders", {}, [], "invalid_request"),
            ("/v1/accounts", who, {"type": "gold"}, "invalid_request"),
            ("/v1/accounts", who, {}, "invalid_request"),
            ("/v1/accounts", who, {"type": "joint", "co_holders": [], "approval": {"at_least": 0}}, "invalid_request"),
            ("/v1/accounts", who, {"type": "business", "company": {"legal_name": "P", "cnpj": "1"}}, "invalid_cnpj"),
            ("/v1/transfers", bank.keyed(who), {"debits": [{"account": "1", "amount": 5}], "credits": {}}, ""),
            ("/v1/transfer-batches", bank.keyed(who), {"transfers": [], "mode": "wild"}, "invalid_request"),
            ("/v1/consents", who, {"account": "00000001-9", "expires_at": 5}, "invalid_request"),
        ]

        for path, headers, body, code in wrong:
            first, second = await in_both(
                client, "POST", path, 422, code or "invalid_account_number", json=body, headers=headers
            )
            assert [error["loc"] for error in first["errors"]] == [error["loc"] for error in second["errors"]]
            for here, there in zip(first["errors"], second["errors"], strict=True):
                assert here["msg"] != there["msg"], here
        await in_both(client, "GET", "/v1/transfers?limit=x", 422, "invalid_request", headers=who)
        await in_both(client, "GET", "/v1/transfers?limit=0", 422, "invalid_request", headers=who)
        await in_both(client, "GET", "/v1/transfers?cursor=x", 422, "invalid_cursor", headers=who)
        number = await bank.account()
        for day in ("x", "2026-02-30"):
            path = f"/v1/accounts/{number}/statement?from={day}"
            await in_both(client, "GET", path, 422, "invalid_request", headers=who)


def transfer(source: str, target: str, amount: str, bank: str = "99990001") -> dict[str, Any]:
    return {
        "debits": [{"account": source, "amount": amount}],
        "credits": [{"bank": bank, "account": target, "amount": amount}],
    }


async def test_what_banks_refuse_is_told_in_both_and_so_is_its_replay() -> None:
    async with hall(2) as bank:
        who, client = await bank.sign_in(), bank.client()
        source, target = await bank.account("10.00"), await bank.account()

        poor = transfer(source, target, "99.00")
        keyed = bank.keyed(who)
        first, second = await in_both(
            client, "POST", "/v1/transfers", 422, "insufficient_funds", json=poor, headers=keyed
        )
        elsewhere = transfer(source, "00000001-9", "1.00", "99990002")  # the other bank says it, in English
        _, said = await in_both(
            client, "POST", "/v1/transfers", 422, "account_not_found", json=elsewhere, headers=bank.keyed(who)
        )
        uneven = {**poor, "credits": [{"account": target, "amount": "1.00"}]}
        _, sums = await in_both(
            client, "POST", "/v1/transfers", 422, "unbalanced_transfer", json=uneven, headers=bank.keyed(who)
        )
        await in_both(client, "POST", "/v1/transfers", 422, "idempotency_conflict", json=elsewhere, headers=keyed)
        await in_both(client, "POST", "/v1/transfers", 400, "idempotency_key_required", json=poor, headers=who)
        person = {"name": "Maria da Silva", "cpf": CPFS[0], "password": PASSWORD}
        await in_both(client, "POST", "/v1/holders", 409, "holder_exists", json=person)

    assert first["transfer_id"] == second["transfer_id"]  # the second was the first one's replay
    assert second["detail"] == "o saldo disponível não cobre este débito"
    assert (said["bank"], said["detail"]) == ("99990002", "não existe essa conta neste banco")
    assert sums["detail"] == "os débitos somam 99.00 e os créditos, 1.00"


async def test_throttled_unready_and_broken_banks_answer_in_both(monkeypatch: pytest.MonkeyPatch) -> None:
    async with hall() as bank:
        who, client = await bank.sign_in(), bank.client()
        wrong = {"username": CPFS[0], "password": "wrong"}
        await in_both(client, "POST", "/v1/token", 401, "invalid_credentials", data=wrong)
        for _ in range(8):
            await client.post("/v1/token", data=wrong)
        await in_both(client, "POST", "/v1/token", 429, "too_many_requests", data=wrong)
        with monkeypatch.context() as patch:
            patch.setattr(bank.apps["99990001"].state.edge.bank.custody, "accounts_of", None)
            await in_both(client, "GET", "/v1/accounts", 500, "internal_error", headers=who)
        bank.world.banks["99990001"].bank.ready = False
        await in_both(client, "GET", "/v1/accounts", 503, "not_ready", headers=who)


async def test_hostile_wishes_change_no_answer() -> None:
    async with hall() as bank:
        for wish in HOSTILE:
            answer = await bank.client().get("/v1/nothing", headers=[(b"accept-language", wish.encode("latin-1"))])
            assert (answer.status_code, answer.headers["content-language"]) == (404, "en"), wish[:20]


async def test_a_wish_may_stand_on_several_lines() -> None:
    async with hall() as bank:
        lines = [("Accept-Language", "en;q=0.5"), ("Accept-Language", "pt-BR")]
        answer = await bank.client().get("/v1/nothing", headers=lines)

    assert answer.json()["title"] == "Não há nada aqui"


async def test_a_success_is_the_same_in_every_language(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object) -> None:
        raise AssertionError("no wish is read on the way to a success")

    monkeypatch.setattr("distribank.api.languages.language_of", read)
    async with hall() as bank:
        bank_hall: Hall = bank
        who = await bank_hall.sign_in()
        source, target = await bank_hall.account("10.00"), await bank_hall.account()
        ordered = await bank_hall.client().post(
            "/v1/transfers", json=transfer(source, target, "1.00"), headers=bank_hall.keyed(who, **PORTUGUESE)
        )

    assert ordered.status_code == 201
    assert "content-language" not in ordered.headers
