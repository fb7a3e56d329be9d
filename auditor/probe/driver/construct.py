"""Builds the submission's network the way its own code does, without running its main flow.

The call that makes the network is looked up in the syntax tree. What it is given is evaluated from there backwards:
a local name is the expression last assigned to it before the call, a parameter what the function's own caller gives.
Runs inside the sandbox only.
"""

from __future__ import annotations

import ast
import inspect
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

MAX_DEPTH = 6
MAX_CALLS = 12
MODEL_NAMES = frozenset({"model", "base_model", "net", "base", "m", "raw_model", "eval_model", "ttt_model"})
BATCH_NAMES = frozenset({"bsz", "batch", "batch_size", "b", "bs", "num_docs", "n_docs"})

Function = ast.FunctionDef | ast.AsyncFunctionDef


class NotFoundError(Exception):
    """No network, or no value for one of its arguments, was found in the code."""


@dataclass(frozen=True)
class ConstructorCall:
    """A call in the code that makes a network: its class, the call and the function around it (None: module level)."""

    cls: type[nn.Module]
    node: ast.Call
    function: Function | None
    source: Source


@dataclass
class Source:
    """One module of the submission with its tree."""

    module: types.ModuleType
    tree: ast.Module
    parents: dict[ast.AST, ast.AST] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node in ast.walk(self.tree):
            for child in ast.iter_child_nodes(node):
                self.parents[child] = node

    def around(self, node: ast.AST) -> tuple[Function | None, ast.ClassDef | None]:
        """The innermost function and the innermost class around a node."""
        function: Function | None = None
        up = self.parents.get(node)
        while up is not None:
            if isinstance(up, Function) and function is None:
                function = up
            if isinstance(up, ast.ClassDef):
                return function, up
            up = self.parents.get(up)
        return function, None


def constructor_calls(found: Sequence[Source]) -> list[ConstructorCall]:
    """The calls that make a network which is not itself part of one, in the order in which they should be tried.

    Networks that take token ids come first, then those made in the functions that train.
    """
    calls: list[ConstructorCall] = []
    for source in found:
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.Call):
                continue
            cls = _value(node.func, source.module)
            if not (isinstance(cls, type) and issubclass(cls, nn.Module)) or cls.__module__.startswith("torch."):
                continue
            function, owner = source.around(node)
            inside = _value(ast.Name(owner.name), source.module) if owner is not None else None
            if isinstance(inside, type) and issubclass(inside, nn.Module):
                continue
            calls.append(ConstructorCall(cls, node, function, source))
    models = {cls: takes_tokens(cls, found) for cls in {call.cls for call in calls}}

    def rank(call: ConstructorCall) -> tuple[bool, bool, int]:
        name = call.function.name if call.function is not None else ""
        return (not models[call.cls], not any(word in name for word in ("train", "main")), call.node.lineno)

    return sorted(calls, key=rank)


TOKENS = frozenset(
    {"input_ids", "idx", "ids", "tokens", "input_tokens", "token_ids", "x_ids", "inp", "inputs", "input_seq", "x"}
)


def takes_tokens(cls: type[nn.Module], found: Sequence[Source]) -> bool:
    """Whether the class's forward looks like that of a language model: it embeds, and its first parameter is tokens."""
    try:
        parameters = list(inspect.signature(cls.forward).parameters)
    except (TypeError, ValueError):
        return False
    own = {c.__name__ for c in cls.__mro__ if not c.__module__.startswith("torch.")}
    embeds = any(
        isinstance(part, (ast.Name, ast.Attribute))
        and "emb" in (part.id if isinstance(part, ast.Name) else part.attr).lower()
        for source in found
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef) and node.name in own
        for part in ast.walk(node)
    )
    return len(parameters) > 1 and parameters[1] in TOKENS and embeds


def _value(node: ast.expr, module: types.ModuleType) -> Any:
    if isinstance(node, ast.Name):
        return getattr(module, node.id, None)
    if isinstance(node, ast.Attribute):
        owner = _value(node.value, module)
        # Not getattr: torch imports some of its parts, slowly, when they are asked for.
        return vars(owner).get(node.attr) if isinstance(owner, types.ModuleType) else None
    return None


class Builder:
    """Evaluates what constructor calls are given. One configuration object is shared by all that ask for it."""

    def __init__(self, found: Sequence[Source], given: Mapping[str, Any] | None = None) -> None:
        self.sources = found
        self.given = dict(given or {})
        self._cache: dict[tuple[int, str], Any] = {}

    def build(self, call: ConstructorCall) -> nn.Module:
        """The network that ``call`` makes.

        Raises:
            NotFoundError: an argument could not be evaluated. Whatever the constructor raises is passed on.
        """
        arguments, keywords = self.arguments(call)
        made = call.cls(*arguments, **keywords)
        return made

    def arguments(self, call: ConstructorCall, depth: int = 0) -> tuple[list[Any], dict[str, Any]]:
        """The values of a call's arguments."""
        signature = list(inspect.signature(call.cls.__init__).parameters.values())[1:]
        arguments: list[Any] = []
        keywords: dict[str, Any] = {}
        for node, parameter in zip(call.node.args, [*signature, *[None] * len(call.node.args)], strict=False):
            if isinstance(node, ast.Starred):
                arguments += list(self.value(node.value, call.function, call.source, call.node.lineno, depth))
            else:
                name = parameter.name if parameter is not None else ""
                arguments.append(self._argument(node, name, call, depth))
        for keyword in call.node.keywords:
            if keyword.arg is None:
                keywords |= dict(self.value(keyword.value, call.function, call.source, call.node.lineno, depth))
            else:
                keywords[keyword.arg] = self._argument(keyword.value, keyword.arg, call, depth)
        return arguments, keywords

    def _argument(self, node: ast.expr, name: str, call: ConstructorCall, depth: int) -> Any:
        if name in self.given:
            return self.given[name]
        try:
            return self.value(node, call.function, call.source, call.node.lineno, depth)
        except NotFoundError:
            for configuration in self.configurations():
                if name and hasattr(configuration, name):
                    return getattr(configuration, name)
            raise

    def configurations(self) -> Iterator[Any]:
        """Configuration objects that were made on the way."""
        for value in list(self._cache.values()):
            if type(value).__module__ in {s.module.__name__ for s in self.sources}:
                yield value

    def value(self, node: ast.expr, function: Function | None, source: Source, line: int, depth: int = 0) -> Any:
        """The value of an expression that stands in ``function`` at ``line``.

        Raises:
            NotFoundError: it needs something that is not known before the main flow runs.
        """
        if depth > MAX_DEPTH:
            raise NotFoundError(f"the value of {ast.unparse(node)[:60]} is handed down through too many calls")
        names = _Names(self, function, source, line, depth)
        try:
            code = compile(ast.Expression(node), "<arguments>", "eval")
            return eval(code, vars(source.module), names)  # noqa: S307 - the submission's own expression, in the sandbox
        except NotFoundError:
            raise
        except Exception as error:
            raise NotFoundError(f"{ast.unparse(node)[:80]}: {type(error).__name__}: {str(error)[:120]}") from error

    def local(self, name: str, function: Function, source: Source, line: int, depth: int) -> Any:
        """The value of a local name before ``line``. KeyError: the name is not local."""
        key = (id(function), name)
        if key in self._cache:
            return self._cache[key]
        if name in self.given and name in MODEL_NAMES | BATCH_NAMES:
            return self.given[name]
        found: ast.AST | None = None
        for node in ast.walk(function):
            if isinstance(node, (ast.Assign, ast.AnnAssign, ast.NamedExpr)) and node.lineno < line:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                hit = any(isinstance(n, ast.Name) and n.id == name for t in targets for n in _names_in(t))
                if hit and node.value is not None and (found is None or node.lineno > getattr(found, "lineno", 0)):
                    found = node
        if isinstance(found, (ast.Assign, ast.AnnAssign, ast.NamedExpr)) and found.value is not None:
            value = self.value(found.value, function, source, found.lineno, depth + 1)
            for target in found.targets if isinstance(found, ast.Assign) else [found.target]:
                if isinstance(target, (ast.Tuple, ast.List)):
                    for part, item in zip(target.elts, list(value), strict=False):
                        if isinstance(part, ast.Name):
                            self._cache[id(function), part.id] = item
                elif isinstance(target, ast.Name):
                    self._cache[id(function), target.id] = value
            return self._cache[key]
        spec = function.args
        every = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs]
        if name in {a.arg for a in every}:
            self._cache[key] = value = self._parameter(name, function, source, depth)
            return value
        outer, _ = source.around(function)
        if outer is not None:
            return self.local(name, outer, source, function.lineno, depth + 1)
        raise KeyError(name)

    def _parameter(self, name: str, function: Function, source: Source, depth: int) -> Any:
        """What callers give for a parameter; else its default; else an object of the class it is annotated with."""
        spec = function.args
        positional = [a.arg for a in (*spec.posonlyargs, *spec.args)]
        problem: NotFoundError | None = None
        tried = 0
        for other in self.sources:
            for node in ast.walk(other.tree):
                called = isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", None))
                if not isinstance(node, ast.Call) or called != function.name or tried >= MAX_CALLS:
                    continue
                at = positional.index(name) if name in positional else len(node.args)
                method = isinstance(node.func, ast.Attribute) and positional[:1] == ["self"]
                at -= 1 if method else 0
                given = next((k.value for k in node.keywords if k.arg == name), None)
                if given is None and at < len(node.args):
                    given = node.args[at]
                if given is None or isinstance(given, ast.Starred):
                    continue
                tried += 1
                around, _ = other.around(node)
                try:
                    return self.value(given, around, other, node.lineno, depth + 1)
                except NotFoundError as error:
                    problem = error
        defaults = dict(zip(positional[len(positional) - len(spec.defaults) :], spec.defaults, strict=True))
        defaults |= {a.arg: d for a, d in zip(spec.kwonlyargs, spec.kw_defaults, strict=True) if d is not None}
        if name in defaults:
            return self.value(defaults[name], None, source, function.lineno, depth + 1)
        annotation = next((a.annotation for a in (*spec.args, *spec.kwonlyargs) if a.arg == name), None)
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            annotation = ast.Name(annotation.value)
        cls = _value(annotation, source.module) if annotation is not None else None
        if isinstance(cls, type):
            return cls()
        raise problem or NotFoundError(f"no call gives {function.name} its {name}")


def _names_in(target: ast.expr) -> list[ast.expr]:
    return target.elts if isinstance(target, (ast.Tuple, ast.List)) else [target]


class _Names(Mapping[str, Any]):
    """Local names, evaluated when they are asked for."""

    def __init__(self, builder: Builder, function: Function | None, source: Source, line: int, depth: int) -> None:
        self._at = (function, source, line, depth)
        self._builder = builder

    def __getitem__(self, name: str) -> Any:
        function, source, line, depth = self._at
        if function is None:
            raise KeyError(name)
        return self._builder.local(name, function, source, line, depth)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def settle_globals(found: Sequence[Source], start_token: int) -> dict[str, Any]:
    """Give module globals that are None the constant that the code's own functions give them on first use.

    Such as the token that starts a document, which some scripts set when the first shard is loaded; where it is asked
    of the tokenizer, it becomes ``start_token``. Returns what was set.
    """
    done: dict[str, Any] = {}
    for source in found:
        for function in ast.walk(source.tree):
            if not isinstance(function, Function):
                continue
            declared = {n for s in ast.walk(function) if isinstance(s, ast.Global) for n in s.names}
            for node in ast.walk(function):
                if not isinstance(node, ast.Assign):
                    continue
                for target in node.targets:
                    name = target.id if isinstance(target, ast.Name) else ""
                    if name not in declared or getattr(source.module, name, 0) is not None:
                        continue
                    if isinstance(node.value, ast.Constant):
                        done[name] = node.value.value
                    elif "bos" in name.lower():
                        done[name] = start_token
                    else:
                        continue
                    setattr(source.module, name, done[name])
    return done


def switches(found: Sequence[Source], model: nn.Module) -> dict[str, bool]:
    """Attributes of the network that are True or False and that the code later sets to the other value.

    Such as a loop over layers that starts part of the way through training and is on in evaluation.
    """
    flipped: dict[str, bool] = {}
    for source in found:
        for node in ast.walk(source.tree):
            if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)):
                continue
            value = node.value.value
            _, owner = source.around(node)
            if not isinstance(value, bool) or owner is not None:
                continue
            for target in node.targets:
                name = target.attr if isinstance(target, ast.Attribute) else "training"
                before = vars(model).get(name)
                if isinstance(before, bool) and before is not value and name != "training":
                    flipped[name] = value
    return flipped
