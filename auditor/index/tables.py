"""Count tables and caches: what they are read with, and whether that depends on the token being scored.

An n-gram cache is a table that the evaluation fills with counts of what it has seen and reads to adjust the model's
probabilities. Whether that is legal turns on the key of the read: a hash of the context alone selects a row, which can
be turned into a distribution over the vocabulary; a hash into which the realised target goes yields a number for that
token only. This module finds the tables, the reads that the reported figure is computed from, the stored tokens
(*atoms*) that each key is made of, the probabilities formed from two reads, and the conditions on them. The walking is
done by :mod:`auditor.index.flow`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from auditor.index.flow import (
    CONVERSIONS,
    FUNCTIONS_AND_CLASSES,
    WRAPPERS,
    Access,
    Flow,
    Item,
    Root,
    Site,
    is_access,
    is_module,
)
from auditor.index.interpreter.inputs import DATA_HINT, TRAIN_PATH, VAL_PATH
from auditor.index.names import last_name, leaf_name
from auditor.index.program_index import COUNTS_UP, ProgramIndex
from auditor.index.trace import Event, Trace
from auditor.unpack.walk import walk

# A program none of whose functions names one of these has no counting table: the walk is not even started.
COUNTING = frozenset({COUNTS_UP, "at", "bincount", "scatter_add_", "index_add_", "index_put_", "Counter"})
# What a function that turns counts into a probability names: a table write, or the cap of one count by another.
COUNTS_OR_CAPS = COUNTING | {"minimum", "maximum", "clamp", "clip", "clamp_min"}
MIXING_OPERATORS = (ast.BitXor, ast.Mod, ast.BitAnd, ast.LShift, ast.RShift)
MIXING_CALLS = frozenset(
    {"bitwise_xor", "remainder", "fmod", "mod", "hash", "bitwise_and", "bitwise_xor_", "remainder_", "xor"}
)
DIVISIONS = frozenset({"div", "divide", "true_divide", "div_"})
GATHERS = frozenset({"gather", "index_select", "take", "take_along_dim", "take_along_axis"})
PICKS = frozenset({"nonzero", "where", "flatnonzero", "argwhere", "isin"})
PIECES = frozenset({"cat", "concatenate", "stack", "zip", "enumerate", "get", "pop", "items", "values", "narrow"})
NOT_DATA = frozenset(
    {
        "arange", "zeros", "ones", "empty", "full", "len", "range", "zeros_like", "ones_like", "empty_like",
        "full_like", "size", "numel", "isinstance", "Counter", "defaultdict", "dict", "set", "perf_counter", "device",
        "hasattr",
    }
)  # fmt: skip
UNPACKS = frozenset({"load", "loads", "frombuffer", "decompress", "load_file"})
FILES = frozenset({"fromfile", "memmap", "load", "frombuffer", "read_bytes", "read"})


@dataclass(frozen=True, slots=True)
class Atom:
    """One access to stored tokens: where they come from, and the subscripts on the way to them."""

    source: str
    subscripts: tuple[str, ...] = ()
    computed: bool = False

    def at(self, index: str) -> Atom:
        """This access, seen through one more subscript."""
        if self.computed or index in self.subscripts or len(self.subscripts) >= 8:
            return self
        return Atom(self.source, (*self.subscripts, index))

    def result(self) -> Atom:
        """This access, once something was calculated from it: further subscripts pick results, not tokens."""
        return self if self.computed else Atom(self.source, self.subscripts, True)


NOTHING: frozenset[Atom] = frozenset()
MAX_PARTS = 4_000


@dataclass(frozen=True, eq=False)
class Read:
    """One read of a count table."""

    node: ast.expr
    site: Site
    access: Access

    @property
    def root(self) -> Root:
        return self.access.root


class Form(StrEnum):
    """How the token by which the upper count is more specific enters its address."""

    HASHED = "hashed"
    """Through a hash, a mask or a modulus, together with the context: the entry is shared with other tokens."""
    COLUMN = "column"
    """As an index of its own: one entry of a row that holds a count for each token."""
    ROW = "row"
    """As :attr:`COLUMN`, and divided by the sum of that very row."""
    FOREIGN = "foreign"
    """One entry of a row gathered by hashing every token of the vocabulary, divided by another table's count."""


@dataclass(frozen=True, eq=False)
class Ratio:
    """A probability formed as one count over another: ``pairs[key] / contexts[key]``."""

    node: ast.expr
    site: Site
    numerator: Read
    denominator: Read
    extra: frozenset[Atom]
    form: Form
    key: Item
    """The part of the upper key that holds the token, and for hashed ones the place where it is mixed in."""


@dataclass(frozen=True, eq=False)
class Gate:
    """A condition on the count of the realised token: it decides whether, or with which weight, the blend applies."""

    node: ast.expr
    site: Site
    ratio: Ratio


@dataclass(frozen=True, eq=False)
class Fill:
    """One place from which a table is filled: a call into its class, or the write itself."""

    node: ast.AST
    site: Site
    splits: frozenset[str]
    """Whose tokens go in, by the names of the files they are read from: ``train``, ``val``."""
    same: bool
    """Whether it is certain that this very object is the one that is read, not another of its class."""


@dataclass(eq=False)
class Tables:
    """The count tables of one trace, as far as the events in ``starts`` depend on them."""

    trace: Trace
    indexes: Sequence[ProgramIndex]
    starts: Sequence[Event]
    """The events that the reported figure comes from: additions to its sum, and its print."""
    _atoms: dict[Mark, frozenset[Atom]] = field(default_factory=dict)
    _streams: dict[Mark, bool] = field(default_factory=dict)
    _masks: dict[Mark, bool] = field(default_factory=dict)
    _mixed: dict[tuple[Mark, frozenset[tuple[str, tuple[str, ...]]]], Item | None] = field(default_factory=dict)

    @cached_property
    def possible(self) -> bool:
        """Whether any function that ran names what a counting table needs."""
        called = self.trace.called
        return any(
            facts.names & COUNTING for index in self.indexes for i, facts in index.functions.items() if i in called
        )

    @cached_property
    def present(self) -> bool:
        """Whether any function, reached or not, writes to a table by adding to its entries."""
        return any(f.names & COUNTING for i in self.indexes for f in i.functions.values())

    @cached_property
    def flow(self) -> Flow:
        """The walk over this trace, without the branches that the configuration leaves out."""
        made = Flow(self.trace, self.indexes)
        for event in self.starts:
            made.leave_out(event)
        return made

    # -- tables ------------------------------------------------------------------------------------------

    @cached_property
    def counted(self) -> dict[Root, list[tuple[ast.AST, ast.expr | None, Site]]]:
        """Containers to whose entries something is added at run time: each place, with the key there."""
        found: dict[Root, list[tuple[ast.AST, ast.expr | None, Site]]] = {}
        for index in self.indexes:
            bodies: list[ast.AST] = [f.node for f in index.functions.values() if f.names & COUNTING]
            tree = index.program.tree
            if tree is not None:
                bodies += [s for s in tree.body if not isinstance(s, FUNCTIONS_AND_CLASSES)]
            for body in bodies:
                whole = body if isinstance(body, FUNCTIONS_AND_CLASSES) else tree
                site = self.flow.site(whole, index.program) if whole is not None else None
                for node, base, key in _counting_writes(body) if site is not None else ():
                    for access in self.flow.accesses(base, site):  # type: ignore[arg-type]
                        found.setdefault(access.root, []).append((node, key, site))  # type: ignore[arg-type]
        return found

    # -- what the figure is computed from ----------------------------------------------------------------

    @cached_property
    def behind(self) -> list[Item]:
        """Everything the reported figure is computed from, short of what happens inside networks."""
        start: list[Item] = []
        for event in self.starts:
            site = self.flow.site_of(event)
            start += [Item(e, site) for e in _terms(event.node)]
        return list(self.flow.walk(start, enter=self.outside_networks))

    def outside_networks(self, item: Item) -> bool:
        """Whether an expression is anything but the application of a network."""
        if not isinstance(item.node, ast.Call):
            return True
        for callee in self.trace.calls.get(id(item.node), {}).values():
            if callee.owner is not None and self._is_network(callee.owner):
                return False
        return True

    def _is_network(self, cls: ast.ClassDef, depth: int = 0) -> bool:
        for base in cls.bases:
            name = last_name(base)
            if name == "Module":
                return True
            for index in self.indexes if depth < 6 else ():
                if any(self._is_network(c, depth + 1) for c in index.classes if c.name == name and c is not cls):
                    return True
        return False

    def reads_in(self, start: Iterable[Item], limit: int = 400) -> list[Read]:
        """The table reads that ``start`` is computed from, without going behind them."""
        found: list[Read] = []
        for item in self.flow.walk(start, enter=lambda i: not self._reads(i) and self.outside_networks(i), limit=limit):
            found += self._reads(item)
        return found

    def _reads(self, item: Item) -> list[Read]:
        node = item.node
        if not is_access(node) and not (isinstance(node, ast.Call) and leaf_name(node) in GATHERS):
            return []
        return [
            Read(node, item.site, a)
            for a in self.flow.accesses(node, item.site)
            if a.keys and a.root in self.counted and any(k.node is not None for k in a.keys)
        ]

    @cached_property
    def reads(self) -> list[Read]:
        """The table reads behind the reported figure."""
        if not self.possible or not self.counted:
            return []
        return [r for item in self.behind for r in self._reads(item)]

    @cached_property
    def ratios(self) -> list[Ratio]:
        """Counts divided by counts behind the reported figure, where the upper key holds a token more."""
        return self._ratios_in(self.behind) if self.reads else []

    @cached_property
    def targets(self) -> frozenset[Atom]:
        """The stored tokens whose loss is taken behind the figure: what picks the column of the log-probabilities."""
        found: set[Atom] = set()
        for item in self.behind:
            node, site = item.node, item.site
            if not isinstance(node, ast.Call):
                continue
            leaf = leaf_name(node)
            given: list[ast.expr] = []
            if leaf in ("cross_entropy", "nll_loss") and len(node.args) > 1:
                given = [node.args[1], *(k.value for k in node.keywords if k.arg == "target")]
            elif leaf in ("gather", "take_along_dim") and node.args:
                given = node.args[-1:]
            elif not self.outside_networks(item) and len(node.args) > 1:
                given = node.args[1:2]
            for value in given:
                found |= {a for a in self.atoms(Item(value, site)) if len(a.subscripts) > 1}
        inputs: set[Atom] = set()
        for item in self.behind:
            if isinstance(item.node, ast.Call) and item.node.args and not self.outside_networks(item):
                inputs |= self.atoms(Item(item.node.args[0], item.site))
        bare = {(a.source, a.subscripts) for a in inputs}
        return frozenset(a for a in found if (a.source, a.subscripts) not in bare)

    @cached_property
    def lookups(self) -> list[tuple[Read, Item]]:
        """Counts read with a target in a hashed key, and where it is mixed in; asked only where none is divided."""
        found: list[tuple[Read, Item]] = []
        targets = self.targets if self.reads and not self.ratios else NOTHING
        for read in self.reads if targets else ():
            for key in self.keys(read):
                known = frozenset(a for a in self.atoms(key) if any(_within(a, t) for t in targets))
                place = self.mixed(key, known) if known else None
                if place is not None:
                    found.append((read, place))
        return found or (self._extended if self.reads and not self.ratios else [])

    @property
    def _extended(self) -> list[tuple[Read, Item]]:
        """Counts whose hashed key is another table's and a stored token more: pairs over contexts, not divided."""
        found: list[tuple[Read, Item]] = []
        known = [(read, self.atoms_of(read)) for read in self.reads]
        for read, atoms in known:
            for other, fewer in known:
                if not fewer or not fewer < atoms or other.root == read.root:
                    continue
                places = (self.mixed(key, atoms - fewer) for key in self.keys(read))
                found += [(read, place) for place in places if place is not None]
        return found

    @cached_property
    def elsewhere(self) -> list[Ratio]:
        """Such probabilities in code that the reported figure does not depend on: other evaluations, code left out."""
        # Said as latent only: worth a search where there is a hash at all.
        if not any(word in index.program.text for index in self.indexes for word in ("^", "xor", "hash")):
            return []
        here = {id(r.node) for r in self.ratios}
        whole = Tables(self.trace, self.indexes, ())  # with the branches that the configuration leaves out
        found: list[Ratio] = []
        roots = {r.name for r in whole.counted}
        for index in self.indexes if roots else ():
            for facts in index.functions.values():
                if not facts.names & roots or not facts.names & COUNTS_OR_CAPS:
                    continue
                site = whole.flow.site(facts.node, index.program)
                nodes = [n for n in walk(facts.node) if isinstance(n, (ast.BinOp, ast.Call)) and id(n) not in here]
                found += whole._ratios_in([Item(n, site) for n in nodes if _division(n) is not None])
        return found

    def _ratios_in(self, items: Iterable[Item]) -> list[Ratio]:
        found: list[Ratio] = []
        for item in items:
            sides = _division(item.node)
            if sides is None or self._own_sum(sides[0], sides[1], item.site):
                continue
            upper = self.reads_in([Item(sides[0], item.site)])
            lower = self.reads_in([Item(sides[1], item.site)]) if upper else []
            here = [
                ratio
                for numerator in upper
                for denominator in lower
                if (ratio := self._ratio(Item(item.node, item.site), sides[1], numerator, denominator)) is not None
            ]
            # A numerator may hold more than the pair's count: the context's (a cap), and what it is blended with,
            # which another table went into. Where one key extends the lower one, that pair is the quotient.
            found += [r for r in here if self._extends(r)] or here
        return found

    def _own_sum(self, upper: ast.expr, lower: ast.expr, site: Site) -> bool:
        """Whether a row is divided by its own sum, there or kept in a variable before: ``total = row.sum()``."""
        if _own_sum(upper, lower):
            return True
        if not isinstance(upper, ast.Name):
            return False
        kept = [i.node for n in walk(lower) if isinstance(n, ast.Name) for i in self.flow.step(Item(n, site))]
        return any(isinstance(k, ast.expr) and _own_sum(upper, k) for k in kept)

    def _extends(self, ratio: Ratio) -> bool:
        """Whether the upper key is made of all the tokens of the lower one, and more."""
        return self.atoms_of(ratio.denominator) <= self.atoms_of(ratio.numerator)

    def _ratio(self, item: Item, below: ast.expr, numerator: Read, denominator: Read) -> Ratio | None:
        if numerator.node is denominator.node:
            return None
        keys = self.keys(numerator)
        known = frozenset(a for k in self.keys(denominator) for a in self.atoms(k))
        for key in reversed(keys):
            extra = self.atoms(key) - known
            if not extra:
                continue
            mixed = self.mixed(key, extra)
            form, place = Form.HASHED, mixed or key
            if mixed is None:
                form = Form.COLUMN
                if self._sums_row(below, item.site, numerator):
                    form = Form.ROW
                elif any(self._enumerates(k) for k in keys):
                    form = Form.FOREIGN
            return Ratio(item.node, item.site, numerator, denominator, extra, form, place)
        return None

    def _sums_row(self, below: ast.expr, site: Site, numerator: Read) -> bool:
        """Whether the denominator is a sum over the row that the numerator is one entry of."""
        row = [ast.unparse(k.node) for k in self.keys(numerator)[:-1]]
        for item in self.flow.walk([Item(below, site)], limit=200):
            if not isinstance(item.node, ast.Call) or leaf_name(item.node) != "sum":
                continue
            func = item.node.func
            inner = func.value if isinstance(func, ast.Attribute) and not is_module(func.value) else None
            if inner is None and item.node.args:
                inner = item.node.args[0]
            if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Attribute) and inner.func.attr == "values":
                inner = inner.func.value
            for access in self.flow.accesses(inner, item.site) if inner is not None else ():
                if access.root == numerator.root and [ast.unparse(k.node) for k in access.keys] == row:
                    return True
        return False

    def _enumerates(self, key: Item) -> bool:
        """Whether a key runs over the vocabulary and mixes that into a hash."""
        items = list(self.values(key))
        ranges = any(isinstance(i.node, ast.Call) and leaf_name(i.node) == "arange" for i in items)
        return ranges and any(_mixes(i.node) for i in items)

    def values(self, start: Item, limit: int = 300) -> Iterator[Item]:
        """What a value is calculated from, leaving out the positions at which arrays are read or written."""
        todo, seen, place = [start], set[Mark](), 0
        while place < len(todo) and place < limit:
            item = todo[place]
            place += 1
            mark = _mark(item)
            if mark in seen:
                continue
            seen.add(mark)
            yield item
            if isinstance(item.node, ast.Call) and leaf_name(item.node) in NOT_DATA | FILES:
                continue
            if isinstance(item.node, ast.Subscript):
                todo += [s for s in self.flow.step(item) if s.node is item.node.value]
            else:
                todo += self._contents(item) if isinstance(item.node, ast.Name) else self.flow.step(item)

    def _contents(self, item: Item) -> list[Item]:
        """What a variable holds, without the places at which it was put there."""
        if not isinstance(item.node, ast.Name):
            return []
        known = self.flow.definitions(item.site).names.get(item.node.id, ())
        places = {id(d.key) for d in known if d.key is not None}
        return [s for s in self.flow.step(item) if id(s.node) not in places]

    # -- conditions --------------------------------------------------------------------------------------

    @cached_property
    def gates(self) -> list[Gate]:
        """Conditions on the realised token's own count that decide over the blend."""
        found: list[Gate] = []
        ratios = [r for r in self.ratios if r.form is not Form.FOREIGN and not _escapes(r)]
        if not ratios:
            return found
        behind = {id(i.node) for i in self.behind}
        sites: dict[tuple[int, int, int], Site] = {}
        for item in self.behind:
            sites.setdefault(item.site.key, item.site)
            if isinstance(item.node, ast.Compare):
                found += self._gate(item.node, item.site, ratios)
        seen: set[int] = set()
        for site in sites.values():
            if id(site.body) in seen or not isinstance(site.body, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            seen.add(id(site.body))
            for node in walk(site.body):
                if isinstance(node, ast.If) and _steers(node, behind):
                    for part in walk(node.test):
                        if isinstance(part, ast.Compare):
                            found += self._gate(part, site, ratios)
        return found

    def _gate(self, node: ast.Compare, site: Site, ratios: Sequence[Ratio]) -> list[Gate]:
        if len(node.ops) != 1:
            return []
        left, right = node.left, node.comparators[0]
        if isinstance(node.ops[0], (ast.In, ast.NotIn)):
            held = self.atoms(Item(left, site))
            for ratio in ratios:
                row = ratio.numerator.access.keys[:-1]
                for access in self.flow.accesses(right, site):
                    if access.root == ratio.numerator.root and len(access.keys) == len(row) and held & ratio.extra:
                        return [Gate(node, site, ratio)]
            return []
        if not isinstance(right, ast.Constant):
            return []
        for access in self.flow.accesses(left, site):
            read = Read(left, site, access)
            for ratio in ratios:
                same = access.root == ratio.numerator.root and len(self.keys(read)) >= len(self.keys(ratio.numerator))
                if same and self.atoms_of(read) & ratio.extra:
                    return [Gate(node, site, ratio)]
        if right.value == 0 and isinstance(node.ops[0], (ast.Gt, ast.Eq, ast.NotEq, ast.LtE)):
            # The quotient itself: it is 0 for a token that was not seen. (A marker for "no context" is -1 or None.)
            quotients = {id(r.node): r for r in ratios}
            for item in self.flow.walk([Item(left, site)], enter=_hands_on, limit=60):
                if id(item.node) in quotients:
                    return [Gate(node, site, quotients[id(item.node)])]
        return []

    def atoms_of(self, read: Read) -> frozenset[Atom]:
        """The stored tokens that a read is addressed with."""
        return frozenset(a for k in self.keys(read) for a in self.atoms(k))

    # -- where the counts come from ----------------------------------------------------------------------

    def fills(self, read: Read) -> list[Fill]:
        """The places that fill the table of a read, as far as they fill the same object."""
        found: list[Fill] = []
        made = self._makers(read)
        for node, key, site in self.counted.get(read.root, ()):
            if read.root.kind != "attribute":
                if key is not None:
                    found.append(Fill(node, site, self.splits([Item(key, site)]), True))
                continue
            for call, where in self._entries(site):
                holder = call.func.value if isinstance(call.func, ast.Attribute) else None
                if holder is None:
                    continue
                other = self._made_by(holder, where, site.owner)
                if made and other and not made & other:
                    continue
                splits = self.splits([Item(a, where) for a in call.args])
                found.append(Fill(call, where, splits, bool(made & other)))
        return found

    def splits(self, start: Iterable[Item]) -> frozenset[str]:
        """The splits whose files a value is read from."""
        found: set[str] = set()
        for item in self.flow.walk(start, enter=self.outside_networks, limit=2500):
            text = item.node.value if isinstance(item.node, ast.Constant) else None
            if isinstance(text, str) and DATA_HINT.search(text):
                tail = text.rsplit("/", 1)[-1]
                found |= {"train"} if TRAIN_PATH.search(tail) else {"val"} if VAL_PATH.search(tail) else set()
        return frozenset(found)

    def _makers(self, read: Read) -> frozenset[int]:
        """The calls that made the object whose table is read."""
        cls = next((c for i in self.indexes for c in i.classes if id(c) == read.root.owner), None)
        for item in self.values(Item(read.node, read.site), limit=60):
            node = item.node
            if not isinstance(node, ast.Attribute) or node.attr != read.root.name:
                continue
            holder, site = node.value, item.site
            while isinstance(holder, ast.Name) and holder.id == "self" and site.call is not None and site.caller:
                func = site.call.func
                holder, site = (func.value, site.caller) if isinstance(func, ast.Attribute) else (func, site.caller)
            return self._made_by(holder, site, cls)
        return frozenset()

    def _made_by(self, holder: ast.expr, site: Site, cls: ast.ClassDef | None) -> frozenset[int]:
        """The calls that may have made the object that an expression holds."""
        found: set[int] = set()
        for item in self.flow.walk([Item(holder, site)], enter=lambda i: not self._makes(i, cls), limit=300):
            if self._makes(item, cls):
                found.add(id(item.node))
        return frozenset(found)

    def _makes(self, item: Item, cls: ast.ClassDef | None) -> bool:
        node = item.node
        if cls is None or not isinstance(node, ast.Call):
            return False
        known = self.trace.calls.get(id(node), {}).values()
        if any(c.owner is cls and getattr(c.definition, "name", "") == "__init__" for c in known):
            return True
        return isinstance(node.func, ast.Name) and node.func.id in (cls.name, "cls")

    def read_back(self, read: Read) -> tuple[ast.expr, Site] | None:
        """Where the table of a read is taken from a file instead of being counted."""
        name = read.root.name
        for index in self.indexes:
            for i, facts in index.functions.items():
                if i not in self.trace.called or name not in facts.names:
                    continue
                site = self.flow.site(facts.node, index.program)
                if read.root.kind != "attribute" and id(facts.node) != read.root.owner:
                    continue
                for known, defined in self.flow.definitions(site).names.items():
                    if known != name and not (read.root.kind == "attribute" and known.endswith(f".{name}")):
                        continue
                    for d in defined:
                        if d.argument is None and self._from_file(Item(d.value, site)):
                            return d.value, site
        return None

    def _from_file(self, item: Item) -> bool:
        """Whether a value is unpacked from a file that holds no tokens."""
        items = self.flow.walk([item], enter=self.outside_networks, limit=250)
        loads = any(isinstance(i.node, ast.Call) and leaf_name(i.node) in UNPACKS for i in items)
        return loads and not self.splits([item])

    def _entries(self, site: Site, depth: int = 0) -> list[tuple[ast.Call, Site]]:
        """The calls from outside of a class that lead to one of its methods."""
        found: list[tuple[ast.Call, Site]] = []
        for caller in self.flow.callers(site):
            body = caller.definition or caller.program.tree
            if not isinstance(caller.call, ast.Call) or body is None:
                continue
            where = self.flow.site(body, caller.program)
            if where.owner is site.owner and site.owner is not None and depth < 4:
                found += self._entries(where, depth + 1)
            else:
                found.append((caller.call, where))
        return found

    # -- keys --------------------------------------------------------------------------------------------

    def keys(self, read: Read) -> list[Item]:
        """What a read is addressed with, without the masks that only pick rows of the answer."""
        return [k for k in read.access.keys if not self.is_mask(k)]

    def is_mask(self, key: Item) -> bool:
        """Whether a subscript only picks rows by a condition; asked for the same keys over and over."""
        mark = _mark(key)
        if mark not in self._masks:
            self._masks[mark] = self._is_mask(key)
        return self._masks[mark]

    def _is_mask(self, key: Item, depth: int = 0) -> bool:
        node = key.node
        if isinstance(node, (ast.Compare, ast.BoolOp)):
            return True
        if depth > 6:
            return False
        if isinstance(node, ast.BinOp):
            if not isinstance(node.op, (ast.BitAnd, ast.BitOr)):
                return False
            return any(self._is_mask(Item(side, key.site), depth + 1) for side in (node.left, node.right))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Invert):
            return self._is_mask(Item(node.operand, key.site), depth + 1)
        if isinstance(node, ast.Call) and leaf_name(node) in PICKS:
            return True
        if isinstance(node, (ast.Name, ast.Subscript)):
            steps = self.flow.step(key)
            if isinstance(node, ast.Subscript):
                steps = [i for i in steps if i.node is node.value]
            return any(self._is_mask(i, depth + 1) for i in steps)
        return False

    def mixed(self, key: Item, extra: frozenset[Atom]) -> Item | None:
        """Where one of these tokens goes through a hash, a mask or a modulus on the way to the key."""
        bare = frozenset((a.source, a.subscripts) for a in extra)
        asked = _mark(key), bare
        if asked not in self._mixed:
            self._mixed[asked] = self._mixed_in(key, bare)
        return self._mixed[asked]

    def _mixed_in(self, key: Item, bare: frozenset[tuple[str, tuple[str, ...]]]) -> Item | None:
        for item in self.flow.walk([key], limit=400):
            packs = isinstance(item.node, ast.BinOp) and isinstance(item.node.op, (ast.LShift, ast.RShift))
            if _mixes(item.node) and not packs and any((a.source, a.subscripts) in bare for a in self.atoms(item)):
                return item
        return None

    def atoms(self, item: Item) -> frozenset[Atom]:
        """The accesses to stored tokens that a value is made of."""
        start = _mark(item)
        if start in self._atoms:
            return self._atoms[start]
        # Values may be computed from themselves (a running hash): the sets grow until nothing changes any more.
        parts: dict[Mark, list[tuple[Mark, str | None]]] = {}
        found: dict[Mark, frozenset[Atom]] = {}
        todo = [item]
        while todo:
            here = todo.pop()
            mark = _mark(here)
            if mark in parts or mark in self._atoms:
                continue
            own, below = self._parts_of(here) if len(parts) < MAX_PARTS else (NOTHING, [])
            found[mark] = own
            parts[mark] = [(_mark(i), how) for i, how in below]
            todo += [i for i, _ in below]
        order = list(reversed(parts))
        changed = True
        while changed:
            changed = False
            for mark in order:
                made = set(found[mark])
                for inner, how in parts[mark]:
                    below_it = self._atoms.get(inner) or found.get(inner, NOTHING)
                    made.update(below_it if how is None else (_through(a, how) for a in below_it))
                if len(made) > len(found[mark]):
                    found[mark] = frozenset(made)
                    changed = True
        self._atoms.update(found)
        return found[start]

    def _holds_tokens(self, item: Item) -> bool:
        """Whether a value comes out of a file of tokens."""
        mark = _mark(item)
        if mark not in self._streams:
            self._streams[mark] = any(
                isinstance(i.node, ast.Call) and leaf_name(i.node) in FILES for i in self.values(item, limit=200)
            )
        return self._streams[mark]

    def _parts_of(self, item: Item) -> tuple[frozenset[Atom], list[tuple[Item, str | None]]]:
        """Stored tokens that an expression reads itself, and its parts, each with a subscript, COMPUTED or None."""
        node, site = item.node, item.site
        flow = self.flow
        how: str | None = None
        if isinstance(node, ast.Constant):
            return NOTHING, []
        if isinstance(node, ast.Subscript):
            text = ast.unparse(node.slice)
            inner: list[tuple[Item, str | None]] = [(i, text) for i in flow.step(item) if i.node is node.value]
            index = Item(node.slice, site)
            # Of stored tokens the position only says which; of other tables (properties, counts) it is what counts.
            if isinstance(node.slice, ast.Slice) or self.is_mask(index) or self._holds_tokens(Item(node.value, site)):
                return NOTHING, inner
            return NOTHING, [*inner, (index, None)]
        if isinstance(node, ast.Name):
            made = self._contents(item)
            if not made and node.id != "self" and node.id in flow.definitions(site).parameters:
                return frozenset({Atom(f"{getattr(site.body, 'name', '')}.{node.id}")}), []
            return NOTHING, [(i, None) for i in made]
        if isinstance(node, ast.Call):
            inside = flow.callees(node, site)
            leaf = leaf_name(node)
            if not inside and leaf in NOT_DATA:
                return NOTHING, []
            if not inside and leaf in FILES:
                return frozenset({Atom(leaf)}), []
            if not self.outside_networks(item):
                return NOTHING, []
            if not (inside or leaf in WRAPPERS or leaf in CONVERSIONS or leaf in PIECES):
                how = COMPUTED
        elif isinstance(node, (ast.BinOp, ast.Compare, ast.UnaryOp, ast.BoolOp)):
            how = COMPUTED
        return NOTHING, [(i, how) for i in flow.step(item)]


Mark = tuple[int, tuple[int, int, int], tuple[int, ...]]
COMPUTED = ""


def _mark(item: Item) -> Mark:
    return id(item.node), item.site.key, item.path


def _through(atom: Atom, how: str) -> Atom:
    return atom.result() if how == COMPUTED else atom.at(how)


def _within(atom: Atom, target: Atom) -> bool:
    """Whether an access is the target's, or to a part of it."""
    size = len(target.subscripts)
    return atom.source == target.source and atom.subscripts[:size] == target.subscripts


def _hands_on(item: Item) -> bool:
    """Whether an expression hands on a value rather than calculating another one from it."""
    node = item.node
    if isinstance(node, ast.Call):
        return leaf_name(node) in CONVERSIONS | WRAPPERS | {
            "clip",
            "clamp",
            "minimum",
            "maximum",
            "min",
            "max",
            "where",
        }
    return not isinstance(node, (ast.BinOp, ast.Compare, ast.BoolOp))


def _escapes(ratio: Ratio) -> bool:
    """Whether a token that was not seen gets a share of the same total: the escape of a PPM model."""
    sides = _division(ratio.node)
    if sides is None:
        return False
    total = ast.unparse(sides[1])
    for node in walk(ratio.site.body):
        other = _division(node) if node is not ratio.node else None
        if other is not None and ast.unparse(other[1]) == total and ast.unparse(other[0]) != ast.unparse(sides[0]):
            return True
    return False


def _mixes(node: ast.AST) -> bool:
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, MIXING_OPERATORS)
    return isinstance(node, ast.Call) and leaf_name(node) in MIXING_CALLS


def _division(node: ast.AST) -> tuple[ast.expr, ast.expr] | None:
    """Both sides of a division: ``a / b``, ``np.divide(a, b)``, ``a.div(b)``."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        return node.left, node.right
    if isinstance(node, ast.Call) and leaf_name(node) in DIVISIONS and isinstance(node.func, ast.Attribute):
        if is_module(node.func.value):
            return (node.args[0], node.args[1]) if len(node.args) > 1 else None
        return (node.func.value, node.args[0]) if node.args else None
    return None


def _own_sum(upper: ast.expr, lower: ast.expr) -> bool:
    """Whether something is divided by its own sum: ``row / row.sum()``."""
    text = ast.unparse(upper)
    for node in walk(lower):
        if isinstance(node, ast.Call) and leaf_name(node) == "sum" and isinstance(node.func, ast.Attribute):
            inner = node.args[0] if is_module(node.func.value) and node.args else node.func.value
            if ast.unparse(inner) == text:
                return True
    return False


def _steers(node: ast.If, behind: set[int]) -> bool:
    """Whether a condition decides over something in ``behind``: in its branch, or by leaving before the rest."""
    if any(isinstance(s, (ast.Continue, ast.Return, ast.Break)) for s in node.body):
        return True
    return any(id(part) in behind for s in (*node.body, *node.orelse) for part in walk(s))


def _terms(node: ast.AST) -> list[ast.expr]:
    """The terms that a score event adds to the reported sum, or a metric event prints."""
    if isinstance(node, (ast.AugAssign, ast.Assign)):
        return [node.value]
    if isinstance(node, ast.Call):
        return [*node.args, *(k.value for k in node.keywords)]
    return [node] if isinstance(node, ast.expr) else []


def _adds_to(target: ast.Subscript, value: ast.expr) -> bool:
    """Whether an entry is set to itself and something more: ``d[t] = d.get(t, 0) + 1``."""
    holder = ast.unparse(target.value)
    for node in walk(value):
        if isinstance(node, ast.Attribute) and node.attr == "bincount":
            return True
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            if isinstance(node.right, (ast.JoinedStr, ast.Constant)) and not _is_number(node.right):
                continue
            for side in (node.left, node.right):
                if isinstance(side, ast.Subscript) and ast.unparse(side.value) == holder:
                    return True
                if isinstance(side, ast.Call) and ast.unparse(side.func) == f"{holder}.get":
                    return True
    return False


def _is_number(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, (int, float))


def _counting_writes(body: ast.AST) -> list[tuple[ast.AST, ast.expr, ast.expr | None]]:
    """Statements that add to entries of a container, each with the expressions of container and key."""
    found: list[tuple[ast.AST, ast.expr, ast.expr | None]] = []
    nodes = list(walk(body))
    histograms: dict[str, ast.Call] = {}
    for node in nodes:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            for part in walk(node.value):
                if isinstance(part, ast.Call) and leaf_name(part) == "bincount":
                    histograms[node.targets[0].id] = part
    for node in nodes:
        if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add):
            counts = [n for n in walk(node.value) if isinstance(n, ast.Call) and leaf_name(n) == "bincount"]
            counts += [histograms[n.id] for n in walk(node.value) if isinstance(n, ast.Name) and n.id in histograms]
            if counts:
                found.append((node, node.target, counts[0].args[0] if counts[0].args else None))
            elif isinstance(node.target, ast.Subscript) and not isinstance(node.target.slice, ast.Constant):
                found.append((node, node.target.value, node.target.slice))
        elif isinstance(node, ast.Assign) and len(node.targets) == 1:
            target = node.targets[0]
            if isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
                continue
            if isinstance(target, ast.Subscript) and _adds_to(target, node.value):
                found.append((node, target.value, target.slice))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name, holder = node.func.attr, node.func.value
            if name == "at" and isinstance(holder, ast.Attribute) and holder.attr == "add" and len(node.args) > 1:
                found.append((node, node.args[0], node.args[1]))
            elif name in ("scatter_add_", "index_add_", "index_put_") and not is_module(holder) and node.args:
                found.append((node, holder, node.args[1] if len(node.args) > 1 else node.args[0]))
    return found
