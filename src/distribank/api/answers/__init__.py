"""What clients receive, a room for each resource as the routes have: its model, and beside it what fills it from rows.

Models only describe; nothing that is sent runs through them, and tests hold what is made to its model. Where a model
and a row bear one name, the row's is written with its module: ``ledger.Account`` is the row, ``Account`` the answer.
``words`` has what all of them share.
"""
