"""Calls that leave the submission: torch, numpy, the standard library, other programs, the network."""

from __future__ import annotations

import ast
from functools import lru_cache

from auditor.index.interpreter.inputs import Inputs
from auditor.index.interpreter.items import Items
from auditor.index.interpreter.library import EXTERNALS
from auditor.index.interpreter.roles import PLACING, is_true, leaves_of, roles_of_places, text_of, through_call
from auditor.index.interpreter.scores import LARGER, SMALLER
from auditor.index.trace import Kind
from auditor.index.values import (
    EMPTY,
    HOLE,
    Const,
    External,
    Function,
    Object,
    Seq,
    Value,
    deep_roles,
    number_of,
    roles_of,
    settings_of,
)

IDENTITY_CALLS = {
    "torch.compile", "torch.jit.script", "torch.jit.trace", "torch.nn.parallel.DistributedDataParallel",
    "torch.nn.DataParallel", "torch._dynamo.disable", "torch._dynamo.optimize", "torch.compiler.disable",
    "torch.distributed.fsdp.FullyShardedDataParallel", "functools.lru_cache", "functools.cache",
    "torch.no_grad", "torch.inference_mode", "torch.enable_grad", "staticmethod", "classmethod", "property",
    "deepspeed.initialize", "dataclasses.dataclass", "typing.cast",
}  # fmt: skip
PROGRAM_CALLS = (
    "subprocess.", "os.system", "os.popen", "os.exec", "os.spawn", "os.posix_spawn", "commands.getoutput",
    "asyncio.create_subprocess", "pty.spawn", "sh.",
)  # fmt: skip
LIBRARY_CALLS = (
    "ctypes.CDLL", "ctypes.cdll.LoadLibrary", "ctypes.PyDLL", "ctypes.WinDLL", "ctypes.cdll",
    "torch.utils.cpp_extension.load", "torch.utils.cpp_extension.load_inline", "torch.ops.load_library",
    "torch.classes.load_library", "numpy.ctypeslib.load_library",
)  # fmt: skip
FETCHES = frozenset(
    {
        "urllib.request.urlopen", "urllib.request.urlretrieve", "requests.get", "requests.post", "requests.request",
        "huggingface_hub.snapshot_download", "huggingface_hub.hf_hub_download", "httpx.get", "httpx.stream",
        "torch.hub.load", "torch.hub.download_url_to_file", "torch.hub.load_state_dict_from_url", "gdown.download",
        "wget.download", "kagglehub.dataset_download", "tiktoken.get_encoding", "tiktoken.encoding_for_model",
        "pip.main", "pip._internal.main", "pip._internal.cli.main.main", "nltk.download",
    }
)  # fmt: skip
CFFI = ("dlopen", "verify", "set_source", "compile")
FILE_READERS = frozenset(
    {"numpy.fromfile", "numpy.load", "numpy.memmap", "numpy.loadtxt", "torch.load", "torch.from_file", "pickle.load",
     "json.load"}
)  # fmt: skip
RANDOM_INDEX = {
    "torch.randint", "random.randint", "random.randrange", "random.sample", "random.choice", "random.choices",
    "numpy.random.randint", "numpy.random.choice", "torch.multinomial",
}  # fmt: skip
FACTORIES = frozenset(
    {
        "zeros", "zeros_like", "full", "full_like", "empty", "empty_like", "ones", "ones_like", "randn", "randn_like",
        "rand", "normal", "tensor", "clone",
    }
)  # fmt: skip
PRODUCTS = frozenset({"linear", "matmul", "mm", "bmm", "einsum", "addmm", "baddbmm", "embedding", "conv1d"})


class Externals(Inputs, Items):
    """Applies functions from outside of the submission."""

    def external(self, function: External, arguments: list[Value], keywords: dict[str, Value], node: ast.AST) -> Value:
        """The result of a function from outside of the submission."""
        name = function.name
        values = [*arguments, *keywords.values()]
        handler = EXTERNALS.get(name)
        if handler is not None:
            return handler(self, function, arguments, keywords, node)
        family = _family(name)
        if family == "program":
            self.emit(
                Kind.EXTERNAL,
                node,
                text=name,
                value=arguments[0] if arguments else (keywords.get("args") or keywords.get("name")),
                settings=settings_of(values),
                detail=",".join(k for k, v in keywords.items() if k == "check" and is_true(v)),
            )
            return Value(roles=frozenset({"program"}))
        if family == "identity":
            return arguments[0] if arguments else function
        if family == "optimizer":
            roles = EMPTY
            for value in values:
                roles |= deep_roles(value, 3)
            made = Object(kind=function, roles=frozenset(r for r in roles if r.startswith(("param:", "leaf:"))))
            made.born = self.frames[-1].id if self.frames else 0
            return made
        leaf = name.rsplit(".", 1)[-1]
        if family == "network":
            made = Object(kind=function)
            if leaf in ("ModuleList", "Sequential", "ParameterList"):
                made.attributes["*"] = arguments[0] if arguments else Seq()
                if leaf == "Sequential" and arguments and not isinstance(arguments[0], Seq):
                    made.attributes["*"] = Seq(items=arguments)
            self.adopt(made, values)
            return made
        if name.startswith(("torch.nn.init.", "torch._foreach_copy_", "torch._foreach_zero_")) and arguments:
            self.reset_event(node, arguments[0])
        counts = EMPTY
        if name in ("numpy.add.at", "numpy.bincount", "torch.bincount") and arguments:
            counted = arguments[1:2] if name.endswith(".at") else arguments[:1]
            table = arguments[0] if name.endswith(".at") else None
            counts = self.count(node, table, roles_of(counted), roles_of(arguments[2:3]))
        if name == "print" or "log" in name:
            self.metric(node, values)
        if self.passes:
            seen = self.in_forward(name, arguments, keywords, node)
            if seen is not None:
                return seen
        if name in FETCHES or name.endswith(".from_pretrained"):
            texts = [t for v in values if (t := text_of(v)) is not None]
            self.emit(Kind.NETWORK, node, text=name, detail=" ".join(texts).replace(HOLE, "?")[:200])
        if leaf == "load_dataset" and leaf != name:
            texts = [t for v in values if (t := text_of(v)) is not None]
            event = self.emit(Kind.DATA, node, text=" ".join(texts).replace(HOLE, "?"))
            return Value(roles=frozenset({"foreign", f"data:{event.seq}"}))
        if name in RANDOM_INDEX:
            return Value(roles=frozenset({"random"}) | roles_of(values))
        if name.startswith("time.") and name.rsplit(".", 1)[-1] in ("perf_counter", "time", "monotonic"):
            return Value(roles=frozenset({"clock"}))
        if name in ("torch.save", "pickle.dump", "numpy.savez", "numpy.save", "safetensors.torch.save_file"):
            roles = EMPTY
            for value in values:
                roles |= deep_roles(value, 2)
            self.emit(Kind.SERIALIZE, node, roles=roles)
            return Value()
        if "requires_grad" in keywords and leaf in FACTORIES:
            flag = keywords["requires_grad"]
            if not (isinstance(flag, Const) and not flag.value):
                shape = _shape(arguments, keywords) if not leaf.endswith(("_like", "tensor")) else None
                role = self.leaf(node, shape, None)
                made_leaf = self.trace.leaves[max(leaves_of(role))]
                made_leaf.named = bool(shape) and shape is not None and shape[0] is None
                return Value(born=self.frames[-1].id if self.frames else 0, roles=role)
        if leaf == "arange" and name.startswith(("torch", "numpy")):
            numbers = EXTERNALS["range"](self, function, arguments, {}, node)
            return Value(roles=numbers.roles | {"positions"}, settings=numbers.settings, sample=numbers.sample)
        if self.trace.leaves and leaf in PRODUCTS:
            self.note_leaf(arguments[:2], projected=True, factor=True)
        if leaf in ("zeros", "zeros_like", "full", "empty", "ones", "empty_like") and name.startswith(
            ("torch", "numpy", "jax", "mlx")
        ):
            return Value(born=self.frames[-1].id if self.frames else 0)
        if leaf == "tensor" and values and not roles_of(values):
            born = self.frames[-1].id if self.frames else 0
            return Value(born=born, settings=settings_of(values))
        roles = EMPTY
        for value in values:
            roles |= deep_roles(value, 1)
            if isinstance(value, Function) and leaf in ("Thread", "submit", "map", "apply_async", "Process"):
                self.call(value, [], {}, node)
        roles |= self.path_roles(values)
        if name in FILE_READERS:
            roles = self.from_file(roles)
        if name in ("torch.autograd.grad", "torch.func.grad"):
            return Value(roles=roles | {"grad"})
        if name.startswith("torch.nn.functional.") and leaf in ("cross_entropy", "nll_loss", "log_softmax"):
            roles |= {"nn"} if roles & {"val", "train"} else EMPTY
            roles |= {"realised"} if leaf != "log_softmax" and "val" in roles else EMPTY
        if leaf in PLACING:
            roles = roles_of_places(roles, leaf)
        if leaf == "decompress" and "val" in roles and "nn" not in roles:
            roles |= {"file"}  # validation tokens that were packed, as good as read from a file
        result = Value(roles=through_call(roles) | counts, settings=settings_of(values), text=None)
        if leaf in ("argsort", "lexsort") and arguments:
            result.roles |= self.reorder(node, arguments[0], "sorted")
        if leaf == "gather" and len(values) > 1 and "val" in values[-1].roles and "nn" in values[0].roles:
            result.roles |= {"realised"}
        if leaf in SMALLER or leaf in LARGER:
            self.pick(node, leaf, arguments, result)
        return result


@lru_cache(maxsize=4096)
def _family(name: str) -> str:
    """What a function from outside the submission is for, where its dotted name decides that alone."""
    if name.startswith(PROGRAM_CALLS) or name.startswith(LIBRARY_CALLS) or _is_cffi(name):
        return "program"
    if name in IDENTITY_CALLS or name.endswith(("DistributedDataParallel", ".DDP")):
        return "identity"
    if ".optim." in f".{name}." and "lr_scheduler" not in name and "swa_utils" not in name:
        return "optimizer"
    if name.startswith("torch.nn.") and not name.startswith(("torch.nn.functional", "torch.nn.utils")):
        leaf = name.rsplit(".", 1)[-1]
        return "network" if leaf[:1].isupper() and leaf != "Parameter" else ""
    return ""


def _is_cffi(name: str) -> bool:
    return "cffi" in name.lower() and name.rsplit(".", 1)[-1] in CFFI


def _shape(arguments: list[Value], keywords: dict[str, Value]) -> tuple[float | None, ...] | None:
    """The dimensions that a factory such as ``torch.zeros`` is given."""
    given = arguments or ([keywords["size"]] if "size" in keywords else [])
    if given and isinstance(given[0], Seq):
        given = given[0].items
    return tuple(number_of(v) for v in given) if given else None
