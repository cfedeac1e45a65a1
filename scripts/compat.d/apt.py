"""QEMU's source as the distribution ships it, through an apt of our own.

Reads the system's list of sources and nothing else of its configuration; lists, caches and downloads lie in the folder
of this program, so that the system's apt stays as it was. apt checks every file against the distribution's signature.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from words import call, refuse, say

# The release whose QEMU already has tests/functional, for systems that are older.
NEWER_SUITES = {"bookworm": "trixie"}
NEEDED = ("apt-get", "apt-cache", "dpkg-deb", "dpkg-source")


@dataclass(frozen=True)
class Entry:
    """One archive, as the system's own list names it."""

    uri: str
    suite: str
    components: str
    signed_by: str
    types: str = "deb deb-src"

    def render(self) -> str:
        """Returns the entry in the format of `sources.list.d/*.sources`."""
        lines = [f"Types: {self.types}", f"URIs: {self.uri}", f"Suites: {self.suite}", f"Components: {self.components}"]
        if self.signed_by:
            lines.append(f"Signed-By: {self.signed_by}")
        return "\n".join(lines) + "\n"


class Apt:
    """An apt whose lists and downloads lie in `folder`."""

    def __init__(self, folder: Path) -> None:
        missing = [program for program in NEEDED if shutil.which(program) is None]
        if missing:
            refuse(
                f"{', '.join(f'`{name}`' for name in missing)} missing: QEMU's source comes from the packages of "
                "Debian and its relatives (`apt-get install dpkg-dev` brings what unpacks it); on other systems, give "
                "the folder of an unpacked QEMU with `--source DIR`"
            )
        self.folder = folder
        self.sources = folder / "compat.sources"

    def update(self) -> None:
        """Fetches the lists of the system's own release, and of the newer one where there is one."""
        for name in ("lists/partial", "cache/archives/partial", "no-parts"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.sources.write_text("\n".join(entry.render() for entry in wanted_entries()), encoding="utf-8")
        say("fetching the package lists")
        self.run("apt-get", "update")

    def unpack_source(self, version: str, into: Path) -> Path:
        """Downloads, verifies and unpacks QEMU's source, of one version or of the newest ('')."""
        into.mkdir(parents=True)
        wanted = f"qemu={version}" if version else "qemu"
        say(f"fetching the source package `{wanted}`")
        self.run("apt-get", "source", "--only-source", wanted, cwd=into)
        folders = [path for path in into.iterdir() if path.is_dir()]
        if len(folders) != 1:
            refuse(f"`apt-get source {wanted}` left {len(folders)} folders instead of one")
        return folders[0]

    def unpack_package(self, package: str, into: Path) -> None:
        """Downloads a binary package and unpacks it into a folder; nothing is installed."""
        downloads = into.with_name(into.name + ".download")
        downloads.mkdir(parents=True, exist_ok=True)
        self.run("apt-get", "download", package, cwd=downloads)
        for archive in downloads.glob("*.deb"):
            call(["dpkg-deb", "-x", str(archive), str(into)])
        shutil.rmtree(downloads)

    def unpack_with_libraries(self, package: str, into: Path) -> None:
        """Does the same with a package and with all that it depends on and that is not installed."""
        downloads = into.with_name(into.name + ".download")
        (downloads / "partial").mkdir(parents=True)
        # The system's lock is for those who change it.
        options = [f"-o=Dir::Cache::Archives={downloads}", "-o=Debug::NoLocking=true", "--no-install-recommends"]
        self.run("apt-get", *options, "--yes", "--download-only", "install", package)
        for archive in downloads.glob("*.deb"):
            call(["dpkg-deb", "-x", str(archive), str(into)])
        shutil.rmtree(downloads)

    def has_source(self, version: str) -> bool:
        """Tells whether the archives offer the source of this version."""
        shown = self.run("apt-cache", "showsrc", "--only-source", "qemu")
        return f"\nVersion: {version}\n" in shown

    def run(self, *argv: str, cwd: Path | None = None) -> str:
        """Runs a program of apt with the private configuration."""
        options = [
            f"-o=Dir::Etc::SourceList={self.sources}",
            f"-o=Dir::Etc::SourceParts={self.folder / 'no-parts'}",
            f"-o=Dir::State::Lists={self.folder / 'lists'}",
            f"-o=Dir::Cache={self.folder / 'cache'}",
            # The downloads lie in a folder of the user, where apt's own user may not look.
            f"-o=APT::Sandbox::User={'root' if os.geteuid() == 0 else ''}",
        ]
        return call([argv[0], "--quiet=2", *options, *argv[1:]], cwd=cwd)


def wanted_entries() -> list[Entry]:
    """Returns the system's entries for its own release, and the same archives' newer release."""
    codename = os_release().get("VERSION_CODENAME", "")
    entries = list(system_entries())
    # Archives of others are left out: they hold no QEMU, and may need keys or agreements of their own.
    own = [entry for entry in entries if codename and entry.suite.split("-")[0] == codename] or entries
    newer = NEWER_SUITES.get(codename)
    if newer:
        for entry in own[:]:
            # Its sources only: its packages are not for this system.
            suite = entry.suite.replace(codename, newer, 1)
            own.append(Entry(entry.uri, suite, entry.components, entry.signed_by, types="deb-src"))
    if not own:
        refuse("this system's apt has no sources")
    return own


def os_release() -> Mapping[str, str]:
    """Returns what the system says of itself."""
    found: dict[str, str] = {}
    for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition("=")
        found[key] = value.strip().strip('"')
    return found


def system_entries() -> Iterator[Entry]:
    """Reads both formats of apt's lists, for packages and for sources alike."""
    folder = Path("/etc/apt")
    for path in [folder / "sources.list", *sorted(folder.glob("sources.list.d/*.list"))]:
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                yield from one_line_entry(line)
    for path in sorted(folder.glob("sources.list.d/*.sources")):
        for stanza in path.read_text(encoding="utf-8").split("\n\n"):
            yield from stanza_entries(stanza)


def one_line_entry(line: str) -> Iterator[Entry]:
    """Reads `deb [options] URI SUITE COMPONENT...`."""
    line = line.split("#", 1)[0].strip()
    if not line.startswith(("deb ", "deb\t", "deb[")):
        return
    rest = line[3:].strip()
    signed_by = ""
    if rest.startswith("["):
        options, _, rest = rest[1:].partition("]")
        signed_by = next((o[len("signed-by=") :] for o in options.split() if o.startswith("signed-by=")), "")
    words = rest.split()
    if len(words) >= 3:
        yield Entry(words[0], words[1], " ".join(words[2:]), signed_by)


def stanza_entries(stanza: str) -> Iterator[Entry]:
    """Reads one paragraph of `Key: values` lines."""
    fields: dict[str, str] = {}
    key = ""
    for line in stanza.splitlines():
        if line.startswith("#"):
            continue
        if line[:1].isspace():
            # A folded value, such as a key that is written out: apt wants its lines as they were.
            fields[key] = fields.get(key, "") + "\n" + line
            continue
        key, _, value = line.partition(":")
        key = key.strip().lower()
        fields[key] = value.strip()
    if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes") == "no":
        return
    for uri in fields.get("uris", "").split():
        for suite in fields.get("suites", "").split():
            yield Entry(uri, suite, " ".join(fields.get("components", "").split()), fields.get("signed-by", ""))
