"""Follows a submission's code from its entry point without running it, and records what happens as a trace.

This is an abstract interpreter over ``ast``: statements are visited in execution order, calls into the submission are
entered with their actual arguments, conditions are decided where the run's effective configuration decides them
(true / false / unknown; unknown means both branches are followed), and loop bodies are visited once. Nothing of
the submission is ever executed: the only operations carried out are arithmetic and string joins on small
constants. Functions that can't matter (a network's forward pass, quantiser arithmetic) are not entered; their result
carries the roles of their arguments.

One class per subject, each building on those above it (a class names the ones it uses as its bases):

* :mod:`.state`: ``Walk``: where the walk stands, how an event is recorded, scopes, bounds
* :mod:`.roles`: functions on values and their roles that several parts use
* :mod:`.inputs`: ``Inputs``: environment, flags, logged hyperparameters, paths of data
* :mod:`.scores`: ``Scores``: losses that are kept, counts, picks, optimiser steps, printed metrics
* :mod:`.leaves`: ``Leaves``: tensors optimised outside of any network
* :mod:`.selections`: ``Selections``: cuts, pieces and spans of the validation tokens
* :mod:`.passes`: ``Passes``: forward passes: hooks, attention, smears, looking ahead
* :mod:`.items`: ``Items``: attributes and items, read and assigned
* :mod:`.operators`: ``Operators``: arithmetic, comparisons, truth
* :mod:`.methods`: ``Methods``: methods of values that are not the submission's objects
* :mod:`.library`: functions from outside of the submission that have a meaning of their own
* :mod:`.externals`: ``Externals``: all other calls that leave the submission
* :mod:`.calls`: ``Calls``: calls in general, and those into the submission
* :mod:`.expressions`: ``Expressions``: every other kind of expression
* :mod:`.definitions`: ``Definitions``: functions, classes, modules and imports
* :mod:`.statements`: ``Statements``: blocks, assignments, branches, loops

What a part needs of a later one (to evaluate an expression, to enter a call) is declared, abstract, by ``Walk``.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

from auditor.index.interpreter.state import MAX_STEPS, MAX_VISIT, RESUMED, Budget
from auditor.index.interpreter.statements import Statements
from auditor.index.trace import Guard, SkippedBranch, Trace
from auditor.index.values import EMPTY, Value


class Interpreter(Statements):
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
