"""Makes a submission's script run on a CPU: a codemod that puts CPU forms in place of GPU ones and nothing else.

Every substitution stays on its line, so that a traceback of the adapted text points at the line a person reads, and
every one is listed. What is put in refers to one name, ``_on_cpu`` (:mod:`auditor.probe.driver.on_cpu`), which the
driver gives to the modules that it loads:

| in the script | in the probe |
|---|---|
| ``"cuda"``, ``"cuda:0"``, ``f"cuda:{rank}"``, ``"CUDA"`` | ``"cpu"``, ``"CPU"`` |
| ``x.cuda()``, ``x.is_cuda`` | ``x.to("cpu")``, ``True`` |
| ``x.cpu()``, ``x.to("cpu")`` | ``_on_cpu.host(x)``: a copy, as it is from a GPU |
| ``torch.cuda``, ``torch.compile``, ``torch.autocast`` | ``_on_cpu.cuda``, ``.compile``, ``.autocast`` |
| ``torch._dynamo.config``, ``torch._inductor.config`` | ``_on_cpu.settings``, which takes anything |
| ``torch.bfloat16``, ``x.bfloat16()`` | ``_on_cpu.bfloat16``: float32, unless the job says otherwise |
| ``pin_memory=True``, ``x.pin_memory()``, ``capturable=True`` | ``False``, ``_on_cpu.pinned(x)``, ``False`` |

Constants that a tiny run needs to be smaller can be replaced too; see :func:`adapt`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import libcst as cst
from libcst import matchers as m
from libcst.metadata import MetadataWrapper, PositionProvider

from auditor.errors import AuditorError
from auditor.probe.result import Substitution
from auditor.unpack.newer import TooDeepError, check_nesting, spaced_out, with_room

NAME = "_on_cpu"
"""The one name that adapted code refers to."""

_DEVICE = re.compile(r"cuda(?::\d+)?")
_REPLACED = {
    "torch.cuda": "cuda",
    "torch.compile": "compile",
    "torch.autocast": "autocast",
    "torch.amp.autocast": "autocast",
    "torch.amp.GradScaler": "GradScaler",
    "torch.bfloat16": "bfloat16",
    "tl.bfloat16": "kernel_bfloat16",
    "triton.language.bfloat16": "kernel_bfloat16",
    "torch._dynamo.config": "settings",
    "torch._inductor.config": "settings",
    "torch._functorch.config": "settings",
}
_OFF = frozenset({"pin_memory", "capturable"})


class AdaptError(AuditorError):
    """The text can't be adapted; the message says why in one sentence."""


@dataclass(frozen=True)
class Adapted:
    """A text that runs on a CPU. ``substitutions`` have the line, and the file that ``adapt`` was told."""

    text: str
    substitutions: tuple[Substitution, ...]
    unused: tuple[str, ...] = ()
    """Constants that were to be replaced, but are not there."""


def adapt(text: str, *, file: str | None = None, constants: Mapping[str, str] | None = None) -> Adapted:
    """Adapt a program.

    ``constants`` maps names to Python expressions. A name is that of a variable at module level (``BLOCK``), an
    attribute of a class (``Hyperparameters.num_layers``), a local of a function (``main.chunk``) or the default of a
    parameter (``eval_val.stride``, ``eval_val(stride)``); where it is assigned more than once in its scope, each
    assignment is replaced.

    Raises:
        AdaptError: LibCST can't read the text, or a constant is no expression.
    """
    wanted: dict[str, cst.BaseExpression] = {}
    for name, value in (constants or {}).items():
        try:
            ast.parse(value, mode="eval")
            wanted[re.sub(r"\((\w+)\)$", r".\1", name)] = cst.parse_expression(value)
        except (SyntaxError, ValueError, cst.ParserSyntaxError):
            raise AdaptError(f"the value for {name} is no expression: {value[:80]}") from None
    try:
        check_nesting(text)
        return with_room(lambda: _adapt(text, file, wanted))
    except TooDeepError as why:
        raise AdaptError(f"the script is too deep for LibCST: {why}") from None
    except cst.ParserSyntaxError as why:
        raise AdaptError(f"LibCST can't read the script: {why.message.splitlines()[0]}") from None
    except cst.CSTValidationError as why:
        raise AdaptError(f"LibCST can't read the script: {why}") from None


def _adapt(text: str, file: str | None, wanted: Mapping[str, cst.BaseExpression]) -> Adapted:
    try:
        module = cst.parse_module(text)
    except cst.CSTValidationError:
        # LibCST wants blanks that Python doesn't, as in "[a-(b if c else d)for a in e]".
        module = cst.parse_module(spaced_out(text)[0])
    wrapper = MetadataWrapper(module, unsafe_skip_copy=True)
    codemod = _OnCpu(file, wanted)
    changed = wrapper.visit(codemod)
    unused = tuple(name for name in wanted if name not in codemod.used)
    return Adapted(changed.code, tuple(codemod.substitutions), unused)


def _dotted(node: cst.BaseExpression) -> str | None:
    """``torch.cuda`` of an attribute of an attribute of a name; None for anything else."""
    parts: list[str] = []
    while isinstance(node, cst.Attribute):
        parts.append(node.attr.value)
        node = node.value
    if not isinstance(node, cst.Name):
        return None
    return ".".join([node.value, *reversed(parts)])


def _on_cpu(name: str) -> cst.Attribute:
    return cst.Attribute(cst.Name(NAME), cst.Name(name))


def _string(node: cst.BaseExpression) -> str | None:
    if not isinstance(node, cst.SimpleString):
        return None
    value = node.evaluated_value
    return value if isinstance(value, str) else None


class _OnCpu(cst.CSTTransformer):
    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self, file: str | None, constants: Mapping[str, cst.BaseExpression]) -> None:
        super().__init__()
        self.file = file
        self.constants = constants
        self.used: set[str] = set()
        self.substitutions: list[Substitution] = []
        self.scope: list[str] = []

    def _note(self, node: cst.CSTNode, what: str) -> None:
        line = self.get_metadata(PositionProvider, node).start.line
        self.substitutions.append(Substitution(what=what, file=self.file, line=line))

    # -- names that are not expressions ------------------------------------------------------------------

    def visit_Import(self, node: cst.Import) -> bool:
        return False

    def visit_ImportFrom(self, node: cst.ImportFrom) -> bool:
        return False

    def visit_ClassDef(self, node: cst.ClassDef) -> None:
        self.scope.append(node.name.value)

    def leave_ClassDef(self, original_node: cst.ClassDef, updated_node: cst.ClassDef) -> cst.ClassDef:
        self.scope.pop()
        return updated_node

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
        self.scope.append(node.name.value)

    def leave_FunctionDef(self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef) -> cst.FunctionDef:
        self.scope.pop()
        return updated_node

    # -- constants ---------------------------------------------------------------------------------------

    def _constant(self, target: cst.BaseExpression, old: cst.CSTNode | None) -> cst.BaseExpression | None:
        if not self.constants or not isinstance(target, cst.Name):
            return None
        name = ".".join([*self.scope, target.value])
        value = self.constants.get(name)
        if value is None or old is None:
            return None
        self.used.add(name)
        lines = self._code(old).count("\n")
        # As many lines as before.
        return cst.parse_expression(f"({self._code(value)}{chr(10) * lines})") if lines else value

    @staticmethod
    def _code(node: cst.CSTNode) -> str:
        return cst.Module([]).code_for_node(node)

    def _told(self, node: cst.CSTNode, target: cst.CSTNode, new: cst.BaseExpression) -> None:
        self._note(node, f"constant {self._code(target)} = {self._code(new).strip()}")

    def leave_Assign(self, original_node: cst.Assign, updated_node: cst.Assign) -> cst.Assign:
        for target in original_node.targets:
            value = self._constant(target.target, original_node.value)
            if value is not None:
                self._told(original_node, target.target, value)
                return updated_node.with_changes(value=value)
        return updated_node

    def leave_AnnAssign(self, original_node: cst.AnnAssign, updated_node: cst.AnnAssign) -> cst.AnnAssign:
        value = self._constant(original_node.target, original_node.value)
        if value is None:
            return updated_node
        self._told(original_node, original_node.target, value)
        return updated_node.with_changes(value=value)

    def leave_Param(self, original_node: cst.Param, updated_node: cst.Param) -> cst.Param:
        value = self._constant(original_node.name, original_node.default)
        if value is None:
            return updated_node
        self._told(original_node, original_node.name, value)
        return updated_node.with_changes(default=value)

    # -- devices -----------------------------------------------------------------------------------------

    def leave_SimpleString(self, original_node: cst.SimpleString, updated_node: cst.SimpleString) -> cst.BaseExpression:
        value = _string(original_node)
        if value == "CUDA":
            self._note(original_node, "device CUDA → CPU")
            return updated_node.with_changes(value='"CPU"')
        if value is None or not _DEVICE.fullmatch(value):
            return updated_node
        self._note(original_node, "device cuda → cpu")
        return updated_node.with_changes(value='"cpu"')

    def leave_FormattedString(
        self, original_node: cst.FormattedString, updated_node: cst.FormattedString
    ) -> cst.BaseExpression:
        parts = original_node.parts
        if (
            len(parts) == 2
            and isinstance(parts[0], cst.FormattedStringText)
            and parts[0].value == "cuda:"
            and isinstance(parts[1], cst.FormattedStringExpression)
        ):
            self._note(original_node, "device cuda → cpu")
            return cst.SimpleString('"cpu"', lpar=updated_node.lpar, rpar=updated_node.rpar)
        return updated_node

    def leave_Attribute(self, original_node: cst.Attribute, updated_node: cst.Attribute) -> cst.BaseExpression:
        name = original_node.attr.value
        if name == "is_cuda":
            self._note(original_node, "is_cuda → True")
            return cst.Name("True")
        dotted = _dotted(original_node)
        if dotted in _REPLACED:
            self._note(original_node, f"stand-in for {dotted}")
            replaced = _on_cpu(_REPLACED[dotted])
            return replaced.with_changes(lpar=updated_node.lpar, rpar=updated_node.rpar)
        return updated_node

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.BaseExpression:
        function, args = original_node.func, updated_node.args
        if not isinstance(function, cst.Attribute) or not isinstance(updated_node.func, cst.Attribute):
            return updated_node
        name, owner = function.attr.value, updated_node.func.value
        if name == "cuda":
            self._note(original_node, ".cuda() → .to('cpu')")
            to = updated_node.func.with_changes(attr=cst.Name("to"))
            return updated_node.with_changes(func=to, args=[cst.Arg(cst.SimpleString('"cpu"'))])
        if name == "cpu" and not args and _dotted(function) != "torch.cpu":
            return self._wrapped(original_node, updated_node, "host", owner, ".cpu() is a copy")
        if name == "to" and original_node.args and self._to_host(original_node.args):
            return self._wrapped(original_node, updated_node, "host", owner, ".to('cpu') is a copy")
        if name == "pin_memory" and _dotted(function) != "torch.pin_memory":
            return self._wrapped(original_node, updated_node, "pinned", owner, "no pinned memory")
        if name == "bfloat16" and not args:
            self._note(original_node, "bfloat16 → float32")
            to = updated_node.func.with_changes(attr=cst.Name("to"))
            return updated_node.with_changes(func=to, args=[cst.Arg(_on_cpu("bfloat16"))])
        if _dotted(function) == "torch.device" and len(args) == 2 and _string(args[0].value) == "cpu":
            return updated_node.with_changes(args=[args[0].with_changes(comma=cst.MaybeSentinel.DEFAULT)])
        return updated_node

    @staticmethod
    def _to_host(args: Sequence[cst.Arg]) -> bool:
        return any(_string(a.value) == "cpu" and (a.keyword is None or a.keyword.value == "device") for a in args)

    def _wrapped(
        self, original: cst.Call, updated: cst.Call, name: str, owner: cst.BaseExpression, what: str
    ) -> cst.Call:
        self._note(original, what)
        return updated.with_changes(func=_on_cpu(name), args=[cst.Arg(owner), *updated.args])

    def leave_Arg(self, original_node: cst.Arg, updated_node: cst.Arg) -> cst.Arg:
        keyword = original_node.keyword
        if keyword is None or keyword.value not in _OFF or m.matches(original_node.value, m.Name("False")):
            return updated_node
        self._note(original_node, f"{keyword.value}=False")
        return updated_node.with_changes(value=cst.Name("False"))
