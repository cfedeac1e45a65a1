"""The errors of whichever `qemu.qmp` is installed, raised in the place of ratite's own.

Looked up at the first need, because callers catch the classes of the tree under test. QEMU 7.2's package and QEMU 10's make them
alike.
"""

from __future__ import annotations

import asyncio
import errno
import importlib
import sys
from types import ModuleType
from typing import Any, Mapping, Type

from ratite import _errors
from ratite.compat import qmp_folder

Object = Mapping[str, Any]


def module(name: str = "") -> ModuleType:
    """The module `name` of `qemu.qmp`; of ratite's own if there is no other."""
    try:
        return importlib.import_module(f"qemu.qmp{name}")
    except ModuleNotFoundError as error:
        if error.name not in ("qemu", "qemu.qmp"):
            raise
    sys.path.append(qmp_folder())
    importlib.invalidate_caches()
    return importlib.import_module(f"qemu.qmp{name}")


def qmp_error() -> Type[Exception]:
    """The base of them all."""
    base: Type[Exception] = module().QMPError
    return base


def refused(sent: Object, reply: Object) -> Exception:
    """What a server's refusal is raised as."""
    response = module(".models").ErrorResponse(reply)
    message = module(".message").Message
    error: Exception = module(".qmp_client").ExecuteError(response, message(dict(sent)), message(dict(reply)))
    return error


def bad_reply(sent: Object, why: str) -> Exception:
    """What a reply that is none is raised as."""
    message = module(".message").Message
    error: Exception = module(".qmp_client").BadReplyError(why, message({}), message(dict(sent)))
    return error


def interrupted(why: str) -> Exception:
    """What a command or a wait gets when its connection ends."""
    error: Exception = module(".qmp_client").ExecInterruptedError(f"Disconnected: {why}")
    return error


def not_running(ended: bool) -> Exception:
    """What is raised for a command without a session."""
    protocol = module(".protocol")
    state, text = (
        (protocol.Runstate.DISCONNECTING, "QMPClient is disconnecting. Call disconnect() to return to IDLE state.")
        if ended
        else (protocol.Runstate.IDLE, "QMPClient is not currently connected.")
    )
    error: Exception = protocol.StateError(text, state, protocol.Runstate.RUNNING)
    return error


def timed_out(error: _errors.TimedOut) -> asyncio.TimeoutError:
    """What both generations raise at the end of a limit."""
    return asyncio.TimeoutError(str(error))


def no_session(error: Exception) -> Exception:
    """What a session that did not begin is raised as."""
    if isinstance(error, _errors.TimedOut):
        return timed_out(error)
    connect_error = module().ConnectError
    transport, session = "Failed to establish connection", "Failed to establish session"
    made: Exception
    if isinstance(error, (_errors.ConnectError, OSError)) and not isinstance(error, _errors.Disconnected):
        made = connect_error(transport, _system_error(error))
    elif isinstance(error, _errors.AddressError):
        made = connect_error(transport, error)
    elif isinstance(error, _errors.GreetingError):
        fault = ValueError(str(error))
        made = connect_error(session, module(".qmp_client").GreetingError("Did not understand Greeting", fault))
    elif isinstance(error, _errors.NegotiationError):
        fault = ValueError(str(error))
        made = connect_error(session, module(".qmp_client").NegotiationError("Negotiation failed", fault))
    elif isinstance(error, _errors.ProtocolError):
        made = connect_error(session, module().ProtocolError(str(error)))
    elif getattr(error, "errno", None) == errno.ECONNRESET:
        made = connect_error(session, ConnectionResetError(errno.ECONNRESET, str(error)))
    else:
        made = connect_error(session, EOFError(str(error)))
    return made


def _system_error(error: Exception) -> Exception:
    number = getattr(error, "errno", None)
    return error if number is None else OSError(number, str(error))
