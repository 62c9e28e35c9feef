#!/bin/bash
# As the official image does it: an empty PGDATA is made a cluster with POSTGRES_USER as its superuser, the password of
# POSTGRES_PASSWORD_FILE and the database POSTGRES_DB; then the server is what this becomes.
set -euo pipefail

mkdir -p "$PGDATA"
chmod 700 "$PGDATA"
if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
    password=$(<"$POSTGRES_PASSWORD_FILE")
    [ -n "$password" ] || { echo "the password is empty" >&2; exit 1; }
    # initdb wants a name for whoever runs it.
    printf 'postgres:x:%d:%d:PostgreSQL:%s:/bin/false\n' "$(id -u)" "$(id -g)" "$PGDATA" > /tmp/passwd
    printf 'postgres:x:%d:\n' "$(id -g)" > /tmp/group
    # shellcheck disable=SC2086  # arguments, as the official image takes them
    LD_PRELOAD=libnss_wrapper.so NSS_WRAPPER_PASSWD=/tmp/passwd NSS_WRAPPER_GROUP=/tmp/group \
        initdb --username="$POSTGRES_USER" --pwfile=<(printf '%s\n' "$password") ${POSTGRES_INITDB_ARGS:-}
    printf '\nhost all all all scram-sha-256\n' >> "$PGDATA/pg_hba.conf"
    PGUSER=$POSTGRES_USER pg_ctl --wait --options="-c listen_addresses=''" start
    psql --no-psqlrc --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname=postgres --set=db="$POSTGRES_DB" \
        <<< 'CREATE DATABASE :"db";'
    PGUSER=$POSTGRES_USER pg_ctl --wait --mode=fast stop
    echo "PostgreSQL init process complete; ready for start up."
fi
exec "$@"
