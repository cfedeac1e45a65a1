"""A guest's shell and screen, blocking."""

from __future__ import annotations

from typing import TYPE_CHECKING, List, Optional, Tuple

from ratite import _core
from ratite._core import ShellOutput
from ratite._words import Pattern, count, pattern, seconds

if TYPE_CHECKING:
    from ratite._machine import Console


def prompts(*given: Optional[Pattern]) -> List[Optional[Tuple[str, bool]]]:
    """The patterns of a login, None for the common ones."""
    return [None if one is None else pattern(one) for one in given]


class Shell:
    """A shell in a guest, at whose prompt commands are run one after the other; made by `attach` or `login`.

    It needs nothing in the guest but a POSIX shell on the console, and reads the console at a place of its own. The shell keeps its
    state from one command to the next. A command that ran out of time goes on, until the next call interrupts it with Ctrl-C.
    """

    def __init__(self, shell: _core.Shell) -> None:
        self._shell = shell

    @classmethod
    def attach(cls, console: Console, timeout: float = 60.0) -> Shell:
        """Takes the shell that runs on `console`, or is about to.

        :raises ShellError: if there is a login prompt instead.
        :raises TimedOut: if nobody has answered.
        """
        return cls(_core.Shell.attach(console._console, seconds("timeout", timeout)).wait())

    @classmethod
    def login(
        cls,
        console: Console,
        user: str,
        password: Optional[str] = None,
        timeout: float = 60.0,
        *,
        login_prompt: Optional[Pattern] = None,
        password_prompt: Optional[Pattern] = None,
        refusal: Optional[Pattern] = None,
        shell_prompt: Optional[Pattern] = None,
    ) -> Shell:
        """Logs in on `console`, and takes the shell. The patterns say what the guest asks and answers, where it is uncommon; they
        are looked for in its plain text, line by line.

        :raises LoginRefused: as soon as the guest says so.
        """
        asked = prompts(login_prompt, password_prompt, refusal, shell_prompt)
        limit = seconds("timeout", timeout)
        return cls(_core.Shell.login(console._console, user, password, asked, limit).wait())

    def run(self, command: str, timeout: float = 60.0, *, check: bool = False) -> ShellOutput:
        """Runs `command`, of any length and on any number of lines, and waits for its end.

        :raises ShellFailed: with `check`, when its status is not 0.
        :raises TimedOut: with what it has printed in `tail`.
        :raises ShellGone: when the shell has ended.
        """
        return self._shell.run(command, check, seconds("timeout", timeout)).wait()

    def interrupt(self, timeout: float = 60.0) -> None:
        """Ends what runs, with Ctrl-C, and waits until the shell answers again."""
        self._shell.interrupt(seconds("timeout", timeout)).wait()


class TerminalView:
    """A console as it looks on a terminal; made by `Console.terminal`. It has a place of its own in what the console keeps."""

    def __init__(self, view: _core.TerminalView) -> None:
        self._view = view

    def wait_for(self, what: Pattern, timeout: float = 60.0) -> str:
        """Waits until `what`, a text or a compiled regular expression, stands on the screen; returns the screen's text."""
        return self._view.wait_for(pattern(what), seconds("timeout", timeout)).wait()

    def resize(self, columns: int, rows: int) -> None:
        """Changes the size, and moves what is drawn as an xterm would. The guest learns nothing of it."""
        self._view.resize(count("columns", columns), count("rows", rows))

    @property
    def size(self) -> Tuple[int, int]:
        """Columns and rows."""
        return self._view.size

    @property
    def lines(self) -> List[str]:
        """The rows from the top as they look now, each without the blanks at its end."""
        return self._view.lines

    @property
    def text(self) -> str:
        """The rows down to the last that is not empty, as one text."""
        return self._view.text

    @property
    def cursor(self) -> Optional[Tuple[int, int]]:
        """Column and row of the cursor, counted from 0; None while it is hidden."""
        return self._view.cursor

    @property
    def dropped(self) -> int:
        """How many bytes were dropped, because nobody looked in time: what they would have drawn is missing."""
        return self._view.dropped
