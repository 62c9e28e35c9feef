"""Claims: what the demo says is so, each checked against what the banks answered, with the figure it rests on.

A claim that did not hold is shown and remembered, and the story goes on: the exit status tells.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing said, whether it held, and its figure in words."""

    chapter: str
    claim: str
    held: bool
    figure: str


class Claims:
    """The claims made so far; each is printed as it is made."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.made: list[Claim] = []
        self._chapter = ""

    def chapter(self, title: str) -> None:
        """What follows belongs under *title*."""
        self._chapter = title
        self.console.print(f"\n[bold]{escape(title)}[/bold]")

    def say(self, text: str) -> None:
        """Tell what happens, claiming nothing."""
        self.console.print(f"  {escape(text)}")

    def check(self, held: bool, claim: str, figure: object = "") -> bool:
        """Claim it, with the figure that shows it."""
        made = Claim(self._chapter, claim, bool(held), str(figure))
        self.made.append(made)
        mark = "[green]✓[/green]" if made.held else "[bold red]✗[/bold red]"
        shown = f"  [dim]{escape(made.figure)}[/dim]" if made.figure else ""
        self.console.print(f"  {mark} {escape(claim)}{shown}")
        return made.held

    @property
    def all_held(self) -> bool:
        return bool(self.made) and all(claim.held for claim in self.made)

    def as_json(self) -> list[dict[str, Any]]:
        return [asdict(claim) for claim in self.made]
