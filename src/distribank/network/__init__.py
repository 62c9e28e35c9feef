"""Several banks on one machine: their files, their processes, and how to talk to them as a holder would.

``layout`` writes and reads a data directory; ``processes`` starts, freezes, kills and stops real bank processes;
``speaking`` is a small client of the public contract (``docs/api.md``) and knows nothing of a bank's inside. The
demo, ``distribank up`` and the tests that kill banks all stand on these three. ``composing`` writes the compose file,
for banks in containers.
"""
