"""What this machine reaches, measured: real banks under load, beside what else one could have built, in one run.

``load`` drives a bank from a process of its own; ``seeding`` makes ledgers of any size; ``subjects`` are what is
driven: networks of our own banks, and ``peers``, what they are compared with; ``parts`` measures what a transfer is
made of, one piece at a time; ``cases`` says what is driven how, ``running`` does it, in turns, and checks the books
behind it; ``figures`` is the arithmetic; ``report`` and ``plot`` are how people read it; ``bench`` puts a run together.

Whatever is compared is measured in turns within one run (A B C A B C …), so that what else the machine does meets all
alike, and ratios are taken turn by turn. A subject whose money is wrong behind the run has no figures.
"""
