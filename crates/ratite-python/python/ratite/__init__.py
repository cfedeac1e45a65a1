"""Runs QEMU machines for programs: starts one, speaks QMP with it, keeps its console flowing, ends it, and leaves nothing behind.

    with ratite.Machine("qemu-system-x86_64", "-m", "64", accel="tcg", console=True) as machine:
        print(machine.cmd("query-status"))

`ratite.aio` is the same for asyncio; `python -m ratite.compat` prints the folder of a drop-in for QEMU's own `qemu.machine`.
"""

from ratite._agent import Agent, GuestOutput
from ratite._core import Exit, Match, ProcessExit, linux_failures
from ratite._errors import (
    AddressError,
    ArgumentsError,
    CommandError,
    ConfigError,
    ConnectError,
    ConsoleEnded,
    ConsoleError,
    ConsoleFailure,
    Disconnected,
    Error,
    ForkedError,
    GreetingError,
    GuestPanicked,
    Lagged,
    LaunchError,
    MachineExited,
    NegotiationError,
    NoAgent,
    NoMonitor,
    PatternError,
    ProtocolError,
    QtestError,
    ShutdownError,
    StillRuns,
    TimedOut,
)
from ratite._machine import Console, Listener, Machine, Qtest
from ratite._words import ConsoleOptions

LINUX_FAILURES = linux_failures()
"""What a Linux guest prints when it went wrong, for `Console.expect(…, failing_on=…)`."""
del linux_failures

__all__ = [
    "AddressError",
    "Agent",
    "ArgumentsError",
    "CommandError",
    "ConfigError",
    "ConnectError",
    "Console",
    "ConsoleEnded",
    "ConsoleError",
    "ConsoleFailure",
    "ConsoleOptions",
    "Disconnected",
    "Error",
    "Exit",
    "ForkedError",
    "GreetingError",
    "GuestOutput",
    "GuestPanicked",
    "LINUX_FAILURES",
    "Lagged",
    "LaunchError",
    "Listener",
    "Machine",
    "MachineExited",
    "Match",
    "NegotiationError",
    "NoAgent",
    "NoMonitor",
    "PatternError",
    "ProcessExit",
    "ProtocolError",
    "Qtest",
    "QtestError",
    "ShutdownError",
    "StillRuns",
    "TimedOut",
]

for _name in __all__:
    # Where users find it is what a traceback and a `repr` say.
    if getattr(globals()[_name], "__module__", "").startswith("ratite._"):
        globals()[_name].__module__ = "ratite"
del _name
