"""The compose files: every bank of a network as a service of its own, as text.

Bank *k* is the service and the container ``bank-00k``, with one volume and one fixed port. All banks stand in the file;
the profile ``banks-<n>`` starts the first *n*. One service, ``network-init``, writes keys, settings and the network
file before any bank starts; another, ``people``, brings people if they are wanted and stays, healthy once they are
there, so that ``up --wait`` waits for them. What watches the banks comes from ``observing``. Nothing here holds a
secret. Only text is made here: no engine is asked.

There are two of these files, and a network is in one of them: in ``compose.yaml`` a bank is one container with an
SQLite file, in ``postgres.yaml`` it is two, a database and a balancer (``replicating``). Both mean the same by the
profiles, and by the service ``bank-00k``: the bank's address, which the other banks, the client, the people and the
scraper know. They are not two profiles of one file. Profiles add services and take none away, so both forms of a bank
could run side by side, under one address and one key, each with a database that knows nothing of what the other has
promised; and two services cannot have one container name. As two files they can only replace each other.
"""

from __future__ import annotations

from typing import Final

from distribank.breakages import Misconfigured
from distribank.config import PREFIX, Settings
from distribank.network import MAX_BANKS
from distribank.network.layout import DEFAULT_BASE_PORT, FIRST
from distribank.network.observing import VOLUMES, observing
from distribank.network.replicating import ABOUT, EXTENSIONS, NETWORKS, databases, replicated

FEWEST: Final = 2
"""Banks without a profile: they always run, and the client's example needs both."""

YES: Final = ("1", "t", "true", "y", "yes", "on")
NO: Final = ("", "0", "f", "false", "n", "no", "off")
"""What ``DISTRIBANK_PEOPLE`` may be, as ``distribank up`` reads it, but in small letters only."""

OWN: Final = frozenset(
    {
        "bank_code",
        "bank_name",
        "host",
        "port",
        "database_url",
        "network_file",
        "private_key_file",
        "token_secret",
        "operator_password",
    }
)
"""Settings that each bank has for itself, in the env file on its volume; such a value in the environment of
``docker compose`` reaches no bank. The others are shared, through that environment.
"""

_FILE: Final = """\
# Made by `distribank compose --banks {banks}{option}`; change that command, not this file. A test compares the two.
#
{about}
name: distribank

x-image: &image
  image: ${{IMAGE:-distribank:local}}
  pull_policy: never # network-init builds it
  init: true
  read_only: true
  tmpfs: [/tmp]
  cap_drop: [ALL]
  security_opt: ["no-new-privileges:true"]
  restart: "no" # a bank that was killed stays dead until somebody starts it
  networks: [banks]

x-bank: &bank
  <<: *image
  stop_grace_period: 15s # a bank has drained within 10
  depends_on:
    network-init: {{condition: service_completed_successfully}}
  labels: &labels
    # A bank reads the network file when it starts: another number of banks makes all of them anew.
    distribank.banks: "${{BANKS:-{fewest}}}"
  environment:
{shared}

x-check: &check
  interval: 5s
  timeout: 4s
  retries: 3
  start_period: 30s
{extensions}
services:
  network-init:
    <<: *image
    build:
      context: ..
      dockerfile: compose/Dockerfile
      args:
        BASE_IMAGE: ${{BASE_IMAGE:-python:3.13-slim-bookworm}}
        WHEELHOUSE: ${{WHEELHOUSE:-}}
    networks: []
    network_mode: none
    environment: {{BANKS: "${{BANKS:-{fewest}}}", DISTRIBANK_PEOPLE: "${{DISTRIBANK_PEOPLE:-0}}"}}
    entrypoint: [sh, -c]
    command:
      - >-
        if ! [ "$$BANKS" -ge {fewest} ] 2>/dev/null || ! [ "$$BANKS" -le {banks} ];
        then echo "BANKS must be {fewest} to {banks}; for more: distribank compose{option} --banks N --output FILE" >&2;
        exit 2; fi;
        case "$$DISTRIBANK_PEOPLE" in {words}) ;;
        *) echo "DISTRIBANK_PEOPLE must be 1 or 0" >&2; exit 2; esac;
        distribank network init --banks "$$BANKS" --data-dir /data --base-port {port}
        --listen 0.0.0.0 --address 'http://bank-{{number:03}}:{{port}}'
        {database} || exit;
        echo; echo "Once they are up, the first transfer:  {chosen}BANKS=$$BANKS docker compose run --rm client"
    volumes:
      - network:/data
{all_volumes}

  client: # docker compose run --rm client
    <<: *image
    profiles: [client]
    depends_on:
      bank-001: {{condition: service_healthy}}
      bank-002: {{condition: service_healthy}}
    environment: {{NO_PROXY: "*"}}
    entrypoint: [python, /opt/examples/first_transfer.py, "http://bank-001:{port}", "http://bank-002:{second_port}"]

  people: # DISTRIBANK_PEOPLE=1; what they say, and their password:  docker logs people
    <<: *image
    container_name: people
    profiles: [{people}]
    depends_on:
      bank-001: {{condition: service_healthy}}
      bank-002: {{condition: service_healthy}}
    environment: {{DISTRIBANK_PASSWORD: , NO_PROXY: "*", BANKS: "${{BANKS:-{fewest}}}"}}
    volumes: ["network:/data:ro"]
    entrypoint: [sh, -c]
    command:
      - >-
        distribank people --banks "$$BANKS" --show-as 'http://127.0.0.1:{{port}}' || exit;
        touch /tmp/here; exec sleep infinity
    healthcheck:
      test: [CMD, test, -e, /tmp/here]
      interval: 2s
      start_period: 120s

{services}
{observing}networks:
  banks:
    name: distribank
{networks}
volumes:
  network: # the network file, which is no secret; written by network-init alone
{volumes}
{observed}"""

_ABOUT: Final = """\
#   cp .env.example .env && BANKS=6 docker compose up
#
# Containers are called as their services, so that `docker kill bank-002`, `docker pause bank-002` and
# `docker network disconnect distribank bank-002` say what they mean, and a bank that is connected again has its name.
"""

_BANK: Final = """\
  {name}:
    <<: *bank
    container_name: {name}
{profiles}    command: [serve, --env-file, /data/{code}/bank.env]
    ports: ["${{PUBLISH:-127.0.0.1}}:{port}:{port}"]
    volumes: ["network:/data:ro", "{name}:/data/{code}"]
    healthcheck:
      <<: *check
      test: [CMD, python, -c, "{check}"]
"""

_CHECK: Final = (
    "import http.client as h; c = h.HTTPConnection('127.0.0.1', {port}, timeout=3); c.request('GET', '/readyz'); "
    "raise SystemExit(c.getresponse().status != 200)"
)
"""``http.client`` looks at no proxy variables."""

_SQLITE: Final = "--database sqlite:///bank.db"
_POSTGRESQL: Final = """\
--database 'postgresql://bank:{password}@db-{number:03}:5432/bank'
        --database-password-file '/databases/{code}/password'"""
"""What ``network-init`` is told; a network that stands on the other is refused by it."""


def compose_file(banks: int, postgres: bool = False) -> str:
    """The compose file for at most *banks* banks, on PostgreSQL or on SQLite; ``Misconfigured`` if a network cannot
    have so many.
    """
    if not FEWEST <= banks <= MAX_BANKS:
        raise Misconfigured(f"a compose file holds {FEWEST} to {MAX_BANKS} banks, not {banks}")
    numbers = range(1, banks + 1)
    volumes = [f"{_name(number)}:/data/{_code(number)}" for number in numbers]
    if postgres:
        volumes += databases([(number, _code(number)) for number in numbers])
    return _FILE.format(
        banks=banks,
        fewest=FEWEST,
        port=_port(1),
        second_port=_port(2),
        option=" --postgres" if postgres else "",
        chosen="COMPOSE_FILE=compose/postgres.yaml " if postgres else "",
        about=ABOUT if postgres else _ABOUT,
        extensions=EXTENSIONS if postgres else "",
        shared="\n".join(_shared()),
        words="|".join(word if word else '""' for word in (*YES, *NO)),
        people=", ".join(f"people-{word}" for word in YES),
        database=_POSTGRESQL if postgres else _SQLITE,
        all_volumes="\n".join(f"      - {volume}" for volume in volumes),
        services="\n".join(_bank(number, banks, postgres) for number in numbers),
        observing=observing(FEWEST, "ab" if postgres else ""),
        observed=VOLUMES,
        networks=NETWORKS if postgres else "",
        volumes="\n".join(f"  {volume.partition(':')[0]}:" for volume in volumes),
    )


def _bank(number: int, banks: int, postgres: bool) -> str:
    profiles = [f"banks-{count}" for count in range(number, banks + 1)] if number > FEWEST else []
    listed = f"    profiles: [{', '.join(profiles)}]\n" if profiles else ""
    check = _CHECK.format(port=_port(number))
    if postgres:
        return replicated(number, _code(number), _port(number), listed, check)
    return _BANK.format(name=_name(number), code=_code(number), port=_port(number), profiles=listed, check=check)


def _shared() -> list[str]:
    """A line per setting that banks have in common. One without a default is passed on only where it is set."""
    lines = []
    for name, field in Settings.model_fields.items():
        if name not in OWN:
            variable = PREFIX + name.upper()
            value = "" if field.default is None else f" ${{{variable}:-{field.default}}}"
            lines.append(f"    {variable}:{value}")
    return lines


def _name(number: int) -> str:
    return f"bank-{number:03}"


def _code(number: int) -> str:
    return str(int(FIRST) + number - 1)


def _port(number: int) -> int:
    return DEFAULT_BASE_PORT + number - 1
