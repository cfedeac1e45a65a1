"""Runs one test, ends it at its deadline, and looks for what it left behind.

Every test runs in a session of its own, with folders of its own, and with a mark in its environment: whatever process
still carries the mark a second after the test's end was left behind.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MARK = "RATITE_COMPAT_MARK"
# A test that has ended has this long to have ended its processes too.
GRACE_SECONDS = 1.0
# Where QEMU's package puts its folders unless it is told otherwise, and what is looked for there.
SHARED_FOLDERS = (Path("/var/tmp"), Path("/dev/shm"))
SHARED_NAMES = ("qemu*", "ratite*")
# What the tests' own runners leave: avocado works in TMPDIR, and `check` writes down what differs or did not run.
OWN_NAMES = (".avocado",)
OWN_SUFFIXES = (".bad", ".notrun", ".casenotrun")


@dataclass(frozen=True)
class Folders:
    """The folders of one run of one test; their paths are short, since sockets lie there."""

    root: Path

    @property
    def images(self) -> Path:
        """For what a test keeps on disk."""
        return self.root / "t"

    @property
    def sockets(self) -> Path:
        """For sockets."""
        return self.root / "s"

    @property
    def temporary(self) -> Path:
        """What TMPDIR names."""
        return self.root / "tmp"

    @property
    def shared(self) -> Path:
        """What stands in for /var/tmp where that can be done."""
        return self.root / "v"

    @property
    def results(self) -> Path:
        """For what the test's own runner writes; not counted as left behind."""
        return self.root / "r"


@dataclass(frozen=True)
class Finished:
    """What one run did."""

    # None at the deadline.
    status: int | None
    seconds: float
    output: str
    left_processes: tuple[str, ...]
    left_files: tuple[str, ...]


class Runner:
    """Runs tests below `work`."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.isolates = can_isolate(work)
        self.running: set[subprocess.Popen[bytes]] = set()
        self.stopped = False

    def folders(self) -> Folders:
        """Makes the folders for one run."""
        folders = Folders(Path(tempfile.mkdtemp(prefix="", dir=self.work)))
        for folder in (folders.images, folders.sockets, folders.temporary, folders.shared, folders.results):
            folder.mkdir()
        return folders

    def run(
        self,
        argv: Sequence[str],
        cwd: Path,
        environment: Mapping[str, str],
        folders: Folders,
        deadline: float,
        typed: str = "",
    ) -> Finished:
        """Runs one command to its end or to its deadline, in seconds; nothing it started is running afterwards.

        It reads `typed` from its standard input.
        """
        mark = uuid.uuid4().hex
        # Some tests write to the home folder.
        full = {**environment, MARK: mark, "TMPDIR": str(folders.temporary), "HOME": str(folders.results)}
        before = set(shared_files())
        log = folders.root / "log"
        script = folders.root / "typed"
        script.write_text(typed, encoding="utf-8")
        began = time.monotonic()
        with log.open("wb") as output, script.open("rb") as stdin:
            process = subprocess.Popen(
                self.isolated(argv, folders),
                cwd=cwd,
                env=full,
                stdin=stdin,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self.running.add(process)
            try:
                status: int | None = process.wait(0 if self.stopped else deadline)
            except subprocess.TimeoutExpired:
                status = None
                end_group(process)
            finally:
                self.running.discard(process)
        seconds = time.monotonic() - began
        left = () if status is None else left_processes(mark)
        end_marked(mark)
        text = log.read_text(encoding="utf-8", errors="replace")
        log.unlink()
        return Finished(status, seconds, text, left, self.left_files(folders, before))

    def stop(self) -> None:
        """Ends the tests that run, and those that are about to: the user does not want to wait for them."""
        self.stopped = True
        for process in list(self.running):
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def isolated(self, argv: Sequence[str], folders: Folders) -> list[str]:
        """Gives the command a /var/tmp of its own where that is allowed, so that what appears there is its own."""
        if not self.isolates:
            return list(argv)
        return isolating(folders.shared, argv)

    def left_files(self, folders: Folders, before: set[Path]) -> tuple[str, ...]:
        """Lists what lies in the folders of the run, and what is new where everybody may write."""
        found = [
            str(path.relative_to(folders.root))
            for folder in (folders.images, folders.sockets, folders.temporary, folders.shared)
            for path in sorted(folder.rglob("*"))
            if not any(part.startswith(OWN_NAMES) for part in path.parts)
            and path.suffix not in OWN_SUFFIXES
            and (not path.is_dir() or path.is_symlink() or path.name.startswith(("qemu-machine-", "ratite")))
        ]
        if not self.isolates:
            found += [str(path) for path in shared_files() if path not in before]
        return tuple(found)


def can_isolate(work: Path) -> bool:
    """Tells whether this user may give a process a /var/tmp of its own."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    return subprocess.run(isolating(work, ["true"]), capture_output=True, check=False).returncode == 0


def isolating(shared: Path, argv: Sequence[str]) -> list[str]:
    """Returns the command that runs `argv` with `shared` in the place of /var/tmp."""
    script = 'mount --bind "$0" /var/tmp && exec "$@"'
    return ["unshare", "--mount", "--propagation=private", "sh", "-c", script, str(shared), *argv]


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Ends a test at its deadline: first so that Python prints where it was waiting, then at once."""
    for sign in (signal.SIGABRT, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            pass
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def left_processes(mark: str) -> tuple[str, ...]:
    """Names the processes of a test that outlive it by more than the grace."""
    until = time.monotonic() + GRACE_SECONDS
    while True:
        names = tuple(name for _, name in marked(mark))
        if not names or time.monotonic() > until:
            return names
        # There is no event for the end of somebody else's children.
        time.sleep(0.05)


def end_marked(mark: str) -> None:
    """Kills every process that carries the mark, until there is none."""
    for _ in range(100):
        found = list(marked(mark))
        if not found:
            return
        for pid, _ in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.05)


def marked(mark: str) -> Iterator[tuple[int, str]]:
    """Yields number and name of the living processes whose environment holds the mark."""
    wanted = f"{MARK}={mark}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # A process that has ended and waits to be reaped has no environment any more.
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                yield int(entry.name), (entry / "comm").read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            continue


def shared_files() -> Iterator[Path]:
    """Yields what QEMU's packages and ratite may have left where everybody may write."""
    for folder in SHARED_FOLDERS:
        for pattern in SHARED_NAMES:
            yield from folder.glob(pattern)
