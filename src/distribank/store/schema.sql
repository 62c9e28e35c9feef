-- One bank's durable memory, version 5. Amounts are integers of centavos, *_at are milliseconds since 1970 (UTC), stamps are
-- hybrid logical clock values (48 bits of milliseconds, 16 of counter). Times of holds (prepared_at, resolved_at) and
-- a transfer's prepared_at and commit_at are stamps. JSON stands only where a tuple is nested in a row and never searched.
-- The CHECKs are a second line of defence: the rules are kept by distribank.core, and a row that breaks one stops the bank.
-- Where a transfer is written they and the indexes say OR, not IN: SQLite makes a table for each IN of three or more, row
-- by row, which cost three times what the rows themselves do (127 to 36 microseconds of CPU per transfer).

PRAGMA application_id = 1145196107; -- "DBNK"
PRAGMA user_version = 5;

-- Exactly one row: whose database this is. last_stamp is the greatest stamp ever written here; moved_to is where the bank has
-- moved, and then nobody serves from here.
CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    bank TEXT NOT NULL,
    incarnation TEXT NOT NULL CHECK (length(incarnation) = 32),
    reaches_back_to INTEGER NOT NULL CHECK (reaches_back_to >= 0),
    last_stamp INTEGER NOT NULL CHECK (last_stamp >= 0),
    moved_to TEXT
) STRICT;

-- Persons and their accounts ---------------------------------------------------------------------------------------

CREATE TABLE holder (
    cpf TEXT PRIMARY KEY,
    holder_id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    email TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE company (
    cnpj TEXT PRIMARY KEY,
    legal_name TEXT NOT NULL,
    account TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- posted is the sum of the account's entries; held, incoming and open_holds sum its placed holds.
CREATE TABLE account (
    number TEXT PRIMARY KEY,
    type TEXT NOT NULL CHECK (type IN ('individual', 'joint', 'business')),
    rule TEXT NOT NULL CHECK (rule IN ('any', 'all', 'at_least')),
    approval INTEGER NOT NULL CHECK (approval >= 1),
    opened_at INTEGER NOT NULL,
    company_cnpj TEXT,
    company_name TEXT,
    closed_at INTEGER,
    posted INTEGER NOT NULL CHECK (posted >= 0),
    held INTEGER NOT NULL CHECK (held BETWEEN 0 AND posted),
    incoming INTEGER NOT NULL CHECK (incoming >= 0),
    open_holds INTEGER NOT NULL CHECK (open_holds >= 0),
    changes INTEGER NOT NULL CHECK (changes >= 0),
    CHECK ((company_cnpj IS NULL) = (company_name IS NULL)),
    CHECK (closed_at IS NULL OR (posted = 0 AND open_holds = 0))
) STRICT, WITHOUT ROWID;

CREATE TABLE account_holder (
    account TEXT NOT NULL REFERENCES account (number),
    position INTEGER NOT NULL,
    holder_id TEXT NOT NULL,
    cpf TEXT NOT NULL,
    name TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('titular', 'co_holder', 'administrator')),
    PRIMARY KEY (account, position)
) STRICT, WITHOUT ROWID;

CREATE INDEX account_holder_by_holder ON account_holder (holder_id, account);

CREATE TABLE consent (
    consent_id TEXT PRIMARY KEY,
    account TEXT NOT NULL,
    holder_id TEXT NOT NULL,
    holder_cpf TEXT NOT NULL,
    initiator_bank TEXT NOT NULL,
    max_per_transfer INTEGER NOT NULL CHECK (max_per_transfer > 0),
    max_total INTEGER CHECK (max_total > 0),
    expires_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    used INTEGER NOT NULL CHECK (used >= 0 AND (max_total IS NULL OR used <= max_total)),
    revoked_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX consent_by_account ON consent (account, consent_id);
CREATE INDEX consent_by_holder ON consent (holder_id, created_at, consent_id);

-- Money ------------------------------------------------------------------------------------------------------------

-- The journal of customers' money: rows are added, never changed. Clustered as statements read it.
CREATE TABLE entry (
    account TEXT NOT NULL REFERENCES account (number),
    change INTEGER NOT NULL CHECK (change > 0),
    operation TEXT NOT NULL,
    leg INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind = 'deposit' OR kind = 'withdrawal' OR kind = 'transfer' OR kind = 'return'
                                   OR kind = 'correction'),
    direction TEXT NOT NULL CHECK (direction IN ('debit', 'credit')),
    amount INTEGER NOT NULL CHECK (amount > 0),
    balance_after INTEGER NOT NULL CHECK (balance_after >= 0),
    stamp INTEGER NOT NULL,
    posted_at INTEGER NOT NULL,
    PRIMARY KEY (account, change)
) STRICT, WITHOUT ROWID;

-- A leg is posted once, whatever is delivered twice.
CREATE UNIQUE INDEX entry_once ON entry (operation, leg);

-- The bank's own books: cash, suspense, one position per peer. Positive: the bank owes it.
CREATE TABLE book (
    name TEXT PRIMARY KEY,
    balance INTEGER NOT NULL,
    reserved INTEGER NOT NULL CHECK (reserved >= 0)
) STRICT, WITHOUT ROWID;

CREATE TABLE book_entry (
    operation TEXT NOT NULL,
    book TEXT NOT NULL REFERENCES book (name),
    amount INTEGER NOT NULL CHECK (amount <> 0),
    stamp INTEGER NOT NULL,
    PRIMARY KEY (operation, book)
) STRICT, WITHOUT ROWID;

-- What an operator assigned out of the book suspense: to an account (change numbers its entry), or to the bank's cash.
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

-- What a prepared leg reserves: placed, then posted or released. In the order of transactions, whose ids are ordered by time:
-- by account, each leg in a large ledger would write two pages more of its own (33 to 51 microseconds of CPU).
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

CREATE UNIQUE INDEX hold_by_change ON hold (account, change);
CREATE INDEX hold_placed ON hold (account, transaction_id) WHERE state = 'placed';

-- The protocol -----------------------------------------------------------------------------------------------------

-- What this bank knows of each transaction. No legs: a tombstone, the promise never to vote on it.
-- id, begun_at and subjects never change; collected says that its holds and log lines have been deleted.
CREATE TABLE transfer (
    id TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL CHECK (role IN ('coordinator', 'participant')),
    state TEXT NOT NULL CHECK (state = 'preparing' OR state = 'committing' OR state = 'ended' OR state = 'prepared'
                                    OR state = 'committed' OR state = 'aborted'
                                    OR state = 'forced commit' OR state = 'forced abort'),
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
    CHECK (commit_at IS NOT NULL OR (state <> 'committing' AND state <> 'ended' AND state <> 'committed')),
    CHECK (legs IS NOT NULL OR state = 'aborted')
) STRICT;

-- What a bank that was restored from a backup asks its peers for: what began since then.
CREATE INDEX transfer_by_time ON transfer (begun_at, id);
CREATE INDEX transfer_unfinished ON transfer (begun_at, id)
    WHERE (state = 'preparing' OR state = 'committing' OR state = 'prepared'
           OR state = 'forced commit' OR state = 'forced abort');
CREATE INDEX transfer_collectable ON transfer (coalesce(completed_at, decided_at))
    WHERE collected = 0 AND (state = 'ended' OR state = 'committed' OR state = 'aborted');

-- What an operator forced, and what came of it. truth and the rest stay NULL until the outcome is known here.
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
CREATE INDEX heuristic_damaging ON heuristic (truth_at, transaction_id) WHERE damage IS NOT NULL;

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

-- In whose list a transfer stands: an account of this bank, or the holder who ordered it.
CREATE TABLE transfer_subject (
    subject TEXT NOT NULL,
    begun_at INTEGER NOT NULL,
    id TEXT NOT NULL,
    PRIMARY KEY (subject, begun_at, id)
) STRICT, WITHOUT ROWID;

-- The log, line by line: what it says of a transaction, for people. Recovery reads the rows of transfer.
CREATE TABLE record (
    transaction_id TEXT NOT NULL,
    stamp INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind = 'Begun' OR kind = 'Decided' OR kind = 'Ended' OR kind = 'Prepared' OR kind = 'Resolved'),
    before TEXT NOT NULL,
    after TEXT NOT NULL,
    detail TEXT NOT NULL,
    PRIMARY KEY (transaction_id, stamp, kind)
) STRICT, WITHOUT ROWID;

-- Clients' retries -------------------------------------------------------------------------------------------------

-- Rows lie in the order written, which is nearly that of created_at: the oldest are found without an index.
CREATE TABLE idempotency_key (
    owner TEXT NOT NULL,
    route TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    subject TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    answered INTEGER NOT NULL CHECK (answered IN (0, 1)),
    refusal TEXT,
    PRIMARY KEY (owner, route, key)
) STRICT;

CREATE TABLE batch (
    batch_id TEXT PRIMARY KEY,
    holder_id TEXT NOT NULL,
    mode TEXT NOT NULL CHECK (mode IN ('sequential', 'concurrent')),
    on_failure TEXT NOT NULL CHECK (on_failure IN ('stop', 'continue')),
    items TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    finished_at INTEGER
) STRICT;

CREATE INDEX batch_unfinished ON batch (batch_id) WHERE finished_at IS NULL;

CREATE TABLE counter (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
