"""The list of what the quick run samples names tests that exist."""
import pathlib
import re

import quick

TESTS = pathlib.Path(__file__).resolve().parents[1]


def is_there(name):
    place, function = name.split("::")
    suite, module = place.split(".")
    file = TESTS / suite / f"{module}.py"
    return file.exists() and re.search(rf"^def {function}\(", file.read_text(), re.MULTILINE)


def test_every_sampled_test_exists():
    assert [name for name in quick.SAMPLES if not is_there(name)] == []
    assert [name for name in quick.MODULES
            if not (TESTS / (name.replace(".", "/") + ".py")).exists()] == []
