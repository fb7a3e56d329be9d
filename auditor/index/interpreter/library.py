"""Functions from outside of the submission that have a meaning of their own, such as ``range`` or ``os.getenv``.

Every handler takes the interpreter ``i``, the function ``f`` by its dotted name, the arguments ``a``, the keyword
arguments ``k`` and the node ``n`` of the call. :data:`EXTERNALS` says which handler a name has.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from auditor.index.interpreter.roles import canonical, changing, copy_function, is_owned, length_of, places_of, text_of
from auditor.index.trace import Kind
from auditor.index.values import (
    EMPTY,
    HOLE,
    Class,
    Const,
    External,
    Function,
    Mapping,
    Object,
    Seq,
    Value,
    deep_roles,
    join,
    number_of,
    options_of,
    roles_of,
    settings_of,
)

if TYPE_CHECKING:
    from auditor.index.interpreter.externals import Externals


Handler = Callable[["Externals", External, list[Value], dict[str, Value], ast.AST], Value]


def _x_getenv(i: Externals, f: External, a: list[Value], k: dict[str, Value], n: ast.AST) -> Value:
    default = a[1] if len(a) > 1 else k.get("default")
    if default is None and f.name != "os.environ.setdefault":
        default = Const(value=None)
    made = i.environment(a[0] if a else Value(), default, n)
    if f.name == "os.environ.setdefault" and a and isinstance(a[0], Const) and default is not None:
        i.set_by_code.setdefault(str(a[0].value), made if isinstance(made, Const) else default)
    return made


def _x_number(i: Externals, f: External, a: list[Value], k: dict[str, Value], n: ast.AST) -> Value:
    if not a:
        return Const(value=0)
    value = a[0]
    kind: Callable[[Any], Any] = {"int": int, "float": float, "bool": bool, "str": str}[f.name]
    if isinstance(value, Const) and isinstance(value.value, (str, int, float, bool)):
        try:
            return Const(value=kind(value.value), settings=value.settings, roles=value.roles)
        except (ValueError, OverflowError):
            return Value(settings=value.settings)
    return Value(roles=value.roles, settings=value.settings, text=value.text, born=value.born, sample=value.sample)


def _x_join_path(i: Externals, f: External, a: list[Value], k: dict[str, Value], n: ast.AST) -> Value:
    pieces = [text_of(v) for v in a]
    settings, roles = settings_of(a), roles_of(a)
    if pieces and all(isinstance(v, Const) for v in a):
        return Const(value="/".join(str(p) for p in pieces), settings=settings, roles=roles)
    return Value(text="/".join(p if p is not None else HOLE for p in pieces), settings=settings, roles=roles)


def _x_path(i: Externals, f: External, a: list[Value], k: dict[str, Value], n: ast.AST) -> Value:
    if len(a) == 1:
        return Value(text=text_of(a[0]), roles=a[0].roles, settings=a[0].settings)
    return _x_join_path(i, f, a, k, n)


def _x_minmax(i: Externals, f: External, a: list[Value], k: dict[str, Value], n: ast.AST) -> Value:
    settings = settings_of(a)
    if a and all(isinstance(v, Const) and isinstance(v.value, (int, float)) for v in a):
        numbers = [v.value for v in a if isinstance(v, Const)]
        return Const(value=(min if f.name == "min" else max)(numbers), settings=settings, roles=places_of(roles_of(a)))
    roles = roles_of(a)
    if f.name == "min" and "val.len" in roles and "iter" not in roles:
        for value in a:
            bound = i.cut_bound(value)
            if bound is not None:
                cut = i.emit(Kind.CUT, n, roles=roles, number=bound[0], settings=bound[1], detail="min")
                roles |= {f"cut:{cut.seq}"}
    elif "iter" in roles:
        roles -= {"val.len"}
    numbers = [x for v in a if (x := number_of(v)) is not None]
    typical = (min if f.name == "min" else max)(numbers) if numbers and len(numbers) == len(a) > 1 else None
    made = Value(roles=roles, settings=settings, born=max((v.born for v in a), default=0), sample=typical)
    i.pick(n, f.name, a, made)
    return made


def _x_len(i: Externals, f: External, a: list[Value], k: dict[str, Value], n: ast.AST) -> Value:
    if a and isinstance(a[0], Const) and isinstance(a[0].value, (str, bytes)):
        return Const(value=len(a[0].value), settings=a[0].settings)
    return length_of(a[0]) if a else Value()


def _x_range(i: Externals, f: External, a: list[Value], k: dict[str, Value], n: ast.AST) -> Value:
    if not a:
        return Value()
    bounds = a[:2]
    settings = settings_of(bounds)
    stop = a[0] if len(a) == 1 else a[1]
    start: Value = Const(value=0) if len(a) == 1 else a[0]
    origin = frozenset({"from:0"}) if isinstance(start, Const) and start.value == 0 else EMPTY
    if isinstance(stop, Const) and isinstance(start, Const):
        try:
            if stop.value <= start.value and (len(a) < 3 or (isinstance(a[2], Const) and a[2].value > 0)):
                return Value(roles=frozenset({"empty"}), settings=settings)
        except TypeError:
            return Value(settings=settings)
        known = {"const"}
        step = a[2].value if len(a) > 2 and isinstance(a[2], Const) else 1
        if isinstance(stop.value, int) and isinstance(start.value, int) and isinstance(step, int) and step:
            known.add(f"rounds:{len(range(start.value, stop.value, step))}")
        return Value(
            roles=places_of(roles_of(bounds)) | known | origin, settings=settings, sample=_middle(start, stop, a[2:])
        )
    roles = roles_of(bounds)
    if len(a) > 2 and isinstance(a[2], Const) and isinstance(a[2].value, int) and "val.len" in roles:
        roles |= {f"per:{abs(a[2].value)}"}
    return Value(
        roles=roles - {"val", "whole"} | ({"val.len"} & roles) | origin,
        settings=settings,
        sample=_middle(start, stop, a[2:]),
    )


def _middle(start: Value, stop: Value, step: list[Value]) -> float | None:
    """An item from the middle of a range."""
    first, last, by = number_of(start), number_of(stop), number_of(step[0]) if step else 1.0
    if first is None or last is None or not by:
        return None
    return first + by * ((last - first) // by // 2)


def _x_first(i: Externals, f: External, a: list[Value], k: dict[str, Value], n: ast.AST) -> Value:
    return a[0] if a else Value()


def _x_field(i: Externals, f: External, a: list[Value], k: dict[str, Value], n: ast.AST) -> Value:
    return Object(kind=f, attributes=dict(k))


def _x_list(i: Externals, f: External, a: list[Value], k: dict[str, Value], n: ast.AST) -> Value:
    born = i.frames[-1].id if i.frames else 0
    if not a:
        return Mapping(items=dict(k), born=born) if f.name == "dict" else Seq(born=born)
    if isinstance(a[0], Seq):
        return Seq(items=list(a[0].items), roles=a[0].roles, settings=a[0].settings, born=born)
    if isinstance(a[0], Object) and isinstance(a[0].kind, Class):
        return Seq(items=[i.element(a[0])], roles=a[0].roles)
    return a[0]


def _x_enumerate(i: Externals, f: External, a: list[Value], k: dict[str, Value], n: ast.AST) -> Value:
    if f.name == "enumerate":
        columns = [Value(roles=frozenset({"iter"})), i.element(a[0]) if a else Value()]
    else:
        columns = [i.element(v) for v in a]
    if any(i.is_empty(v) for v in a):
        return Value(roles=frozenset({"empty"}), settings=settings_of(a))
    kept = frozenset(r for v in a for r in v.roles if r in ("val.len", "whole", "val") or r.startswith("cut:"))
    return Seq(items=[Seq(items=columns)], roles=kept, settings=settings_of(a))


def _x_getattr(i: Externals, f: External, a: list[Value], k: dict[str, Value], n: ast.AST) -> Value:
    if len(a) < 2 or not isinstance(a[1], Const):
        return Value(roles=deep_roles(a[0], 2) if a else EMPTY)
    name = str(a[1].value)
    result: Value | None = None
    for option in options_of(a[0]):
        known = isinstance(option, Object) and (
            name in option.attributes or (isinstance(option.kind, Class) and option.kind.lookup(name) is not None)
        )
        if isinstance(option, Class):
            known = option.lookup(name) is not None
        if known or len(a) < 3:
            result = join(result, i.attribute(option, name, n))
        else:
            fallback = a[2]
            if isinstance(option, (Object, Class)):
                result = join(result, fallback)
            else:
                result = join(result, Value(roles=option.roles, settings=fallback.settings))
    return result or Value()


def _x_setattr(i: Externals, f: External, a: list[Value], k: dict[str, Value], n: ast.AST) -> Value:
    if len(a) == 3 and isinstance(a[1], Const):
        for option in options_of(a[0]):
            if isinstance(option, (Object, Class)):
                option.attributes[str(a[1].value)] = a[2]
    return Const(value=None)


def _x_hasattr(i: Externals, f: External, a: list[Value], k: dict[str, Value], n: ast.AST) -> Value:
    if len(a) == 2 and isinstance(a[1], Const) and isinstance(a[0], Object):
        name = str(a[1].value)
        if name in a[0].attributes or (isinstance(a[0].kind, Class) and a[0].kind.lookup(name) is not None):
            return Const(value=True)
    return Value()


def _x_true(i: Externals, f: External, a: list[Value], k: dict[str, Value], n: ast.AST) -> Value:
    return Const(value=True)


def _x_parameter(i: Externals, f: External, a: list[Value], k: dict[str, Value], n: ast.AST) -> Value:
    """A parameter: part of the network whose ``__init__`` makes it, else a leaf."""
    data = a[0] if a else k.get("data", Value())
    function = i.frames[-1].definition if i.frames else None
    inside = isinstance(function, ast.FunctionDef) and function.name in ("__init__", "forward", "__setattr__")
    flag = k.get("requires_grad")
    if inside or (isinstance(flag, Const) and not flag.value) or type(data) is not Value or is_owned(data.roles):
        return data
    return Value(roles=data.roles | i.leaf(n, None, data), settings=data.settings, born=data.born)


def _x_deepcopy(i: Externals, f: External, a: list[Value], k: dict[str, Value], n: ast.AST) -> Value:
    if a and isinstance(a[0], Object):
        made = Object(kind=a[0].kind, attributes=dict(a[0].attributes), roles=a[0].roles)
        made.born = i.frames[-1].id if i.frames else 0
        if i.loops:
            i.trace.made_in[made.serial] = tuple(loop.id for loop in i.loops)
        return made
    return a[0] if a else Value()


def _x_partial(i: Externals, f: External, a: list[Value], k: dict[str, Value], n: ast.AST) -> Value:
    if a and isinstance(a[0], Function):
        made = copy_function(a[0])
        made.bound = (*made.bound, *a[1:])
        made.bound_keywords = {**made.bound_keywords, **k}
        return made
    return a[0] if a else Value()


def _x_super(i: Externals, f: External, a: list[Value], k: dict[str, Value], n: ast.AST) -> Value:
    return Value()


def _x_open(i: Externals, f: External, a: list[Value], k: dict[str, Value], n: ast.AST) -> Value:
    text = text_of(a[0]) if a else None
    name = {f"read:{text}"} if text and text.endswith(".py") else EMPTY
    return Value(roles=i.from_file(roles_of(a) | i.path_roles(a)) | name)


def _x_parser(i: Externals, f: External, a: list[Value], k: dict[str, Value], n: ast.AST) -> Value:
    return Object(kind=External(name="argparse.ArgumentParser"))


def _x_which(i: Externals, f: External, a: list[Value], k: dict[str, Value], n: ast.AST) -> Value:
    return Value(text=text_of(a[0]) if a else None, roles=frozenset({"program", "maybe-none"}))


def _x_delegate(i: Externals, f: External, a: list[Value], k: dict[str, Value], n: ast.AST) -> Value:
    """Handing over to another file: followed when the submission holds it, noted when it does not."""
    texts = [t for v in [*a, *k.values()] if (t := text_of(v)) is not None]
    files = [r.removeprefix("read:") for v in a for r in v.roles if r.startswith("read:")]
    files += [t for t in texts if t.endswith(".py")]
    modules = [name.rsplit("/", 1)[-1].removesuffix(".py") for name in files]
    if f.name in ("importlib.import_module", "__import__", "runpy.run_module"):
        modules += texts[:1]
    for name in modules:
        found = i.sibling(name)
        if found is not None:
            return found
    if f.name == "exec" and not files and not (a and isinstance(a[0], Const)):
        i.emit(Kind.DELEGATE, n, text="code that is only made when it runs")
    elif files or f.name == "runpy.run_module":
        i.emit(Kind.DELEGATE, n, text=(files or texts or ["another file"])[0].rsplit("/", 1)[-1])
    elif f.name in ("importlib.import_module", "__import__") and texts:
        return External(name=canonical(texts[0]))
    return Value(roles=roles_of(a))


def _x_wraps(i: Externals, f: External, a: list[Value], k: dict[str, Value], n: ast.AST) -> Value:
    return External(name="functools.wraps.decorator")


def _x_vars(i: Externals, f: External, a: list[Value], k: dict[str, Value], n: ast.AST) -> Value:
    return Value()


def _x_sorted(i: Externals, f: External, a: list[Value], k: dict[str, Value], n: ast.AST) -> Value:
    made = _x_list(i, f, a, k, n)
    # Without a key, places in the text are sorted by themselves: the order in which they are stored.
    return changing(made, i.reorder(n, made, "sorted")) if "key" in k or "reverse" in k else made


def _x_shuffle(i: Externals, f: External, a: list[Value], k: dict[str, Value], n: ast.AST) -> Value:
    for value in a[:1]:
        value.roles |= i.reorder(n, value, "shuffled")
    return Const(value=None)


def _x_permutation(i: Externals, f: External, a: list[Value], k: dict[str, Value], n: ast.AST) -> Value:
    roles = roles_of(a)
    return Value(roles=roles | (i.reorder(n, a[0], "shuffled") if a else EMPTY))


def _x_thread(i: Externals, f: External, a: list[Value], k: dict[str, Value], n: ast.AST) -> Value:
    target = k.get("target") or (a[0] if a else None)
    passed = k.get("args")
    if target is not None:
        i.call(target, list(passed.items) if isinstance(passed, Seq) else [], {}, n)
    return Value()


EXTERNALS: dict[str, Handler] = {
    "os.environ.get": _x_getenv, "os.getenv": _x_getenv, "os.environ.setdefault": _x_getenv,
    "os.environ.pop": _x_getenv, "int": _x_number, "float": _x_number, "bool": _x_number, "str": _x_number,
    "os.path.join": _x_join_path, "pathlib.Path": _x_path, "os.path.abspath": _x_path, "os.path.expanduser": _x_path,
    "os.fspath": _x_path, "min": _x_minmax, "max": _x_minmax, "len": _x_len, "range": _x_range,
    "list": _x_list, "tuple": _x_list, "set": _x_list, "dict": _x_list, "sorted": _x_sorted, "reversed": _x_list,
    "torch.randperm": _x_permutation, "numpy.random.permutation": _x_permutation,
    "collections.deque": _x_list, "tqdm": _x_first, "tqdm.tqdm": _x_first, "tqdm.auto.tqdm": _x_first,
    "iter": _x_first, "enumerate": _x_enumerate, "zip": _x_enumerate, "getattr": _x_getattr, "setattr": _x_setattr,
    "hasattr": _x_hasattr, "torch.cuda.is_available": _x_true, "torch.distributed.is_available": _x_true,
    "torch.distributed.is_initialized": _x_true, "copy.deepcopy": _x_deepcopy, "copy.copy": _x_deepcopy,
    "functools.partial": _x_partial, "super": _x_super, "open": _x_open, "argparse.ArgumentParser": _x_parser,
    "vars": _x_vars, "dataclasses.field": _x_field,
    "functools.wraps": _x_wraps, "shutil.which": _x_which, "exec": _x_delegate, "runpy.run_path": _x_delegate,
    "runpy.run_module": _x_delegate, "importlib.import_module": _x_delegate, "__import__": _x_delegate,
    "importlib.util.spec_from_file_location": _x_delegate, "random.shuffle": _x_shuffle, "threading.Thread": _x_thread,
    "multiprocessing.Process": _x_thread, "torch.nn.parameter.Parameter": _x_parameter, "torch.from_numpy": _x_first,
}  # fmt: skip
