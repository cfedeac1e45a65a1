"""What can be imported, and that all of it is used and typed."""

import ast
import inspect
import re
import types
from pathlib import Path

import ratite
import ratite.aio
import ratite._errors

HERE = Path(__file__).parent
PACKAGE = Path(ratite.__file__).parent


def public(module):
    return {name for name, value in vars(module).items() if not name.startswith("_") and not isinstance(value, types.ModuleType)}


def test_all_is_what_can_be_imported():
    assert set(ratite.__all__) == public(ratite)
    assert ratite.__all__ == sorted(ratite.__all__) and ratite.aio.__all__ == sorted(ratite.aio.__all__)
    for name in ratite.aio.__all__:
        assert getattr(ratite.aio, name).__module__ == "ratite.aio"


def test_every_exception_is_exported_and_drawn_in_the_tree():
    defined = {name for name, value in vars(ratite._errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert defined == {name for name in ratite.__all__ if name in defined}
    assert defined == set(re.findall(r"^[│ ├└─]*(\w+)", ratite._errors.__doc__.split("\n\n")[1], re.MULTILINE))


def test_every_exception_is_met_by_a_test():
    tests = "".join(path.read_text() for path in HERE.glob("test_*.py"))
    defined = {name for name, value in vars(ratite._errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    # No address is given as one text in this API; those of the compatible one are tested there.
    met = {name for name in defined if re.search(rf"ratite\.{name}\b", tests)}
    assert defined - met <= {"AddressError"}


def test_everything_public_is_described():
    for name in ratite.__all__:
        thing = getattr(ratite, name)
        assert thing.__doc__, name
        for member, value in vars(thing).items() if isinstance(thing, type) else ():
            if not member.startswith("_") and (callable(value) or inspect.isdatadescriptor(value)):
                assert value.__doc__, f"{name}.{member}"


def test_the_package_is_typed():
    assert (PACKAGE / "py.typed").exists() and (PACKAGE / "_core.pyi").exists()
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                assert node.returns is not None, f"{path.name}: {node.name} says not what it returns"


def test_every_keyword_of_a_machine_is_described():
    keywords = set(inspect.signature(ratite.Machine).parameters) - {"binary", "args"}
    assert keywords == set(re.findall(r":param (\w+):", ratite.Machine.__doc__))
