"""What the run is given: environment variables, flags, logged hyperparameters, and the files it reads."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from typing import Any

from auditor.index.interpreter.roles import text_of
from auditor.index.interpreter.state import Walk
from auditor.index.values import EMPTY, HOLE, Class, Const, External, Function, Object, Seq, Value

VAL_PATH = re.compile(r"(?:^|[/_\-.\x00])(?:val|valid|validation)(?:[/_\-.*\x00\d]|$)")
TRAIN_PATH = re.compile(r"(?:^|[/_\-.\x00])train(?:[/_\-.*\x00\d]|$)")
BOTH_PATH = re.compile(r"^fineweb_\*[\w*]*\.bin$")
DATA_HINT = re.compile(r"\.bin|\.npy|\.npz|\.pt\b|\.parquet|\.txt|\.jsonl|\.u?int16|\*|fineweb")
# One process of the eight that the contest's launch line starts; rank and world size never decide a finding.
TORCHRUN = {
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "8",
    "LOCAL_WORLD_SIZE": "8",
    "MASTER_ADDR": "localhost",
}
RANK_NAMES = frozenset(TORCHRUN) | {name.lower() for name in TORCHRUN}


class Inputs(Walk):
    """Reads settings as the run was launched and logged, and tells splits apart by path."""

    def logged(self, name: str, value: Value) -> Value:
        """The value that the logs print for a hyperparameter outranks the one the code computes."""
        if self.configuration is None or isinstance(value, (Function, Class, Object)):
            return value
        text = self.configuration.logged(name)
        if text is None:
            return value
        known = _literal(text)
        if isinstance(value, Const) and isinstance(value.value, str):
            known = text
        elif isinstance(known, str) and known not in ("", "None") and value.text is None:
            return value  # a printed object, not a literal
        # One setting under two names: the log prints the attribute, the code reads the variable.
        settings = value.settings | {name}
        if len(value.settings) == 1:
            settings = value.settings
            self.trace.aliases.setdefault(next(iter(settings)), name)
        if isinstance(value, Const) and isinstance(value.value, bool) and known in (0, 1):
            known = bool(known)
        return Const(value=known, settings=settings, roles=value.roles)

    def argument_parser(
        self, node: ast.AST, parser: Object, name: str, arguments: list[Value], keywords: dict[str, Value]
    ) -> Value | None:
        """``add_argument`` declares a setting; ``parse_args`` yields them as launched."""
        if name == "add_argument":
            names = [str(a.value) for a in arguments if isinstance(a, Const) and isinstance(a.value, str)]
            long = next((n for n in names if n.startswith("--")), names[0] if names else "")
            given = keywords.get("dest")
            attribute = str(given.value) if isinstance(given, Const) else long.lstrip("-").replace("-", "_")
            action = keywords.get("action")
            kind = str(action.value) if isinstance(action, Const) else ""
            default = keywords.get("default")
            if isinstance(default, Const):
                self.trace.defaults.setdefault(f"--{long.lstrip('-')}", (self.program, node, str(default.value)[:200]))
            if default is None:
                default = Const(value={"store_true": False, "store_false": True}.get(kind))
            flag = long.lstrip("-")
            launched = None if self.configuration is None else self.configuration.flag(flag)
            value: Value
            if launched == HOLE and not (text_of(default) and "/" in str(text_of(default))):
                value = Value(roles=frozenset({"unset"}))
            elif launched is None:
                value = default
            elif launched == "" and kind in ("store_true", "store_false"):
                value = Const(value=kind == "store_true")
            else:
                value = Const(value=launched if isinstance(text_of(default), str) else _literal(launched))
            made = Value(roles=value.roles, text=value.text) if not isinstance(value, Const) else value
            if isinstance(made, Const):
                made = Const(value=made.value, roles=made.roles)
            made.settings = value.settings | {f"--{flag}"}
            parser.attributes[attribute] = self.logged(attribute, made)
            return Value()
        if name in ("parse_args", "parse_known_args"):
            namespace = Object(kind=External(name="argparse.Namespace"), attributes=dict(parser.attributes))
            return namespace if name == "parse_args" else Seq(items=[namespace, Value()])
        if name in ("add_argument_group", "add_mutually_exclusive_group"):
            return parser
        return Value()

    def environment(self, key: Value, default: Value | None, node: ast.AST) -> Value:
        """An environment variable as the run had it: set by the code, launched, logged, else the default."""
        if not isinstance(key, Const) or not isinstance(key.value, str):
            return Value(roles=default.roles if default else EMPTY, settings=key.settings)
        name = key.value
        settings = frozenset({name})
        if isinstance(default, Const) and name not in self.trace.defaults:
            self.trace.defaults[name] = (self.program, node, str(default.value)[:200])
        if name in TORCHRUN:
            world = self.configuration.world_size() if self.configuration is not None else None
            sized = world is not None and name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")
            return Const(value=str(world) if sized else TORCHRUN[name], settings=settings)
        if name in self.set_by_code:
            made = self.set_by_code[name]
            if isinstance(made, Const):
                return Const(value=made.value, settings=settings | made.settings)
        if self.configuration is not None:
            text = self.configuration.environment(name)
            if text == HOLE:
                return Value(settings=settings, roles=frozenset({"unset"}))
            if text is not None:
                # Logs print a switch as True or False where the code parses 1 or 0.
                text = {"True": "1", "False": "0"}.get(text, text)
                return Const(value=text, settings=settings)
        if default is None:
            return Value(settings=settings, roles=frozenset({"unset"}))
        if isinstance(default, Const):
            return Const(value=default.value, settings=settings | default.settings)
        return Value(settings=settings | default.settings, roles=default.roles, text=default.text)

    @staticmethod
    def from_file(roles: frozenset[str]) -> frozenset[str]:
        """The roles of what is read from a file: of a shard its split's, of any other file ``file``."""
        return roles if roles & {"val", "train", "nn"} else roles | {"file"}

    def path_roles(self, values: Iterable[Value]) -> frozenset[str]:
        """Reading from a path that names a split yields tokens of that split."""
        found: frozenset[str] = EMPTY
        for value in values:
            text = value.value if isinstance(value, Const) else value.text
            if isinstance(text, str) and DATA_HINT.search(text):
                tail = text.rsplit("/", 2)[-1] if "/" in text else text
                if VAL_PATH.search(tail) or (VAL_PATH.search(text) and not TRAIN_PATH.search(tail)):
                    found |= {"val", "whole"}
                elif TRAIN_PATH.search(tail):
                    found |= {"train"}
                elif BOTH_PATH.search(tail):
                    found |= {"train", "val", "both"}
        return found


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text
