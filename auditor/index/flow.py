"""What a value is computed from: a backward walk over assignments, element by element and through calls.

The trace says in which order things happen and what reaches what; it does not keep how a value was computed. This
module answers that for the few expressions a rule asks about: starting at an expression (a term of the reported sum,
the key of a table), it goes back over every assignment that can have made it, through tuples and lists of tuples,
into the functions that the trace saw being called, and out of parameters to the arguments of those calls. It is
insensitive to order inside a function: all assignments of a name count, except those in branches that the run's
configuration leaves out.

Built on first use and only by rules whose mechanism the index has seen, so a script without it pays nothing.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from auditor.index.names import leaf_name
from auditor.index.program_index import FunctionNode, ProgramIndex
from auditor.index.trace import Caller, Event, Trace
from auditor.unpack import Program
from auditor.unpack.walk import FIELDS, children
from auditor.unpack.walk import walk as walk_tree

FUNCTIONS_AND_CLASSES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
MAX_NODES = 12_000
MAX_PATH = 4
MAX_CALLERS = 6
MAX_DEPTH = 12

ITEM = -1
"""A step of a path: some element of a container, whichever."""
Path = tuple[int, ...]

# Methods that hand on the same content: in another type, place or shape.
CONVERSIONS = frozenset(
    {
        "cpu", "numpy", "tolist", "to", "long", "int", "float", "double", "half", "astype", "contiguous", "clone",
        "copy", "detach", "view", "reshape", "flatten", "ravel", "squeeze", "unsqueeze", "item", "cuda", "type",
        "pin_memory", "expand", "expand_as", "transpose", "t", "permute", "data_ptr",
    }
)  # fmt: skip
WRAPPERS = frozenset(
    {
        "asarray", "array", "ascontiguousarray", "from_numpy", "tensor", "as_tensor", "list", "tuple", "int", "float", 
        "sorted", "reversed", "uint64", "int64", "int32", "uint32", "float64", "float32", "uint16", "intp", "iter",
        "squeeze", "expand_dims", "ravel", "copy", "clone",
    }
)  # fmt: skip
# In-place methods by which an array or container takes in other values.
TAKES_IN = frozenset({"append", "add", "extend", "appendleft", "insert", "update", "fill", "push", "put", "setdefault"})


class Def(NamedTuple):
    """One way a name (or attribute) gets its value."""

    statement: ast.AST
    value: ast.expr
    prefix: Path = ()
    """Where in ``value`` the content stands: a tuple position, or ITEM for what is iterated over."""
    stored: bool = False
    """Written into a part of what the name holds: ``x[key] = value``, ``x.append(value)``."""
    key: ast.expr | None = None
    argument: int | None = None
    """The name is passed to the call ``value`` as this positional argument and may be written to there."""


@dataclass(eq=False, slots=True)
class Site:
    """One function as it is reached: by which call, from where. ``caller`` is None where any caller may do."""

    body: ast.AST
    program: Program
    owner: ast.ClassDef | None = None
    caller: Site | None = None
    call: ast.Call | None = None
    depth: int = 0
    key: tuple[int, int, int] = field(init=False)
    """Equal for sites that see the same values."""

    def __post_init__(self) -> None:
        call, caller = self.call, self.caller
        self.key = id(self.body), id(call) if call is not None else 0, id(caller) if caller is not None else 0


class Item(NamedTuple):
    """One expression on the way, in its function, and the part of its value that is meant."""

    node: ast.expr
    site: Site
    path: Path = ()


class Root(NamedTuple):
    """What a container expression names in the end: an attribute of a class, a local or a global."""

    kind: str
    owner: int
    name: str


class Access(NamedTuple):
    """A container access: its root and the keys on the way, outermost container first."""

    root: Root
    keys: tuple[Item, ...]


@dataclass(eq=False, slots=True)
class Definitions:
    """All definitions in one function body, by name or dotted attribute path."""

    names: dict[str, list[Def]] = field(default_factory=dict)
    parameters: tuple[str, ...] = ()
    """Positional parameters first, ``self`` included."""
    positional: int = 0
    returns: list[ast.expr] = field(default_factory=list)
    blocks: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Lines of the block that each defining statement stands in, by the statement's id."""
    loops: list[tuple[int, int]] = field(default_factory=list)
    _reaching: dict[tuple[str, int], tuple[list[Def], bool]] = field(default_factory=dict)

    def reaching(self, name: str, line: int) -> tuple[list[Def], bool]:
        """The definitions of ``name`` that can reach a line, and whether one of them is always passed on the way.

        The last plain assignment before the line in a block around it hides all earlier ones; what comes after the line
        reaches it only in a later round of a loop that does not pass that assignment again.
        """
        found = self._reaching.get((name, line))
        if found is None:
            found = self._reaching[name, line] = self._reach(self.names.get(name, []), line)
        return found

    def _reach(self, defined: list[Def], line: int) -> tuple[list[Def], bool]:
        last = 0
        for d in defined:
            start, end = self.blocks.get(id(d.statement), (0, 0))
            whole = not d.stored and d.argument is None and not isinstance(d.statement, ast.AugAssign)
            if whole and start <= line <= end and _last_line(d.statement) < line:
                last = max(last, d.statement.lineno)  # type: ignore[attr-defined]
        kept: list[Def] = []
        for d in defined:
            here = getattr(d.statement, "lineno", None)
            if here is None:
                kept.append(d)
            elif _last_line(d.statement) < line:
                if here >= last:
                    kept.append(d)
            elif any(s <= here <= e and s <= line <= e and not s <= last <= e for s, e in self.loops):
                kept.append(d)
        return kept, last > 0


class Flow:
    """Backward walks over one trace's programs."""

    def __init__(self, trace: Trace, indexes: Sequence[ProgramIndex]) -> None:
        self.trace = trace
        self.indexes = {id(i.program): i for i in indexes}
        self._definitions: dict[tuple[int, int], Definitions] = {}
        self._sites: dict[tuple[int, int, int], Site] = {}
        self._owners: dict[int, ast.ClassDef] = {}
        self._programs: dict[int, Program] = {}
        self._methods: dict[str, list[tuple[ast.AST, Program, ast.ClassDef | None]]] = {}
        self._homes: dict[int, ast.AST] = {}
        self._steps: dict[tuple[int, tuple[int, int, int], Path], list[Item]] = {}
        self._fields: dict[tuple[int, tuple[int, int, int]], list[tuple[ast.expr, Site]]] = {}
        self._calls: dict[str, dict[int, Caller]] = {}
        self._classes: dict[tuple[int, tuple[int, int, int]], ast.ClassDef | None] = {}
        self._frames: set[int] = set()
        self._access: dict[tuple[int, tuple[int, int, int]], list[Access]] = {}
        for index in indexes:
            for cls in index.classes:
                self._programs[id(cls)] = index.program
                for statement in cls.body:
                    if isinstance(statement, FunctionNode):
                        self._owners[id(statement)] = cls
            for facts in index.functions.values():
                owner = self._owners.get(id(facts.node))
                self._methods.setdefault(facts.node.name, []).append((facts.node, index.program, owner))

    # -- where to start ----------------------------------------------------------------------------------

    def site_of(self, event: Event) -> Site:
        """The function an event stands in, with the calls that led there."""
        site: Site | None = None
        for frame in event.frames:
            body: ast.AST = frame.definition or frame.program.tree or ast.Module([], [])
            call = frame.call if isinstance(frame.call, ast.Call) else None
            site = self.site(body, frame.program, site if call is not None else None, call)
        assert site is not None
        return site

    def leave_out(self, event: Event) -> None:
        """Ignore the branches that the run does not take in the calls around ``event`` and below its own."""
        inside = {event.frame}
        for frame, (caller, _, _) in self.trace.entered.items():  # callers come before what they call
            if caller in inside:
                inside.add(frame)
        self._frames |= inside | {f.id for f in event.frames}

    def decisions(self, site: Site) -> dict[int, bool]:
        """The branches that are decided alike wherever the function runs for the events given, by its call if known."""
        frames = [f for f in self._frames if self.trace.entered.get(f, (0, 0, 0))[1] == id(site.body)]
        if site.call is not None:
            frames = [f for f in frames if self.trace.entered[f][2] == id(site.call)] or frames
        known: dict[int, bool | None] = {}
        for frame in frames:
            for branch, truth in self.trace.decided.get(frame, {}).items():
                known[branch] = truth if known.get(branch, truth) is truth else None
        return {branch: truth for branch, truth in known.items() if truth is not None}

    def site(self, body: ast.AST, program: Program, caller: Site | None = None, call: ast.Call | None = None) -> Site:
        """The site of a function, reached by ``call`` from ``caller``."""
        depth = caller.depth + 1 if caller is not None else 0
        made = Site(body, program, self._owners.get(id(body)), caller, call, depth)
        return self._sites.setdefault(made.key, made)

    # -- definitions -------------------------------------------------------------------------------------

    def definitions(self, site: Site) -> Definitions:
        """The definitions in a function, lambda or module, without those of functions nested in it."""
        mark = id(site.body), id(site.call) if site.call is not None and self._frames else 0
        found = self._definitions.get(mark)
        if found is None:
            found = self._definitions[mark] = _collect(site.body, self.decisions(site) if self._frames else {})
        return found

    # -- one step back -----------------------------------------------------------------------------------

    def walk(
        self, start: Iterable[Item], *, enter: Callable[[Item], bool] | None = None, limit: int = MAX_NODES
    ) -> Iterator[Item]:
        """Everything that ``start`` is computed from, nearest first. ``enter`` False: yield, but go no further."""
        todo = list(start)
        seen: set[tuple[int, tuple[int, int, int], Path]] = set()
        place = 0
        while place < len(todo) and place < limit:
            item = todo[place]
            place += 1
            mark = (id(item.node), item.site.key, item.path)
            if mark in seen:
                continue
            seen.add(mark)
            yield item
            if enter is None or enter(item):
                todo.extend(self.step(item))

    def step(self, item: Item) -> list[Item]:
        """What the value of an expression is made from, directly. One walk after the other asks for the same."""
        mark = (id(item.node), item.site.key, item.path)
        found = self._steps.get(mark)
        if found is None:
            found = self._steps[mark] = self._step(item)
        return found

    def _step(self, item: Item) -> list[Item]:
        node, site, path = item
        if isinstance(node, ast.Name):
            return self.name(node.id, site, path, node.lineno)
        if isinstance(node, ast.Attribute):
            return self._attribute(node, site, path)
        if isinstance(node, ast.Call):
            return self._call(node, site, path)
        if isinstance(node, ast.Subscript):
            index = node.slice
            inner = path
            if isinstance(index, ast.Constant) and isinstance(index.value, int):
                inner = (index.value, *path)
            elif not isinstance(index, (ast.Slice, ast.Tuple)):
                inner = (ITEM, *path)
            return [Item(node.value, site, inner[:MAX_PATH]), Item(index, site)]
        if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
            if path and path[0] != ITEM and -len(node.elts) <= path[0] < len(node.elts):
                return [Item(node.elts[path[0]], site, path[1:])]
            return [Item(e, site, path[1:]) for e in node.elts]
        if isinstance(node, (ast.ListComp, ast.GeneratorExp, ast.SetComp)):
            return [Item(node.elt, site, path[1:])]
        if isinstance(node, ast.DictComp):
            return [Item(node.value, site, path[1:])]
        if isinstance(node, ast.Dict):
            return [Item(v, site, path[1:]) for v in node.values]
        if isinstance(node, ast.IfExp):
            return [Item(node.body, site, path), Item(node.orelse, site, path), Item(node.test, site)]
        if isinstance(node, (ast.Starred, ast.NamedExpr, ast.Await)):
            return [Item(node.value, site, path)]
        if isinstance(node, ast.Lambda):
            return [Item(node.body, self.site(node, site.program, site), path)]
        return [Item(child, site) for child in children(node) if isinstance(child, ast.expr)]

    def name(self, name: str, site: Site, path: Path, line: int | None = None) -> list[Item]:
        """What a name holds at a line: its definitions, the argument passed, or the outer function's variable."""
        known = self.definitions(site)
        defined = known.names.get(name, [])
        reaching, settled = known.reaching(name, line) if line is not None else (defined, False)
        made = [i for d in reaching for i in self._defined(d, site, path)]
        if name in known.parameters:
            return made if settled else made + self._arguments(name, known, site, path)
        if defined:
            return made
        outer = self.outer(site)
        return self.name(name, outer, path) if outer is not None else []

    def outer(self, site: Site) -> Site | None:
        """The site whose variables the function at ``site`` sees: the function around it, or the module."""
        if isinstance(site.body, ast.Module):
            return None
        index = self.indexes.get(id(site.program))
        around: ast.AST | None = site.program.tree
        if isinstance(site.body, ast.Lambda):
            around = self._home(site.body, site.program) or around
        facts = index.functions.get(id(site.body)) if index is not None else None
        if facts is not None and facts.outer is not None:
            around = facts.outer.node
        above = site.caller
        while above is not None and above.body is not around:
            above = above.caller
        if above is not None:
            return above
        return self.site(around, site.program) if around is not None else None

    def _home(self, node: ast.Lambda, program: Program) -> ast.AST | None:
        """The innermost function in which a lambda stands."""
        if not self._homes:
            for index in self.indexes.values():
                for facts in index.functions.values():  # outer functions come before those nested in them
                    self._homes.update({id(n): facts.node for n in walk_tree(facts.node) if isinstance(n, ast.Lambda)})
        return self._homes.get(id(node))

    def _defined(self, known: Def, site: Site, path: Path) -> list[Item]:
        if known.argument is not None:
            return self._written_by(known, site)
        if known.stored:
            inner = path[1:] if path else ()
            items = [Item(known.value, site, inner)]
            return items if known.key is None else [*items, Item(known.key, site)]
        return [Item(known.value, site, (*known.prefix, *path)[:MAX_PATH])]

    def _written_by(self, known: Def, site: Site) -> list[Item]:
        """What a called function stores into the array it is given."""
        call = known.value
        if not isinstance(call, ast.Call) or known.argument is None:
            return []
        items: list[Item] = []
        for inner, parameters in self._callees(call, site):
            if known.argument < len(parameters):
                name = parameters[known.argument]
                stores = [d for d in self.definitions(inner).names.get(name, ()) if d.stored]
                items += [i for d in stores for i in self._defined(d, inner, ())]
        return items

    def _arguments(self, name: str, known: Definitions, site: Site, path: Path) -> list[Item]:
        if site.call is not None and site.caller is not None:
            given = self._argument(name, known, site.call, site)
            return [Item(given, site.caller, path)] if given is not None else self._default(name, site, path)
        items: list[Item] = []
        for caller in self.callers(site)[:MAX_CALLERS]:
            if isinstance(caller.call, ast.Call) and caller.program.tree is not None:
                given = self._argument(name, known, caller.call, site)
                if given is not None:
                    around = self.site(caller.definition or caller.program.tree, caller.program)
                    items.append(Item(given, around, path))
        return items or self._default(name, site, path)

    def callers(self, site: Site) -> list[Caller]:
        """The calls that lead to a function: those the trace saw, else those by its name."""
        return list(self.trace.callers.get(id(site.body), {}).values()) or self._mentions(site)

    def _mentions(self, site: Site) -> list[Caller]:
        """Calls by name of a function that the trace did not come to."""
        if not self._calls:
            for index in self.indexes.values():
                for facts in index.functions.values():  # outer functions come before those nested in them
                    for node in walk_tree(facts.node):
                        if isinstance(node, ast.Call):
                            caller = Caller(node, facts.node, index.program)
                            self._calls.setdefault(leaf_name(node), {})[id(node)] = caller
        name = getattr(site.body, "name", "")
        if name == "__init__" and site.owner is not None:
            name = site.owner.name
        alone = len(self._methods.get(name, ())) <= 1
        return list(self._calls.get(name, {}).values()) if name and alone else []

    @staticmethod
    def _argument(name: str, known: Definitions, call: ast.Call, site: Site) -> ast.expr | None:
        for keyword in call.keywords:
            if keyword.arg == name:
                return keyword.value
        place = known.parameters.index(name)
        if place >= known.positional:
            return None
        bound = site.owner is not None and isinstance(call.func, ast.Attribute) and known.parameters[0] == "self"
        if (
            site.owner is not None
            and known.parameters[:1] == ("self",)
            and getattr(site.body, "name", "") == "__init__"
        ):
            bound = True
        place -= 1 if bound else 0
        if 0 <= place < len(call.args) and not any(isinstance(a, ast.Starred) for a in call.args[: place + 1]):
            return call.args[place]
        return None

    @staticmethod
    def _default(name: str, site: Site, path: Path) -> list[Item]:
        if not isinstance(site.body, (FunctionNode, ast.Lambda)):
            return []
        spec = site.body.args
        positional = [*spec.posonlyargs, *spec.args]
        pairs = [*zip(positional[len(positional) - len(spec.defaults) :], spec.defaults, strict=False)]
        pairs += [(a, d) for a, d in zip(spec.kwonlyargs, spec.kw_defaults, strict=False) if d is not None]
        return [Item(d, site, path) for a, d in pairs if a.arg == name]

    def _attribute(self, node: ast.Attribute, site: Site, path: Path) -> list[Item]:
        if isinstance(node.value, ast.Name):
            cls = self.class_of(node.value, site)
            if cls is not None:
                held = [i for d, where in self.attribute(cls, node.attr) for i in self._defined(d, where, path)]
                return held or self._field(node, site, path)
            local = self.definitions(site).names.get(f"{node.value.id}.{node.attr}")
            if local:
                return [i for d in local for i in self._defined(d, site, path)]
            if node.attr not in ("T", "data", "values", "indices", "real"):
                return self._field(node, site, path)
        return [Item(node.value, site, path)]

    def _field(self, node: ast.Attribute, site: Site, path: Path) -> list[Item]:
        """What a record was built with under this name: ``Result(val_loss=loss)``."""

        def built(item: Item) -> list[ast.expr]:
            call = item.node
            if not isinstance(call, ast.Call) or self.callees(call, item.site):
                return []
            return [k.value for k in call.keywords if k.arg == node.attr]

        mark = (id(node), site.key)
        if mark not in self._fields:
            self._fields[mark] = []  # for records that are built from each other
            steps = self.walk([Item(node.value, site)], enter=lambda i: not built(i), limit=120)
            self._fields[mark] = [(value, item.site) for item in steps for value in built(item)]
        return [Item(value, where, path) for value, where in self._fields[mark]]

    def class_of(self, node: ast.expr, site: Site, depth: int = 0) -> ast.ClassDef | None:
        """The class of the submission that an expression is an instance of, where that is plain to see."""
        mark = (id(node), site.key)
        if depth > 4 or mark in self._classes:
            return self._classes.get(mark)
        self._classes[mark] = None  # for names that are defined by themselves
        self._classes[mark] = self._class_of(node, site, depth)
        return self._classes[mark]

    def _class_of(self, node: ast.expr, site: Site, depth: int) -> ast.ClassDef | None:
        if isinstance(node, ast.Name):
            known = self.definitions(site)
            if node.id == "self" and site.owner is not None:
                return site.owner
            if node.id not in known.names and node.id not in known.parameters:
                outer = self.outer(site)
                return self.class_of(node, outer, depth + 1) if outer is not None else None
            for item in self.name(node.id, site, ()):
                found = self.class_of(item.node, item.site, depth + 1)
                if found is not None:
                    return found
        elif isinstance(node, ast.Call):
            for callee in self.trace.calls.get(id(node), {}).values():
                if callee.owner is not None and getattr(callee.definition, "name", "") == "__init__":
                    return callee.owner
            if isinstance(node.func, ast.Name):
                if node.func.id == "cls" and site.owner is not None:
                    return site.owner
                index = self.indexes.get(id(site.program))
                for cls in index.classes if index is not None else ():
                    if cls.name == node.func.id:
                        return cls
            for inner in self.callees(node, site):
                for value in self.definitions(inner).returns:
                    found = self.class_of(value, inner, depth + 1)
                    if found is not None:
                        return found
        elif isinstance(node, ast.IfExp):
            return self.class_of(node.body, site, depth + 1) or self.class_of(node.orelse, site, depth + 1)
        elif isinstance(node, ast.Attribute):
            for item in self._attribute(node, site, ()):
                found = self.class_of(item.node, item.site, depth + 1)
                if found is not None:
                    return found
        return None

    def attribute(self, cls: ast.ClassDef, name: str) -> list[tuple[Def, Site]]:
        """All definitions of ``self.name`` in a class, each with the method it stands in."""
        found: list[tuple[Def, Site]] = []
        program = self._programs.get(id(cls))
        if program is None:
            return []
        for statement in cls.body:
            if isinstance(statement, FunctionNode):
                where = self.site(statement, program)
                found += [(d, where) for d in self.definitions(where).names.get(f"self.{name}", ())]
            elif isinstance(statement, (ast.Assign, ast.AnnAssign)) and statement.value is not None:
                targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                if any(isinstance(t, ast.Name) and t.id == name for t in targets):
                    found.append((Def(statement, statement.value), self.site(cls, program)))
        return found

    def callees(self, call: ast.Call, site: Site) -> list[Site]:
        """The functions of the submission that a call leads to."""
        return [inner for inner, _ in self._callees(call, site)]

    def _callees(self, call: ast.Call, site: Site) -> list[tuple[Site, tuple[str, ...]]]:
        """The functions a call leads to, each with the parameters its positional arguments bind to."""
        known = self.trace.calls.get(id(call), {})
        targets = [(c.definition, c.program, c.owner) for c in known.values()]
        if len(targets) != 1:
            targets = self._passed(call, site) or targets or self._by_name(call, site)
        found: list[tuple[Site, tuple[str, ...]]] = []
        for definition, program, owner in targets:
            if site.depth >= MAX_DEPTH or getattr(definition, "name", "") == "__init__":
                continue
            inner = self.site(definition, program, site, call)
            parameters = self.definitions(inner).parameters
            if owner is not None and parameters[:1] in (("self",), ("cls",)):
                parameters = parameters[1:]
            found.append((inner, parameters))
        return found

    def _passed(self, call: ast.Call, site: Site) -> list[tuple[ast.AST, Program, ast.ClassDef | None]]:
        """The function that is called under the name of a parameter, where this site's own call passes it."""
        if site.call is None or not isinstance(call.func, ast.Name):
            return []
        if call.func.id not in self.definitions(site).parameters:
            return []
        found: list[tuple[ast.AST, Program, ast.ClassDef | None]] = []
        for item in self.walk([Item(call.func, site)], enter=lambda i: isinstance(i.node, ast.Name), limit=20):
            if isinstance(item.node, ast.Lambda):
                found.append((item.node, item.site.program, None))
            elif isinstance(item.node, ast.Name) and item.node is not call.func:
                found += [m for m in self._methods.get(item.node.id, ()) if m[2] is None][:1]
        return found

    def _by_name(self, call: ast.Call, site: Site) -> list[tuple[ast.AST, Program, ast.ClassDef | None]]:
        """Functions by name, where the trace did not come past this call."""
        if isinstance(call.func, ast.Name):
            return [m for m in self._methods.get(call.func.id, ()) if m[2] is None][:1]
        if isinstance(call.func, ast.Attribute):
            named = [m for m in self._methods.get(call.func.attr, ()) if m[2] is not None]
            if isinstance(call.func.value, ast.Name) and call.func.value.id == "self" and site.owner is not None:
                own = [m for m in named if m[2] is site.owner]
                return own[:1]
            return named if len(named) == 1 else []
        return []

    def _call(self, node: ast.Call, site: Site, path: Path) -> list[Item]:
        inside = self.callees(node, site)
        if inside:
            return [Item(value, s, path) for s in inside for value in self.definitions(s).returns]
        func = node.func
        arguments = [a.value if isinstance(a, ast.Starred) else a for a in node.args]
        arguments += [k.value for k in node.keywords]
        if isinstance(func, ast.Attribute) and not is_module(func.value):
            if func.attr in CONVERSIONS:
                return [Item(func.value, site, path)]
            if func.attr in ("get", "pop", "popleft"):
                return [Item(func.value, site, (ITEM, *path)[:MAX_PATH]), *(Item(a, site) for a in arguments)]
            if func.attr in ("items", "values", "keys"):
                rest = path[2:] if func.attr == "items" else path[1:]
                return [Item(func.value, site, (ITEM, *rest)[:MAX_PATH])]
            return [Item(func.value, site), *(Item(a, site) for a in arguments)]
        leaf = leaf_name(node)
        if leaf == "zip" and len(path) > 1 and path[0] == ITEM and 0 <= path[1] < len(arguments):
            return [Item(arguments[path[1]], site, (ITEM, *path[2:]))]
        if leaf == "enumerate" and arguments and len(path) > 1 and path[0] == ITEM:
            return [Item(arguments[0], site, (ITEM, *path[2:]))] if path[1] == 1 else []
        if leaf in WRAPPERS and arguments:
            return [Item(arguments[0], site, path)]
        return [Item(a, site) for a in arguments]

    # -- containers --------------------------------------------------------------------------------------

    def accesses(self, node: ast.expr, site: Site, depth: int = 0) -> list[Access]:
        """The containers that an expression names, through aliases, with the keys used on the way."""
        mark = (id(node), site.key)
        if mark in self._access:
            return self._access[mark]
        self._access[mark] = []  # a name defined by itself adds nothing
        found = self._accesses(node, site, depth) if depth < 24 else []
        unique: dict[tuple[Root, tuple[int, ...]], Access] = {}
        for access in found:
            unique.setdefault((access.root, tuple(id(k.node) for k in access.keys)), access)
        self._access[mark] = list(unique.values())[:8]
        return self._access[mark]

    def _accesses(self, node: ast.expr, site: Site, depth: int) -> list[Access]:
        if isinstance(node, ast.Subscript):
            parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            keys = tuple(Item(p, site) for p in parts)
            return [Access(a.root, (*a.keys, *keys)) for a in self.accesses(node.value, site, depth + 1)]
        if isinstance(node, ast.Call):
            func = node.func
            if isinstance(func, ast.Attribute) and not is_module(func.value):
                if func.attr in ("get", "setdefault") and node.args:
                    key = (Item(node.args[0], site),)
                    return [Access(a.root, (*a.keys, *key)) for a in self.accesses(func.value, site, depth + 1)]
                if func.attr in ("index_select", "gather", "take") and node.args:
                    key = (Item(node.args[-1], site),)
                    return [Access(a.root, (*a.keys, *key)) for a in self.accesses(func.value, site, depth + 1)]
                if func.attr in CONVERSIONS:
                    return self.accesses(func.value, site, depth + 1)
            leaf = leaf_name(node)
            if leaf in ("take", "gather") and len(node.args) > 1:
                key = (Item(node.args[-1], site),)
                return [Access(a.root, (*a.keys, *key)) for a in self.accesses(node.args[0], site, depth + 1)]
            if leaf in WRAPPERS and len(node.args) >= 1 and not self.trace.calls.get(id(node)):
                return self.accesses(node.args[0], site, depth + 1)
            inside = self.callees(node, site)
            return [a for s in inside for v in self.definitions(s).returns for a in self.accesses(v, s, depth + 1)]
        if isinstance(node, ast.Attribute):
            if isinstance(node.value, (ast.Name, ast.Attribute)):
                cls = self.class_of(node.value, site)
                if cls is not None:
                    root = Root("attribute", id(cls), node.attr)
                    aliases = [
                        a
                        for d, where in self.attribute(cls, node.attr)
                        if not d.stored and isinstance(d.value, (ast.Name, ast.Attribute))
                        for a in self.accesses(d.value, where, depth + 1)
                    ]
                    return [Access(root, ()), *aliases]
            return []
        if isinstance(node, ast.Name):
            return self._named_container(node.id, site, depth)
        if isinstance(node, ast.IfExp):
            return self.accesses(node.body, site, depth + 1) + self.accesses(node.orelse, site, depth + 1)
        return []

    def _named_container(self, name: str, site: Site, depth: int) -> list[Access]:
        known = self.definitions(site)
        own = [d for d in known.names.get(name, ()) if not d.stored and d.argument is None]
        found: list[Access] = []
        if name in known.parameters:
            for item in self._arguments(name, known, site, ()):
                found += self.accesses(item.node, item.site, depth + 1)
        for d in own:
            if not d.prefix:
                if isinstance(d.value, (ast.Name, ast.Attribute, ast.Subscript, ast.Call, ast.IfExp)):
                    found += self.accesses(d.value, site, depth + 1)
            else:
                found += self._unpacked(d, site, depth)
        if name in known.names or name in known.parameters:
            return [Access(Root("name", id(site.body), name), ()), *found]
        outer = self.outer(site)
        return self._named_container(name, outer, depth + 1) if outer is not None else found

    def _unpacked(self, known: Def, site: Site, depth: int) -> list[Access]:
        """Containers bound by tuple assignment or by looping over a container of them."""
        found: list[Access] = []
        start = Item(known.value, site, known.prefix)
        if is_access(start.node):
            # One of several tables kept together: the position is one more key.
            place = Item(ast.Constant(known.prefix[-1]), site)
            return [Access(a.root, (*a.keys, place)) for a in self.accesses(start.node, site, depth + 1)]
        for item in self.walk([start], enter=lambda i: not is_access(i.node), limit=60):
            node = item.node
            if is_access(node) and node is not start.node:
                found += self.accesses(node, item.site, depth + 1)
            elif isinstance(node, ast.Name) and item.path[:1] in ((), (ITEM,)):
                root = Root("name", id(item.site.body), node.id)
                if node.id in self.definitions(item.site).names:
                    found.append(Access(root, ()))
            elif isinstance(node, ast.Attribute):
                found += self.accesses(node, item.site, depth + 1)
        return found


# -- collecting definitions ------------------------------------------------------------------------------


def _collect(body: ast.AST, decided: dict[int, bool]) -> Definitions:
    made = Definitions()
    if isinstance(body, (FunctionNode, ast.Lambda)):
        spec = body.args
        positional = [a.arg for a in (*spec.posonlyargs, *spec.args)]
        made.positional = len(positional)
        made.parameters = (*positional, *(a.arg for a in spec.kwonlyargs))
    if isinstance(body, ast.Lambda):
        made.returns.append(body.body)
        return made
    top: list[ast.stmt] = getattr(body, "body", [])
    decided = _steady(body, decided) if decided else decided
    stack: list[tuple[ast.AST, tuple[int, int]]] = [(s, _lines(top)) for s in reversed(_taken(top, decided))]
    while stack:
        node, block = stack.pop()
        if node.__class__ is ast.Name or node.__class__ is ast.Constant:
            continue
        if isinstance(node, FUNCTIONS_AND_CLASSES):
            continue
        if isinstance(node, (ast.stmt, ast.NamedExpr)):
            made.blocks[id(node)] = block
        if isinstance(node, (ast.For, ast.AsyncFor, ast.While)):
            made.loops.append((node.lineno, node.end_lineno or node.lineno))
            made.blocks[id(node)] = _lines(node.body)
        if isinstance(node, ast.Assign):
            for target in node.targets:
                _bind(made, node, target, node.value, ())
        elif isinstance(node, ast.AnnAssign):
            if node.value is not None:
                _bind(made, node, node.target, node.value, ())
        elif isinstance(node, ast.AugAssign):
            value = node.value
            if isinstance(node.target, (ast.Name, ast.Attribute)):
                value = ast.copy_location(ast.BinOp(node.target, node.op, node.value), node)
            _bind(made, node, node.target, value, ())
        elif isinstance(node, (ast.For, ast.AsyncFor, ast.comprehension)):
            _bind(made, node, node.target, node.iter, (ITEM,))
        elif isinstance(node, ast.NamedExpr):
            _bind(made, node, node.target, node.value, ())
        elif isinstance(node, ast.withitem):
            if node.optional_vars is not None:
                _bind(made, node, node.optional_vars, node.context_expr, ())
        elif isinstance(node, (ast.Return, ast.Yield)):
            if node.value is not None:
                made.returns.append(node.value)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            _bind_call(made, node, node.value)
        inner: list[tuple[ast.AST, tuple[int, int]]] = []
        truth = decided.get(id(node)) if decided else None
        for name in FIELDS[node.__class__]:
            held = getattr(node, name, None)
            if isinstance(held, list):
                if truth is not None and name == ("orelse" if truth else "body"):
                    continue
                blocks = bool(held) and isinstance(held[0], ast.stmt)
                lines = _lines(held) if blocks else block
                parts = _taken(held, decided) if blocks else held
                inner += [(part, lines) for part in parts if isinstance(part, ast.AST)]
            elif isinstance(held, ast.AST):
                inner.append((held, block))
        stack.extend(reversed(inner))
    return made


def _steady(body: ast.AST, decided: dict[int, bool]) -> dict[int, bool]:
    """The decisions that hold in every round: those on names that are set once, and not in a loop of this function."""
    if not decided:
        return {}
    changing: set[str] = set()
    once: set[str] = set()
    branches: list[ast.If] = []
    todo: list[tuple[ast.AST, bool]] = [(body, False)]
    while todo:
        node, looped = todo.pop()
        if isinstance(node, ast.If) and id(node) in decided:
            branches.append(node)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            (changing if looped or node.id in once else once).add(node.id)
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            changing.add(node.target.id)
        looped = looped or isinstance(node, (ast.For, ast.AsyncFor, ast.While))
        todo += [(child, looped) for child in children(node)]
    return {
        id(b): decided[id(b)]
        for b in branches
        if not any(n.id in changing for n in walk_tree(b.test) if isinstance(n, ast.Name))
    }


def _taken(block: Sequence[ast.stmt], decided: dict[int, bool]) -> Sequence[ast.stmt]:
    """The statements of a block up to one that is known to leave it."""
    for place, statement in enumerate(block if decided else ()):
        truth = decided.get(id(statement))
        if truth is not None and isinstance(statement, ast.If):
            branch = statement.body if truth else statement.orelse
            if branch and isinstance(branch[-1], (ast.Return, ast.Continue, ast.Break)):
                return block[: place + 1]
    return block


def _lines(block: Sequence[ast.AST]) -> tuple[int, int]:
    if not block:
        return 0, 0
    return _first_line(block[0]), _last_line(block[-1], whole=True)


def _first_line(node: ast.AST) -> int:
    line: int = getattr(node, "lineno", 0)
    return line


def _last_line(statement: ast.AST, *, whole: bool = False) -> int:
    """The line after which a definition holds: the header of a loop, the end of an assignment."""
    if isinstance(statement, (ast.For, ast.AsyncFor)) and not whole:
        return statement.target.end_lineno or statement.lineno
    line: int | None = getattr(statement, "end_lineno", None)
    return line or _first_line(statement)


def _bind(made: Definitions, statement: ast.AST, target: ast.expr, value: ast.expr, prefix: Path) -> None:
    if isinstance(target, ast.Name):
        made.names.setdefault(target.id, []).append(Def(statement, value, prefix))
    elif isinstance(target, (ast.Tuple, ast.List)):
        same = isinstance(value, (ast.Tuple, ast.List)) and len(value.elts) == len(target.elts) and not prefix
        for i, part in enumerate(target.elts):
            inner = part.value if isinstance(part, ast.Starred) else part
            if same:
                _bind(made, statement, inner, value.elts[i], ())  # type: ignore[attr-defined]
            else:
                _bind(made, statement, inner, value, (*prefix, i))
    elif isinstance(target, ast.Attribute):
        made.names.setdefault(ast.unparse(target), []).append(Def(statement, value, prefix))
    elif isinstance(target, ast.Subscript):
        base: ast.expr = target
        while isinstance(base, ast.Subscript):
            base = base.value
        if isinstance(base, (ast.Name, ast.Attribute)):
            name = ast.unparse(base)
            made.names.setdefault(name, []).append(Def(statement, value, prefix, stored=True, key=target.slice))


def _bind_call(made: Definitions, statement: ast.Expr, call: ast.Call) -> None:
    """A call for its effect: ``x.append(v)``, ``x.add_(v)``, ``np.add.at(x, k, v)``, ``fill(x, ...)``."""
    func = call.func
    values = [a.value if isinstance(a, ast.Starred) else a for a in call.args] + [k.value for k in call.keywords]
    if isinstance(func, ast.Attribute):
        base: ast.expr = func.value
        while True:
            if isinstance(base, ast.Subscript):
                base = base.value
            elif isinstance(base, ast.Call) and isinstance(base.func, ast.Attribute) and base.func.attr in CONVERSIONS:
                base = base.func.value
            else:
                break
        if (func.attr in TAKES_IN or (func.attr.endswith("_") and not func.attr.startswith("_"))) and isinstance(
            base, (ast.Name, ast.Attribute)
        ):
            name = ast.unparse(base)
            for value in values:
                made.names.setdefault(name, []).append(Def(statement, value, (), stored=True))
    for place, argument in enumerate(call.args):
        inner: ast.expr = argument
        while isinstance(inner, ast.Subscript):
            inner = inner.value
        if isinstance(inner, (ast.Name, ast.Attribute)):
            name = ast.unparse(inner)
            made.names.setdefault(name, []).append(Def(statement, call, argument=place))


def is_access(node: ast.expr) -> bool:
    """Whether an expression reads an entry of a container: ``x[k]``, ``x.get(k)``."""
    if isinstance(node, ast.Subscript):
        return True
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get"


def is_module(node: ast.expr) -> bool:
    """Whether a call's holder is a library: ``np.add``, ``torch``, ``F``, ``math``, ``self._np``."""
    while isinstance(node, ast.Attribute) and node.attr not in ("_np", "np"):
        node = node.value
    if isinstance(node, ast.Attribute):
        return True
    return isinstance(node, ast.Name) and node.id in (
        "np", "numpy", "torch", "F", "math", "nn", "_np", "dist", "os", "time", "random", "ctypes", "jnp", "jax", "mx",
    )  # fmt: skip
