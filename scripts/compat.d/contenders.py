"""Who is compared: QEMU's own `qemu.machine`, and the folder that takes its place.

Each contender gets a copy of QEMU's tests and scripts, byte for byte. In the drop-in's copy, the packages that the
drop-in brings are taken out of QEMU's `python/qemu`, and its folder stands first on PYTHONPATH: what is under test can
only come from there, even for tests that set their own search path.
"""

from __future__ import annotations

import os
import shutil
import site
from dataclasses import dataclass
from pathlib import Path

from cache import PROGRAMS, Prepared, Source
from words import call, refuse

COPIED = ("VERSION", "python", "scripts", "tests")


@dataclass(frozen=True)
class Contender:
    """A name for the tables, and the folders that take the place of QEMU's own packages."""

    name: str
    folders: tuple[Path, ...] = ()
    replaces: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tree:
    """One contender's copy of one source, with a folder that looks like the place where QEMU was built."""

    source: Source
    folder: Path
    build: Path
    environment: dict[str, str]

    def with_paths(self, *folders: str) -> dict[str, str]:
        """Returns the environment with more folders of the tree on PYTHONPATH."""
        more = [str(self.folder / folder) for folder in folders]
        return {**self.environment, "PYTHONPATH": os.pathsep.join([self.environment["PYTHONPATH"], *more])}


def original() -> Contender:
    """QEMU's own packages."""
    return Contender("original")


def drop_in(python: str, given: str | None, with_qmp: bool) -> Contender:
    """The drop-in in `given`, or where the package `ratite` of this Python says it is."""
    if given is None:
        asked = [python, "-m", "ratite.compat", *(["--with-qmp"] if with_qmp else [])]
        given = call(asked, limit=60).strip()
    folders = tuple(Path(part).resolve() for part in given.split(os.pathsep))
    replaces = ("machine", "qmp") if with_qmp else ("machine",)
    for folder in folders:
        if (folder / "qemu" / "__init__.py").exists():
            refuse(f"{folder / 'qemu'} has an `__init__.py`, and would hide QEMU's other packages")
    for package in replaces:
        if not any((folder / "qemu" / package).is_dir() for folder in folders):
            refuse(f"no `qemu/{package}` in `{given}`")
    if not with_qmp and any((folder / "qemu" / "qmp").exists() for folder in folders):
        refuse(f"`{given}` holds a `qemu/qmp` too: add `--with-qmp`, or give a folder without it")
    return Contender("drop-in", folders, replaces)


def plant(contender: Contender, source: Source, prepared: Prepared, work: Path, python: str) -> Tree:
    """Copies the source for one contender, and makes sure that its packages are the ones that are found."""
    folder = work / contender.name / f"qemu-{source.version}"
    for name in COPIED:
        if (source.folder / name).is_dir():
            shutil.copytree(source.folder / name, folder / name, symlinks=True)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source.folder / name, folder / name)
    for package in contender.replaces:
        take_away(folder / "python" / "qemu" / package, contender)

    path = [*map(str, contender.folders), str(folder / "python"), str(prepared.packages)]
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        # Found through the home folder otherwise, which is another one for tests.
        "PYTHONUSERBASE": site.getuserbase(),
        "LANG": "C.UTF-8",
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONFAULTHANDLER": "1",
    }
    if prepared.modules is not None:
        environment["QEMU_MODULE_DIR"] = str(prepared.modules)
    tree = Tree(source, folder, build_folder(folder), environment)
    check_imports(tree, contender, python)
    return tree


def take_away(package: Path, contender: Contender) -> None:
    """Removes a package of QEMU's, but for the modules that the contender leaves to it."""
    homes = [folder / "qemu" / package.name for folder in contender.folders]
    for module in package.iterdir():
        if module.name == "__init__.py" or any((home / module.name).exists() for home in homes):
            shutil.rmtree(module) if module.is_dir() else module.unlink()


def build_folder(folder: Path) -> Path:
    """Makes a folder that looks like the one QEMU was built in, with links to the installed programs."""
    build = folder.with_name(folder.name + "-build")
    (build / "storage-daemon").mkdir(parents=True)
    for program in PROGRAMS:
        place = build / "storage-daemon" if program == "qemu-storage-daemon" else build
        (place / program).symlink_to(str(shutil.which(program)))
    iotests = build / "tests" / "qemu-iotests"
    iotests.mkdir(parents=True)
    # `check` finds the tests through this link, and the build through its own path.
    (iotests / "check").symlink_to(folder / "tests" / "qemu-iotests" / "check")
    return build


def check_imports(tree: Tree, contender: Contender, python: str) -> None:
    """Refuses a tree in which a package is not found where this contender's must lie."""
    asked = (
        "import qemu.machine, qemu.qmp, qemu.utils; "
        "print(*(package.__file__ for package in (qemu.machine, qemu.qmp, qemu.utils)), sep='\\n')"
    )
    found = call([python, "-c", asked], env=tree.environment, cwd=tree.build, limit=60).splitlines()
    for package, file in zip(("machine", "qmp", "utils"), found):
        homes = contender.folders if package in contender.replaces else (tree.folder / "python",)
        if not any(home.resolve() in Path(file).resolve().parents for home in homes):
            refuse(f"`qemu.{package}` of the {contender.name} is found at `{file}`")
