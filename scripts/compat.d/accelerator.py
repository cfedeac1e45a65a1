"""QEMU's accelerator `qtest`, which QEMU's block tests run on and some distributions leave out of their package.

Debian builds QEMU's accelerators as modules and deletes this one. The binary still knows its name, so the module is
compiled here from the very source that the binary was built from, and QEMU finds it through QEMU_MODULE_DIR.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from apt import Apt
from words import CompatError, call, refuse, say

MODULE = "accel-qtest-x86_64.so"
MODULE_FOLDERS = ("/usr/lib/*/qemu", "/usr/lib/qemu", "/usr/lib64/qemu")

# Only what the headers of this one file ask for: none of it changes the layout of what the module shares with QEMU.
CONFIGURATION = ("CONFIG_POSIX", "CONFIG_LINUX", "CONFIG_MODULES", "CONFIG_IOVEC", "CONFIG_PREADV")


def qtest_works(qemu: str, environment: Mapping[str, str]) -> bool:
    """Tells whether this QEMU starts with the accelerator `qtest`."""
    commands = '{"execute": "qmp_capabilities"}\n{"execute": "quit"}\n'
    argv = [qemu, "-accel", "qtest", "-machine", "none", "-nodefaults", "-display", "none", "-qmp", "stdio"]
    try:
        done = subprocess.run(
            argv, input=commands, text=True, env=dict(environment), capture_output=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def build_module(source: Path, folder: Path, apt: Apt | None) -> None:
    """Compiles the module into `folder`, from the source of exactly the installed QEMU."""
    stamp = build_stamp()
    if shutil.which("cc") is None:
        refuse("`cc` is not installed, which the accelerator `qtest` is compiled with")
    say("compiling the accelerator `qtest`, which this system's QEMU lacks")

    work = folder.with_name(folder.name + ".work")
    shutil.rmtree(work, ignore_errors=True)
    include = work / "include"
    include.mkdir(parents=True)
    definitions = "".join(f"#define {name} 1\n" for name in CONFIGURATION)
    (include / "config-host.h").write_text(definitions, encoding="utf-8")
    (include / "config-poison.h").write_text("", encoding="utf-8")
    schema = source / "qapi/qapi-schema.json"
    call([sys.executable, str(source / "scripts/qapi-gen.py"), "-o", str(include / "qapi"), "-b", str(schema)])

    built = work / MODULE
    headers = [include, include / "qapi", source / "include", source, source / "tcg/i386"]
    call(
        ["cc", "-shared", "-fPIC", "-O1", "-w", "-std=gnu11", "-D_GNU_SOURCE", "-DBUILD_DSO", f"-DCONFIG_STAMP={stamp}"]
        + [f"-I{path}" for path in headers]
        + glib_flags(work, apt)
        + ["-o", str(built), str(source / "accel/qtest/qtest.c"), str(source / "module-common.c")]
    )
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy2(built, folder / MODULE)
    shutil.rmtree(work)


def build_stamp() -> str:
    """Returns the mark by which QEMU tells its own modules, as another module of the same build carries it."""
    for pattern in MODULE_FOLDERS:
        for module in sorted(Path("/").glob(f"{pattern.lstrip('/')}/*.so")):
            found = re.search(rb"qemu_stamp(_[0-9a-f]{40})\0", module.read_bytes())
            if found:
                return found.group(1).decode()
    refuse("this system's QEMU has neither the accelerator `qtest` nor any module, whose build could be told")


def glib_flags(work: Path, apt: Apt | None) -> list[str]:
    """Returns the compiler's options for glib's headers, which are unpacked where they are not installed."""
    try:
        return shlex.split(call(["pkg-config", "--cflags", "glib-2.0"]))
    except CompatError:
        if apt is None:
            refuse("glib's headers are not installed, which the accelerator `qtest` is compiled with")
    unpacked = work / "glib"
    apt.unpack_package("libglib2.0-dev", unpacked)
    generated = next(unpacked.glob("usr/lib/*/glib-2.0/include"), None)
    if generated is None:
        refuse("the package `libglib2.0-dev` holds no generated headers")
    return [f"-I{unpacked / 'usr/include/glib-2.0'}", f"-I{generated}"]
