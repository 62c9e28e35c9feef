"""A bank on PostgreSQL in containers, as text for the compose file: a database, two replicas, and one address.

Bank *k* is four services. ``db-00k`` is its database: no other bank's, on a network that only databases and replicas
are on, with no port of this machine. ``bank-00ka`` and ``bank-00kb`` are the replicas, with the bank's own volume (its
settings, its key, and the marker beside it) in common. ``bank-00k`` is the address that everyone else knows: HAProxy,
which gives requests to whichever replica says that it is ready (``balancer/haproxy.cfg``).

The password of a database is made by ``network-init``: into the bank's env file, and for the server onto the volume
that the server keeps its data on. It stands in no compose file, no environment and no argument.
"""

from __future__ import annotations

from typing import Final

ABOUT: Final = """\
#   cp .env.example .env && COMPOSE_FILE=compose/postgres.yaml BANKS=3 docker compose up
#
# Bank 2 is its address, bank-002, its replicas, bank-002a and bank-002b, and its database, db-002. So
# `docker kill bank-002a` takes one replica, `docker kill bank-002a bank-002b` the bank. compose.yaml is such a network
# with each bank one container on an SQLite file; a network keeps the kind of database that it began with.
"""

EXTENSIONS: Final = """
x-replica: &replica
  <<: *bank
  # One that was taken for dead, and has been replaced, ends by itself with status 70. One that was killed by
  # `docker kill` stays dead until somebody starts it.
  restart: on-failure
  networks: [banks, databases]

x-database: &database
  <<: *image
  image: ${POSTGRES_IMAGE:-postgres:18}
  pull_policy: missing
  user: "10001:10001"
  restart: on-failure
  stop_signal: SIGINT # the server then ends at once, and in good order
  stop_grace_period: 60s
  networks: [databases]
  tmpfs: [/tmp, "/var/run/postgresql:uid=10001,gid=10001,mode=0700", /var/lib/postgresql]
  shm_size: 256m
  depends_on:
    network-init: {condition: service_completed_successfully}
  environment:
    PGDATA: /database/data
    POSTGRES_USER: bank
    POSTGRES_DB: bank
    POSTGRES_PASSWORD_FILE: /database/password # made by network-init
    POSTGRES_INITDB_ARGS: --data-checksums --encoding=UTF8 --locale=C
  command: [postgres, -c, fsync=on, -c, full_page_writes=on, -c, synchronous_commit=on]
  healthcheck:
    <<: *check
    interval: 2s
    # By TCP: while the image makes the database, its server listens on a socket only.
    test: [CMD, pg_isready, --quiet, --host=127.0.0.1, --username=bank, --dbname=bank]

x-balancer: &balancer
  <<: *image
  image: ${BALANCER_IMAGE:-haproxy:3.2}
  pull_policy: missing
  user: "10001:10001"
  tmpfs: []
  restart: on-failure
  stop_signal: SIGUSR1 # what is under way is answered first, for at most 10 s
  stop_grace_period: 15s
  entrypoint: [haproxy, -W, -db, -f, /etc/distribank/haproxy.cfg]
  volumes: ["./balancer/haproxy.cfg:/etc/distribank/haproxy.cfg:ro"]
"""

_SERVICES: Final = """\
  db-{number:03}:
    <<: *database
    container_name: db-{number:03}
{profiles}    volumes: ["db-{number:03}:/database"]

{replicas}  bank-{number:03}: # the bank's address
    <<: *balancer
    container_name: bank-{number:03}
{profiles}    depends_on:
      bank-{number:03}a: {{condition: service_healthy}}
      bank-{number:03}b: {{condition: service_healthy}}
    environment: {{BANK: bank-{number:03}, PORT: "{port}"}}
    ports: ["${{PUBLISH:-127.0.0.1}}:{port}:{port}"]
    healthcheck:
      <<: *check
      test: [CMD, bash, -c, "{address_check}"]
"""

_REPLICA: Final = """\
  bank-{number:03}{letter}:
    <<: *replica
    container_name: bank-{number:03}{letter}
{profiles}    depends_on:
      network-init: {{condition: service_completed_successfully}}
      db-{number:03}: {{condition: service_healthy, restart: true}}
    command: [serve, --env-file, /data/{code}/bank.env]
    volumes: ["network:/data:ro", "bank-{number:03}:/data/{code}"]
    healthcheck:
      <<: *check
      test: [CMD, python, -c, "{check}"]

"""

_ADDRESS_CHECK: Final = (
    "exec 3<>/dev/tcp/127.0.0.1/{port} && printf 'GET /readyz HTTP/1.1\\\\r\\\\nHost: bank\\\\r\\\\n"
    "Connection: close\\\\r\\\\n\\\\r\\\\n' >&3 && read -r answer <&3 && [[ $$answer == *' 200 '* ]]"
)
"""Nothing in HAProxy's image speaks HTTP but HAProxy and its shell."""

NETWORKS: Final = """\
  databases:
    name: distribank-databases
    internal: true # out of it there is no way
"""
"""What stands among the compose file's networks."""


def databases(banks: list[tuple[int, str]]) -> list[str]:
    """The databases' volumes as ``network-init`` mounts them, for *banks* by number and code."""
    return [f"db-{number:03}:/databases/{code}" for number, code in banks]


def replicated(number: int, code: str, port: int, profiles: str, check: str) -> str:
    """The services of bank *number*; *profiles* is that line, if it has one, *check* a replica's own health check."""
    replicas = "".join(
        _REPLICA.format(number=number, letter=letter, code=code, profiles=profiles, check=check) for letter in "ab"
    )
    return _SERVICES.format(
        number=number,
        port=port,
        profiles=profiles,
        replicas=replicas,
        address_check=_ADDRESS_CHECK.format(port=port),
    )
