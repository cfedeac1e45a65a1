"""Every example of the documentation is run."""

import os
import re

import pytest

from conftest import REPOSITORY


def examples():
    for path in ("docs/guide/python.md", "README.md"):
        text = (REPOSITORY / path).read_text()
        for found in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            line = text[: found.start()].count("\n") + 1
            yield pytest.param(found.group(1), id=f"{os.path.basename(path)}:{line}")


@pytest.mark.parametrize("example", list(examples()))
def test_an_example_does_what_it_says(example, pytester, monkeypatch):
    if "def test_" in example:
        module = pytester.makepyfile(example)
        (pytester.path / "crates").symlink_to(REPOSITORY / "crates")
        runs = example.count("def test_") + len(re.findall(r'parametrize\("\w+", \["\w+", "\w+"\]\)', example))
        pytester.runpytest_inprocess("--qemu-accel=tcg", module).assert_outcomes(passed=runs)
    else:
        # They name files by their place in the repository.
        monkeypatch.chdir(REPOSITORY)
        exec(compile(example, "example", "exec"), {"__name__": "example"})


def test_there_are_examples():
    assert len(list(examples())) >= 9


def test_the_defaults_are_those_of_the_code():
    import inspect

    import ratite

    said = (REPOSITORY / "docs/guide/python.md").read_text()
    defaults = {name: each.default for name, each in inspect.signature(ratite.Machine).parameters.items()}
    assert (defaults["connect_timeout"], defaults["console_timeout"]) == (30.0, 30.0)
    assert (defaults["command_timeout"], defaults["kill_timeout"], defaults["grace"]) == (60.0, 60.0, 30.0)
    for row in ("| `connect_timeout`, `console_timeout` | 30 s |", "| `command_timeout`, `kill_timeout` | 60 s |", "| 30 s |"):
        assert row in said
    assert f"| `binary` | `{defaults['binary']}` |" in said and f"| `base_folder` | `{defaults['base_folder']}` |" in said
    waits = (ratite.Machine.event_wait, ratite.Console.expect, ratite.Console.read, ratite.Listener.next)
    assert {inspect.signature(wait).parameters["timeout"].default for wait in waits} == {60.0}
