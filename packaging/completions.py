"""Completions of the command line for bash, zsh and fish, made from the very parser: `completions.py SHELL`.

Input: the parser's commands, options, choices and the names of values (FILE, DIR). Output: one shell's script, on
standard output. It needs nothing but wgnet's own parser, runs when a package is built, and reads no topology: what
needs a run of wgnet (names of hosts) is not completed, since the shell would wait for it.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wgnet.cli.parser import build_parser
from wgnet.diagnostics.codes import CODES

#: Kinds of values besides lists of words.
TOPOLOGY, FILE, FOLDER, OTHER = "topology", "file", "folder", "other"

#: What the name of a value does not tell, by the option's or operand's own name.
_WORDS = {
    "code": tuple(CODES),
    "step": ("prepare", "switch", "finish"),
}
_KINDS = {"passphrase_file": FILE, "old": TOPOLOGY, "new": TOPOLOGY}

Kind = str | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Value:
    """An operand, or what an option takes; `optional` where the option goes without, `many` where any number goes."""

    name: str
    kind: Kind
    optional: bool = False
    many: bool = False


@dataclass(frozen=True, slots=True)
class Option:
    flags: tuple[str, ...]
    summary: str
    value: Value | None
    repeats: bool


@dataclass(frozen=True, slots=True)
class Command:
    """A command by its words; the first one, with no words, is the program. `below` are its own commands."""

    words: tuple[str, ...]
    summary: str
    options: tuple[Option, ...]
    operands: tuple[Value, ...]
    below: tuple[tuple[str, str], ...]


def read_commands(parser: argparse.ArgumentParser, words: tuple[str, ...] = (), summary: str = "") -> Iterator[Command]:
    """Yield the parser's command, and those below it."""
    options = []
    operands = []
    below: dict[str, argparse.ArgumentParser] = {}
    summaries: dict[str, str] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            below = dict(action.choices)
            summaries = {each.dest: each.help or "" for each in action._choices_actions}
        elif action.help == argparse.SUPPRESS:
            continue
        elif action.option_strings:
            options.append(_option(action))
        else:
            operands.append(_value(action))
    yield Command(words, summary, tuple(options), tuple(operands), tuple((name, summaries[name]) for name in below))
    for name, subparser in below.items():
        yield from read_commands(subparser, (*words, name), summaries[name])


def _option(action: argparse.Action) -> Option:
    repeats = isinstance(action, argparse._AppendAction)
    summary = "show this help" if isinstance(action, argparse._HelpAction) else (action.help or "")
    if isinstance(action, argparse._VersionAction):
        summary = "show the version"
    return Option(tuple(action.option_strings), summary, None if action.nargs == 0 else _value(action), repeats)


def _value(action: argparse.Action) -> Value:
    name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    return Value(name, _kind(action, name), action.nargs == "?", action.nargs in ("*", "+"))


def _kind(action: argparse.Action, name: str) -> Kind:
    if action.choices is not None:
        return tuple(str(each) for each in action.choices)
    if action.dest in _WORDS:
        return _WORDS[action.dest]
    if action.dest in _KINDS:
        return _KINDS[action.dest]
    if name == "FILE":
        return TOPOLOGY
    if name.startswith("FILE"):
        return FILE
    return FOLDER if name == "DIR" else OTHER


# --- bash ---


_BASH = r"""# bash completion for wgnet, made from its parser

_wgnet_reply() {
    case $1 in
        topology)
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -f -X '!*.yaml' -- "$2"; compgen -d -- "$2")
            ;;
        file)
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -f -- "$2")
            ;;
        folder)
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -d -- "$2")
            ;;
        words)
            mapfile -t COMPREPLY < <(compgen -W "$3" -- "$2")
            ;;
    esac
}

_wgnet() {
    local cur=${COMP_WORDS[COMP_CWORD]} path='' pending='' last='' word i operands=0 literal=''
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        # The `=` of `--option=value` is a word of its own here.
        if [[ $word == = && $last == --* ]]; then pending=$last; continue; fi
        last=$word
        if [[ -n $pending ]]; then pending=; last=; continue; fi
        if [[ -z $literal && $word == -- ]]; then literal=yes; continue; fi
        if [[ -z $literal && $word == -?* ]]; then
            case "$path|$word" in
                @TAKERS@) pending=$word ;;
            esac
            continue
        fi
        case "$path|$word" in
            @PATHS@) path=${path:+$path }$word ;;
            *) operands=$((operands + 1)) ;;
        esac
    done
    if [[ $cur == = && $last == --* ]]; then pending=$last cur=; fi
    if [[ -n $pending ]]; then
        case "$path|$pending" in
@VALUES@
        esac
        return
    fi
    if [[ -z $literal && $cur == -* ]]; then
        case $path in
@OPTIONS@
        esac
        return
    fi
    case "$path|$operands" in
@OPERANDS@
    esac
}

complete -F _wgnet wgnet
"""


def bash(commands: list[Command]) -> str:
    """Return the script for bash; it needs nothing of the package bash-completion."""
    takers = []
    values: dict[str, list[str]] = {}
    operands: dict[str, list[str]] = {}
    #: After those before them, which one number each.
    many: dict[str, list[str]] = {}
    options = []
    paths = []
    for command in commands:
        path = " ".join(command.words)
        paths += [shlex.quote(f"{path}|{name}") for name, _ in command.below]
        if command.below:
            operands.setdefault(_bash_reply(tuple(name for name, _ in command.below)), []).append(f"{path}|0")
        for option in command.options:
            for flag in option.flags:
                if option.value is None:
                    continue
                values.setdefault(_bash_reply(option.value.kind), []).append(f"{path}|{flag}")
                if not option.value.optional:
                    takers.append(shlex.quote(f"{path}|{flag}"))
        flags = tuple(flag for option in command.options for flag in option.flags)
        options.append(f"            {shlex.quote(path)}) {_bash_reply(flags)} ;;")
        for number, operand in enumerate(command.operands):
            if operand.many:
                many.setdefault(_bash_reply(operand.kind), []).append(f"{path}|*")
            else:
                operands.setdefault(_bash_reply(operand.kind), []).append(f"{path}|{number}")
    parts = {
        "TAKERS": " | ".join(takers),
        "PATHS": " | ".join(paths),
        "VALUES": _bash_cases(values, 12),
        "OPTIONS": "\n".join(options),
        "OPERANDS": "\n".join((_bash_cases(operands, 8), _bash_cases(many, 8))),
    }
    text = _BASH
    for name, part in parts.items():
        text = text.replace(f"@{name}@", part)
    return text


def _bash_reply(kind: Kind) -> str:
    if isinstance(kind, tuple):
        return f'_wgnet_reply words "$cur" {shlex.quote(" ".join(kind))}'
    return ":" if kind == OTHER else f'_wgnet_reply {kind} "$cur"'


def _bash_cases(cases: dict[str, list[str]], indent: int) -> str:
    def pattern(text: str) -> str:
        return f"{shlex.quote(text[:-1])}*" if text.endswith("|*") else shlex.quote(text)

    return "\n".join(
        f"{' ' * indent}{' | '.join(map(pattern, patterns))}) {reply} ;;" for reply, patterns in cases.items()
    )


# --- zsh ---


def zsh(commands: list[Command]) -> str:
    """Return the script for zsh, a function to be found in its `fpath` as `_wgnet`."""
    lines = ["#compdef wgnet", "# made from wgnet's parser", ""]
    for command in commands:
        lines += [f"{_function(command.words)}() {{", *_zsh_body(command), "}", ""]
    return "\n".join([*lines, '_wgnet "$@"', ""])


def _function(words: tuple[str, ...]) -> str:
    return "_".join(("_wgnet", *words))


def _zsh_body(command: Command) -> Iterator[str]:
    specs = [spec for option in command.options for spec in _zsh_option(option)]
    for operand in command.operands:
        prefix = "*:" if operand.many else "::" if operand.optional else ":"
        specs.append(shlex.quote(f"{prefix}{operand.name}:{_zsh_action(operand.kind)}"))
    if not command.below:
        yield "    _arguments -s -S \\"
        yield from _continued(specs)
        return
    yield "    local curcontext=$curcontext state line ret=1"
    yield "    typeset -A opt_args"
    yield "    _arguments -C -S \\"
    yield from _continued([*specs, "':command:->command'", "'*::argument:->argument'"], "&& ret=0")
    yield "    case $state in"
    yield "        command)"
    yield "            local -a commands=("
    for name, summary in command.below:
        yield f"                {shlex.quote(f'{name}:{summary}')}"
    yield "            )"
    yield "            _describe -t commands command commands && ret=0"
    yield "            ;;"
    yield "        argument)"
    yield "            case $line[1] in"
    for name, _ in command.below:
        yield f"                {name}) {_function((*command.words, name))} && ret=0 ;;"
    yield "            esac"
    yield "            ;;"
    yield "    esac"
    yield "    return ret"


def _continued(specs: list[str], after: str = "") -> Iterator[str]:
    for spec in specs[:-1]:
        yield f"        {spec} \\"
    yield f"        {specs[-1]} {after}".rstrip()


def _zsh_option(option: Option) -> Iterator[str]:
    """Yield the specifications of an option, one a spelling; unless it repeats, one spelling shuts the others out."""
    shut = "*" if option.repeats else f"({' '.join(option.flags)})"
    summary = "".join(f"\\{each}" if each in "[]\\" else each for each in option.summary)
    for flag in option.flags:
        if option.value is None:
            yield shlex.quote(f"{shut}{flag}[{summary}]")
            continue
        sign = "=" if flag.startswith("--") else "+"
        colons = "::" if option.value.optional else ":"
        yield shlex.quote(f"{shut}{flag}{sign}[{summary}]{colons}{option.value.name}:{_zsh_action(option.value.kind)}")


def _zsh_action(kind: Kind) -> str:
    if isinstance(kind, tuple):
        return f"({' '.join(kind)})"
    return {TOPOLOGY: '_files -g "*.yaml"', FILE: "_files", FOLDER: "_files -/", OTHER: " "}[kind]


# --- fish ---


_FISH = r"""# fish completion for wgnet, made from its parser

# Whether the command line is at a command, named by its words; without any, before the first one.
function __fish_wgnet_at
    set -l words (commandline -opc)
    set -e words[1]
    set -l path
    set -l skip no
    for word in $words
        if test $skip = yes
            set skip no
        else if string match -q -- '-*' $word
            if test (count $path) = 0; and contains -- $word @TAKERS@
                set skip yes
            end
        else if contains -- "$path $word" @PATHS@
            set -a path $word
        end
    end
    test "$path" = "$argv"
end

# Topologies, and folders on the way to them.
function __fish_wgnet_topologies
    set -l token (commandline -ct | string replace -r -- '^--[^=]*=' '')
    __fish_complete_path "$token" | string match -r -- '^[^\t]*(?:/|\.yaml)(?:\t.*)?$'
end

complete -c wgnet -f
"""


def fish(commands: list[Command]) -> str:
    """Return the script for fish."""
    takers = [
        shlex.quote(flag)
        for option in commands[0].options
        if option.value is not None and not option.value.optional
        for flag in option.flags
    ]
    paths = [shlex.quote(f"{' '.join(command.words)} {name}") for command in commands for name, _ in command.below]
    lines = [_FISH.replace("@TAKERS@", " ".join(takers)).replace("@PATHS@", " ".join(paths))]
    for command in commands:
        at = f"complete -c wgnet -n {_fish_quote(' '.join(('__fish_wgnet_at', *command.words)))}"
        for name, summary in command.below:
            lines.append(f"{at} -a {name} -d {_fish_quote(summary)}")
        for option in command.options:
            flags = " ".join(f"-l {each[2:]}" if each.startswith("--") else f"-s {each[1:]}" for each in option.flags)
            value = "" if option.value is None else _fish_value(option.value)
            lines.append(f"{at} {flags}{value} -d {_fish_quote(option.summary)}")
        for kind in dict.fromkeys(operand.kind for operand in command.operands):
            if kind != OTHER:
                lines.append(f"{at}{_fish_arguments(kind)}")
    return "\n".join([*lines, ""])


def _fish_value(value: Value) -> str:
    # `-r` says that a value comes; without it one may.
    return ("" if value.optional else " -r") + (_fish_arguments(value.kind) if value.kind != OTHER else " -f")


def _fish_arguments(kind: Kind) -> str:
    if isinstance(kind, tuple):
        return f" -f -a {_fish_quote(' '.join(kind))}"
    if kind == FILE:
        return " -F"
    name = {TOPOLOGY: "__fish_wgnet_topologies", FOLDER: "__fish_complete_directories"}[kind]
    return f" -f -a '({name})'"


def _fish_quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


SHELLS = {"bash": bash, "zsh": zsh, "fish": fish}


def main(arguments: list[str]) -> int:
    """Print one shell's script; return the exit status."""
    if len(arguments) != 1 or arguments[0] not in SHELLS:
        print(f"usage: completions.py {{{','.join(SHELLS)}}}", file=sys.stderr)
        return 2
    sys.stdout.write(SHELLS[arguments[0]](list(read_commands(build_parser()))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
