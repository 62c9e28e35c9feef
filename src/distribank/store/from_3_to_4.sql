-- From version 3 to 4: where a transfer is written, CHECKs and partial indexes say OR instead of IN, which SQLite answers
-- without making a table for every row. They mean what they meant, so no row and no page of an index changes: only the
-- words are replaced, as sqlite.org/lang_altertable.html, section 7, allows for what is not on the disk. A ledger of any
-- size migrates at once. Runs in one transaction, which the caller opens and ends.

PRAGMA writable_schema = ON;

UPDATE sqlite_schema SET sql = replace(sql,
'CHECK (kind IN (''deposit'', ''withdrawal'', ''transfer'', ''return'', ''correction'')),',
'CHECK (kind = ''deposit'' OR kind = ''withdrawal'' OR kind = ''transfer'' OR kind = ''return''
                                   OR kind = ''correction''),');

UPDATE sqlite_schema SET sql = replace(sql,
'CHECK (state IN (''placed'', ''posted'', ''released'')),',
'CHECK (state = ''placed'' OR state = ''posted'' OR state = ''released''),');

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
