-- From version 4 to 5: what a bank remembers of a restore from a backup, an index by which its peers find what it asks them
-- for, where its replicas run, and where it has moved. Runs in one transaction, which the caller opens and ends; the caller
-- writes the version down.

ALTER TABLE meta ADD COLUMN moved_to TEXT;
ALTER TABLE replica ADD COLUMN place TEXT;
ALTER TABLE replica ADD COLUMN pid BIGINT;

CREATE INDEX transfer_by_time ON transfer (begun_at, id);

-- A restore from a backup, by the incarnation that it gave the database: what the backup holds, what is missing, who told.
CREATE TABLE restoration (
    incarnation TEXT PRIMARY KEY,
    stamp BIGINT NOT NULL,
    taken_at BIGINT NOT NULL,
    restored_at BIGINT NOT NULL,
    without TEXT,
    told TEXT
);

-- What this bank had coordinated behind the backup, as its participants know it; parts has each one's.
CREATE TABLE lost_transfer (
    transaction_id TEXT PRIMARY KEY,
    begun_at BIGINT NOT NULL,
    participants TEXT,
    end_to_end_id TEXT NOT NULL,
    holder_cpf TEXT NOT NULL,
    description TEXT,
    ordered_at BIGINT NOT NULL,
    vote_by BIGINT NOT NULL,
    counterparties TEXT,
    parts TEXT NOT NULL
);

CREATE INDEX lost_transfer_by_time ON lost_transfer (begun_at, transaction_id);

-- What was posted anew of a transaction that was lost; with a reason, by the operator. What went to suspense is in it.
CREATE TABLE supplied (
    transaction_id TEXT PRIMARY KEY,
    at BIGINT NOT NULL,
    reason TEXT,
    accounts TEXT NOT NULL,
    unnamed BIGINT NOT NULL,
    suspense BIGINT NOT NULL
);

CREATE INDEX supplied_in_suspense ON supplied (at, transaction_id) WHERE suspense <> 0;
