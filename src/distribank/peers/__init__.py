"""Talking to other banks: who they are, how what they say is signed and written, and the client that asks them."""
