"""What DistriBank is compared with, each a program of its own that takes ``POST /v1/transfers`` as a bank does.

``front`` what they have in common: how they are started, the application that clients speak to, tokens; ``noop`` the
framework alone; ``naive`` two-phase commit as one writes it first, with its other bank, ``naive_participant``;
``postgres`` what one would pick instead.
"""
