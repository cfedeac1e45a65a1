"""The two errors that all others derive from.

QMPError
├── ConnectError, StateError                          (protocol)
├── ExecuteError, ExecInterruptedError                (qmp_client)
├── ListenerError                                     (events)
├── QMPBadPortError                                   (legacy)
└── ProtocolError
    ├── DeserializationError, UnexpectedTypeError     (message)
    └── GreetingError, NegotiationError, ServerParseError, BadReplyError   (qmp_client)
"""


class QMPError(Exception):
    """Anything that this package raises of its own."""


class ProtocolError(QMPError):
    """A peer that does not speak QMP as it should."""

    def __init__(self, error_message: str, *args: object) -> None:
        super().__init__(error_message, *args)
        self.error_message: str = error_message

    def __str__(self) -> str:
        return self.error_message
