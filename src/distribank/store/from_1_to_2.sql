-- From version 1 to 2: what an operator forces. A CHECK cannot be altered, so the two tables whose words it extends are
-- made anew, filled and renamed (sqlite.org/lang_altertable.html, section 7); no other table refers to either of them.
-- Runs in one transaction, which the caller opens and ends.

CREATE TABLE entry_2 (
    account TEXT NOT NULL REFERENCES account (number),
    change INTEGER NOT NULL CHECK (change > 0),
    operation TEXT NOT NULL,
    leg INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('deposit', 'withdrawal', 'transfer', 'return', 'correction')),
    direction TEXT NOT NULL CHECK (direction IN ('debit', 'credit')),
    amount INTEGER NOT NULL CHECK (amount > 0),
    balance_after INTEGER NOT NULL CHECK (balance_after >= 0),
    stamp INTEGER NOT NULL,
    posted_at INTEGER NOT NULL,
    PRIMARY KEY (account, change)
) STRICT, WITHOUT ROWID;

INSERT INTO entry_2 (account, change, operation, leg, kind, direction, amount, balance_after, stamp, posted_at)
SELECT account, change, operation, leg, kind, direction, amount, balance_after, stamp, posted_at
  FROM entry;

DROP TABLE entry;
ALTER TABLE entry_2 RENAME TO entry;

CREATE UNIQUE INDEX entry_once ON entry (operation, leg);

CREATE TABLE transfer_2 (
    id TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL CHECK (role IN ('coordinator', 'participant')),
    state TEXT NOT NULL CHECK (state IN ('preparing', 'committing', 'ended', 'prepared', 'committed', 'aborted',
                                        'forced commit', 'forced abort')),
    begun_at INTEGER NOT NULL,
    prepared_at INTEGER,
    commit_at INTEGER,
    decided_at INTEGER,
    completed_at INTEGER,
    vote_by INTEGER NOT NULL,
    collected INTEGER NOT NULL DEFAULT 0,
    end_to_end_id TEXT,
    holder_cpf TEXT,
    holder_id TEXT,
    description TEXT,
    ordered_at INTEGER,
    legs TEXT,
    digest TEXT NOT NULL,
    participants TEXT,
    because TEXT,
    votes TEXT,
    consents TEXT,
    counterparties TEXT,
    subjects TEXT,
    CHECK ((legs IS NULL) = (end_to_end_id IS NULL)),
    CHECK (state NOT IN ('committing', 'ended', 'committed') OR commit_at IS NOT NULL),
    CHECK (legs IS NOT NULL OR state = 'aborted')
) STRICT;

INSERT INTO transfer_2 (id, role, state, begun_at, prepared_at, commit_at, decided_at, completed_at, vote_by, collected,
       end_to_end_id, holder_cpf, holder_id, description, ordered_at, legs,
       digest, participants, because, votes, consents, counterparties, subjects)
SELECT id, role, state, begun_at, prepared_at, commit_at, decided_at, completed_at, vote_by, collected,
       end_to_end_id, holder_cpf, holder_id, description, ordered_at, legs,
       digest, participants, because, votes, consents, counterparties, subjects
  FROM transfer
 ORDER BY rowid;

DROP TABLE transfer;
ALTER TABLE transfer_2 RENAME TO transfer;

CREATE INDEX transfer_unfinished ON transfer (begun_at, id)
    WHERE state IN ('preparing', 'committing', 'prepared', 'forced commit', 'forced abort');
CREATE INDEX transfer_collectable ON transfer (coalesce(completed_at, decided_at))
    WHERE collected = 0 AND state IN ('ended', 'committed', 'aborted');

CREATE TABLE heuristic (
    transaction_id TEXT PRIMARY KEY,
    decision TEXT NOT NULL CHECK (decision IN ('commit', 'abort')),
    reason TEXT NOT NULL,
    decided_at INTEGER NOT NULL,
    truth TEXT CHECK (truth IN ('commit', 'abort')),
    truth_at INTEGER,
    matched INTEGER CHECK (matched IN (0, 1)),
    damage TEXT,
    CHECK ((truth IS NULL) = (truth_at IS NULL) AND (truth IS NULL) = (matched IS NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX heuristic_by_time ON heuristic (decided_at, transaction_id);

PRAGMA user_version = 2;
