"""Prints what to put first on ``PYTHONPATH``."""

from __future__ import annotations

import argparse
import os

from ratite.compat import machine_folder, qmp_folder


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ratite.compat",
        description="Prints the folder that puts ratite into the place of QEMU's `qemu.machine`, for the front of PYTHONPATH.",
    )
    parser.add_argument("--with-qmp", action="store_true", help="the one for `qemu.qmp`, too")
    folders = [machine_folder()]
    if parser.parse_args().with_qmp:
        folders.append(qmp_folder())
    print(os.pathsep.join(folders))


if __name__ == "__main__":
    main()
