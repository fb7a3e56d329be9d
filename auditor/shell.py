"""Reading command lines out of shell text, without running anything.

This is no shell: it follows assignments, ``export``, ``${NAME:-default}``, arrays and ``for`` loops over
literal words, because that is how the environment of a training run is written down. What it can't follow
(command substitution, positional parameters, arithmetic) stays in the value as written; see
:func:`unresolved`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice, product

MAX_LOGICAL_LINES = 5_000
MAX_LOOP_EXPANSIONS = 12
_MAX_JOINED_LINES = 200
_MAX_COMMAND_CHARS = 20_000

_ASSIGNMENT = re.compile(r"^([A-Za-z_]\w*)\+?=(.*)$", re.S)
_ARRAY = re.compile(r"^\s*(?:declare\s+-\w+\s+|local\s+|export\s+|readonly\s+)*([A-Za-z_]\w*)(\+?)=\((.*)\)\s*$", re.S)
_SUBSTITUTION = re.compile(r"\$\([^()]*\)|`[^`]*`")
_VARIABLE = re.compile(r"\$\{(\w+)(?::?([-=+])((?:[^{}]|\$\{[^{}]*\})*))?\}|\$(\w+)")
_ARRAY_USE = re.compile(r"^\$\{(\w+)\[[@*]\]\}$")
_WHOLE_VARIABLE = re.compile(r"^\$\{?(\w+)\}?$")
_PROMPT = re.compile(r"^\s*(?:\(\w[\w.-]*\)\s*)?(?:[\w.-]+@[\w.-]+[^\s#$]*\s*)?[$%>]\s+")
_POWERSHELL_ENV = re.compile(r"\$env:(\w+)\s*=\s*", re.I)
_HEREDOC = re.compile(r"<<-?\s*(['\"]?)(\w+)\1")
_SEPARATORS = frozenset({";", "&&", "||", "|", "&", ";;", "|&", "(", ")"})
_PYTHON = re.compile(r"^python(?:\d+(?:\.\d+)?)?$")
_LAUNCHERS = frozenset({"torchrun", "deepspeed", "accelerate", "modal", "mpirun", "pypy3"})
_SHELLS = frozenset({"bash", "sh", "zsh", "source", "."})
_NOT_LAUNCHES = frozenset(
    [
        *(
            "echo",
            "printf",
            "cat",
            "grep",
            "sed",
            "awk",
            "pip",
            "pip3",
            "apt",
            "apt-get",
            "brew",
            "conda",
            "git",
        ),
        *(
            "cd",
            "ls",
            "mkdir",
            "cp",
            "mv",
            "rm",
            "wget",
            "curl",
            "tail",
            "head",
            "tee",
            "ssh",
            "scp",
            "rsync",
            "vim",
        ),
        *(
            "nano",
            "chmod",
            "test",
            "ps",
            "kill",
            "watch",
            "wc",
            "diff",
            "sha256sum",
            "md5sum",
            "alias",
            "zip",
            "tar",
        ),
    ]
)
_OPENERS = frozenset({"if", "case", "while", "until"})
_CLOSERS = frozenset({"fi", "esac"})
_HIDDEN = "\ue000"


@dataclass(frozen=True)
class ShellValue:
    """A value assigned in shell text and its 1-based line there."""

    value: str
    line: int


@dataclass(frozen=True)
class ShellCommand:
    """One program start: ``script`` is a .py or .sh path as written; flags are those after the script.

    ``line`` is the first (1-based) of the ``lines`` lines the command is written on.
    """

    script: str
    env: Mapping[str, ShellValue]
    flags: Mapping[str, ShellValue]
    text: str
    line: int
    lines: int = 1


@dataclass
class _Scope:
    lines: int = 1
    variables: dict[str, ShellValue] = field(default_factory=dict)
    exported: set[str] = field(default_factory=set)
    loops: list[tuple[str, list[str], bool]] = field(default_factory=list)
    conditional: int = 0

    def assign(self, name: str, value: ShellValue, *, export: bool) -> None:
        if self.conditional and name in self.variables:
            return  # a branch may or may not run; the unconditional value is the better guess
        self.variables[name] = value
        if export:
            self.exported.add(name)


def unresolved(value: str) -> bool:
    """Whether a value still holds something only a running shell could fill in."""
    return "$" in value or "`" in value


def assignments_only(text: str) -> dict[str, ShellValue]:
    """The assignments of a text that holds nothing but ``NAME=value`` lines (and comments); else empty.

    Needs at least two, all in capitals, as environment variables are written.
    """
    found: dict[str, ShellValue] = {}
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip().rstrip("\\").strip()
        if not line or line.startswith("#"):
            continue
        for word in _split(line.removeprefix("export ")):
            if word.startswith("#"):
                break
            match = _ASSIGNMENT.match(word)
            if not match or not match[1].isupper():
                return {}
            found[match[1]] = ShellValue(match[2], number)
    return found if len(found) >= 2 else {}


def commands(text: str, outer: Mapping[str, ShellValue] | None = None) -> list[ShellCommand]:
    """Every start of a Python or shell script in ``text``, in order.

    ``outer`` is the environment the text itself is started with; its values are passed on. Never raises.
    """
    scope = _Scope()
    for name, value in (outer or {}).items():
        scope.assign(name, value, export=True)
    found: list[ShellCommand] = []
    for line, lines, logical in _logical_lines(text):
        scope.lines = lines
        found.extend(_read_line(logical, line, scope))
    return found


def _logical_lines(text: str) -> Iterator[tuple[int, int, str]]:
    """Commands with their continuations and open quotes joined; heredoc bodies are dropped.

    Yields the first line's 1-based number, the number of lines and the text.
    """
    lines = text.split("\n")
    index = count = 0
    while index < len(lines) and count < MAX_LOGICAL_LINES:
        first = index
        parts = [_PROMPT.sub("", lines[index].rstrip("\r"), count=1)]
        index += 1
        if parts[0].lstrip().startswith("#"):
            continue
        while index < len(lines) and len(parts) < _MAX_JOINED_LINES:
            if parts[-1].rstrip().endswith(("\\", "`")) and not parts[-1].rstrip().endswith("\\\\"):
                if parts[-1].rstrip().endswith("`") and parts[-1].count("`") % 2 == 0:
                    break
                parts[-1] = parts[-1].rstrip()[:-1]
                following = lines[index].rstrip("\r")
                # a commented-out option inside a continued command
                parts.append("\\" if following.lstrip().startswith("#") else following)
            elif _open_quote_or_array(parts):
                parts.append(lines[index].rstrip("\r"))
            else:
                break
            index += 1
        joined = "\n".join(parts) if _multiline_quote(parts) else " ".join(parts)
        heredoc = _HEREDOC.search(joined)
        if heredoc:
            while index < len(lines) and lines[index].strip() != heredoc[2]:
                index += 1
            index += 1
        count += 1
        if joined.strip() and len(joined) <= _MAX_COMMAND_CHARS:
            yield first + 1, len(parts), joined


def _open_quote_or_array(parts: list[str]) -> bool:
    text = "\n".join(parts)
    if re.match(r"^\s*(?:export\s+|declare\s+-\w+\s+)?\w+\+?=\([^)]*$", text):
        return True
    # Prose is full of apostrophes: only a quote that follows "-c" is waited for across lines.
    return bool(re.search(r"-l?c\s+(['\"])(?:(?!\1)[^\\]|\\.)*$", text, re.S))


def _multiline_quote(parts: list[str]) -> bool:
    return len(parts) > 1 and bool(re.search(r"-l?c\s+['\"]", parts[0]))


def _split(text: str) -> list[str]:
    try:
        lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        lexer.commenters = ""
        return list(lexer)
    except ValueError:  # unbalanced quotes
        return text.split()


def _hide(text: str) -> tuple[str, list[str]]:
    """Replace command substitutions, whose blanks and brackets would be taken for syntax."""
    kept: list[str] = []

    def keep(match: re.Match[str]) -> str:
        kept.append(match[0])
        return f"{_HIDDEN}{len(kept) - 1}{_HIDDEN}"

    return _SUBSTITUTION.sub(keep, text), kept


def _expand(text: str, variables: Mapping[str, str], depth: int = 4) -> str:
    def value(match: re.Match[str]) -> str:
        name, operator, default = match[1] or match[4], match[2], match[3]
        if name in variables:
            return variables[name] if operator != "+" else default or ""
        if operator in ("-", "="):
            return _expand(default or "", variables, depth - 1) if depth else default or ""
        return "" if operator == "+" else match[0]

    if len(text) > _MAX_COMMAND_CHARS:
        return text
    expanded = _VARIABLE.sub(value, text)
    # A=$A$A doubles with every line
    return expanded if len(expanded) <= _MAX_COMMAND_CHARS else text


def _read_line(text: str, line: int, scope: _Scope) -> Iterator[ShellCommand]:
    text = _POWERSHELL_ENV.sub(r"export \1=", text)
    array = _ARRAY.match(text)
    if array:
        words = [w for w in _split(array[3]) if not w.startswith("#")]
        before = scope.variables[array[1]].value + " " if array[2] and array[1] in scope.variables else ""
        scope.assign(array[1], ShellValue(before + " ".join(shlex.quote(w) for w in words), line), export=False)
        return
    hidden, kept = _hide(text)
    pending: list[str] = []
    for token in [*_split(hidden), ";"]:
        if token.startswith("#"):
            if pending:
                yield from _read_command(pending, kept, line, text, scope)
            return
        if token in _SEPARATORS:
            if pending:
                yield from _read_command(pending, kept, line, text, scope)
            pending = []
        else:
            pending.append(token)


def _read_command(words: list[str], kept: list[str], line: int, text: str, scope: _Scope) -> Iterator[ShellCommand]:
    while words and words[0] in ("then", "do", "else", "{", "RUN", "CMD", "!", "elif"):
        words = words[1:]
    if not words:
        return
    head = words[0]
    if head == "for" and "in" in words[:3]:
        values = " ".join(_expand(w, _plain(scope)) for w in words[words.index("in") + 1 :])
        array = _ARRAY_USE.match(values)
        if array and array[1] in scope.variables:
            values = scope.variables[array[1]].value
        scope.loops.append((words[1], _split(values), True))
        return
    if head in _OPENERS:
        scope.loops.append(("", [], False)) if head in ("while", "until") else None
        scope.conditional += head in ("if", "case")
        return
    if head == "done":
        if scope.loops:
            scope.loops.pop()
        return
    if head in _CLOSERS:
        scope.conditional = max(0, scope.conditional - 1)
        return

    def restore(word: str) -> str:
        return re.sub(f"{_HIDDEN}(\\d+){_HIDDEN}", lambda m: kept[int(m[1])], word)

    if head in ("export", "declare", "local", "readonly", "set", "ENV", "typeset") or _ASSIGNMENT.match(head):
        assigned = [m for w in words if (m := _ASSIGNMENT.match(w))]
        bare = [w for w in words if not w.startswith("-") and not _ASSIGNMENT.match(w)]
        if bare in ([], [head]):
            export = head in ("export", "set", "ENV")
            for match in assigned:
                value = ShellValue(restore(_expand(match[2], _plain(scope))), line)
                scope.assign(match[1], value, export=export)
            return
        if head == "export":
            scope.exported.update(w for w in bare[1:] if w in scope.variables)
            return
        if head == "ENV" and len(words) >= 3:
            scope.assign(words[1], ShellValue(" ".join(words[2:]), line), export=True)
            return
    used = [loop for loop in scope.loops if loop[2] and loop[1] and _uses(loop[0], words, scope)]
    for combination in islice(product(*(loop[1] for loop in used)), MAX_LOOP_EXPANSIONS):
        bound = {name: chosen for (name, *_), chosen in zip(used, combination, strict=True)}
        yield from _start(words, restore, line, text, scope, bound)


def _uses(name: str, words: list[str], scope: _Scope) -> bool:
    pattern = re.compile(r"\$\{?" + re.escape(name) + r"\b")
    values = (v.value for n, v in scope.variables.items() if n in scope.exported)
    return any(pattern.search(w) for w in words) or any(pattern.search(v) for v in values)


def _plain(scope: _Scope) -> dict[str, str]:
    return {name: value.value for name, value in scope.variables.items()}


def _start(
    words: list[str],
    restore: Callable[[str], str],
    line: int,
    text: str,
    scope: _Scope,
    bound: Mapping[str, str],
) -> Iterator[ShellCommand]:
    variables = {**_plain(scope), **bound}
    tokens: list[str] = []
    for word in words:
        array = _ARRAY_USE.match(word) or _WHOLE_VARIABLE.match(word)
        if array and array[1] in scope.variables and array[1] not in bound:
            # an unquoted variable is split into words; whether it was quoted is lost here, and hardly matters
            tokens.extend(_expand(w, variables) for w in _split(scope.variables[array[1]].value))
        else:
            tokens.append(restore(_expand(word, variables)))
    tokens = _without_redirections(tokens)
    env = {
        name: ShellValue(_expand(value.value, variables), value.line)
        for name, value in scope.variables.items()
        if name in scope.exported
    }
    program = None
    for index, token in enumerate(tokens):
        match = _ASSIGNMENT.match(token)
        if match:
            env[match[1]] = ShellValue(match[2], line)
            continue
        base = token.rsplit("/", 1)[-1]
        if base in _NOT_LAUNCHES:
            return
        direct = token.endswith(".sh") or (token.endswith(".py") and token.startswith(("./", "/")))
        if base in _LAUNCHERS or _PYTHON.match(base) or base in _SHELLS or direct:
            program = index
            break
        if token.endswith(".py"):
            return  # the name of a file, not the start of a program
    if program is None:
        return
    rest = tokens[program:]
    base = rest[0].rsplit("/", 1)[-1]
    if base in _SHELLS and len(rest) > 2 and re.fullmatch(r"-\w*c", rest[1]):
        outer = {**scope.variables, **env}
        for inner in commands(rest[2], {n: v for n, v in outer.items() if n in env}):
            yield ShellCommand(inner.script, inner.env, inner.flags, " ".join(text.split()), line, scope.lines)
        return
    suffix = (".sh",) if base in _SHELLS else (".py", ".sh")
    at = next((i for i, t in enumerate(rest) if t.endswith(suffix)), None)
    if at is None or (at > 0 and "-c" in rest[1:at]):
        return
    # torch.distributed.run may wrap "--no-python bash run.sh"; either way the first script named is started
    flags = _flags(rest[at + 1 :], line)
    yield ShellCommand(rest[at], {**env, **_env_flags(flags)}, flags, " ".join(text.split()), line, scope.lines)


def _env_flags(flags: Mapping[str, ShellValue]) -> dict[str, ShellValue]:
    """Environment handed over in an option such as ``--extra-env "A=1;B=2"``."""
    found: dict[str, ShellValue] = {}
    for name, value in flags.items():
        if re.search(r"(?i)(?:^|[-_])env", name) and "=" in value.value:
            for item in re.split(r"[;\s]+|,(?=[A-Z_]+=)", value.value):
                match = _ASSIGNMENT.match(item)
                if match:
                    found[match[1]] = ShellValue(match[2], value.line)
    return found


def _without_redirections(tokens: list[str]) -> list[str]:
    kept: list[str] = []
    skip = False
    for token in tokens:
        if skip:
            skip = False
        elif token and set(token) <= set("<>&") and set(token) & set("<>"):
            skip = True
            if kept and kept[-1] in ("1", "2"):
                kept.pop()
        else:
            kept.append(token)
    return kept


def _flags(words: list[str], line: int) -> dict[str, ShellValue]:
    """Options in argparse style, and ``key=value`` words as Hydra takes them; names keep their dashes."""
    flags: dict[str, ShellValue] = {}
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        if word.startswith("-") and not re.fullmatch(r"-[\d.]+(?:e-?\d+)?", word):
            name, equals, value = word.partition("=")
            if not equals:
                follows = index < len(words) and not re.match(r"--?[A-Za-z]", words[index])
                value = words[index] if follows else "True"
                index += follows
            flags[name] = ShellValue(value, line)
        else:
            match = _ASSIGNMENT.match(word)
            if match:
                flags[match[1]] = ShellValue(match[2], line)
    return flags
