-- From version 4 to 5: what a bank remembers of a restore from a backup, an index by which its peers find what it asks them
-- for, and where it has moved. The index takes time with the number of transfers. Runs in one transaction, which the caller
-- opens and ends.

CREATE TABLE new_meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    bank TEXT NOT NULL,
    incarnation TEXT NOT NULL CHECK (length(incarnation) = 32),
    reaches_back_to INTEGER NOT NULL CHECK (reaches_back_to >= 0),
    last_stamp INTEGER NOT NULL CHECK (last_stamp >= 0),
    moved_to TEXT
) STRICT;
INSERT INTO new_meta (one, bank, incarnation, reaches_back_to, last_stamp)
SELECT one, bank, incarnation, reaches_back_to, last_stamp FROM meta;
DROP TABLE meta;
ALTER TABLE new_meta RENAME TO meta;

CREATE INDEX transfer_by_time ON transfer (begun_at, id);

-- A restore from a backup, by the incarnation that it gave the database: what the backup holds, what is missing, who told.
CREATE TABLE restoration (
    incarnation TEXT PRIMARY KEY,
    stamp INTEGER NOT NULL,
    taken_at INTEGER NOT NULL,
    restored_at INTEGER NOT NULL,
    without TEXT,
    told TEXT
) STRICT, WITHOUT ROWID;

-- What this bank had coordinated behind the backup, as its participants know it; parts has each one's.
CREATE TABLE lost_transfer (
    transaction_id TEXT PRIMARY KEY,
    begun_at INTEGER NOT NULL,
    participants TEXT,
    end_to_end_id TEXT NOT NULL,
    holder_cpf TEXT NOT NULL,
    description TEXT,
    ordered_at INTEGER NOT NULL,
    vote_by INTEGER NOT NULL,
    counterparties TEXT,
    parts TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX lost_transfer_by_time ON lost_transfer (begun_at, transaction_id);

-- What was posted anew of a transaction that was lost; with a reason, by the operator. What went to suspense is in it.
CREATE TABLE supplied (
    transaction_id TEXT PRIMARY KEY,
    at INTEGER NOT NULL,
    reason TEXT,
    accounts TEXT NOT NULL,
    unnamed INTEGER NOT NULL,
    suspense INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX supplied_in_suspense ON supplied (at, transaction_id) WHERE suspense <> 0;

PRAGMA user_version = 5;
