-- From version 2 to 3: what an operator assigns out of the book suspense, and the wrong guesses that left it there, by time.
-- Nothing that version 2 kept is changed. Runs in one transaction, which the caller opens and ends.

CREATE TABLE assignment (
    assignment_id TEXT PRIMARY KEY,
    direction TEXT NOT NULL CHECK (direction IN ('debit', 'credit')),
    amount INTEGER NOT NULL CHECK (amount > 0),
    account TEXT REFERENCES account (number),
    reason TEXT NOT NULL,
    transaction_id TEXT,
    assigned_at INTEGER NOT NULL,
    stamp INTEGER NOT NULL,
    change INTEGER,
    CHECK ((account IS NULL) = (change IS NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX assignment_by_time ON assignment (assigned_at, stamp, assignment_id);

CREATE INDEX heuristic_damaging ON heuristic (truth_at, transaction_id) WHERE damage IS NOT NULL;

PRAGMA user_version = 3;
