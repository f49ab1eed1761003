"""Records behave as frozen, slotted dataclasses do, and import no dataclasses."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from dataclasses import dataclass

import pytest

from wgnet.record import FrozenRecordError, field, record, replace


@record()
class Base:
    one: int
    two: str = "two"


@record()
class Derived(Base):
    three: tuple[int, ...] = field(default_factory=tuple)
    quiet: object = field(default=None, compare=False, repr=False)

    def doubled(self) -> int:
        return self.one * 2


@record(kw_only=False)
class Pair:
    left: int
    right: int = 0


@record(frozen=False, eq=False)
class Bag:
    items: list[int] = field(default_factory=list)
    total: int = field(init=False)

    def __post_init__(self) -> None:
        self.total = sum(self.items)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    one: int
    two: str = "two"


def test_fields_and_defaults_are_those_of_a_dataclass() -> None:
    assert (Base(one=1).one, Base(one=1).two) == (Model(one=1).one, Model(one=1).two)
    assert repr(Base(one=1)) == repr(Model(one=1)).replace("Model", "Base")


def test_a_derived_record_has_the_fields_of_both() -> None:
    derived = Derived(one=1, three=(3,))
    assert (derived.one, derived.two, derived.three, derived.doubled()) == (1, "two", (3,), 2)
    assert repr(derived) == "Derived(one=1, two='two', three=(3,))"


@pytest.mark.parametrize("wrong", [{}, {"one": 1, "four": 4}, {"two": "x"}])
def test_missing_and_unknown_fields_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(TypeError):
        Base(**wrong)  # type: ignore[arg-type]


def test_positions_are_refused_unless_allowed() -> None:
    with pytest.raises(TypeError):
        Base(1)  # type: ignore[misc]
    assert Pair(1).right == 0
    assert Pair(1, 2) == Pair(left=1, right=2)
    with pytest.raises(TypeError):
        Pair(1, left=1)  # type: ignore[misc]
    with pytest.raises(TypeError):
        Pair(1, 2, 3)  # type: ignore[call-arg]


def test_a_record_cannot_be_changed_nor_grow() -> None:
    with pytest.raises(FrozenRecordError):
        Base(one=1).one = 2  # type: ignore[misc]
    with pytest.raises(FrozenRecordError):
        del Base(one=1).one
    assert not hasattr(Base(one=1), "__dict__")


def test_equality_and_hash_go_by_the_compared_fields_and_the_class() -> None:
    assert Derived(one=1, quiet="a") == Derived(one=1, quiet="b")
    assert hash(Derived(one=1, quiet="a")) == hash(Derived(one=1, quiet="b"))
    assert Derived(one=1) != Derived(one=2)
    assert Base(one=1) != Derived(one=1)


def test_without_eq_each_is_itself_alone() -> None:
    assert Bag() != Bag()
    assert len({Bag(), Bag()}) == 2


def test_a_factory_makes_a_new_value_each_time_and_post_init_runs() -> None:
    one, two = Bag(), Bag(items=[1, 2])  # type: ignore[call-arg]
    assert one.items is not Bag().items
    assert (one.total, two.total) == (0, 3)
    one.total = 5
    assert one.total == 5


def test_an_inherited_post_init_runs_too() -> None:
    @record(frozen=False, eq=False)
    class Sack(Bag):
        name: str = ""

    assert Sack(items=[1, 2]).total == 3  # type: ignore[call-arg]


def test_replace_changes_some_fields_alone() -> None:
    assert replace(Base(one=1, two="x"), one=2) == Base(one=2, two="x")


def test_copies_and_pickles_are_equal() -> None:
    derived = Derived(one=1, three=(3,))
    assert copy.copy(derived) == derived
    assert copy.deepcopy(derived) == derived
    assert pickle.loads(pickle.dumps(derived)) == derived


def test_records_do_not_import_dataclasses() -> None:
    code = "import sys, wgnet.record; sys.exit('dataclasses' in sys.modules or 'inspect' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
