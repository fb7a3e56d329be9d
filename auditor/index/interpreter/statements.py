"""Statements, in the order of execution: blocks, assignments, branches, loops, exceptions."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from auditor.index.interpreter.definitions import NO_GRAD, Definitions
from auditor.index.interpreter.inputs import RANK_NAMES
from auditor.index.interpreter.roles import changing, leaves_of
from auditor.index.interpreter.state import BREAK, MAX_STEPS, NEXT, RESUMED, STOP, Budget, Scope
from auditor.index.trace import Guard, Loop, Resume, SkippedBranch
from auditor.index.values import EMPTY, Choice, Const, External, Value, join, number_of
from auditor.unpack.walk import statements, walk


class Statements(Definitions):
    """Visits statements."""

    def block(self, body: Sequence[ast.stmt], scope: Scope) -> str | None:
        """Visit statements; returns how the block ends for certain (return, break, continue) or None."""
        for statement in body:
            self.steps += 1
            if self.steps > MAX_STEPS:
                raise Budget(f"more than {MAX_STEPS} steps")
            handler = STATEMENTS.get(type(statement))
            if handler is not None:
                flow: str | None = handler(self, statement, scope)
                if flow is not None:
                    return flow
        return None

    def s_expr(self, node: ast.Expr, scope: Scope) -> None:
        self.eval(node.value, scope)

    def s_assign(self, node: ast.Assign, scope: Scope) -> None:
        value = self.eval(node.value, scope)
        if self.watches_leaves and self.loops and "val" in value.roles and isinstance(node.value, ast.BinOp | ast.Call):
            self.note_update(node, value, scope)
        for target in node.targets:
            if value.roles:
                self.keeps_best(target, value)
            self.bind(target, value, scope)
        if len(node.targets) == 1 and (node.value.__class__ is ast.BinOp or "nn" in value.roles):
            self.note_rebinding(node, node.targets[0], node.value, value, scope)

    def s_annassign(self, node: ast.AnnAssign, scope: Scope) -> None:
        if node.value is not None:
            self.bind(node.target, self.eval(node.value, scope), scope)

    def s_augassign(self, node: ast.AugAssign, scope: Scope) -> None:
        old = self.eval(node.target, scope)
        change = self.eval(node.value, scope)
        if self.is_score(change.roles):
            by_hand = isinstance(node.op, ast.Sub) and isinstance(node.target, ast.Name) and not leaves_of(old.roles)
            by_hand = by_hand and "nn" not in old.roles
            if by_hand and self.descends(node.target.id, ast.BinOp(node.target, node.op, node.value)):  # type: ignore[union-attr]
                self.descent(node, change)
            else:
                holder_call = self.owner_call(node.target, old, scope)
                self.score(node, change, old, scope, holder_call)
        if "grad" in change.roles and any(r.startswith(("param:", "leaf:")) for r in old.roles):
            self.step_event(node, old, change.roles)
            return
        if isinstance(node.target, ast.Subscript) and not isinstance(node.target.slice, ast.Slice):
            # counts[token] += 1; what a network made is not counted
            key = self.eval(node.target.slice, scope)
            self.count(node, self.eval(node.target.value, scope), key.roles, change.roles)
        counts = frozenset(r for r in change.roles if r.startswith("counted:"))
        if counts and type(old) is Value and "nn" not in change.roles:
            self.mark_whole(old, counts)  # an array that is added to stays itself
        value = self.binary(type(node.op), old, change)
        if not isinstance(value, Const):
            value.roles |= old.roles
            value.born = old.born
        self.bind(node.target, value, scope)

    def s_return(self, node: ast.Return, scope: Scope) -> str:
        value = self.eval(node.value, scope) if node.value is not None else Const(value=None)
        if isinstance(value, Const):
            # Which constant is returned depends on what the conditions in this function depend on.
            decided = frozenset(s for g in self.guards[self.outside :] for s in g.settings if s[0] != "<")
            if not decided <= value.settings:
                value = Const(value=value.value, settings=value.settings | decided, roles=value.roles)
        if self.returns:
            self.returns[-1].append(value)
        return STOP

    def s_if(self, node: ast.If, scope: Scope) -> str | None:
        test = self.eval(node.test, scope)
        truth = self.truth(test)
        both = False
        if id(node) in self.forced:
            truth = self.forced[id(node)]
            both = truth is None
        elif truth is not None and test.settings and self.in_own_loop() and self.left_out_is_shown(node, truth):
            truth, both = None, True
        elif truth and not test.settings and isinstance(node.body[-1], ast.Raise):
            # The run did not fail here: what is tested was set in a way that is not followed (a hook, a callback).
            truth = None
            tested = node.test.left if isinstance(node.test, ast.Compare) else None
            if isinstance(tested, ast.Name):
                scope.assign(tested.id, Value())
        decided = self.trace.decided.setdefault(self.frames[-1].id, {})
        decided[id(node)] = truth if decided.get(id(node), truth) is truth else None
        if truth is not None:
            taken, other = (node.body, node.orelse) if truth else (node.orelse, node.body)
            if other:
                self.skip(node, other, test.settings, scope, negated=truth)
            if not taken:
                return None
            if isinstance(taken[-1], ast.Raise):
                return None  # the run did not crash here: what makes this look certain was assumed
            if not test.settings:
                return self.block(taken, scope)
            self.guards.append(Guard(node.test, self.program, True, test.settings, not truth))
            try:
                flow = self.block(taken, scope)
            finally:
                self.guards.pop()
            if flow == STOP and self.frames[-1].definition is not None:
                # The rest of the function is switched off with it.
                rest: list[ast.stmt] = [self.frames[-1].definition]  # type: ignore[list-item]
                self.skip(node, rest, test.settings, scope, negated=not truth)
            return flow
        flows: list[str | None] = []
        before = scope.names
        results = []
        unset = test.settings if "unset" in test.roles else EMPTY
        marks = frozenset(r for r in test.roles if r.startswith(("round:", "pick:"))) if test.roles else EMPTY
        replaced = self.replaces_best(node, test) if marks else {}
        certain = True if both else None
        frame = self.frames[-1].id if self.frames else 0
        for negated, body in ((False, node.body), (True, node.orelse)):
            if not body:
                flows.append(None)
                results.append(before)
                continue
            scope.names = dict(before)
            self.guards.append(Guard(node.test, self.program, certain, unset, negated, marks, frame))
            first = len(self.trace.events)
            try:
                flows.append(self.block(body, scope))
            finally:
                self.guards.pop()
            if flows[-1] == NEXT and self.loops:
                for event in self.trace.events[first:]:
                    event.ends_round = event.ends_round or self.loops[-1].id
            results.append(scope.names)
        if not both:
            self.early_exit(node, test, flows)
        # The dict itself may be shared (a module's attributes, a closure): merge into it in place.
        scope.names = before
        live = [names for names, flow in zip(results, flows, strict=True) if flow is None]
        if not live:
            live = results
        typical = None if test.sample is None else results[0 if test.sample else 1]
        after = live[0]
        if after is not before and live[-1] is before:
            # Only one branch does anything: what it left as it was stays.
            _merge(before, after, typical, later=False)
        elif after is not before:
            merged = dict(after)
            for names in live[1:]:
                _merge(merged, names, typical, later=True)
            before.clear()
            before.update(merged)
        for name, kept in replaced.items():
            best = before.get(name)
            if best is not None and type(best) is Value:
                before[name] = replace(best, roles=best.roles | kept)
        if flows[0] is not None and flows[1] is not None:
            return flows[0] if flows[0] == flows[1] else NEXT
        return None

    def left_out_is_shown(self, node: ast.If, truth: bool) -> bool:
        """Whether the logs show that the branch that is not taken ran."""
        left_out = node.orelse if truth else node.body
        return bool(left_out) and self.shown(left_out)

    def skip(
        self, node: ast.AST, body: Sequence[ast.stmt], settings: frozenset[str], scope: Scope, *, negated: bool = False
    ) -> None:
        """Note a branch that settings switch off, so that it can be visited afterwards."""
        if settings and not settings <= RANK_NAMES:
            frames = tuple(self.frames)
            rest = (getattr(self, name) for name in RESUMED[3:])
            state = (frames, tuple(self.guards), tuple(self.loops), *rest)
            self.trace.skipped.append(
                SkippedBranch(
                    node,
                    tuple(body),
                    self.program,
                    settings,
                    frames,
                    negated,
                    Resume(scope, state, self.forward_pass),
                    repeated=self.in_own_loop(),
                )
            )

    def s_for(self, node: ast.For | ast.AsyncFor, scope: Scope) -> str | None:
        iterable = self.eval(node.iter, scope)
        if self.is_empty(iterable):
            self.skip(node, node.body, iterable.settings, scope)
            return self.block(node.orelse, scope)
        loop = self.next_serial()
        self.bind(node.target, changing(self.element(iterable), frozenset({f"at:{loop}"})), scope)
        flow = self.loop_body(node, node.body, scope, self.loop_roles(iterable), loop, iterable.settings)
        if flow == STOP:
            return STOP
        return self.block(node.orelse, scope) if node.orelse else None

    def s_while(self, node: ast.While, scope: Scope) -> str | None:
        test = self.eval(node.test, scope)
        if self.truth(test) is False:
            # A counter that starts at a constant says nothing about later rounds; a setting does.
            self.skip(node, node.body, test.settings, scope)
            return None
        flow = self.loop_body(node, node.body, scope, self.loop_roles(test), self.next_serial(), test.settings)
        return STOP if flow == STOP and not _can_break(node.body) else None

    def loop_roles(self, value: Value) -> frozenset[str]:
        """What of an iterable or a condition decides how many rounds there are."""
        return frozenset(r for r in value.roles if r.startswith(("cut:", "val", "const", "rounds:", "unset", "order:")))

    def loop_body(
        self,
        node: ast.AST,
        body: Sequence[ast.stmt],
        scope: Scope,
        roles: frozenset[str],
        loop: int,
        settings: frozenset[str],
    ) -> str | None:
        """Visit a loop body once; returns how it ends for certain, like :meth:`block`."""
        self.loops.append(Loop(loop, node, roles, self.frames[-1].id if self.frames else 0, settings))
        for name in self.carried(node, body):
            # A counter that the loop advances: its value is that of the first round, its place moves.
            counter = scope.names.get(name)
            if isinstance(counter, Const) and type(counter.value) is int:
                moved = counter.roles | {f"at:{loop}"}
                scope.names[name] = Const(value=counter.value, settings=counter.settings, roles=moved)
        before = dict(scope.names)
        try:
            flow = self.block(body, scope)
        finally:
            left = self.loops.pop()
            self.trace.loop_end[left.id] = self.steps
        if self.trace.leaves:
            self.note_carried(left, body, before, scope)
        # What a loop changes is no longer the constant it was before it.
        for name, value in scope.names.items():
            old = before.get(name)
            if old is not None and old is not value and isinstance(value, Const):
                scope.names[name] = Value(roles=old.roles | value.roles, settings=old.settings | value.settings)
        return flow if flow == STOP else None

    def carried(self, node: ast.AST, body: Sequence[ast.stmt]) -> frozenset[str]:
        """Names that a round of this loop changes from what the round before left."""
        if id(node) not in self.carried_by:
            names = set()
            for part in statements(body):
                if isinstance(part, ast.AugAssign) and isinstance(part.target, ast.Name):
                    names.add(part.target.id)
                elif isinstance(part, ast.Assign) and not isinstance(part.value, ast.Constant):
                    names.update(t.id for t in part.targets if isinstance(t, ast.Name))
            self.carried_by[id(node)] = frozenset(names)
        return self.carried_by[id(node)]

    def s_with(self, node: ast.With | ast.AsyncWith, scope: Scope) -> str | None:
        quiet = 0
        for item in node.items:
            value = self.eval(item.context_expr, scope)
            if (isinstance(value, External) and value.name in NO_GRAD) or (
                isinstance(value, Choice) and any(isinstance(o, External) and o.name in NO_GRAD for o in value.options)
            ):
                quiet += 1
            if item.optional_vars is not None:
                self.bind(item.optional_vars, value, scope)
        self.no_grad += quiet
        try:
            return self.block(node.body, scope)
        finally:
            self.no_grad -= quiet

    def s_try(self, node: ast.Try, scope: Scope) -> str | None:
        self.tries += bool(node.handlers)
        try:
            flow = self.block(node.body, scope)
        finally:
            self.tries -= bool(node.handlers)
        for handler in node.handlers:
            test = ast.copy_location(ast.Name("exception", ast.Load()), handler)
            if handler.type is not None:
                test = handler.type  # type: ignore[assignment]
            self.guards.append(Guard(test, self.program, None, frozenset({"<exception>"})))
            if handler.name:
                scope.assign(handler.name, Value())
            before = dict(scope.names)
            try:
                self.block(handler.body, scope)
            finally:
                self.guards.pop()
            for name, value in scope.names.items():
                if name in before and before[name] is not value:
                    scope.names[name] = join(before[name], value)
        if flow is None:
            flow = self.block(node.orelse, scope)
        final = self.block(node.finalbody, scope)
        if final is not None:
            return final
        return flow if not node.handlers else None if flow != STOP else flow

    def s_raise(self, node: ast.Raise, scope: Scope) -> str | None:
        # The run that is looked at did not crash: a raise that seems certain rests on something assumed.
        certain = bool(self.guards) and self.guards[-1].truth is True
        return None if certain else STOP

    def s_assert(self, node: ast.Assert, scope: Scope) -> None:
        return None

    def s_break(self, node: ast.Break, scope: Scope) -> str:
        return BREAK

    def s_continue(self, node: ast.Continue, scope: Scope) -> str:
        return NEXT

    def s_match(self, node: ast.Match, scope: Scope) -> None:
        subject = self.eval(node.subject, scope)
        before = scope.names
        merged = dict(before)
        for case in node.cases:
            scope.names = dict(before)
            for part in walk(case.pattern):
                name = getattr(part, "name", None) or getattr(part, "rest", None)
                if isinstance(name, str):
                    scope.names[name] = Value(roles=subject.roles, settings=subject.settings)
            self.guards.append(Guard(node.subject, self.program, None, EMPTY))
            try:
                self.block(case.body, scope)
            finally:
                self.guards.pop()
            for name, value in scope.names.items():
                if merged.get(name) is not value:
                    merged[name] = join(merged.get(name), value)
        scope.names = before
        before.clear()
        before.update(merged)


STATEMENTS: dict[type[ast.stmt], Any] = {
    ast.Expr: Statements.s_expr, ast.Assign: Statements.s_assign, ast.AnnAssign: Statements.s_annassign,
    ast.AugAssign: Statements.s_augassign, ast.Return: Statements.s_return, ast.If: Statements.s_if,
    ast.For: Statements.s_for, ast.AsyncFor: Statements.s_for, ast.While: Statements.s_while,
    ast.With: Statements.s_with, ast.AsyncWith: Statements.s_with, ast.Try: Statements.s_try,
    ast.TryStar: Statements.s_try, ast.FunctionDef: Statements.s_function,
    ast.AsyncFunctionDef: Statements.s_function, ast.ClassDef: Statements.s_class, ast.Import: Statements.s_import,
    ast.ImportFrom: Statements.s_importfrom, ast.Delete: Statements.s_delete, ast.Global: Statements.s_global,
    ast.Nonlocal: Statements.s_nonlocal, ast.Raise: Statements.s_raise, ast.Assert: Statements.s_assert,
    ast.Break: Statements.s_break, ast.Continue: Statements.s_continue, ast.Match: Statements.s_match,
}  # fmt: skip


def _can_break(body: Sequence[ast.stmt]) -> bool:
    return any(isinstance(n, ast.Break) for s in body for n in walk(s))


def _merge(target: dict[str, Value], other: dict[str, Value], typical: dict[str, Value] | None, *, later: bool) -> None:
    """Set the names in ``target``, which one branch left, to what they are after that or the ``other`` branch.

    ``later`` tells that the other branch stands behind this one; ``typical`` is the one that is usually taken.
    """
    for name, value in other.items():
        own = target.get(name)
        if own is value:
            continue
        first, second = (own, value) if later else (value, own)
        target[name] = joined = join(first, second)
        if typical is not None and type(joined) is Value and joined is not second and name in typical:
            joined.sample = number_of(typical[name])
