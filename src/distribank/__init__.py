"""DistriBank: a payment network with no centre.

Each bank is a service of its own. A transfer between banks is made atomic by two-phase commit with presumed abort,
coordinated by the bank at which it was ordered; there is no hub, no clearing house, no shared database.

The house, from the outside in; imports point inward only (``tests/test_architecture.py`` keeps it so). Each package
opens with what its rooms are for::

     cli ──► network ──► service ──► store/*, peers, config        edges: choose the parts
                            │
     api/<clients> ─┐       ▼
     api/interbank ─┴──►  bank  ◄── recovery                       drives: load → decide → persist → send
                            │
                            ▼
                          ports, locks                             promises: what a bank needs from the world
                            │
                            ▼
                          core/*                                   decides: pure, standard library only

``core``      the rule book: the ledger, the protocol's words, and its two halves, ``coordinator`` and ``participant``,
              as tables.
``ports``     what a bank needs: ``Store``, ``Peers``, ``Clock``, ``Chance``. ``locks``: one account, one decision at a
              time.
``bank``      the only place where persisting precedes sending. Every event, a holder's order or a peer's message,
              goes through the same rhythm: load what it names under its locks, decide in ``core`` without waiting,
              persist atomically, send.
``recovery``  finishes what the log says is unfinished, by feeding ordinary events to the same machines.
``store``     one file per engine: ``sqlite`` (through apsw) and ``memory``; ``group`` is the group commit they share.
``peers``     talks to other banks over httpx: how what is said looks and is signed, who they are, and the client that
              batches, retries and knows who is online.
``api``       thin: validate, call the bank, translate the result.
``service``   one bank as a process: chooses the parts, puts them together, starts and stops them in order.
``logs``      what a bank says of itself, for people or programs, with documents masked. ``tracing`` tells
              each transfer's way over the banks to a collector, where one is configured.
``config``    every setting, read once. ``network`` makes and runs several banks on one machine, ``demo`` tells a story
              on them, ``torture`` breaks them and checks what came of it, ``benchmarks`` measures them; ``cli`` is the
              command.
``breakages`` what a peer, a disk or a caller does wrong; ``strict_json`` how a bank reads JSON from outside;
              ``moments`` how times are written.

Rules that hold everywhere: amounts are integers of centavos; no lock is held across the network; a vote and its
hold are durable before *yes* is said, a decision before anyone is told; after a yes, time never releases a hold; if
the disk cannot promise durability the bank stops; modules have no side effects on import.
"""

__version__ = "0.1.0"
