"""A data directory: what `network init` makes, what it never touches, and that real banks start from it and stop."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path

import pytest

from distribank.breakages import Breakage, Misconfigured
from distribank.config import Settings
from distribank.network.layout import DEFAULT_BASE_PORT, Database, Place, init, load, name_of
from distribank.network.processes import BankProcess, free_base_port, is_free, running
from distribank.peers.roster import Roster, load_private_key, own_keyid
from tests.processes import CPFS, PASSWORD, command, network_of, until


def files_of(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_the_banks_are_numbered_and_take_ports_in_a_row(tmp_path: Path) -> None:
    banks = init(tmp_path / "new" / "data", 3, 9100)

    assert [bank.code for bank in banks] == ["99990001", "99990002", "99990003"]
    assert [bank.port for bank in banks] == [9100, 9101, 9102]
    roster = Roster.load(tmp_path / "new" / "data" / "network.json")
    assert [(entry.code, entry.name, entry.url) for entry in roster] == [
        (bank.code, bank.name, f"http://127.0.0.1:{bank.port}") for bank in banks
    ]


def test_what_is_made_is_enough_to_start_a_bank(tmp_path: Path) -> None:
    for bank in init(tmp_path, 2):
        settings = Settings.load(bank.env_file)
        key = load_private_key(settings.private_key_file)

        assert (settings.bank_code, settings.port) == (bank.code, bank.port)
        assert settings.operator_password.get_secret_value() == bank.operator_password
        assert own_keyid(Roster.load(settings.network_file), bank.code, key, settings.private_key_file)


def test_secrets_are_the_owners_alone_and_differ_from_bank_to_bank(tmp_path: Path) -> None:
    banks = init(tmp_path, 4)

    settings = [Settings.load(bank.env_file) for bank in banks]
    assert {mode(bank.env_file) for bank in banks} == {mode(bank.directory / "key.pem") for bank in banks} == {0o600}
    assert len({setting.token_secret.get_secret_value() for setting in settings}) == 4
    assert len({setting.operator_password.get_secret_value() for setting in settings}) == 4


def test_the_settings_are_lines_that_any_reader_takes_alike(tmp_path: Path) -> None:
    [bank] = init(tmp_path, 1)

    lines = [line for line in bank.env_file.read_text().splitlines() if not line.startswith("#")]
    assert all(line.isascii() and " " not in line and line.count("=") == 1 for line in lines), lines


def test_doing_it_again_changes_nothing(tmp_path: Path) -> None:
    init(tmp_path, 3, 9100)
    before = files_of(tmp_path)

    init(tmp_path, 3, 9500)
    init(tmp_path, 2)

    assert files_of(tmp_path) == before


def test_a_network_grows_and_keeps_what_it_has(tmp_path: Path) -> None:
    init(tmp_path, 2, 9100)
    before = files_of(tmp_path)

    banks = init(tmp_path, 4)

    after = files_of(tmp_path)
    assert [bank.port for bank in banks] == [9100, 9101, 9102, 9103]
    assert {name: after[name] for name in before if name != "network.json"} == {
        name: content for name, content in before.items() if name != "network.json"
    }
    assert json.loads(after["network.json"])["banks"][:2] == json.loads(before["network.json"])["banks"]


def test_a_bank_that_was_half_made_is_finished_with_its_own_key(tmp_path: Path) -> None:
    [bank] = init(tmp_path, 1)
    key = (bank.directory / "key.pem").read_bytes()
    (tmp_path / "network.json").unlink()
    bank.env_file.unlink()

    [again] = init(tmp_path, 1)

    assert (again.directory / "key.pem").read_bytes() == key
    settings = Settings.load(again.env_file)
    roster = Roster.load(settings.network_file)
    assert own_keyid(roster, again.code, load_private_key(settings.private_key_file), settings.private_key_file)


def test_a_listed_bank_whose_key_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    [bank] = init(tmp_path, 1)
    (bank.directory / "key.pem").unlink()

    with pytest.raises(Misconfigured, match=r"key\.pem is missing"):
        init(tmp_path, 1)


def test_two_banks_never_share_a_port(tmp_path: Path) -> None:
    init(tmp_path, 2, 9100)

    with pytest.raises(Misconfigured, match="9101 for bank 99990003 is bank 99990002's already"):
        init(tmp_path, 3, 9099)


@pytest.mark.parametrize(("banks", "port"), [(0, 9100), (100, 9100), (5, 65_533), (2, 0)])
def test_numbers_that_make_no_network_are_refused(tmp_path: Path, banks: int, port: int) -> None:
    with pytest.raises(Misconfigured):
        init(tmp_path, banks, port)


def test_a_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(Misconfigured, match="cannot write"):
        init(tmp_path / "file" / "data", 1)


def test_an_empty_directory_holds_no_banks(tmp_path: Path) -> None:
    assert load(tmp_path) == []
    assert init(tmp_path, 1)[0].port == DEFAULT_BASE_PORT


def test_every_bank_of_the_largest_network_has_a_name_of_its_own() -> None:
    assert len({name_of(place) for place in range(99)}) == 99


def test_a_free_port_is_found_where_the_wanted_one_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        wanted = taken.getsockname()[1]

        found = free_base_port(3, wanted)

        assert found != wanted
        assert not is_free(wanted)
        assert all(is_free(found + place) for place in range(3))


def test_banks_listen_and_are_reached_where_they_are_told_to(tmp_path: Path) -> None:
    init(tmp_path, 1, 9100)
    place = Place("0.0.0.0", "http://bank-{number:03}:{port}")  # noqa: S104

    first, second = init(tmp_path, 2, place=place)

    assert [Settings.load(bank.env_file).host for bank in (first, second)] == ["127.0.0.1", "0.0.0.0"]  # noqa: S104
    assert [entry.url for entry in Roster.load(tmp_path / "network.json")] == [
        "http://127.0.0.1:9100",
        "http://bank-002:9101",
    ]


@pytest.mark.parametrize(
    "place",
    [
        Place(address="http://bank-{name}:{port}"),
        Place(address="http://bank-{number:x"),
        Place(address="http://bank-{}:{port}"),
        Place(address="http://bank-{number.there}"),
        Place(address="bank-{number}:{port}"),
        Place(listen=""),
        Place(listen="0.0.0.0\nDISTRIBANK_PORT=1"),
    ],
)
def test_a_place_that_is_none_is_refused_before_a_bank_is_made_there(tmp_path: Path, place: Place) -> None:
    with pytest.raises(Misconfigured):
        init(tmp_path, 1, place=place)

    assert files_of(tmp_path) == {}


ON_POSTGRES = "postgresql://bank:{password}@db-{number:03}:5432/bank"


def test_banks_stand_on_databases_of_their_own_whose_servers_find_the_password_in_a_file(tmp_path: Path) -> None:
    data, servers = tmp_path / "data", tmp_path / "servers"
    for code in ("99990001", "99990002"):
        (servers / code).mkdir(parents=True)
    database = Database(ON_POSTGRES, f"{servers}/{{code}}/password")

    banks = init(data, 2, database=database)
    urls = [Settings.load(bank.env_file).database_url for bank in banks]
    found = [(servers / bank.code / "password").read_text().strip() for bank in banks]

    assert urls == [f"postgresql://bank:{password}@db-00{k}:5432/bank" for k, password in enumerate(found, 1)]
    assert len(set(found)) == 2
    assert min(len(password) for password in found) >= 32
    assert {(servers / bank.code / "password").stat().st_mode & 0o777 for bank in banks} == {0o600}

    (servers / "99990002" / "password").unlink()
    init(data, 2, database=database)
    assert [Settings.load(bank.env_file).database_url for bank in banks] == urls
    assert [(servers / bank.code / "password").read_text().strip() for bank in banks] == found


def test_banks_keep_the_kind_of_database_that_they_began_with(tmp_path: Path) -> None:
    init(tmp_path / "files", 1)
    init(tmp_path / "servers", 1, database=Database(ON_POSTGRES))
    before = files_of(tmp_path)

    for place, other in (("files", Database(ON_POSTGRES)), ("servers", Database())):
        with pytest.raises(Misconfigured, match="keeps the kind of database that it began with"):
            init(tmp_path / place, 2, database=other)
    assert files_of(tmp_path) == before

    init(tmp_path / "files", 2, database=Database())
    init(tmp_path / "servers", 2)


@pytest.mark.parametrize(
    "database",
    [
        Database("postgresql://bank:{secret}@db/bank"),
        Database("postgresql://bank@db/bank\nDISTRIBANK_PORT=1"),
        Database("bank.db"),
        Database(ON_POSTGRES, "/databases/{password}"),
    ],
)
def test_a_database_that_is_none_is_refused_before_a_bank_is_made_for_it(tmp_path: Path, database: Database) -> None:
    with pytest.raises(Misconfigured):
        init(tmp_path, 1, database=database)

    assert files_of(tmp_path) == {}


async def test_a_bank_frozen_killed_and_started_again_is_the_same_bank(tmp_path: Path) -> None:
    async with network_of(tmp_path, 1) as [bank]:
        maria = await bank.client.join("Maria da Silva", CPFS[0], PASSWORD)
        account = await maria.open_account()
        (await maria.deposit(account, 10_00)).expect(201)
        bank.freeze()
        bank.thaw()
        first = bank.pid
        bank.kill()

        assert bank.exit_status == -signal.SIGKILL
        await bank.restart()

        assert bank.pid not in (None, first)
        assert await maria.balances(account) == (10_00, 10_00)
    assert (bank.pid, bank.exit_status) == (None, 0)


async def test_a_frozen_bank_is_stopped_all_the_same(tmp_path: Path) -> None:
    async with network_of(tmp_path, 1) as [bank]:
        bank.freeze()
    assert bank.exit_status == 0


async def test_a_bank_that_does_not_start_says_why(tmp_path: Path) -> None:
    [bank] = init(tmp_path, 1, free_base_port(1))
    bank.env_file.write_text(bank.env_file.read_text().replace("TOKEN_SECRET=", "TOKEN_SECRET=change-me"))

    with pytest.raises(Breakage, match=r"(?s)ended with status 1.*DISTRIBANK_TOKEN_SECRET"):
        async with running([BankProcess(bank)]):
            pass


async def test_a_bank_whose_port_is_taken_is_not_started(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        [bank] = init(tmp_path, 1, taken.getsockname()[1])

        with pytest.raises(Misconfigured, match=f"port {bank.port} of bank 99990001 is in use"):
            BankProcess(bank).start()


async def test_one_banks_settings_in_our_environment_do_not_reach_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTRIBANK_BANK_CODE", "99999999")
    monkeypatch.setenv("DISTRIBANK_PORT", "1")

    async with network_of(tmp_path, 1) as [bank]:
        assert (await bank.client.call("GET", "/readyz")).expect(200)["bank"] == "99990001"


async def test_banks_do_not_outlive_whoever_started_them(tmp_path: Path) -> None:
    data = tmp_path / "data"
    arguments = ("up", "--banks", "2", "--data-dir", str(data), "--base-port", str(free_base_port(2)))
    with command(*arguments, out=tmp_path / "said"):

        async def ready() -> bool:
            return all("is ready" in _text(data / code / "bank.log") for code in ("99990001", "99990002"))

        await until(ready, "both banks are ready")
        # Leaving the block kills `up` with SIGKILL: it has no chance to stop its banks.

    async def gone() -> bool:
        return all(is_free(bank.port) for bank in load(data))

    await until(gone, "the banks have stopped by themselves")


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
