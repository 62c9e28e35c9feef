"""Jepsen's bank test on real bank processes: people pay while a nemesis breaks the banks, and nothing may be wrong.

``people`` who they are; ``clients`` what they ask; ``nemesis`` what is done to the banks, over ``links`` (the network
between them), ``packets`` (the wires below it) and ``clocks``; ``history`` what was seen; ``checker`` what follows from
that alone; ``report`` and ``plot`` how people read it; ``watching`` what is shown meanwhile. ``running`` puts a run
together.

After Jepsen's bank workload (https://github.com/jepsen-io/jepsen, ``jepsen.tests.bank``): the parameters are the
original ones at each bank; no code is taken from there.
"""
