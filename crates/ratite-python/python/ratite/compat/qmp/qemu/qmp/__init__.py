"""A QMP client with the interface of QEMU's own `qemu.qmp`, on ratite.

`QMPClient` is for asyncio, `legacy.QEMUMonitorProtocol` blocks. What an installed original has besides (`qmp_shell`, `qmp_tui`,
`util`) is found there, and imports the names of this one.
"""

import logging
import pkgutil

from .error import ProtocolError, QMPError
from .events import EventListener, ListenerError
from .message import Message
from .protocol import ConnectError, Runstate, SocketAddrT, StateError
from .qmp_client import ExecInterruptedError, ExecuteError, QMPClient

__path__ = pkgutil.extend_path(__path__, __name__)

# Nothing is printed unless the application sets logging up.
logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())

__all__ = (
    "QMPClient",
    "Message",
    "EventListener",
    "Runstate",
    "QMPError",
    "StateError",
    "ConnectError",
    "ExecuteError",
    "ExecInterruptedError",
    "ListenerError",
    "ProtocolError",
    "SocketAddrT",
)
