"""``python -m distribank``: the same as the command ``distribank``."""

from distribank.cli import main

if __name__ == "__main__":
    main()
