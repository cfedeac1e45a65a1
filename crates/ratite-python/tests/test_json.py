"""Messages as Python's values: the same that Python's own parser makes of them."""

import json
import math
import random

import pytest

from ratite._core import loads

PIECES = """{ } [ ] : , " \\ \\u d83d \\ude00 e E - + . 0 1 12 true false null NaN Infinity a é 😀 "a" "b": 01 1. .5 1e5 1e400 -0 0.1
    18446744073709551615 18446744073709551616 9223372036854775808 -9223372036854775809 \\n \\/ \\x "\\ud83d\\ude00" "\\ud83d" """


def told(parser, text):
    """What a parser makes of a text, types and order included."""
    try:
        return shown(parser(text))
    except (ValueError, RecursionError) as error:
        return type(error), str(error)


def shown(value):
    if isinstance(value, dict):
        return dict, [(name, shown(member)) for name, member in value.items()]
    if isinstance(value, list):
        return list, [shown(item) for item in value]
    return type(value), repr(value)


def any_value(random, depth):
    kind = random.random()
    if depth == 0 or kind < 0.4:
        words = [0, -1, True, None, 1.5, -0.0, 1e300, 2**63, 2**64, -(2**63), "", "é😀\n\"\\\x00\x7f", "x" * 50, random.random()]
        return random.choice(words)
    some = range(random.randint(0, 4))
    if kind < 0.7:
        return [any_value(random, depth - 1) for _ in some]
    return {random.choice(["a", "return", "é", "k" * 40, "\n", ""]): any_value(random, depth - 1) for _ in some}


@pytest.mark.parametrize(
    "text",
    [
        "",
        " {} ",
        '{"a": 1, "b": 2, "a": 3}',
        '{"return": {}, "id": 7}',
        '"\\ud800"',
        "[" * 100 + "]" * 100,
        "[" * 5000,
        "\ufeff{}",
        '"\ud800"',
        '"\x01"',
        "[1,]",
        "nul",
        "123456789" * 1000,
    ],
)
def test_a_text_is_read_as_python_reads_it(text):
    assert told(loads, text) == told(json.loads, text)


def test_any_value_comes_through():
    choices = random.Random(7)
    for _ in range(2000):
        value = any_value(choices, 5)
        for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
            assert told(loads, text) == told(json.loads, text), text


def test_wrong_texts_are_refused_as_python_refuses_them():
    choices, pieces = random.Random(7), [*PIECES.split(), " ", "\n", "\x01"]
    for _ in range(50_000):
        text = "".join(choices.choice(pieces) for _ in range(choices.randint(1, 9)))
        assert told(loads, text) == told(json.loads, text), text


def test_a_number_beyond_floats_is_what_python_makes_of_it():
    assert math.isinf(loads("1e400")) and loads("-0") == 0
