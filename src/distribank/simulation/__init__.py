"""``distribank simulate``: real banks in virtual time, under faults that a seed draws, and checkers of their own."""
