"""Records: slotted classes of annotated fields, frozen as a rule, without what `dataclasses` costs at start-up.

A program that checks a small file starts more often than it runs long. `dataclasses` imports `inspect`, which takes
longer than a bare interpreter to start, and compiles every class's methods from text: about 0.5 ms a class. A record's
methods are closures: less than 0.1 ms. To type checkers the two are the same.

Beside what `dataclasses` has, there is no ordering, no `match`, no `ClassVar`, and no refusal of a mutable default. The
class is made anew for its slots, so `super()` without arguments does not work in it.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers read it as true; importing typing's own is felt at every start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar, dataclass_transform

    _T = TypeVar("_T")
else:

    def dataclass_transform(**_):
        """Do nothing: type checkers alone read it."""
        return lambda function: function


_set = object.__setattr__
_MISSING: Any = object()


class FrozenRecordError(AttributeError):
    """Somebody tried to change a record."""


class _Field:
    """How a field differs from a plain one."""

    __slots__ = ("compare", "default", "factory", "init", "shown")

    def __init__(self, default: Any, factory: Callable[[], Any] | None, compare: bool, shown: bool, init: bool) -> None:
        self.default = default
        self.factory = factory
        self.compare = compare
        self.shown = shown
        self.init = init


def field(
    *,
    default: Any = _MISSING,
    default_factory: Callable[[], Any] | None = None,
    compare: bool = True,
    repr: bool = True,  # noqa: A002 - as in dataclasses
    init: bool = True,
) -> Any:
    """Describe a field: its default or what makes it; whether it is compared, shown, and set by the caller."""
    return _Field(default, default_factory, compare, repr, init)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def record(*, frozen: bool = True, kw_only: bool = True, eq: bool = True) -> Callable[[type[_T]], type[_T]]:
    """Return a decorator that makes a class a record of its annotated fields, those of a record that it extends first.

    With `eq` two records of one class are equal when their fields are, and hash alike; else each is itself alone.
    `__post_init__` is called where the class or one that it extends has it. With `frozen` a change raises
    `FrozenRecordError`, with `kw_only` fields are given by name alone; what is given wrong raises `TypeError`.
    """

    def decorate(plain: type[_T]) -> type[_T]:
        inherited: dict[str, _Field] = dict(getattr(plain, "__record_fields__", {}))
        own: dict[str, _Field] = {}
        namespace = dict(plain.__dict__)
        for name in plain.__annotations__:  # its own alone, since Python 3.10
            given = namespace.pop(name, _MISSING)
            own[name] = given if isinstance(given, _Field) else _Field(given, None, True, True, True)
        fields = {**inherited, **own}
        for name in ("__dict__", "__weakref__"):
            namespace.pop(name, None)
        namespace["__slots__"] = tuple(name for name in own if name not in inherited)
        namespace["__record_fields__"] = fields
        methods = _methods(fields, frozen=frozen, kw_only=kw_only, eq=eq, after=hasattr(plain, "__post_init__"))
        for name, method in methods.items():
            namespace.setdefault(name, method)
        metaclass: Any = type(plain)
        made: type[_T] = metaclass(plain.__name__, plain.__bases__, namespace)
        made.__qualname__ = plain.__qualname__
        return made

    return decorate


def replace(one: _T, /, **changes: Any) -> _T:
    """Return a record like `one` but for some fields."""
    made: Any = type(one)
    values = {name: getattr(one, name) for name, how in made.__record_fields__.items() if how.init}
    result: _T = made(**values | changes)
    return result


def _rebuild(made: type[_T], values: dict[str, Any]) -> _T:
    """Return the record that was copied or pickled."""
    one = made.__new__(made)
    for name, value in values.items():
        _set(one, name, value)
    return one


def _methods(fields: dict[str, _Field], *, frozen: bool, kw_only: bool, eq: bool, after: bool) -> dict[str, Any]:
    """Return the methods of a record with these fields."""
    names = tuple(name for name, one in fields.items() if one.init)
    allowed = frozenset(names)
    count = len(names)
    defaults = tuple((name, fields[name].default) for name in names if fields[name].default is not _MISSING)
    factories = tuple((name, factory) for name in names if (factory := fields[name].factory) is not None)
    required = allowed.difference(name for name, _ in (*defaults, *factories))
    compared = tuple(name for name, one in fields.items() if one.compare)
    shown = tuple(name for name, one in fields.items() if one.shown)

    def __init__(self: Any, *positional: Any, **values: Any) -> None:  # noqa: N807
        if positional:
            if kw_only or len(positional) > len(names):
                raise TypeError(f"{type(self).__name__} takes its fields by name")
            for name, value in zip(names, positional, strict=False):
                if name in values:
                    raise TypeError(f"{type(self).__name__} is given the field '{name}' twice")
                values[name] = value
        given = values.keys()
        if not given <= allowed:
            raise TypeError(f"{type(self).__name__} has no field '{min(given - allowed)}'")
        if not given >= required:
            raise TypeError(f"{type(self).__name__} needs the field '{min(required - given)}'")
        for name, value in values.items():
            _set(self, name, value)
        if len(values) < count:
            for name, value in defaults:
                if name not in values:
                    _set(self, name, value)
            for name, factory in factories:
                if name not in values:
                    _set(self, name, factory())
        if after:
            self.__post_init__()

    def __setattr__(self: Any, name: str, value: Any) -> None:  # noqa: N807, ARG001
        raise FrozenRecordError(f"cannot set '{name}' of a {type(self).__name__}")

    def __delattr__(self: Any, name: str) -> None:  # noqa: N807
        raise FrozenRecordError(f"cannot delete '{name}' of a {type(self).__name__}")

    def __repr__(self: Any) -> str:  # noqa: N807
        return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    def __eq__(self: Any, other: object) -> Any:  # noqa: N807
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in compared)

    def __hash__(self: Any) -> int:  # noqa: N807
        return hash(tuple(getattr(self, name) for name in compared))

    def __reduce__(self: Any) -> Any:  # noqa: N807
        return _rebuild, (type(self), {name: getattr(self, name) for name in fields})

    methods: dict[str, Any] = {"__init__": __init__, "__repr__": __repr__, "__reduce__": __reduce__}
    if frozen:
        methods |= {"__setattr__": __setattr__, "__delattr__": __delattr__}
    if eq:
        methods["__eq__"] = __eq__
        methods["__hash__"] = __hash__ if frozen else None
    return methods
