"""What every part of this program says and refuses with."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn


class CompatError(Exception):
    """Something this program needs is missing; the message says what to do about it."""


def say(message: str) -> None:
    """Tells the user something, on the channel for talk."""
    print(f"compat: {message}", file=sys.stderr, flush=True)


def refuse(message: str) -> NoReturn:
    """Gives up with a message that names what is missing."""
    raise CompatError(message)


def call(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    limit: float = 900.0,
) -> str:
    """Runs a command quietly and returns what it printed; what it said is shown only if it failed.

    `limit` is in seconds, 15 minutes by default.
    """
    try:
        done = subprocess.run(
            list(argv),
            cwd=cwd,
            env=None if env is None else dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=limit,
            check=False,
        )
    except FileNotFoundError:
        refuse(f"`{argv[0]}` is not installed")
    except subprocess.TimeoutExpired:
        refuse(f"`{shlex.join(argv)}` did not end within {limit:.0f} s")
    if done.returncode != 0:
        refuse(f"`{shlex.join(argv)}` failed with status {done.returncode}:\n{done.stdout.rstrip()}")
    return done.stdout
