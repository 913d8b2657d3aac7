"""Classes of the quick decorator do what those of the standard library do."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys
from dataclasses import field
from typing import Any, ClassVar

import pytest

from hermes_flow.program.quick_dataclass import dataclass as quick


def _classes(dataclass: Any) -> dict[str, Any]:
    """Return the same classes, decorated by ``dataclass``."""

    @dataclass(frozen=True, slots=True)
    class Point:
        """A point."""

        x: int
        y: float = 1.5
        names: dict[str, int] = field(default_factory=dict)
        hidden: int = field(default=3, repr=False, compare=False)
        kind: ClassVar[str] = "point"

    @dataclass(frozen=True, slots=True)
    class One:
        value: object

    @dataclass(frozen=True, slots=True)
    class Nothing:
        """Nothing."""

    @dataclass(slots=True)
    class Open:
        """It may be changed, and one key has to be named."""

        after: int = field(default=1, kw_only=True)
        first: int = 2
        double: int = field(init=False, default=0)
        made: list[int] = field(init=False, default_factory=list)

        def __post_init__(self) -> None:
            self.double = 2 * self.first

    @dataclass(frozen=True, slots=True)
    class Own:
        """It says itself how it is shown and compared."""

        x: int

        def __repr__(self) -> str:
            return "own"

        def __hash__(self) -> int:
            return 7

    @dataclass(frozen=True, slots=True)
    class Below(One):
        """It adds to another."""

        more: int = 2

    return {each.__name__: each for each in (Point, One, Nothing, Open, Own, Below)}


QUICK, STANDARD = _classes(quick), _classes(dataclasses.dataclass)
OBJECTS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("Point", (1,), {}),
    ("Point", (1, 2.0), {"names": {"a": 1}, "hidden": 4}),
    ("One", ("text",), {}),
    ("One", ((1, 2),), {}),
    ("Nothing", (), {}),
    ("Open", (), {}),
    ("Open", (5,), {"after": 6}),
    ("Own", (1,), {}),
    ("Below", (1,), {"more": 3}),
]


@pytest.mark.parametrize(("name", "args", "keys"), OBJECTS)
def test_objects_look_compare_and_copy_as_those_of_the_standard_library(
    name: str, args: tuple[Any, ...], keys: dict[str, Any]
) -> None:
    mine, theirs = QUICK[name](*args, **keys), STANDARD[name](*args, **keys)
    assert repr(mine) == repr(theirs)
    assert dataclasses.asdict(mine) == dataclasses.asdict(theirs)
    assert mine == QUICK[name](*args, **keys)
    assert mine != theirs
    assert copy.copy(mine) == copy.deepcopy(mine) == mine


@pytest.mark.parametrize(
    ("name", "args", "keys"), [each for each in OBJECTS if each[0] not in ("Point", "Open")]
)
def test_frozen_objects_have_the_hashes_of_the_standard_library(
    name: str, args: tuple[Any, ...], keys: dict[str, Any]
) -> None:
    assert hash(QUICK[name](*args, **keys)) == hash(STANDARD[name](*args, **keys))
    assert dataclasses.replace(QUICK[name](*args, **keys)) == QUICK[name](*args, **keys)


@pytest.mark.parametrize("name", QUICK)
def test_classes_have_the_fields_slots_and_options_of_the_standard_library(name: str) -> None:
    mine, theirs = QUICK[name], STANDARD[name]
    assert [(each.name, each.type, each.init, each.kw_only) for each in dataclasses.fields(mine)] == [
        (each.name, each.type, each.init, each.kw_only) for each in dataclasses.fields(theirs)
    ]
    assert mine.__slots__ == theirs.__slots__
    assert mine.__match_args__ == theirs.__match_args__
    assert repr(mine.__dataclass_params__) == repr(theirs.__dataclass_params__)
    assert not hasattr(object.__new__(mine), "__dict__")


@pytest.mark.parametrize("classes", [QUICK, STANDARD])
def test_what_is_wrong_is_refused(classes: dict[str, Any]) -> None:
    point = classes["Point"](1)
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'x'"):
        point.x = 2
    with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):
        point.z = 2  # Python 3.11 says that an object is no instance of its class
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'x'"):
        del point.x
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        classes["Point"]()
    with pytest.raises(TypeError, match="unexpected keyword argument 'other'"):
        classes["Point"](1, other=2)
    with pytest.raises(TypeError, match="takes from 1 to 2 positional arguments but 3 were given"):
        classes["Open"](1, 2)
    with pytest.raises(AttributeError):
        classes["Open"]().unknown = 1
    with pytest.raises(TypeError, match="unhashable"):
        hash(classes["Open"]())


@quick(frozen=True, slots=True)
class Sent:
    """An object that goes to another process."""

    number: int
    text: str = "a"


def test_objects_can_be_pickled() -> None:
    assert pickle.loads(pickle.dumps(Sent(3))) == Sent(3, "a")


def test_every_default_is_made_anew() -> None:
    first, second = QUICK["Point"](1), QUICK["Point"](1)
    first.names["a"] = 1
    assert second.names == {}


def test_what_a_run_imports_has_hardly_a_class_of_the_standard_decorator() -> None:
    program = (
        "import dataclasses, polars, hydra\n"
        "standard, found = dataclasses.dataclass, []\n"
        "def decorator(cls=None, /, init=True, **options):\n"
        "    def made(cls):\n"
        "        if init and cls.__module__.startswith('hermes_flow'):\n"
        "            found.append(cls.__name__)\n"
        "        return standard(cls, init=init, **options)\n"
        "    return made if cls is None else made(cls)\n"
        "dataclasses.dataclass = decorator\n"
        "import hermes_flow as hf\n"
        "hf.simulate(hf.compile(hf.compose(['workload=synthetic', 'workload.requests=2']))).summary\n"
        "print(len(found), *found)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    count, *names = done.stdout.split()
    assert int(count) <= 20, names
