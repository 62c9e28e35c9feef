"""The bank's rule book and the protocol: everything that *decides*, and nothing that waits.

Modules here import the standard library and each other, nothing else: no await, no clock, no randomness,
no input or output. Time, ids and chance come in as arguments, so that a test, a simulation and a bank in
production run exactly the same decisions. ``tests/test_architecture.py`` walks the imports and keeps it so.
"""
