"""The bank's rule book and the protocol: everything that *decides*, and nothing that waits.

Modules here import the standard library and each other, nothing else: no await, no clock, no randomness,
no input or output. Time, ids and chance come in as arguments, so that a test, a simulation and a bank in
production run exactly the same decisions. ``tests/test_architecture.py`` walks the imports and keeps it so.

``protocol``     the words: messages, answers, records, states, and what a bank knows of one transaction.
``coordinator``, ``participant``  the two halves of two-phase commit, each a table from (state, event) to a step.
``heuristics``   what follows a forced outcome; ``suspense``, what that may leave, until it is assigned.
``restoration``  what a bank remembers of a restore from a backup; ``resupplying``, how it gets back what it had lost.
``ledger``       accounts, holds, entries, the bank's own books. ``transfer``: legs that balance. ``money``: centavos.
``consents``     what another bank may debit here. ``holders``: who signs in. ``refusals``: every precise no.
``idempotency``  one key, one deed. ``batches``: many transfers under one. ``planning``: whose money could pay.
``clock``        the hybrid logical clock. ``documents``: CPF, CNPJ, account numbers, bank codes.
``values``       frozen dataclasses that cost what ordinary ones do.
``story``        one transaction told from all its records. ``snapshot``: all banks' books at one moment, checked.
"""
