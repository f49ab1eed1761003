"""Words that messages of several stages share. Input: names, or what the system said. Output: a part of a message."""

from __future__ import annotations

from collections.abc import Iterable

#: How many names a message tells before it counts the rest.
MAX_NAMED = 8


def quote_names(names: Iterable[str]) -> str:
    """Return names in quotes: `'a', 'b' and 'c'`; of many the first, and how many more there are."""
    quoted = [f"'{name}'" for name in names]
    if len(quoted) > MAX_NAMED:
        return f"{', '.join(quoted[:MAX_NAMED])} and {len(quoted) - MAX_NAMED:,} more"
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]]) if len(quoted) > 1 else "".join(quoted)


def system_reason(error: OSError) -> str:
    """Return why a system call failed, in the system's words (strerror(3)), as the end of a message."""
    words = error.strerror or "unknown error"
    return words[:1].lower() + words[1:]
