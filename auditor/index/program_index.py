"""The semantic index of one program: functions, classes and what each of them can lead to.

Built once per file in a single walk and shared by all rules and by the interpreter, which uses it to leave out
functions that cannot matter.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from auditor.index.byte_mixtures import ByteMixture, byte_mixtures
from auditor.index.imports import Import, imports_of
from auditor.index.names import leaf_name
from auditor.index.values import EMPTY, roles_of
from auditor.unpack import Program
from auditor.unpack.native import NativeSource
from auditor.unpack.walk import MANY, ONE, SHAPES, walk

if TYPE_CHECKING:
    from auditor.index.interpreter.state import Scope

COUNTS_UP = "[] += constant"
"""Stands among the names of a function that adds a constant to entries of a container."""

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef

# A function is entered when it, or anything it names, touches one of these: training, data files, configuration,
# other programs, or a printed metric.
TRAINING = frozenset({"backward", "step", "autograd", "grad", "zero_grad"})
MATTERS = TRAINING | frozenset(
    {
        "no_grad", "inference_mode", "environ", "getenv", "add_argument", "parse_args", "subprocess", "system", "popen",
        "ctypes", "CDLL", "load_inline", "cpp_extension", "cffi", "glob", "rglob", "fromfile", "memmap", "val_files",
        "val_tokens", "train_files", "Adam", "AdamW", "SGD", "optim", "torch_load", "save", "load_state_dict",
        "state_dict", "cu_seqlens", "input_ids", "open", "Thread", "perf_counter", "cross_entropy", "add_",
        "index_add_", "scatter_add_", "register_forward_hook", "register_forward_pre_hook",
        "read_bytes", "frombuffer", "load_dataset",
    }
)  # fmt: skip
FETCHING = frozenset(
    {
        "urlopen", "urlretrieve", "requests", "snapshot_download", "hf_hub_download", "from_pretrained", "load_dataset",
        "gdown", "get_encoding", "download_url_to_file", "httpx",
    }
)  # fmt: skip
CALLS_OUT = frozenset({"subprocess", "system", "popen", "ctypes", "CDLL", "load_inline", "cpp_extension", "cffi"})
LONG_TEXT = 80
ROW_STARTS = frozenset({ast.Constant, ast.UnaryOp, ast.List, ast.Tuple})
TELLING = frozenset({ast.Call, ast.keyword, ast.arg, ast.Return, ast.Assign, ast.Slice, ast.Tuple, ast.AugAssign})
"""Kinds of nodes that a function's facts are made of, beside names, constants and attributes."""
ORDERINGS = frozenset({"shuffle", "permutation", "randperm", "argsort", "sort", "sorted"})
TALLIES = frozenset({"bincount", "scatter_add_", "index_add_", "index_put_", "Counter"})
RESETS = frozenset(
    {
        "zero_", "copy_", "fill_", "normal_", "uniform_", "zeros_", "kaiming_uniform_", "trunc_normal_",
        "reset_parameters",
    }
)  # fmt: skip
HOOKS = frozenset({"register_forward_hook", "register_forward_pre_hook"})
COMMON = frozenset({"forward", "__init__", "get", "append", "item", "to", "reset", "size", "mean", "sum", "log"})


@dataclass(slots=True)
class FunctionFacts:
    """What one function names. ``names`` includes those of functions nested in it.

    ``makes_leaves``: it may make tensors that are optimised although no network owns them.
    """

    node: FunctionNode
    qualname: str
    outer: FunctionFacts | None = None
    in_class: bool = False
    names: set[str] = field(default_factory=set)
    shifts: bool = False
    tallies: bool = False
    """Whether an entry of a table is added to."""
    returned: set[str] = field(default_factory=set)
    ahead: bool = False
    """It attends without a causal mask, or moves values to earlier positions."""
    makes: bool = False
    """It returns a function that is defined in it."""
    makes_leaves: bool = False
    reorders: bool = False
    """It sorts by a key, or shuffles."""
    strings: list[str] = field(default_factory=list)
    numbers: set[float] = field(default_factory=set)
    """Numbers above 1 and up to 2**17 that stand in it."""
    blobs: bool = False
    """Whether a bytes literal stands in it."""


def is_all_but_last(part: ast.expr) -> bool:
    """Whether a slice is ``:-1`` or ``: n - 1``."""
    if not isinstance(part, ast.Slice) or part.lower is not None or part.upper is None:
        return False
    upper = part.upper
    if isinstance(upper, ast.UnaryOp) and isinstance(upper.op, ast.USub):
        return isinstance(upper.operand, ast.Constant) and upper.operand.value == 1
    return (
        isinstance(upper, ast.BinOp)
        and isinstance(upper.op, ast.Sub)
        and isinstance(upper.right, ast.Constant)
        and upper.right.value == 1
    )


def makes_leaf(node: ast.AST) -> bool:
    """Whether a call asks for gradients of a tensor: ``zeros(..., requires_grad=True)``, ``t.requires_grad_()``."""
    if not isinstance(node, ast.Call):
        return False
    if isinstance(node.func, ast.Attribute) and node.func.attr == "requires_grad_":
        flags: list[ast.expr] = node.args[:1]
    else:
        flags = [k.value for k in node.keywords if k.arg == "requires_grad"]
        if not flags:
            return False
    return not flags or not isinstance(flags[0], ast.Constant) or bool(flags[0].value)


def makes_tensor_leaf(node: ast.AST) -> bool:
    """As :func:`makes_leaf`, but not for a variable's own method, which may be a parameter's."""
    return makes_leaf(node) and not (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "requires_grad_"
        and isinstance(node.func.value, ast.Name)
    )


def makes_own_leaf(node: ast.AST) -> bool:
    """Whether code asks for gradients of a tensor that it makes itself: not ``for p in ...: p.requires_grad_()``."""
    borrowed: set[str] = set()
    assigned: set[str] = set()
    for part in walk(node):
        if makes_tensor_leaf(part):
            return True
        if makes_leaf(part):
            borrowed.add(part.func.value.id)  # type: ignore[attr-defined]
        elif isinstance(part, ast.Assign):
            assigned.update(t.id for t in part.targets if isinstance(t, ast.Name))
    return bool(borrowed & assigned)


def puts_in_order(node: ast.AST) -> bool:
    """Whether a call sorts by a key or shuffles."""
    if not isinstance(node, ast.Call):
        return False
    name = leaf_name(node)
    return name in ORDERINGS and (
        name not in ("sort", "sorted") or any(k.arg in ("key", "reverse") for k in node.keywords)
    )


def takes_from_itself(node: ast.Assign) -> bool:
    """Whether an assignment has the form ``bias = bias - rate * gradient``, perhaps clamped."""
    value: ast.expr = node.value
    while isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
        value = value.func.value
    return (
        isinstance(value, ast.BinOp)
        and isinstance(value.op, ast.Sub)
        and isinstance(value.left, ast.Name)
        and isinstance(value.right, ast.BinOp)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id == value.left.id
    )


ATTENTIONS = frozenset({"scaled_dot_product_attention", "flash_attn_func", "flash_attn_3_func", "flex_attention"})


def looks_ahead(call: ast.Call) -> bool:
    """Whether a call may let positions see later ones: attention with nothing that masks, ``roll(x, -1)``."""
    name = leaf_name(call)
    if name == "roll":
        return any(isinstance(a, ast.UnaryOp) for a in (*call.args, *(k.value for k in call.keywords)))
    if name not in ATTENTIONS or len(call.args) > 3:
        return False
    told = {k.arg: k.value for k in call.keywords}
    if {"attn_mask", "block_mask", "score_mod", "window_size", "attn_bias", None} & told.keys():
        return False
    causal = told.get("is_causal", told.get("causal"))
    return causal is None or (isinstance(causal, ast.Constant) and not causal.value)


class ProgramIndex:
    """Functions, classes and reachability by name, for one program."""

    def __init__(self, program: Program, native: Sequence[NativeSource] = ()) -> None:
        self.program = program
        self.native = native
        """Native source files beside the program, which it may compile or load."""
        self.functions: dict[int, FunctionFacts] = {}
        self.classes: list[ast.ClassDef] = []
        self.rows: list[ast.List | ast.Tuple] = []
        """Lists and tuples of two and more items that begin with a number or another such row."""
        self.precise = 0
        """How many of its numbers have five or more significant digits, roughly."""
        self.texts: list[ast.Constant] = []
        """String constants long enough to hold code of another language."""
        self.counters: set[str] = set()
        """Attributes that are added to somewhere (``self.seen += n``): what they start with decides nothing."""
        if program.tree is not None:
            self._collect(program.tree)

    def _collect(self, tree: ast.Module) -> None:
        # An explicit stack: deep nesting must not end in a RecursionError. The innermost function and class around a
        # node are kept beside it, and None on the stack marks where they end; what nested functions name is added to
        # the outer ones at the end.
        stack: list[Any] = [tree]
        around: list[tuple[FunctionFacts | None, str, bool]] = []
        facts: FunctionFacts | None = None
        prefix, in_class = "", False
        push = stack.append
        shapes = SHAPES
        while stack:
            node = stack.pop()
            if node is None:
                facts, prefix, in_class = around.pop()
                continue
            kind = node.__class__
            if kind is ast.Name:
                if facts is not None:
                    facts.names.add(node.id)
                continue
            if kind is ast.Constant:
                value = node.value
                if value.__class__ is str:
                    if facts is not None and len(value) < 300:
                        facts.strings.append(value)
                    if len(value) >= LONG_TEXT:
                        self.texts.append(node)
                elif value.__class__ is float:
                    if len(repr(value)) > 6:
                        self.precise += 1
                    if facts is not None and 1 < value <= 131072:
                        facts.numbers.add(value)
                elif facts is not None:
                    if value.__class__ is int:
                        if 1 < value <= 131072:
                            facts.numbers.add(value)
                    elif value.__class__ is bytes:
                        facts.blobs = True
                continue
            if kind is ast.Attribute:
                if facts is not None:
                    facts.names.add(node.attr)
                push(node.value)
                continue
            if kind is ast.List or kind is ast.Tuple:
                items = node.elts
                if len(items) > 1 and items[0].__class__ in ROW_STARTS:
                    self.rows.append(node)
            if kind is ast.FunctionDef or kind is ast.AsyncFunctionDef:
                around.append((facts, prefix, in_class))
                push(None)
                made = FunctionFacts(node, prefix + node.name, facts, in_class)
                self.functions[id(node)] = made
                facts, prefix = made, f"{made.qualname}."
            elif kind is ast.ClassDef:
                around.append((facts, prefix, in_class))
                push(None)
                self.classes.append(node)
                prefix, in_class = f"{prefix}{node.name}.", True
            elif facts is not None and kind in TELLING:
                if kind is ast.Call:
                    func = node.func
                    name = func.attr if func.__class__ is ast.Attribute else getattr(func, "id", "")
                    if node.keywords or name == "requires_grad_":
                        facts.makes_leaves = facts.makes_leaves or makes_leaf(node)
                    if name in ORDERINGS:
                        facts.reorders = facts.reorders or puts_in_order(node)
                    elif name == "roll" or name in ATTENTIONS:
                        facts.ahead = facts.ahead or looks_ahead(node)
                elif kind is ast.keyword or kind is ast.arg:
                    if node.arg:
                        facts.names.add(node.arg)
                elif kind is ast.Return and isinstance(node.value, ast.Name):
                    facts.returned.add(node.value.id)
                elif kind is ast.Assign and isinstance(node.targets[0], ast.Subscript):
                    value = node.value
                    key = node.targets[0].slice
                    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add):
                        added = value.right.value if isinstance(value.right, ast.Constant) else None
                        if isinstance(added, (int, float)) and not isinstance(key, ast.Constant):
                            facts.names.add(COUNTS_UP)
                elif kind is ast.Slice:
                    facts.shifts = facts.shifts or is_all_but_last(node)
                elif kind is ast.Tuple and len(node.elts) >= 4:
                    # pad(x, (0, 0, 1, -1)): moved by one without a slice
                    facts.shifts = facts.shifts or ast.unparse(node).endswith("1, -1)")
                elif kind is ast.AugAssign and isinstance(node.target, ast.Attribute):
                    self.counters.add(node.target.attr)
                elif kind is ast.AugAssign and isinstance(node.target, ast.Subscript):
                    facts.tallies = True
                    key = node.target.slice
                    if isinstance(node.value, ast.Constant) and not isinstance(key, ast.Constant):
                        facts.names.add(COUNTS_UP)
                elif kind is ast.AugAssign and isinstance(node.target, ast.Name):
                    own = facts.node.args
                    if any(node.target.id == a.arg for a in (*own.args, *own.kwonlyargs)):
                        facts.names.add("add_")  # accumulates into what its caller passed
                    facts.makes_leaves = facts.makes_leaves or isinstance(node.op, ast.Sub)
                elif kind is ast.Assign:
                    facts.makes_leaves = facts.makes_leaves or takes_from_itself(node)
            for name, held in shapes[kind]:
                value = getattr(node, name, None)
                if not value:
                    continue
                if held == ONE:
                    push(value)
                elif held == MANY:
                    stack += value
                else:
                    stack += [item for item in value if item is not None]
        for inner in reversed(self.functions.values()):
            if inner.outer is not None:
                inner.outer.names |= inner.names
                inner.outer.strings += inner.strings
                inner.outer.numbers |= inner.numbers
                inner.outer.blobs = inner.outer.blobs or inner.blobs
                inner.outer.shifts = inner.outer.shifts or inner.shifts
                inner.outer.ahead = inner.outer.ahead or inner.ahead
                inner.outer.makes = inner.outer.makes or inner.node.name in inner.outer.returned
                inner.outer.makes_leaves = inner.outer.makes_leaves or inner.makes_leaves

    @cached_property
    def imports(self) -> list[Import]:
        """Every import statement of the program, in source order."""
        return imports_of(self.program.tree) if self.program.tree is not None else []

    @cached_property
    def by_name(self) -> dict[str, list[FunctionFacts]]:
        """Functions by their last name, with classes standing for their ``__init__``."""
        found: dict[str, list[FunctionFacts]] = {}
        for facts in self.functions.values():
            found.setdefault(facts.node.name, []).append(facts)
        for cls in self.classes:
            for statement in cls.body:
                if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
                    found.setdefault(cls.name, []).append(self.functions[id(statement)])
        return found

    @cached_property
    def module_constants(self) -> dict[str, Any]:
        """Names that the program's own statements set to a literal, whatever their order: ``_C = False``."""
        found: dict[str, Any] = {}
        for statement in self.program.tree.body if self.program.tree is not None else ():
            if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant):
                for target in statement.targets:
                    if isinstance(target, ast.Name):
                        found[target.id] = statement.value.value
        return found

    @cached_property
    def module_aliases(self) -> dict[str, str]:
        """Names that the program's own statements set to another name, as minifiers do: ``R = max``."""
        found: dict[str, str] = {}
        for statement in self.program.tree.body if self.program.tree is not None else ():
            if not isinstance(statement, ast.Assign):
                continue
            for target in statement.targets:
                pairs: Iterable[tuple[ast.expr, ast.expr]] = [(target, statement.value)]
                if isinstance(target, ast.Tuple) and isinstance(statement.value, ast.Tuple):
                    pairs = zip(target.elts, statement.value.elts, strict=False)
                for name, value in pairs:
                    if isinstance(name, ast.Name) and isinstance(value, ast.Name):
                        found[name.id] = value.id
        return found

    @cached_property
    def byte_mixtures(self) -> dict[int, ByteMixture]:
        """Where tokens' probabilities are mixed with a byte model's, by the id of the expression or native call."""
        return {id(m.node): m for m in byte_mixtures(self, self.native)}

    @cached_property
    def _interesting(self) -> set[int]:
        mixing = {id(m.function) for m in self.byte_mixtures.values()}
        return self._closure(mixing | {i for i, f in self.functions.items() if self._matters(f)})

    @cached_property
    def _training(self) -> set[int]:
        direct = {
            i
            for i, f in self.functions.items()
            if "backward" in f.names or ({"autograd", "grad"} <= f.names and "no_grad" not in f.names)
        }
        return self._closure(direct)

    @cached_property
    def methods(self) -> list[FunctionNode]:
        """All functions defined inside classes."""
        return [f.node for f in self.functions.values() if f.in_class]

    @cached_property
    def file_readers(self) -> list[FunctionNode]:
        """Functions that read token files, or prepare what was read from them."""
        words = {"glob", "fromfile", "memmap", "val_files"}
        return [f.node for i, f in self.functions.items() if f.names & words and i not in self._training]

    @cached_property
    def training_names(self) -> frozenset[str]:
        """Names of the functions that can run a backward pass, but for those that every network has."""
        names = (f.node.name for i, f in self.functions.items() if i in self._training)
        return frozenset(n for n in names if n not in COMMON and n != "main")

    @cached_property
    def _mixing(self) -> set[int]:
        """Functions that attend or mix positions; in a network, also those of its parts."""
        direct = {i for i, f in self.functions.items() if f.shifts or f.ahead or self._attends(f)}
        direct |= {id(node) for node in self.state_calls.values()}
        members: dict[str, list[FunctionFacts]] = {}
        for cls in self.classes:
            own = [self.functions[id(s)] for s in cls.body if isinstance(s, FunctionNode)]
            members.setdefault(cls.name, []).extend(own)
        mixing = {name for name, own in members.items() if any(id(f.node) in direct for f in own)}
        todo = True
        while todo:
            more = {name for name, own in members.items() if name not in mixing and any(f.names & mixing for f in own)}
            mixing |= more
            todo = bool(more)
        direct |= {id(f.node) for name in mixing for f in members[name] if f.node.name != "__init__"}
        return self._closure(direct)

    @cached_property
    def makes_leaves(self) -> bool:
        """Whether this program may optimise tensors that no network owns."""
        return any(f.makes_leaves or ("Parameter" in f.names and not f.in_class) for f in self.functions.values())

    @cached_property
    def leaf_makers(self) -> frozenset[int]:
        """Functions that make such tensors and can run a backward pass."""
        return frozenset(
            i for i, f in self.functions.items() if f.makes_leaves and i in self._training and makes_own_leaf(f.node)
        )

    @cached_property
    def leaf_names(self) -> frozenset[str]:
        """Names by which these are called, but for those that every program has."""
        names = (self.functions[i].node.name for i in self._closure(set(self.leaf_makers)))
        return frozenset(n for n in names if n not in COMMON and n != "main")

    @cached_property
    def has_shift(self) -> bool:
        """Whether a network of this program may mix a position with the one before it."""
        from_classes: set[str] = set()
        for facts in self.functions.values():
            if facts.in_class:
                from_classes |= facts.names
        return any(
            (f.in_class and "roll" in f.names) or (f.shifts and (f.in_class or f.node.name in from_classes))
            for f in self.functions.values()
        )

    @staticmethod
    def _attends(facts: FunctionFacts) -> bool:
        return bool(facts.names & {"roll", "lerp"}) or any("attn" in n or "attention" in n for n in facts.names)

    def leading_to(self, functions: set[int]) -> frozenset[str]:
        """Names of the functions with these node ids, and of those that lead to them."""
        names = (self.functions[i].node.name for i in self._closure(functions & self.functions.keys()))
        return frozenset(n for n in names if n not in COMMON and n != "main")

    @cached_property
    def fetching_names(self) -> frozenset[str]:
        """Names of the functions that can fetch something from the network or run a program, and of the ways to."""
        direct = {i for i, f in self.functions.items() if f.names & FETCHING or f.names & CALLS_OUT}
        names = (self.functions[i].node.name for i in self._closure(direct))
        return FETCHING | CALLS_OUT | frozenset(n for n in names if n not in COMMON and n != "main")

    @cached_property
    def calling_names(self) -> frozenset[str]:
        """Names of the functions that can run a program or load a library, and of the ways to do so."""
        direct = {i for i, f in self.functions.items() if f.names & CALLS_OUT}
        names = (self.functions[i].node.name for i in self._closure(direct))
        return CALLS_OUT | frozenset(n for n in names if n not in COMMON and n != "main")

    @cached_property
    def hooking_names(self) -> frozenset[str]:
        """Names of the functions that can register a forward hook, and of the ways to do so."""
        direct = {i for i, f in self.functions.items() if f.names & HOOKS}
        names = (self.functions[i].node.name for i in self._closure(direct))
        return HOOKS | frozenset(n for n in names if n not in COMMON and n != "main")

    @cached_property
    def has_lookahead(self) -> bool:
        """Whether a network of this program may let a position see later ones."""
        return any(f.ahead and f.in_class for f in self.functions.values()) or bool(self.state_calls)

    @cached_property
    def state_calls(self) -> dict[int, ast.AST]:
        """Calls ``x, state = layer(x, state)`` in a loop, where layers return the state that a whole sequence leaves.

        The next round then starts, at the first position, from a state that has seen the last. Ids of the nodes and
        the functions they stand in.
        """
        if not any(
            "output_final_state" in f.names or "return_final_states" in f.names for f in self.functions.values()
        ):
            return {}
        found: dict[int, ast.AST] = {}
        for facts in self.functions.values():
            if not facts.in_class:
                continue
            for loop in walk(facts.node):
                if not isinstance(loop, (ast.For, ast.While)):
                    continue
                for part in walk(loop):
                    if isinstance(part, ast.Assign) and isinstance(part.value, ast.Call):
                        names = [ast.unparse(e) for e in getattr(part.targets[0], "elts", ())]
                        if len(names) == 2 and names == [ast.unparse(a) for a in part.value.args[:2]]:
                            found[id(part.value)] = facts.node
        return found

    @cached_property
    def hooks(self) -> bool:
        """Whether any function registers a forward hook."""
        return any(f.names & HOOKS for f in self.functions.values())

    def mixes(self, node: ast.AST) -> bool:
        """Whether this function, or one it names, attends or mixes neighbouring positions."""
        return id(node) in self._mixing

    @staticmethod
    def _matters(facts: FunctionFacts) -> bool:
        if facts.names & MATTERS or facts.names & FETCHING or facts.makes:
            return True
        return any("bpb" in s or "val_loss" in s or "fineweb" in s or s.endswith(".bin") for s in facts.strings)

    def _closure(self, direct: set[int]) -> set[int]:
        """``direct`` and every function that names one of them."""
        callers: dict[str, list[int]] = {}
        known = self.by_name
        for i, facts in self.functions.items():
            for name in facts.names:
                if name in known and name not in COMMON:
                    callers.setdefault(name, []).append(i)
        names_of: dict[int, list[str]] = {}
        for name, group in known.items():
            for facts in group:
                names_of.setdefault(id(facts.node), []).append(name)
        found, todo = set(direct), list(direct)
        while todo:
            for name in names_of.get(todo.pop(), []):
                for caller in callers.get(name, []):
                    if caller not in found:
                        found.add(caller)
                        todo.append(caller)
        return found

    def interesting(self, node: ast.AST) -> bool:
        """Whether following a call to this function can tell the rules anything."""
        return id(node) in self._interesting or id(node) not in self.functions

    def resets(self, node: ast.AST) -> bool:
        """Whether this method puts fixed values into its object's parameters (``reset``, ``reinit``, ...)."""
        facts = self.functions.get(id(node))
        if facts is None or facts.node.name == "forward":
            return False
        return bool(facts.names & RESETS) or (facts.in_class and bool(facts.names & self._resetting))

    @cached_property
    def _resetting(self) -> frozenset[str]:
        """Names of the methods that reset something themselves: a whole is reset by resetting its parts."""
        names = (f.node.name for f in self.functions.values() if f.in_class and f.names & RESETS)
        return frozenset(n for n in names if n not in TRAINING and n not in ("forward", "__init__"))

    def counts(self, node: ast.AST) -> bool:
        """Whether this function, or one it names, adds to entries of a table."""
        return id(node) in self._counting

    @cached_property
    def _counting(self) -> set[int]:
        return self._closure(
            {i for i, f in self.functions.items() if f.tallies or f.names & TALLIES or {"add", "at"} <= f.names}
        )

    def reorders(self, node: ast.AST) -> bool:
        """Whether this function itself sorts by a key, or shuffles."""
        return id(node) in self.functions and self.functions[id(node)].reorders

    def trains(self, node: ast.AST) -> bool:
        """Whether this function can run a backward pass."""
        return id(node) in self._training

    def free_roles(self, node: ast.AST, scope: Scope) -> frozenset[str]:
        """Roles of the outer variables that a function which is not entered reads."""
        facts = self.functions.get(id(node))
        if facts is None:
            return EMPTY
        found = []
        outer: Scope | None = scope
        while outer is not None and outer.parent is not None:
            found += [outer.names[name] for name in facts.names if name in outer.names]
            outer = outer.parent
        return roles_of(found)

    def qualname(self, node: ast.AST) -> str:
        """The qualified name of a function node of this program."""
        facts = self.functions.get(id(node))
        return facts.qualname if facts is not None else "<module>"
