"""Talking to other banks: who they are, how what they say is signed and written, and the client that asks them.

``wire``       the envelope around a batch, and the table of all kinds of message.
``messages``, ``reads``, ``snapshots``, ``decisions``  how each looks, field by field: the protocol's own, what banks
               look up, what an auditor asks for, what a restored bank does; ``fields`` reads what another bank wrote.
``signatures`` HTTP Message Signatures (RFC 9421). ``roster``: the network file, and keys.
``client``     asks: a ``line`` per peer and kind, a ``presence`` per peer.
``transport``  carries one request and its answer, as httpx's transports do.
"""
