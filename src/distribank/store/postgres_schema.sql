-- One bank's durable memory in PostgreSQL, version 5: the tables of schema.sql, for several processes of one bank at a time
-- (tests/test_postgres_schema.py compares the two). What is added, column by column:
--   account.last_stamp    the greatest stamp of what was written of it: what is decided over it next is stamped later;
--   transfer.driver, batch.driver    the replica that drives it to its end, or nobody;
--   replica               who is alive, until when, and which was the greatest stamp that it wrote.
-- Only what CockroachDB, YugabyteDB and Citus understand as well: no sequences, triggers, advisory locks or notifications.

-- Exactly one row: whose database this is. last_stamp is the floor: every decision reads it (FOR SHARE) and is stamped later;
-- who raises it waits for the decisions under way. moved_to is where the bank has moved, and then nobody serves from here;
-- earlier are the incarnations before this one, separated by spaces.
CREATE TABLE meta (
    one BIGINT PRIMARY KEY CHECK (one = 1),
    version BIGINT NOT NULL,
    bank TEXT NOT NULL,
    incarnation TEXT NOT NULL CHECK (length(incarnation) = 32),
    reaches_back_to BIGINT NOT NULL CHECK (reaches_back_to >= 0),
    last_stamp BIGINT NOT NULL CHECK (last_stamp >= 0),
    moved_to TEXT,
    earlier TEXT NOT NULL DEFAULT ''
);

-- One process that serves this bank. Once buried it writes nothing more, and what it drove is anybody's. place is the
-- machine on which pid means that process.
CREATE TABLE replica (
    id TEXT PRIMARY KEY,
    expires_at TIMESTAMPTZ NOT NULL,
    buried BOOLEAN NOT NULL DEFAULT FALSE,
    last_stamp BIGINT NOT NULL DEFAULT 0,
    place TEXT,
    pid BIGINT
);

-- Persons and their accounts ---------------------------------------------------------------------------------------

CREATE TABLE holder (
    cpf TEXT PRIMARY KEY,
    holder_id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    email TEXT
);

CREATE TABLE company (
    cnpj TEXT PRIMARY KEY,
    legal_name TEXT NOT NULL,
    account TEXT NOT NULL
);

-- posted is the sum of the account's entries; held, incoming and open_holds sum its placed holds.
CREATE TABLE account (
    number TEXT PRIMARY KEY,
    type TEXT NOT NULL CHECK (type IN ('individual', 'joint', 'business')),
    rule TEXT NOT NULL CHECK (rule IN ('any', 'all', 'at_least')),
    approval BIGINT NOT NULL CHECK (approval >= 1),
    opened_at BIGINT NOT NULL,
    company_cnpj TEXT,
    company_name TEXT,
    closed_at BIGINT,
    posted BIGINT NOT NULL CHECK (posted >= 0),
    held BIGINT NOT NULL CHECK (held BETWEEN 0 AND posted),
    incoming BIGINT NOT NULL CHECK (incoming >= 0),
    open_holds BIGINT NOT NULL CHECK (open_holds >= 0),
    changes BIGINT NOT NULL CHECK (changes >= 0),
    last_stamp BIGINT NOT NULL DEFAULT 0,
    CHECK ((company_cnpj IS NULL) = (company_name IS NULL)),
    CHECK (closed_at IS NULL OR (posted = 0 AND open_holds = 0))
);

CREATE TABLE account_holder (
    account TEXT NOT NULL REFERENCES account (number),
    position BIGINT NOT NULL,
    holder_id TEXT NOT NULL,
    cpf TEXT NOT NULL,
    name TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('titular', 'co_holder', 'administrator')),
    PRIMARY KEY (account, position)
);

CREATE INDEX account_holder_by_holder ON account_holder (holder_id, account);

CREATE TABLE consent (
    consent_id TEXT PRIMARY KEY,
    account TEXT NOT NULL,
    holder_id TEXT NOT NULL,
    holder_cpf TEXT NOT NULL,
    initiator_bank TEXT NOT NULL,
    max_per_transfer BIGINT NOT NULL CHECK (max_per_transfer > 0),
    max_total BIGINT CHECK (max_total > 0),
    expires_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    used BIGINT NOT NULL CHECK (used >= 0 AND (max_total IS NULL OR used <= max_total)),
    revoked_at BIGINT
);

CREATE INDEX consent_by_account ON consent (account, consent_id);
CREATE INDEX consent_by_holder ON consent (holder_id, created_at, consent_id);

-- Money ------------------------------------------------------------------------------------------------------------

-- The journal of customers' money: rows are added, never changed. Clustered as statements read it.
CREATE TABLE entry (
    account TEXT NOT NULL REFERENCES account (number),
    change BIGINT NOT NULL CHECK (change > 0),
    operation TEXT NOT NULL,
    leg BIGINT NOT NULL,
    kind TEXT NOT NULL CHECK (kind = 'deposit' OR kind = 'withdrawal' OR kind = 'transfer' OR kind = 'return'
                                   OR kind = 'correction'),
    direction TEXT NOT NULL CHECK (direction IN ('debit', 'credit')),
    amount BIGINT NOT NULL CHECK (amount > 0),
    balance_after BIGINT NOT NULL CHECK (balance_after >= 0),
    stamp BIGINT NOT NULL,
    posted_at BIGINT NOT NULL,
    PRIMARY KEY (account, change)
);

-- A leg is posted once, whatever is delivered twice.
CREATE UNIQUE INDEX entry_once ON entry (operation, leg);

-- The bank's own books: cash, suspense, one position per peer. Positive: the bank owes it.
CREATE TABLE book (
    name TEXT PRIMARY KEY,
    balance BIGINT NOT NULL,
    reserved BIGINT NOT NULL CHECK (reserved >= 0)
);

CREATE TABLE book_entry (
    operation TEXT NOT NULL,
    book TEXT NOT NULL,
    amount BIGINT NOT NULL CHECK (amount <> 0),
    stamp BIGINT NOT NULL,
    PRIMARY KEY (operation, book)
);

-- What an operator assigned out of the book suspense: to an account (change numbers its entry), or to the bank's cash.
CREATE TABLE assignment (
    assignment_id TEXT PRIMARY KEY,
    direction TEXT NOT NULL CHECK (direction IN ('debit', 'credit')),
    amount BIGINT NOT NULL CHECK (amount > 0),
    account TEXT REFERENCES account (number),
    reason TEXT NOT NULL,
    transaction_id TEXT,
    assigned_at BIGINT NOT NULL,
    stamp BIGINT NOT NULL,
    change BIGINT,
    CHECK ((account IS NULL) = (change IS NULL))
);

CREATE INDEX assignment_by_time ON assignment (assigned_at, stamp, assignment_id);

-- What a prepared leg reserves: placed, then posted or released. In the order of transactions, whose ids are ordered by time:
-- by account, each leg in a large ledger would write two pages more of its own (33 to 51 microseconds of CPU).
CREATE TABLE hold (
    account TEXT NOT NULL REFERENCES account (number),
    transaction_id TEXT NOT NULL,
    direction TEXT NOT NULL CHECK (direction IN ('debit', 'credit')),
    amount BIGINT NOT NULL CHECK (amount >= 0),
    state TEXT NOT NULL CHECK (state = 'placed' OR state = 'posted' OR state = 'released'),
    prepared_at BIGINT NOT NULL,
    placed_change BIGINT NOT NULL,
    change BIGINT NOT NULL,
    resolved_at BIGINT,
    PRIMARY KEY (transaction_id, account),
    CHECK ((state = 'placed') = (resolved_at IS NULL))
);

CREATE UNIQUE INDEX hold_by_change ON hold (account, change);
CREATE INDEX hold_placed ON hold (account, transaction_id) WHERE state = 'placed';

-- The protocol -----------------------------------------------------------------------------------------------------

-- What this bank knows of each transaction. No legs: a tombstone, the promise never to vote on it.
-- id, begun_at and subjects never change; collected says that its holds and log lines have been deleted.
CREATE TABLE transfer (
    id TEXT PRIMARY KEY,
    role TEXT NOT NULL CHECK (role IN ('coordinator', 'participant')),
    state TEXT NOT NULL CHECK (state = 'preparing' OR state = 'committing' OR state = 'ended' OR state = 'prepared'
                                    OR state = 'committed' OR state = 'aborted'
                                    OR state = 'forced commit' OR state = 'forced abort'),
    begun_at BIGINT NOT NULL,
    prepared_at BIGINT,
    commit_at BIGINT,
    decided_at BIGINT,
    completed_at BIGINT,
    vote_by BIGINT NOT NULL,
    collected BIGINT NOT NULL DEFAULT 0,
    end_to_end_id TEXT,
    holder_cpf TEXT,
    holder_id TEXT,
    description TEXT,
    ordered_at BIGINT,
    legs TEXT,
    digest TEXT NOT NULL,
    participants TEXT,
    because TEXT,
    votes TEXT,
    consents TEXT,
    counterparties TEXT,
    subjects TEXT,
    driver TEXT,
    CHECK ((legs IS NULL) = (end_to_end_id IS NULL)),
    CHECK (commit_at IS NOT NULL OR (state <> 'committing' AND state <> 'ended' AND state <> 'committed')),
    CHECK (legs IS NOT NULL OR state = 'aborted')
);

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
    decided_at BIGINT NOT NULL,
    truth TEXT CHECK (truth IN ('commit', 'abort')),
    truth_at BIGINT,
    matched BIGINT CHECK (matched IN (0, 1)),
    damage TEXT,
    CHECK ((truth IS NULL) = (truth_at IS NULL) AND (truth IS NULL) = (matched IS NULL))
);

CREATE INDEX heuristic_by_time ON heuristic (decided_at, transaction_id);
CREATE INDEX heuristic_damaging ON heuristic (truth_at, transaction_id) WHERE damage IS NOT NULL;

-- In whose list a transfer stands: an account of this bank, or the holder who ordered it.
CREATE TABLE transfer_subject (
    subject TEXT NOT NULL,
    begun_at BIGINT NOT NULL,
    id TEXT NOT NULL,
    PRIMARY KEY (subject, begun_at, id)
);

-- The log, line by line: what it says of a transaction, for people. Recovery reads the rows of transfer.
CREATE TABLE record (
    transaction_id TEXT NOT NULL,
    stamp BIGINT NOT NULL,
    kind TEXT NOT NULL CHECK (kind = 'Begun' OR kind = 'Decided' OR kind = 'Ended' OR kind = 'Prepared' OR kind = 'Resolved'),
    before TEXT NOT NULL,
    after TEXT NOT NULL,
    detail TEXT NOT NULL,
    PRIMARY KEY (transaction_id, stamp, kind)
);

-- After a restore ------------------------------------------------------------------------------------------------

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

-- Clients' retries -------------------------------------------------------------------------------------------------

CREATE TABLE idempotency_key (
    owner TEXT NOT NULL,
    route TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    subject TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    answered BIGINT NOT NULL CHECK (answered IN (0, 1)),
    refusal TEXT,
    PRIMARY KEY (owner, route, key)
);

CREATE INDEX idempotency_key_by_time ON idempotency_key (created_at);

CREATE TABLE batch (
    batch_id TEXT PRIMARY KEY,
    holder_id TEXT NOT NULL,
    mode TEXT NOT NULL CHECK (mode IN ('sequential', 'concurrent')),
    on_failure TEXT NOT NULL CHECK (on_failure IN ('stop', 'continue')),
    items TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    finished_at BIGINT,
    driver TEXT
);

CREATE INDEX batch_unfinished ON batch (batch_id) WHERE finished_at IS NULL;

CREATE TABLE counter (
    name TEXT PRIMARY KEY,
    value BIGINT NOT NULL
);
