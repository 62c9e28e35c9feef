"""``distribank bench``: what the payment path does in a second, beside what one would pick instead (``peers``)."""
