-- From version 3 to 4. First, holds lie in the order of transactions instead of accounts. They are copied, which takes time
-- with their number: those of the days that are kept.
--
-- Then, where a transfer is written, CHECKs and partial indexes say OR instead of IN, which SQLite answers without making a
-- table for every row. They mean what they meant, so no row and no page of an index changes: only the words are replaced, as
-- sqlite.org/lang_altertable.html, section 7, allows for what is not on the disk; how large the ledger is makes no difference to it.
-- Runs in one transaction, which the caller opens and ends.

ALTER TABLE hold RENAME TO hold_by_account;
DROP INDEX hold_by_change;
DROP INDEX hold_placed;

CREATE TABLE hold (
    account TEXT NOT NULL REFERENCES account (number),
    transaction_id TEXT NOT NULL,
    direction TEXT NOT NULL CHECK (direction IN ('debit', 'credit')),
    amount INTEGER NOT NULL CHECK (amount >= 0),
    state TEXT NOT NULL CHECK (state = 'placed' OR state = 'posted' OR state = 'released'),
    prepared_at INTEGER NOT NULL,
    placed_change INTEGER NOT NULL,
    change INTEGER NOT NULL,
    resolved_at INTEGER,
    PRIMARY KEY (transaction_id, account),
    CHECK ((state = 'placed') = (resolved_at IS NULL))
) STRICT, WITHOUT ROWID;

INSERT INTO hold (account, transaction_id, direction, amount, state, prepared_at, placed_change, change, resolved_at)
SELECT account, transaction_id, direction, amount, state, prepared_at, placed_change, change, resolved_at
  FROM hold_by_account ORDER BY transaction_id, account;

DROP TABLE hold_by_account;

CREATE UNIQUE INDEX hold_by_change ON hold (account, change);
CREATE INDEX hold_placed ON hold (account, transaction_id) WHERE state = 'placed';

PRAGMA writable_schema = ON;

UPDATE sqlite_schema SET sql = replace(sql,
'CHECK (kind IN (''deposit'', ''withdrawal'', ''transfer'', ''return'', ''correction'')),',
'CHECK (kind = ''deposit'' OR kind = ''withdrawal'' OR kind = ''transfer'' OR kind = ''return''
                                   OR kind = ''correction''),');

UPDATE sqlite_schema SET sql = replace(sql,
'CHECK (state IN (''preparing'', ''committing'', ''ended'', ''prepared'', ''committed'', ''aborted'',
                                        ''forced commit'', ''forced abort'')),',
'CHECK (state = ''preparing'' OR state = ''committing'' OR state = ''ended'' OR state = ''prepared''
                                    OR state = ''committed'' OR state = ''aborted''
                                    OR state = ''forced commit'' OR state = ''forced abort''),');

UPDATE sqlite_schema SET sql = replace(sql,
'CHECK (state NOT IN (''committing'', ''ended'', ''committed'') OR commit_at IS NOT NULL)',
'CHECK (commit_at IS NOT NULL OR (state <> ''committing'' AND state <> ''ended'' AND state <> ''committed''))');

UPDATE sqlite_schema SET sql = replace(sql,
'WHERE state IN (''preparing'', ''committing'', ''prepared'', ''forced commit'', ''forced abort'')',
'WHERE (state = ''preparing'' OR state = ''committing'' OR state = ''prepared''
           OR state = ''forced commit'' OR state = ''forced abort'')');

UPDATE sqlite_schema SET sql = replace(sql,
'WHERE collected = 0 AND state IN (''ended'', ''committed'', ''aborted'')',
'WHERE collected = 0 AND (state = ''ended'' OR state = ''committed'' OR state = ''aborted'')');

UPDATE sqlite_schema SET sql = replace(sql,
'CHECK (kind IN (''Begun'', ''Decided'', ''Ended'', ''Prepared'', ''Resolved'')),',
'CHECK (kind = ''Begun'' OR kind = ''Decided'' OR kind = ''Ended'' OR kind = ''Prepared'' OR kind = ''Resolved''),');

PRAGMA schema_version = 4000; -- any other than it was: whoever has the database open reads the words anew
PRAGMA writable_schema = RESET;
PRAGMA user_version = 4;
