"""What the tests of the drop-in share."""

import sys

import pytest

from ratite.compat import machine_folder, qmp_folder

for folder in (machine_folder(), qmp_folder()):
    if folder not in sys.path:
        sys.path.insert(0, folder)

from qemu.machine import QEMUMachine  # noqa: E402


@pytest.fixture
def faked(fake_qemu, base):
    """Makes machines of the drop-in with the fake QEMU, which misbehave as the words say."""
    made = []

    def make(*words, kind=QEMUMachine, args=(), **keywords):
        keywords.setdefault("base_temp_dir", str(base))
        made.append(kind(fake_qemu, [*misbehaving(words), *args], **keywords))
        return made[-1]

    yield make
    while made:
        made.pop().kill()


@pytest.fixture
def empty(base):
    """Makes machines of the drop-in with the real QEMU, without a processor."""
    made = []

    def make(*args, kind=QEMUMachine, binary="qemu-system-x86_64", **keywords):
        keywords.setdefault("base_temp_dir", str(base))
        made.append(kind(binary, ["-machine", "none", "-accel", "tcg", *args], **keywords))
        return made[-1]

    yield make
    while made:
        made.pop().kill()


def misbehaving(words):
    return [argument for word in words for argument in ("-fake", word)]
