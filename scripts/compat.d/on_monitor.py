"""Runs a script of QEMU's beside a QEMU whose monitor it speaks to.

    on_monitor.py QEMU SOCKET OPTION... -- PYTHON SCRIPT ARGUMENT...

The options are given to QEMU. The word SOCKET among the script's arguments stands for the monitor's path. Uses nothing
of what is under test.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

READY_SECONDS = 30.0
# A machine with a CPU, which some scripts ask about, and which stands still.
MACHINE = ("-machine", "pc", "-S", "-accel", "tcg", "-nodefaults", "-display", "none")


def main() -> int:
    """Returns the script's exit status."""
    qemu, socket, *words = sys.argv[1:]
    end = words.index("--")
    argv = [socket if word == "SOCKET" else word for word in words[end + 1 :]]
    monitor = f"unix:{socket},server=on,wait=off"
    machine = subprocess.Popen([qemu, *MACHINE, *words[:end], "-qmp", monitor], stdin=subprocess.DEVNULL)
    try:
        until = time.monotonic() + READY_SECONDS
        while not Path(socket).exists():
            if machine.poll() is not None or time.monotonic() > until:
                print(f"QEMU offered no monitor; exit status {machine.poll()}")
                return 1
            time.sleep(0.02)
        return subprocess.run(argv, check=False).returncode
    finally:
        machine.kill()
        machine.wait()
        Path(socket).unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
