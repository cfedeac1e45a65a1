"""Which of QEMU's own tests run here, and how each is started; not one of their files is changed.

A test belongs to the table if its Python code reaches `qemu.machine` or `qemu.qmp` and it needs no download.
"""

from __future__ import annotations

import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import outcome
from cache import Prepared, Source
from contenders import Tree
from outcome import Verdict
from runner import Finished, Folders

HERE = Path(__file__).resolve().parent
DEADLINE_SECONDS = 180.0

# A test in one of these formats says more than the same test in another.
USUAL_FORMATS = ("qcow2", "raw")
# Where the images of block tests may lie without a server of another kind, the usual place first.
PROTOCOLS = ("file", "nbd")


@dataclass(frozen=True)
class Command:
    """How one test is started."""

    argv: Sequence[str]
    cwd: Path
    environment: dict[str, str]
    typed: str = ""


@dataclass(frozen=True)
class Test(ABC):
    """One test of one of QEMU's sources."""

    source: Source
    name: str

    @property
    def identity(self) -> str:
        """The name in tables and for `--only`: version, suite, test."""
        return f"{self.source.version}/{self.suite}/{self.name}"

    @property
    @abstractmethod
    def suite(self) -> str:
        """The group of tests that this one belongs to."""

    @property
    def obstacle(self) -> str:
        """Says what kind of thing has to be there for this test to run; '' if nothing special."""
        return ""

    @abstractmethod
    def command(self, tree: Tree, folders: Folders, python: str, prepared: Prepared) -> Command:
        """Says how to start it in one contender's tree."""

    @abstractmethod
    def verdict(self, finished: Finished, folders: Folders) -> Verdict:
        """Reads what it said; not asked after a deadline."""


@dataclass(frozen=True)
class Iotest(Test):
    """A Python test of QEMU's block layer, run by QEMU's own `check`, which compares its output with a reference."""

    image_format: str
    protocol: str

    @property
    def suite(self) -> str:
        return f"iotests-{self.image_format}"

    @property
    def obstacle(self) -> str:
        return "no accelerator `qtest`"

    def command(self, tree: Tree, folders: Folders, python: str, prepared: Prepared) -> Command:
        environment = {**tree.environment, "TEST_DIR": str(folders.images), "SOCK_DIR": str(folders.sockets)}
        cwd = tree.build / "tests" / "qemu-iotests"
        return Command(
            [python, "./check", "-tap", f"-{self.image_format}", f"-{self.protocol}", self.name], cwd, environment
        )

    def verdict(self, finished: Finished, folders: Folders) -> Verdict:
        assert finished.status is not None
        return outcome.of_iotest(finished.output, folders.images, finished.status)


@dataclass(frozen=True)
class Functional(Test):
    """A test of `tests/functional`, for one architecture."""

    architecture: str

    @property
    def suite(self) -> str:
        return f"functional-{self.architecture}"

    def command(self, tree: Tree, folders: Folders, python: str, prepared: Prepared) -> Command:
        environment = {
            **tree.with_paths("tests/functional"),
            "QEMU_TEST_QEMU_BINARY": str(prepared.binaries[self.architecture]),
            "QEMU_TEST_QEMU_IMG": str(tree.build / "qemu-img"),
            "QEMU_BUILD_ROOT": str(folders.results),
        }
        file = tree.folder / "tests" / "functional" / f"test_{self.name}.py"
        return Command([python, str(file)], folders.temporary, environment)

    def verdict(self, finished: Finished, folders: Folders) -> Verdict:
        assert finished.status is not None
        return outcome.of_tap(finished.output, finished.status)


@dataclass(frozen=True)
class Avocado(Test):
    """A file for the test runner avocado: QEMU's functional tests before version 9.2, and the tests of `qemu.qmp`."""

    file: str
    architecture: str = "x86_64"

    @property
    def suite(self) -> str:
        return "python" if self.file.startswith("python/") else "avocado"

    def command(self, tree: Tree, folders: Folders, python: str, prepared: Prepared) -> Command:
        filters = ["--filter-by-tags-include-empty", "--filter-by-tags-include-empty-key"]
        filters += ["-t", f"arch:{self.architecture}"]
        argv = [python, "-m", "avocado", "--show=app", "run", f"--job-results-dir={folders.results}"]
        # One after the other: some of them use the same port.
        argv += ["--nrunner-max-parallel-tasks=1", "--disable-sysinfo", *filters]
        argv += ["-p", f"qemu_bin={prepared.binaries[self.architecture]}", self.file]
        return Command(argv, tree.folder, tree.environment)

    def verdict(self, finished: Finished, folders: Folders) -> Verdict:
        assert finished.status is not None
        return outcome.of_avocado(folders.results, finished.output, finished.status)


@dataclass(frozen=True)
class Script(Test):
    """A program of QEMU's `scripts`, which passes if it exits with 0 and prints what it should.

    With `on_monitor`, a QEMU with the options `machine` runs beside it, whose monitor is the word SOCKET among the
    arguments. A script that `draws` writes the file `graph` instead of printing, and has `dot` make a picture of it.
    """

    file: str
    arguments: tuple[str, ...]
    expected: str
    typed: str = ""
    on_monitor: bool = False
    machine: tuple[str, ...] = ()
    draws: bool = False

    @property
    def suite(self) -> str:
        return "scripts"

    @property
    def obstacle(self) -> str:
        return "no program `dot`" if self.draws else ""

    def command(self, tree: Tree, folders: Folders, python: str, prepared: Prepared) -> Command:
        words = {
            "QEMU": prepared.qemu,
            "IMAGES": str(folders.images),
            "RESULTS": str(folders.results),
            "TREE": str(tree.folder),
        }

        def filled(given: Sequence[str]) -> list[str]:
            return [re.sub("|".join(words), lambda found: words[found.group()], word) for word in given]

        argv = [python, str(tree.folder / self.file), *filled(self.arguments)]
        if self.on_monitor:
            socket = str(folders.sockets / "monitor")
            argv = [python, str(HERE / "on_monitor.py"), prepared.qemu, socket, *filled(self.machine), "--", *argv]
        environment = tree.environment
        if self.draws and prepared.dot is not None:
            environment = {**environment, "PATH": f"{environment['PATH']}{os.pathsep}{prepared.dot.parent}"}
        return Command(argv, folders.images, environment, self.typed)

    def verdict(self, finished: Finished, folders: Folders) -> Verdict:
        if finished.status != 0:
            return Verdict(outcome.FAIL, outcome.last_error(finished.output))
        said = finished.output
        if self.draws:
            graph, picture = folders.results / "graph", folders.results / "graph.png"
            if not graph.is_file() or not picture.is_file() or not picture.stat().st_size:
                return Verdict(outcome.FAIL, "writes no graph, or no picture of it")
            said = graph.read_text(encoding="utf-8")
        if not re.search(self.expected, said):
            return Verdict(outcome.FAIL, f"does not {'write' if self.draws else 'print'} `{self.expected}`")
        return Verdict(outcome.PASS)


def tests_of(source: Source, architectures: Collection[str]) -> Iterator[Test]:
    """Yields every test of one source for these architectures, in the order of the tables."""
    yield from iotests_of(source)
    yield from functional_of(source, architectures)
    yield from avocado_of(source, architectures)
    yield from scripts_of(source)


def iotests_of(source: Source) -> Iterator[Test]:
    """Yields the Python block tests in each usual format that they support, or in one that they do."""
    folder = source.folder / "tests" / "qemu-iotests"
    for file in sorted([*folder.glob("[0-9][0-9][0-9]"), *folder.glob("tests/*")]):
        if not file.is_file() or file.suffix or not file.read_bytes().startswith(b"#!/usr/bin/env python3"):
            continue
        text = file.read_text(encoding="utf-8")
        if not re.search(r"\bVM\(|QMPTestCase|QemuStorageDaemon|QEMUMachine", text):
            continue
        protocols = declared(text, "supported_protocols") or list(PROTOCOLS)
        for protocol in [name for name in PROTOCOLS if name in protocols][:1]:
            for image_format in formats_of(text):
                yield Iotest(source, file.name, image_format, protocol)


def formats_of(text: str) -> list[str]:
    """Returns the formats in which to run a block test, from what it declares."""
    supported = declared(text, "supported_fmts") or ["generic"]
    usual = [name for name in USUAL_FORMATS if name in supported or "generic" in supported]
    return [name for name in usual or supported[:1] if name not in declared(text, "unsupported_fmts")]


def declared(text: str, name: str) -> list[str]:
    """Returns the words of a list that a block test gives to `iotests.py` under this name."""
    found = re.search(rf"\b{name}\s*=\s*\[([^\]]*)\]", text)
    return re.findall(r"['\"](\w+)['\"]", found.group(1)) if found else []


def functional_of(source: Source, architectures: Collection[str]) -> Iterator[Test]:
    """Yields the functional tests of each architecture that fetch nothing, as the build files assign them."""
    folder = source.folder / "tests" / "functional"
    if not folder.is_dir():
        return
    build = (folder / "meson.build").read_text(encoding="utf-8")
    for architecture in sorted(architectures):
        lists = rf"tests_(?:generic|{architecture})_system(?:_\w+)? = \[([^\]]*)\]"
        names = {name for found in re.findall(lists, build) for name in re.findall(r"'(\w+)'", found)}
        for name in sorted(names):
            text = (folder / f"test_{name}.py").read_text(encoding="utf-8")
            # A test that borrows from another one borrows its downloads too.
            if not re.search(r"Asset\(|tuxruntest|^from test_", text, re.MULTILINE):
                yield Functional(source, name, architecture)


def avocado_of(source: Source, architectures: Collection[str]) -> Iterator[Test]:
    """Yields the files of avocado tests that fetch nothing, and those of `qemu.qmp`."""
    for file in sorted((source.folder / "tests" / "avocado").glob("*.py")):
        text = file.read_text(encoding="utf-8")
        if "QemuSystemTest" not in text or re.search(r"fetch_asset|LinuxTest|LinuxDistro", text):
            continue
        for architecture in sorted(set(re.findall(r"arch:(\w+)", text)) or {"x86_64"}):
            if architecture in architectures:
                name = file.stem if architecture == "x86_64" else f"{file.stem} {architecture}"
                yield Avocado(source, name, f"tests/avocado/{file.name}", architecture)
    for file in sorted((source.folder / "python" / "tests").glob("*.py")):
        yield Avocado(source, file.stem, f"python/tests/{file.name}")


def scripts_of(source: Source) -> Iterator[Test]:
    """Yields runs of QEMU's scripts."""
    # Every device that can be named without a machine: a start and an end of QEMU for each.
    crash = ("--tcg-only", "-q", "-t", "machine=none", "accel=tcg", "--", "QEMU")
    # The names of one script's runs; a script that this source does not have is left out.
    runs = [
        Script(source, "device-crash-test none", "scripts/device-crash-test", crash, ""),
        Script(
            source,
            "compare-machine-types",
            "scripts/compare-machine-types.py",
            ("--qemu-binary", "QEMU", "--mt", "pc-i440fx-7.1", "pc-i440fx-7.2"),
            "pc-i440fx-7.1",
        ),
        *[block_job(source, command) for command in ("blockdev-backup", "blockdev-mirror")],
        *[
            Script(source, name, f"scripts/{file}", tuple(arguments.split()), expected, typed, on_monitor=True)
            for name, file, arguments, expected, typed in (
                ("qom-list", "qmp/qom-list", "-s SOCKET /machine", "type", ""),
                ("qom-tree", "qmp/qom-tree", "-s SOCKET /machine", "/machine/unattached", ""),
                ("qom-get", "qmp/qom-get", "-s SOCKET /machine.type", "pc-i440fx", ""),
                ("qom-set", "qmp/qom-set", "-s SOCKET /machine.kernel nothing", r"\{\}", ""),
                ("qmp-shell", "qmp/qmp-shell", "SOCKET", "prelaunch", "query-status\n"),
                ("qmp-shell hmp", "qmp/qmp-shell", "-H SOCKET", "VM status: paused", "info status\n"),
                ("cpu-x86-uarch-abi", "cpu-x86-uarch-abi.py", "SOCKET", "Skylake-Server", ""),
            )
        ],
        Script(
            source,
            "render_block_graph",
            "scripts/render_block_graph.py",
            ("SOCKET", "RESULTS/graph"),
            r'label="disk \[raw\]"',
            on_monitor=True,
            machine=(
                *("-blockdev", "file,node-name=store,read-only=on,filename=TREE/VERSION"),
                *("-blockdev", "raw,node-name=disk,read-only=on,file=store"),
                *("-device", "virtio-blk-pci,drive=disk"),
            ),
            draws=True,
        ),
        Script(
            source,
            "qmp-shell-wrap",
            "scripts/qmp/qmp-shell-wrap",
            ("timeout", "2", "QEMU", "-machine", "none", "-accel", "tcg", "-display", "none"),
            '"status": "running"',
            "query-status\n",
        ),
    ]
    for run in runs:
        if (source.folder / run.file).is_file():
            yield run


def block_job(source: Source, command: str) -> Script:
    """A block job from one empty image to another, with its seconds printed."""
    size = 64 << 20
    job = {"job-id": "job0", "device": "source", "target": "target", "sync": "full"}
    machine = ["QEMU"]
    for name in ("source", "target"):
        node = {"driver": "null-co", "read-zeroes": True, "size": size, "node-name": name}
        machine += ["-blockdev", json.dumps(node)]
    arguments = (command, json.dumps(job), *machine)
    return Script(source, command, "scripts/simplebench/bench_block_job.py", arguments, r"^\d+\.\d+")
