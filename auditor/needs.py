"""What the entry script needs from its own folder and does not find there."""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import dataclass

from auditor.index.imports import Import
from auditor.index.trace import Kind
from auditor.reading import Reading
from auditor.submission import SubmissionKind
from auditor.unpack import Program
from auditor.unpack.walk import walk
from auditor.verdict import Evidence

REPOSITORY_MODULES = frozenset(
    {"train_gpt", "train_gpt_mlx", "data", "cached_challenge_fineweb", "download_hf_docs_and_tokenize"}
)
"""What the contest's repository holds at its root and in data/: not importable from inside a record folder."""

_AT_ROOT = frozenset({"train_gpt", "train_gpt_mlx", "data"})
"""Of these, what lies at the root itself."""

GENERIC = frozenset(
    """
    helper helpers util utils common config configs prepare model models modules layers train trainer training
    evaluate evaluation dataset dataloader loader lib src core tools scripts submission candidate candidates
    experiment experiments quantize quantization
    """.split()  # noqa: SIM905
)
"""Names that people give to their own files."""

PACKAGES = frozenset(
    """
    Cython IPython PIL absl accelerate adam_mini ans anthropic apex arithmetic_compressor attr auto_gptq
    bitsandbytes blosc blosc2 boto3 brotli brotlicffi bz2file causal_conv1d cffi click cma colorama constriction
    cuda cupy cupyx cut_cross_entropy cutlass cv2 cython datasets deepspeed dion dotenv einops entmax equinox faiss
    fasttext fire fla flash_attn flash_attn_2_cuda flash_attn_3 flash_attn_interface flashinfer flax fpzip fsspec
    gdown gemlite google gptqmodel h5py heavyball hf_transfer hqq httpx huggingface_hub humanize hydra hyperopt
    hypothesis jax jaxlib joblib jsonargparse kenlm keras kernels liger_kernel lightgbm lightning lion_pytorch
    loguru lz4 mamba_ssm matplotlib ml_dtypes mlx modal mpi4py msgpack muon mup mypy native_sparse_attention natten
    networkx nevergrad ninja nltk numba numpy nvtx omegaconf openai opt_einsum optax optuna orjson packaging pandas
    paramiko peft pip pkg_resources plotly polars ppmd psutil py7zr pyarrow pybind11 pydantic pylzma pynvml pyppmd
    pytest python_minifier pytorch_lightning quack rans ray regex requests rich runpod rwkv safetensors schedulefree
    scipy seaborn sentencepiece setuptools sglang six sklearn snappy soap spacy sympy tabulate tensorboard
    tensorboardX tensorflow termcolor thunderkittens tiktoken tilelang tinygrad tokenizers tokenmonster tomli torch
    torch_geometric torch_xla torchac torchao torchaudio torchdata torchtitan torchtune torchvision tqdm
    transformer_engine transformers triton typer typing_extensions vllm wandb xformers xgboost xxhash yaml
    youtokenize youtokentome zfpy zstandard zstd
    """.split()  # noqa: SIM905
)
"""Well-known packages: never looked for in the folder."""


_STARTERS = frozenset({"runpy", "subprocess", "importlib"})
"""Standard modules that run other files."""


@dataclass(frozen=True)
class MissingModule:
    """A module that every run of the script imports and that is not there.

    ``why`` says in a few words what makes it the submission's own; it is None where it may be a package.
    """

    name: str
    why: str | None
    evidence: tuple[Evidence, ...]


def missing_modules(reading: Reading) -> list[MissingModule]:
    """The modules that the entry script cannot do without and that the folder lacks, in source order.

    Imports that may fail, that stand below a condition or in functions which the run does not enter don't count.
    """
    entry = reading.entry
    if entry is None or entry.program.tree is None:
        return []
    shipped = _shipped(reading)
    found: list[MissingModule] = []
    for item in entry.imports:
        if item.guarded or item.branch or not (item.function is None or id(item.function) in reading.trace.called):
            continue
        known = item.top in shipped or reading.bundled(item.top) is not None or item.top in sys.stdlib_module_names
        if item.level == 0 and (known or item.top in PACKAGES or not item.top):
            continue
        if item.level == 0 and (_beside_the_repository(reading, item.top) or _installed(entry.program, item)):
            continue
        why, named = _why_own(reading, entry.program.tree, item)
        if item.level and why is None:
            continue
        if why is None and (reading.run.declared(item.top) or reading.run.declared(item.top.replace("_", "-"))):
            continue
        place = reading.evidence(entry.program, item.node, "imported here, whatever happens")
        evidence = (place,) if named is None else (place, named)
        found.append(MissingModule("." * item.level + item.name, why, evidence))
    return found


def holds_no_program(reading: Reading) -> bool:
    """Whether the folder's scripts compute nothing: they use no library and run no other program or file."""
    if not reading.python_files or reading.trace.of(Kind.DELEGATE) or reading.trace.of(Kind.EXTERNAL):
        return False
    if any(not f.name.endswith((".py", ".md", ".json", ".txt", ".log")) for f in reading.folder.files):
        return False  # a program in another language, a notebook, data
    for path in reading.python_files:
        index = reading.index(path)
        if index is None or index.program.tree is None or index.program.layers or index.program.bundled:
            return False
        if any(x.level or x.top in _STARTERS or x.top not in sys.stdlib_module_names for x in index.imports):
            return False
    return True


def only_starts_another(reading: Reading) -> Evidence | None:
    """Where a script with nothing but the standard library imports what can run another file; None if it has more."""
    entry = reading.entry
    if entry is None or any(x.level or x.top not in sys.stdlib_module_names for x in entry.imports):
        return None
    first = next((x for x in entry.imports if x.top in _STARTERS), None)
    return None if first is None else reading.evidence(entry.program, first.node, "can run another file")


def claims_nothing(reading: Reading) -> bool:
    """Whether there is neither a record folder nor a claimed figure: a tool or a document, no submission."""
    claim = reading.run.claim
    return reading.folder.track == "unknown" and claim.val_bpb is None and not claim.per_seed


def whole_script(reading: Reading) -> Evidence:
    """The entry script as a whole, for what it does not do."""
    entry = reading.entry
    file = entry.program.file if entry is not None else "train_gpt.py"
    return reading.log_evidence(file, 1, reading.line_text(file, 1) or file.rsplit("/", 1)[-1], "the whole script")


def _why_own(reading: Reading, tree: ast.Module, item: Import) -> tuple[str | None, Evidence | None]:
    entry = reading.entry
    assert entry is not None
    if item.level:
        inner = entry.program.file.removeprefix(f"{reading.folder.path}/")
        alone = entry.program.view == "shipped" and "/" not in inner
        return ("relative, but the script is not part of a package" if alone else None), None
    if item.top in REPOSITORY_MODULES:
        if _climbs(entry.program):
            return None, None  # it may lie where the script makes Python look: outside of the submission
        return "it is one of the repository's own, not in the folder", None
    own = _own_path_entries(tree) if "sys.path" in entry.program.text else []
    below = {f.path.removeprefix(f"{reading.folder.path}/").split("/")[0] for f in reading.folder.files}
    if own and own[0].split("/")[0] not in below:
        return f"it is looked for in {own[0]}, which was not shipped", None
    named = _named_as_file(reading, item.top)
    if named is not None:
        return "the documents name it as a file", named
    if "golf" in item.top.lower():
        return "it is named for this contest", None
    if item.top in GENERIC:
        return "no package goes by that name", None
    return None, None


def _shipped(reading: Reading) -> set[str]:
    """Names that an import can find below the folder: modules, packages, compiled modules, wherever they lie."""
    found: set[str] = set()
    for file in reading.folder.files:
        if file.change == "deleted":
            continue
        *folders, name = file.path.removeprefix(f"{reading.folder.path}/").split("/")
        if name.endswith((".py", ".so", ".pyd", ".pyx", ".cpp", ".cu", ".c", ".rs")):
            found.add(name.split(".")[0])
            found.update(folders)
    return found


def _own_path_entries(tree: ast.Module) -> list[str]:
    """Folders below the script's own that the script puts on the module path, as written."""
    found = []
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
            continue
        if node.func.attr not in ("insert", "append") or ast.unparse(node.func.value) != "sys.path":
            continue
        text = ast.unparse(node.args[-1])
        parts = re.findall(r"['\"]([\w./-]+)['\"]", text)
        if "__file__" in text and parts and ".." not in text and "parents" not in text and text.count(".parent") < 2:
            found.append(" ".join(parts))
    return found


def _beside_the_repository(reading: Reading, top: str) -> bool:
    """Whether a script outside of records/ finds ``top`` at the root of the repository that it is part of."""
    entry = reading.entry
    if top not in _AT_ROOT or entry is None or entry.program.file.startswith("records/"):
        return False
    if reading.submission.kind not in (SubmissionKind.ROOT_SCRIPT, SubmissionKind.CODE_ELSEWHERE):
        return False
    return "/" not in entry.program.file or _climbs(entry.program)


def _climbs(program: Program) -> bool:
    """Whether the script makes Python look for modules at the repository's root, or where reading can't tell.

    That is: it puts a folder on the path that lies as many levels above the script as the root does, the folder
    it is started in, or one that a function of its own finds.
    """
    tree, depth = program.tree, program.file.count("/") + 1
    if tree is None:
        return False
    values = {
        target.id: ast.unparse(node.value)
        for node in tree.body if isinstance(node, ast.Assign)
        for target in node.targets if isinstance(target, ast.Name)
    }  # fmt: skip
    for node in walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
            continue
        if node.func.attr not in ("insert", "append") or ast.unparse(node.func.value) != "sys.path":
            continue
        text = ast.unparse(node.args[-1])
        for _ in range(4):  # a root made of a folder made of the file: names stand for names
            text = re.sub(r"(?<![.\w])[A-Za-z_]\w*\b", lambda m: values.get(m[0], m[0]), text[:2000])
        levels = len(re.findall(r"\.parent\b|\bdirname\b|\.\.(?!\.)|\bpardir\b", text))
        levels += max((int(n) + 1 for n in re.findall(r"\.parents\[(\d+)\]", text)), default=0)
        made = set(re.findall(r"(?<![.\w])([A-Za-z_]\w*)\(", text)) - {"str", "Path"}
        if levels >= depth or made or "cwd" in text.lower() or text in ("'.'", "''"):
            return True
    return False


def _installed(program: Program, item: Import) -> bool:
    """Whether the script itself puts the module among the loaded ones before it imports it.

    Bundled sources are handed to a function by the name of their module; ``sys.modules`` may be written directly.
    """
    if program.tree is None or not re.search(r"sys\.modules\b|meta_path|ModuleType", program.text):
        return False
    names = {item.name, item.top, item.name.replace(".", "/") + ".py", f"{item.top}/__init__.py"}
    for node in walk(program.tree):
        given: list[ast.expr | None] = []
        if isinstance(node, ast.Call):
            given = [*node.args[:1]]
        elif isinstance(node, ast.Subscript):
            given = [node.slice]
        elif isinstance(node, ast.Dict):
            given = [*node.keys]
        if any(isinstance(g, ast.Constant) and g.value in names for g in given):
            return True
    return False


def _named_as_file(reading: Reading, name: str) -> Evidence | None:
    """Where README calls a module a file of the submission."""
    pattern = re.compile(rf"(?<![\w/]){re.escape(name)}\.py\b")
    for document in reading.run.documents[:4]:
        for piece in document.prose:
            if pattern.search(piece.text):
                return reading.log_evidence(document.file, piece.line, piece.text, "named as a file here")
    return None
