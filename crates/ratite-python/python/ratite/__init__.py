"""Runs QEMU machines for programs: starts one, speaks QMP with it, keeps its console flowing, ends it, and leaves nothing behind.

    with ratite.Machine("qemu-system-x86_64", "-m", "64", accel="tcg", console=True) as machine:
        print(machine.cmd("query-status"))

`ratite.aio` is the same for asyncio; `python -m ratite.compat` prints the folder of a drop-in for QEMU's own `qemu.machine`.
"""

from ratite._agent import Agent, GuestOutput
from ratite._core import (
    Exit,
    Match,
    Picture,
    ProcessExit,
    ScreenText,
    ShellOutput,
    Terminal,
    linux_failures,
    plain_text,
)
from ratite._errors import (
    AddressError,
    ArgumentsError,
    CacheError,
    CommandError,
    ConfigError,
    ConnectError,
    ConsoleEnded,
    ConsoleError,
    ConsoleFailure,
    Disconnected,
    Error,
    ForkedError,
    FreezeError,
    GreetingError,
    GuestPanicked,
    InputError,
    Lagged,
    LaunchError,
    LoginRefused,
    MachineExited,
    NegotiationError,
    NoAgent,
    NoMonitor,
    PatternError,
    ProtocolError,
    QtestError,
    ScreenError,
    ShellError,
    ShellFailed,
    ShellGone,
    ShutdownError,
    SpawnError,
    StillRuns,
    StoreError,
    TemplateError,
    TimedOut,
)
from ratite._frozen import TemplateEntry
from ratite._machine import Console, Input, Listener, Machine, Qtest, Screen
from ratite._shell import Shell, TerminalView
from ratite._template import Pool, Template, TemplateCache
from ratite._words import ConsoleOptions

LINUX_FAILURES = linux_failures()
"""What a Linux guest prints when it went wrong, for `Console.expect(…, failing_on=…)`."""
del linux_failures

__all__ = [
    "AddressError",
    "Agent",
    "ArgumentsError",
    "CacheError",
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
    "FreezeError",
    "GreetingError",
    "GuestOutput",
    "GuestPanicked",
    "Input",
    "InputError",
    "LINUX_FAILURES",
    "Lagged",
    "LaunchError",
    "Listener",
    "LoginRefused",
    "Machine",
    "MachineExited",
    "Match",
    "NegotiationError",
    "NoAgent",
    "NoMonitor",
    "PatternError",
    "Picture",
    "Pool",
    "ProcessExit",
    "ProtocolError",
    "Qtest",
    "QtestError",
    "Screen",
    "ScreenError",
    "ScreenText",
    "Shell",
    "ShellError",
    "ShellFailed",
    "ShellGone",
    "ShellOutput",
    "ShutdownError",
    "SpawnError",
    "StillRuns",
    "StoreError",
    "Template",
    "TemplateCache",
    "TemplateEntry",
    "TemplateError",
    "Terminal",
    "TerminalView",
    "TimedOut",
    "plain_text",
]

for _name in __all__:
    # Where users find it is what a traceback and a `repr` say.
    if getattr(globals()[_name], "__module__", "").startswith("ratite._"):
        globals()[_name].__module__ = "ratite"
del _name
