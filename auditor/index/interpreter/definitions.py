"""Definitions: functions, classes, modules and what imports make of them."""

from __future__ import annotations

import ast

from auditor.index.interpreter.expressions import Expressions
from auditor.index.interpreter.roles import canonical
from auditor.index.interpreter.state import Scope
from auditor.index.program_index import ProgramIndex
from auditor.index.trace import CallFrame
from auditor.index.values import Choice, Class, Const, External, Function, Object, Value

NO_GRAD = {"torch.no_grad", "torch.inference_mode"}


class Definitions(Expressions):
    """Makes functions and classes, and runs modules."""

    def run_module(self, index: ProgramIndex, name: str) -> Object:
        """Follow the statements of a file; the module."""
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

    def s_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef, scope: Scope) -> None:
        scope.assign(node.name, self.decorated(node, self.make_function(node, scope), scope))

    def decorated(self, node: ast.FunctionDef | ast.AsyncFunctionDef, function: Function, scope: Scope) -> Value:
        """What decorators make of a function."""
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
