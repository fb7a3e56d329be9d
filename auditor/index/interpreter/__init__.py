"""Follows a submission's code from its entry point without running it, and records what happens as a trace.

This is an abstract interpreter over ``ast``: statements are visited in execution order, calls into the submission are
entered with their actual arguments, conditions are decided where the run's effective configuration decides them
(true / false / unknown; unknown means both branches are followed), and loop bodies are visited once. Nothing of
the submission is ever executed: the only operations carried out are arithmetic and string joins on small
constants. Functions that can't matter (a network's forward pass, quantiser arithmetic) are not entered; their result
carries the roles of their arguments.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from auditor.index.interpreter.expressions import Expressions
from auditor.index.interpreter.inputs import RANK_NAMES
from auditor.index.interpreter.roles import canonical, changing, leaves_of
from auditor.index.interpreter.state import BREAK, MAX_STEPS, MAX_VISIT, NEXT, RESUMED, STOP, Budget, Scope
from auditor.index.program_index import ProgramIndex
from auditor.index.trace import CallFrame, Guard, Loop, Resume, SkippedBranch, Trace
from auditor.index.values import EMPTY, Choice, Class, Const, External, Function, Object, Value, join, number_of
from auditor.unpack.walk import statements, walk

NO_GRAD = {"torch.no_grad", "torch.inference_mode"}


class Interpreter(Expressions):
    """One walk from the entry point. Afterwards :meth:`visit` tells what a branch that was left out would have done.

    ``forced`` decides ``if`` statements (by the id of their node) that the logs have decided; None means that
    both branches ran, in different processes. ``shown`` tells whether the logs show that a branch ran: in a loop that
    was some round, such as the last, and the other rounds went the other way.
    """

    def run(self) -> Trace:
        """Walk the entry script as ``__main__`` and return the trace. Never raises on odd code."""
        try:
            self.run_module(self.entry, "__main__")
        except Budget as stop:
            self.trace.truncated = str(stop)
        except RecursionError:
            self.trace.truncated = "the code is nested too deeply to follow"
        return self.trace

    def release(self) -> None:
        """Let go of all values: functions and their scopes, classes and their methods hold each other.

        Without this the syntax trees would live until cycles are next collected. Nothing can be visited afterwards.
        """
        for scope in self.scopes:
            scope.names = {}
        for cls in self.classes:
            cls.attributes = {}
        for branch in self.trace.skipped:
            branch.resume = None

    def visit(self, branch: SkippedBranch) -> Trace:
        """What a branch that the configuration leaves out would do, at the end of the walk; its own events only.

        Variables have the values they had at the end: good enough to tell what the branch is about, not to order it
        against the rest.
        """
        resume = branch.resume
        # Events are the branch's own; what later events refer to by number is shared with the walk.
        known = self.trace
        shared = {name: getattr(known, name) for name in ("parents", "leaves", "spans", "carried", "resets", "made_in")}
        main, self.trace = known, Trace(**shared, loop_end=known.loop_end)
        if resume is None:
            self.trace, main = main, self.trace
            return main
        state = {name: getattr(self, name) for name in (*RESUMED, "steps", "parts", "forced", "returns", "pending")}
        for name, value in zip(RESUMED, resume.state, strict=True):
            setattr(self, name, list(value) if name in ("frames", "guards", "loops") else value)
        self.parts, self.returns = {}, [[]]
        self.steps = max(self.steps, MAX_STEPS - MAX_VISIT)  # a bound of its own, and later than everything so far
        test: ast.expr = getattr(branch.node, "test", None) or branch.node.iter  # type: ignore[attr-defined]
        self.guards.append(Guard(test, self.program, None, branch.settings, branch.negated))
        try:
            body: Sequence[ast.stmt] = branch.body
            if len(body) == 1 and body[0] is self.frames[-1].definition:
                # The rest of the function, that an early return leaves out.
                self.forced = {**self.forced, id(branch.node): branch.negated}
                body = body[0].body  # type: ignore[attr-defined]
            if isinstance(branch.node, ast.For | ast.AsyncFor):
                self.bind(branch.node.target, Value(roles=frozenset({"iter"})), resume.scope)
            if isinstance(branch.node, ast.If):
                self.block(body, resume.scope)
            else:
                self.loop_body(branch.node, body, resume.scope, EMPTY, self.next_serial(), branch.settings)
        except Budget as stop:
            self.trace.truncated = str(stop)
        except RecursionError:
            self.trace.truncated = "the code is nested too deeply to follow"
        found, self.trace = self.trace, main
        for name, value in state.items():
            setattr(self, name, value)
        return found

    def run_module(self, index: ProgramIndex, name: str) -> Object:
        self.indexes[id(index.program)] = index
        if index.program.tree is not None and index.program.tree.body:
            self.trace.modules.append(index.program.file)
        self.follow_passes = self.follow_passes or index.has_shift or index.has_lookahead
        self.byte_mixtures |= index.byte_mixtures
        self.watches_leaves = self.watches_leaves or index.makes_leaves
        scope = self.new_scope(None, 0)
        module = Object(kind=External(name=name), attributes=scope.names)
        self.modules[index.program.file] = module
        scope.names["__name__"] = Const(value=name)
        scope.names["__file__"] = Value(text=index.program.file)
        if index.program.tree is None:
            return module
        saved = (self.program, self.index)
        self.program, self.index = index.program, index
        label = "<module>" if name == "__main__" else f"<import {name}>"
        self.frames.append(CallFrame(self.next_serial(), label, index.program, None, None, saved[0]))
        scope.call = self.frames[-1].id
        stack = self.stack
        self.stack = (*stack, scope.call)
        try:
            if index.program.prelude is not None:
                self.block(index.program.prelude.body, scope)
            self.block(index.program.tree.body, scope)
        finally:
            self.frames.pop()
            self.stack = stack
            self.program, self.index = saved
        return module

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
        left_out = node.orelse if truth else node.body
        return bool(left_out) and self.shown(left_out)

    def skip(
        self, node: ast.AST, body: Sequence[ast.stmt], settings: frozenset[str], scope: Scope, *, negated: bool = False
    ) -> None:
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

    def s_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef, scope: Scope) -> None:
        scope.assign(node.name, self.decorated(node, self.make_function(node, scope), scope))

    def decorated(self, node: ast.FunctionDef | ast.AsyncFunctionDef, function: Function, scope: Scope) -> Value:
        result: Value = function
        for decorator in reversed(node.decorator_list):
            wrapper = self.eval(decorator, scope)
            if isinstance(wrapper, External) and wrapper.name in NO_GRAD:
                function.roles |= {"no_grad"}
            elif isinstance(wrapper, External) and wrapper.name == "property":
                function.roles |= {"property"}
            elif isinstance(wrapper, External) and wrapper.name == "staticmethod":
                function.roles |= {"static"}
            elif isinstance(wrapper, External) and wrapper.name == "classmethod":
                function.roles |= {"classmethod"}
            elif isinstance(wrapper, Function):
                wrapped = self.call(wrapper, [result], {}, decorator)
                if isinstance(wrapped, (Function, Choice)):
                    result = wrapped
        return result

    def s_class(self, node: ast.ClassDef, scope: Scope) -> None:
        bases = tuple(self.eval(b, scope) for b in node.bases)
        cls = Class(node=node, scope=scope, program=self.program, bases=bases)
        self.classes.append(cls)
        body = self.new_scope(scope, scope.call)
        for statement in node.body:
            if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
                function = self.make_function(statement, scope, cls)
                cls.attributes[statement.name] = self.decorated(statement, function, scope)
                body.names[statement.name] = cls.attributes[statement.name]
            else:
                self.block([statement], body)
        dependent = sum(1 for v in body.names.values() if v.settings)
        config_like = dependent >= 3 or (bool(node.decorator_list) and not cls.is_module)
        for name, value in body.names.items():
            cls.attributes.setdefault(name, self.logged(name, value) if config_like else value)
        for keyword in node.decorator_list:
            self.eval(keyword, scope)
        scope.assign(node.name, cls)

    def s_import(self, node: ast.Import, scope: Scope) -> None:
        for alias in node.names:
            sibling = self.sibling(alias.name)
            if sibling is not None:
                scope.assign(alias.asname or alias.name.split(".")[0], sibling)
                continue
            name = alias.name if alias.asname else alias.name.split(".")[0]
            scope.assign(alias.asname or name, External(name=canonical(name)))

    def s_importfrom(self, node: ast.ImportFrom, scope: Scope) -> None:
        base = node.module or ""
        module = self.sibling(base) if base else None
        for alias in node.names:
            target = alias.asname or alias.name
            if module is not None:
                if alias.name == "*":
                    for name, value in module.attributes.items():
                        if not name.startswith("__"):
                            scope.assign(name, value)
                    continue
                scope.assign(target, module.attributes.get(alias.name) or Value())
                continue
            sibling = self.sibling(f"{base}.{alias.name}" if base else alias.name)
            scope.assign(target, sibling or External(name=canonical(f"{base}.{alias.name}")))

    def sibling(self, name: str) -> Object | None:
        """The module ``name`` when it is a file of this submission (imported once)."""
        index = self.siblings.get(name)
        if index is None:
            return None
        if index.program.file in self.modules:
            return self.modules[index.program.file]
        return self.run_module(index, name)

    def s_delete(self, node: ast.Delete, scope: Scope) -> None:
        for target in node.targets:
            if isinstance(target, ast.Name):
                scope.names.pop(target.id, None)

    def s_global(self, node: ast.Global, scope: Scope) -> None:
        for name in node.names:
            scope.shared[name] = scope.module

    def s_nonlocal(self, node: ast.Nonlocal, scope: Scope) -> None:
        for name in node.names:
            found = scope.parent.find(name) if scope.parent is not None else None
            if found is not None:
                scope.shared[name] = found[1]

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
    ast.Expr: Interpreter.s_expr, ast.Assign: Interpreter.s_assign, ast.AnnAssign: Interpreter.s_annassign,
    ast.AugAssign: Interpreter.s_augassign, ast.Return: Interpreter.s_return, ast.If: Interpreter.s_if,
    ast.For: Interpreter.s_for, ast.AsyncFor: Interpreter.s_for, ast.While: Interpreter.s_while,
    ast.With: Interpreter.s_with, ast.AsyncWith: Interpreter.s_with, ast.Try: Interpreter.s_try,
    ast.TryStar: Interpreter.s_try, ast.FunctionDef: Interpreter.s_function,
    ast.AsyncFunctionDef: Interpreter.s_function, ast.ClassDef: Interpreter.s_class, ast.Import: Interpreter.s_import,
    ast.ImportFrom: Interpreter.s_importfrom, ast.Delete: Interpreter.s_delete, ast.Global: Interpreter.s_global,
    ast.Nonlocal: Interpreter.s_nonlocal, ast.Raise: Interpreter.s_raise, ast.Assert: Interpreter.s_assert,
    ast.Break: Interpreter.s_break, ast.Continue: Interpreter.s_continue, ast.Match: Interpreter.s_match,
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
