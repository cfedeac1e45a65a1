"""The folder outside the checkout where QEMU's sources and what their tests need are kept: made once, then reused.

    <cache>/qemu-7.2.22/         the source of the installed QEMU, and of a newer one, as far as tests need it
    <cache>/modules-7.2.22/      the accelerator `qtest` for the installed QEMU
    <cache>/others-7.2.22/       QEMU for other architectures, of the same version, unpacked and not installed
    <cache>/graphviz/            the program `dot`, unpacked and not installed, if the system has none
    <cache>/packages-3.11/       Python packages that the tests import, for one version of Python
    <cache>/apt/                 the private apt's lists

What a run left incomplete, the next one makes again.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from accelerator import build_module, qtest_works
from apt import Apt
from words import CompatError, call, refuse, say

QEMU = "qemu-system-x86_64"
PROGRAMS = (QEMU, "qemu-img", "qemu-io", "qemu-nbd", "qemu-storage-daemon")

# The one avocado that runs both QEMU 7.2's tests and those of `qemu.qmp`, with the old setuptools that it needs; the
# others are what the tests and scripts import.
PYTHON_PACKAGES = (
    "avocado-framework==92.3",
    "setuptools==69.5.1",
    "pycotap==1.3.1",
    "graphviz==0.20.3",
    "pandas>=2.2,<3",
    "tabulate==0.9.0",
)

# Programs for other architectures, and firmware that the package of the firmware holds itself.
OTHER_PACKAGES = (
    "qemu-system-arm",
    "qemu-system-mips",
    "qemu-system-misc",
    "qemu-system-ppc",
    "qemu-system-sparc",
    "opensbi",
)
# Where a QEMU looks for firmware, beside its own folder.
FIRMWARE = ("share/qemu", "share/seabios", "lib/ipxe/qemu")

# Tells an unpacked `dot` where its libraries and plugins lie, which it would look for in the system's folders.
DOT = """\
#!/bin/sh
root=$(dirname "$(dirname "$0")")
for libraries in "$root"/usr/lib/*-linux-gnu*; do
    export LD_LIBRARY_PATH="$libraries" GVBINDIR="$libraries/graphviz"
done
exec "$root/usr/bin/dot" "$@"
"""

# The rest of QEMU's source is half a gigabyte that no test reads.
KEPT = ("COPYING", "VERSION", "accel", "include", "module-common.c", "python", "qapi", "scripts", "tcg", "tests")


@dataclass(frozen=True)
class Source:
    """One unpacked QEMU."""

    version: str
    folder: Path


@dataclass(frozen=True)
class Prepared:
    """Everything that tests need from outside."""

    qemu: str
    qemu_version: str
    qemu_package: str
    sources: tuple[Source, ...]
    packages: Path
    modules: Path | None
    dot: Path | None
    obstacles: tuple[str, ...]
    binaries: dict[str, Path]


class Cache:
    """Makes what is missing in `folder`, and leaves what is there."""

    def __init__(self, folder: Path, python: str) -> None:
        self.folder = folder
        self.python = python

    def prepare(self, given: Sequence[Path], refresh: bool) -> Prepared:
        """Returns the sources, packages and modules; `given` are folders of sources, used instead of apt's."""
        missing = [program for program in PROGRAMS if shutil.which(program) is None]
        if missing:
            refuse(f"{', '.join(f'`{name}`' for name in missing)} missing: `scripts/setup` installs QEMU and its tools")
        qemu = str(shutil.which(QEMU))
        version, package = version_of(qemu)

        self.folder.mkdir(parents=True, exist_ok=True)
        sources = tuple(map(given_source, given)) or self.sources(refresh)
        packages = self.packages()
        modules, obstacles = self.modules(qemu, version, sources, may_download=not given)
        dot, without_dot = self.dot(may_download=not given)
        binaries = self.binaries(qemu, version, may_download=not given)
        obstacles += without_dot
        return Prepared(qemu, version, package, sources, packages, modules, dot, obstacles, binaries)

    def sources(self, refresh: bool) -> tuple[Source, ...]:
        """Returns the source of the installed package, and the newest one of the archives."""
        package = installed_package()
        # Says which folders belong to which installed package, so that a second run asks no server.
        record = self.folder / f"sources-of-{package.replace(':', '_').replace('/', '_')}"
        if record.is_file() and not refresh:
            found = [self.folder / name for name in record.read_text(encoding="utf-8").split()]
            if all(path.is_dir() for path in found):
                return tuple(map(given_source, found))

        apt = Apt(self.folder / "apt")
        apt.update()
        own = package if package and apt.has_source(package) else ""
        if not own:
            say("the archives no longer offer the source of the installed QEMU: taking the newest")
        folders = [self.unpacked(apt, own)]
        if own:
            newest = self.unpacked(apt, "")
            if newest not in folders:
                folders.append(newest)
        record.write_text("\n".join(path.name for path in folders) + "\n", encoding="utf-8")
        return tuple(map(given_source, folders))

    def newest(self) -> Source:
        """Returns the newest source that is here; only if there is none, the newest of the archives is fetched."""
        here = [given_source(folder) for folder in self.folder.glob("qemu-*") if (folder / "VERSION").is_file()]
        if not here:
            self.folder.mkdir(parents=True, exist_ok=True)
            apt = Apt(self.folder / "apt")
            apt.update()
            here.append(given_source(self.unpacked(apt, "")))
        return max(here, key=lambda source: [int(number) for number in re.findall(r"\d+", source.version)])

    def unpacked(self, apt: Apt, version: str) -> Path:
        """Fetches one source and returns its folder."""
        with tempfile.TemporaryDirectory(prefix="unpack-", dir=self.folder) as name:
            work = Path(name)
            tree = apt.unpack_source(version, work / "source")
            kept = work / "kept"
            kept.mkdir()
            for entry in KEPT:
                if (tree / entry).exists():
                    os.rename(tree / entry, kept / entry)
            folder = self.folder / f"qemu-{given_source(kept).version}"
            shutil.rmtree(folder, ignore_errors=True)
            # The last step: a folder that has its name is complete.
            os.rename(kept, folder)
        return folder

    def packages(self) -> Path:
        """Installs the Python packages of the tests, and returns the folder to put on PYTHONPATH."""
        version = call([self.python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).strip()
        folder = self.folder / f"packages-{version}"
        record = folder / "compat-requirements.txt"
        wanted = "\n".join(PYTHON_PACKAGES) + "\n"
        if record.is_file() and record.read_text(encoding="utf-8") == wanted:
            return folder
        say("installing the Python packages of the tests")
        shutil.rmtree(folder, ignore_errors=True)
        try:
            call([self.python, "-m", "pip", "install", "--quiet", "--target", str(folder), *PYTHON_PACKAGES])
        except CompatError as error:
            refuse(f"the tests need Python packages, and pip of `{self.python}` could not install them: {error}")
        record.write_text(wanted, encoding="utf-8")
        return folder

    def modules(
        self, qemu: str, version: str, sources: Sequence[Source], may_download: bool
    ) -> tuple[Path | None, tuple[str, ...]]:
        """Returns the folder for QEMU_MODULE_DIR if one is needed, and what keeps block tests from running."""
        if qtest_works(qemu, os.environ):
            return None, ()
        folder = self.folder / f"modules-{version}"
        environment = {**os.environ, "QEMU_MODULE_DIR": str(folder)}
        if qtest_works(qemu, environment):
            return folder, ()
        same = next((source for source in sources if source.version == version), None)
        try:
            if same is None:
                refuse(f"the source of QEMU {version} is not there")
            apt = Apt(self.folder / "apt") if may_download else None
            build_module(same.folder, folder, apt)
        except CompatError as error:
            return None, (f"no accelerator `qtest`: {error}",)
        if not qtest_works(qemu, environment):
            return None, ("no accelerator `qtest`: QEMU refused the module that was compiled for it",)
        return folder, ()

    def dot(self, may_download: bool) -> tuple[Path | None, tuple[str, ...]]:
        """Returns the program that draws graphs, and what keeps its tests from running."""
        installed = shutil.which("dot")
        if installed:
            return Path(installed), ()
        folder = self.folder / "graphviz"
        if not folder.is_dir():
            if not may_download:
                return None, ("no program `dot`: it is not installed",)
            try:
                self.unpack_dot(folder)
            except CompatError as error:
                return None, (f"no program `dot`: {error}",)
        return folder / "bin" / "dot", ()

    def unpack_dot(self, folder: Path) -> None:
        """Fetches the program, and lets it find its plugins."""
        say("fetching the program `dot`")
        with tempfile.TemporaryDirectory(prefix="unpack-", dir=self.folder) as name:
            work = Path(name) / "graphviz"
            (work / "bin").mkdir(parents=True)
            apt = Apt(self.folder / "apt")
            apt.update()
            apt.unpack_with_libraries("graphviz", work)
            dot = work / "bin" / "dot"
            dot.write_text(DOT, encoding="utf-8")
            dot.chmod(0o755)
            call([str(dot), "-c"], limit=60)
            call([str(dot), "-Tpng", "-o", os.devnull, os.devnull], limit=60)
            os.rename(work, folder)

    def binaries(self, qemu: str, version: str, may_download: bool) -> dict[str, Path]:
        """Returns the QEMU of each architecture: the installed ones, and others of the same version."""
        folder = self.folder / f"others-{version}"
        if may_download and not folder.is_dir():
            self.unpack_others(folder)
        found: dict[str, Path] = {}
        for place in (folder / "usr" / "bin", Path(qemu).parent):
            for program in sorted(place.glob("qemu-system-*")):
                architecture = program.name[len("qemu-system-") :]
                if "-" not in architecture and version_of(str(program))[0] == version:
                    found[architecture] = program
        return found

    def unpack_others(self, folder: Path) -> None:
        """Fetches the programs for other architectures; without them, their tests are left out."""
        say("fetching QEMU for other architectures")
        with tempfile.TemporaryDirectory(prefix="unpack-", dir=self.folder) as name:
            work = Path(name) / "others"
            work.mkdir()
            try:
                apt = Apt(self.folder / "apt")
                apt.update()
                for package in OTHER_PACKAGES:
                    apt.unpack_package(package, work)
            except CompatError as error:
                say(f"not every QEMU for other architectures is there: {error}")
            # These programs look for firmware beside themselves, and most of it comes with the installed QEMU.
            for place in FIRMWARE:
                for file in Path("/usr", place).glob("*"):
                    link = work / "usr" / place / file.name
                    link.parent.mkdir(parents=True, exist_ok=True)
                    if not link.exists() and not link.is_symlink():
                        link.symlink_to(file)
            os.rename(work, folder)


def given_source(folder: Path) -> Source:
    """Reads the version of an unpacked source."""
    version = folder / "VERSION"
    if not version.is_file():
        refuse(f"no QEMU source in {folder}")
    return Source(version.read_text(encoding="utf-8").strip(), folder)


def version_of(qemu: str) -> tuple[str, str]:
    """Returns QEMU's version, and the words of its packager."""
    words = call([qemu, "--version"], limit=60).split("\n", 1)[0].split()
    # QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)
    position = words.index("version") + 1
    return words[position], " ".join(words[position + 1 :]).strip("()")


def installed_package() -> str:
    """Returns the version of the source package that the installed QEMU was built from, '' if it is no package."""
    try:
        asked = ["dpkg-query", "--show", "--showformat=${source:Version}", "qemu-system-x86"]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def default_folder() -> Path:
    """Returns where the cache lies unless the user says otherwise."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "ratite" / "qemu-source"


def main() -> int:
    """Fetches everything and prints what there is; with the word `newest`, the newest source alone and its folder."""
    cache = Cache(default_folder(), sys.executable)
    try:
        print(cache.newest().folder if sys.argv[1:] == ["newest"] else cache.prepare((), refresh=False))
    except CompatError as error:
        say(str(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
