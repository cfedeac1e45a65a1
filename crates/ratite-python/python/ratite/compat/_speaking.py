"""What is said to a machine that runs, and what it says: QMP commands and events."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, cast

from ratite.compat._described import Described
from ratite.compat._machine_errors import QEMUMachineError
from ratite.compat._match import event_match
from ratite.compat._monitor import Monitor
from ratite.compat._waits import Wait, seconds

QMPMessage = Dict[str, Any]


class Speaking(Described):
    """A machine that may have a monitor."""

    # Whether the caller has asked it to quit, so that its end is expected.
    _quit_issued: bool = False
    # What was not taken of an earlier run.
    _events: List[QMPMessage]

    @property
    def _qmp(self) -> Monitor:
        if self._qmp_connection is None:
            raise QEMUMachineError("Attempt to access QMP with no connection")
        return self._qmp_connection

    @classmethod
    def _qmp_args(cls, conv_keys: Optional[bool], args: Mapping[str, Any]) -> Dict[str, Any]:
        if conv_keys is False:
            return dict(args)
        return {key.replace("_", "-"): value for key, value in args.items()}

    def _arguments(self, whole: Optional[Dict[str, Any]], conv_keys: Optional[bool], args: Dict[str, Any]) -> Any:
        if whole is None:
            return self._qmp_args(conv_keys, args)
        assert not args and conv_keys is None, "arguments in one object leave nothing to be converted"
        return whole

    def qmp(
        self,
        cmd: str,
        /,
        args_dict: Optional[Dict[str, Any]] = None,
        conv_keys: Optional[bool] = None,
        **args: Any,
    ) -> QMPMessage:
        """Executes a QMP command and returns the whole reply. In keywords, each ``_`` becomes ``-``."""
        reply = self._qmp.cmd_raw(cmd, self._arguments(args_dict, conv_keys, args))
        if cmd == "quit" and "error" not in reply and "return" in reply:
            self._quit_issued = True
        return reply

    def cmd(
        self,
        cmd: str,
        /,
        args_dict: Optional[Dict[str, Any]] = None,
        conv_keys: Optional[bool] = None,
        **args: Any,
    ) -> Any:
        """Executes a QMP command and returns its value.

        :raises ExecuteError: with QEMU's own words.
        """
        value = self._qmp.cmd_with(cmd, self._arguments(args_dict, conv_keys, args))
        if cmd == "quit":
            self._quit_issued = True
        return value

    def command(self, cmd: str, /, conv_keys: bool = True, **args: Any) -> Any:
        """The same, as QEMU 7.2 calls it."""
        return self.cmd(cmd, None, conv_keys, **args)

    def send_fd_scm(self, fd: Optional[int] = None, file_path: Optional[str] = None) -> int:
        """Sends a descriptor, or that of a file, with the next command, which is to be ``getfd``."""
        assert (fd is None) != (file_path is None), "either a descriptor or a file"
        if file_path is None:
            self._qmp.send_fd_scm(cast(int, fd))
        else:
            with open(file_path, "rb") as file:
                self._qmp.send_fd_scm(file.fileno())
        return 0

    @staticmethod
    def event_match(event: Any, match: Optional[Any]) -> bool:
        """Whether `event` has all that `match` asks for: objects in part, with None for any value; everything else exactly."""
        return event_match(event, match)

    def get_qmp_event(self, wait: Wait = False) -> Optional[QMPMessage]:
        """Takes the oldest event. Waits for it for ever with True, not at all with None, False and 0, else so many seconds."""
        if self._events:
            return self._events.pop(0)
        return self._qmp.pull_event(wait)

    def get_qmp_events(self, wait: Wait = False) -> List[QMPMessage]:
        """Takes all events, oldest first; waits for one if there is none."""
        taken = [self._events.pop(0) for _ in range(len(self._events))]
        if self._qmp_connection is None and taken:
            return taken
        return taken + self._qmp.get_events(wait and not taken and wait)

    def event_wait(self, name: str, timeout: Wait = 60.0, match: Optional[QMPMessage] = None) -> Optional[QMPMessage]:
        """Takes the oldest event of this name that contains `match`, and waits for it. Others stay."""
        return self.events_wait([(name, match)], timeout)

    def events_wait(self, events: Sequence[Tuple[str, Any]], timeout: Wait = 60.0) -> Optional[QMPMessage]:
        """The same for any of these names and matches.

        :raises asyncio.TimeoutError: after `timeout` seconds in all.
        :raises ExecInterruptedError: at once, if the connection ends without such an event.
        """
        for number, event in enumerate(self._events):
            if any(event["event"] == name and self.event_match(event, match) for name, match in events):
                return self._events.pop(number)
        return self._qmp.take(events, seconds(timeout))
