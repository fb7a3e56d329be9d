"""Code or data that the run needs stands outside of the counted file.

**What it catches.** Modules of the folder that the script imports, files of code it executes or compiles
(`exec(open(...))`, C and C++ helpers), and data files of the folder that it loads, where the size it
reports counts the script alone.

**Why it matters.** The artifact is the code and the compressed model, at most 16,000,000 bytes. "All
counted code should live in the `train_gpt.py` script": what stands beside it travels free.

**Legal look-alikes.** Preparation and plotting scripts that the run does not import; the tokenizer and
its tables, which are uncounted in practice; the model file that the run itself writes and counts; a
script that carries its helpers packed inside; helpers whose bytes the script adds to its own.

**How it is read.** Which modules of the folder the trace enters, which of its native files hold functions
that the run calls or are named where it compiles or loads something, which of its data files are
named by code that runs; and which files the script reads to count its own bytes.

**Remedy.** Put the code into `train_gpt.py` (packed, if need be), and data into the counted artifact.

**Ruling.** None. Merged records ship uncounted `ngram/*.cpp`, `online_ngram_state.c` and `lossless_caps.py`
(#1514, #2135): tolerated in practice, against the README's letter.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from auditor.index.imports import Import
from auditor.index.program_index import ProgramIndex
from auditor.index.trace import Kind
from auditor.reading import Reading
from auditor.submission import SubmissionFile
from auditor.unpack.native import is_native
from auditor.unpack.walk import walk
from auditor.verdict import Confidence, Effect, Evidence, Status
from rules.base import Example, Finding, Rule
from rules.examples import script

COUNTED = "train_gpt.py"
DATA = re.compile(r"\.(?:npz|npy|bin|pkl|pickle|dat|json|jsonl|csv|zst|xz|lzma|gz|br|pt|pth|safetensors)$")
NOT_DATA = re.compile(r"(?i)token|vocab|meta|fineweb|submission|result|config|manifest|log|require|model|ckpt|artifact")
"""Tokenizers, data shards, reports and the model itself: uncounted, or counted otherwise."""
COUNTS = frozenset({"getsize", "stat", "st_size", "read_text", "read_bytes", "read"})


class UncountedCode(Rule):
    """See the module's documentation."""

    slug = "uncounted-code"
    group = "budget"
    title = "code or data needed at run time outside the counted file"
    official = Effect.ADVISORY
    strict = Effect.VIOLATION
    evidence = ("code", "files")
    precedents = (
        "README, 18 Mar 2026: all counted code should live in the train_gpt.py script",
        "#1412 was over the cap until packed; #1514 and #2135 ship uncounted helpers (merged)",
    )

    def check(self, reading: Reading) -> Finding:
        problem = reading.unreadable()
        if problem is not None:
            return Finding(Status.UNKNOWN, f"The code could not be read: {problem}.", Confidence.HIGH)
        entry = reading.entry
        if entry is None:
            return Finding(Status.NOT_APPLICABLE, "There is no entry script.", Confidence.MEDIUM)
        needed = [*_modules(reading, entry), *_executed(reading, entry), *_native(reading), *_data(reading)]
        if not needed:
            return Finding(
                Status.CLEAN,
                "The run needs no other code or data of its folder than the script itself.",
                Confidence.HIGH,
            )
        counted = _counted(reading)
        missing = [(f, e) for f, e in needed if f.name not in counted]
        names = ", ".join(dict.fromkeys(f.name for f, _ in (missing or needed)))
        if not missing:
            return Finding(
                Status.CLEAN,
                f"The run needs {names} of its folder, and names it where it counts its bytes.",
                Confidence.MEDIUM,
                tuple(e for _, e in needed[:3]),
            )
        total = sum({f.path: f.size for f, _ in missing}.values())
        return Finding(
            Status.ACTIVE,
            f"The run needs {names} ({total:,} bytes) beside the script, and nothing shows that they are counted.",
            Confidence.HIGH if any(f.name.endswith(".py") for f, _ in missing) else Confidence.MEDIUM,
            tuple(e for _, e in missing[:6]),
        )


def _file(reading: Reading, path: str) -> SubmissionFile | None:
    return next((f for f in reading.folder.files if f.path == path), None)


def _modules(reading: Reading, entry: ProgramIndex) -> Iterator[tuple[SubmissionFile, Evidence]]:
    """Modules of the folder that the run imports."""
    for path in dict.fromkeys(reading.trace.modules):
        file = _file(reading, path) if path != entry.program.file else None
        if file is None or not file.name.endswith(".py"):
            continue
        if file.name == COUNTED:
            # The run starts from another script, which uses the counted one: then that other is not counted.
            starter = _file(reading, entry.program.file)
            if starter is not None:
                yield (
                    starter,
                    reading.log_evidence(starter.path, 1, starter.name, f"the run starts here, not in {COUNTED}"),
                )
            continue
        stem = file.name.removesuffix(".py")
        place = next((n.node for i in reading.opened() for n in i.imports if stem in _imported(n)), None)
        if place is not None:
            yield file, reading.evidence(entry.program, place, f"imports {file.name}, {file.size:,} bytes")
        else:
            yield file, reading.log_evidence(file.path, 1, file.name, "imported by the run")


def _imported(found: Import) -> set[str]:
    return {*found.name.split("."), *(part for name in found.names for part in name.split("."))}


def _executed(reading: Reading, entry: ProgramIndex) -> Iterator[tuple[SubmissionFile, Evidence]]:
    """The file that a wrapper runs: then the counted script is not the one that does the work."""
    wrapper = reading.entry_file
    for relative, file in reading.python_files.items():
        run = file.path == entry.program.file and relative in reading.entry_candidates
        if run and wrapper is not None and relative != wrapper:
            yield file, reading.log_evidence(file.path, 1, file.name, f"run by {wrapper}")


def _native(reading: Reading) -> Iterator[tuple[SubmissionFile, Evidence]]:
    """Native files that the run compiles or loads, or whose functions it calls."""
    if not any(is_native(f.path) or f.name.endswith((".so", ".dll")) for f in reading.folder.files):
        return
    if not reading.trace.of(Kind.EXTERNAL):
        return
    called = {source.file for source, _ in reading.native_called()}
    named = {text.rsplit("/", 1)[-1] for text in _strings(reading)}
    for file in reading.folder.files:
        native = is_native(file.path) or file.name.endswith((".so", ".dll"))
        if native and file.change != "deleted" and (file.path in called or file.name in named):
            yield (
                file,
                reading.at(reading.trace.of(Kind.EXTERNAL)[0], f"compiles or loads {file.name}, {file.size:,} bytes"),
            )


def _data(reading: Reading) -> Iterator[tuple[SubmissionFile, Evidence]]:
    """Data files of the folder that code which runs names."""
    files = [
        f for f in reading.folder.files if DATA.search(f.name) and not NOT_DATA.search(f.name) and f.change != "deleted"
    ]
    if not files:
        return
    named = {text.rsplit("/", 1)[-1] for text in _strings(reading)}
    for file in files:
        if file.name in named:
            place = next(
                (
                    reading.evidence(i.program, n, f"names {file.name}, {file.size:,} bytes")
                    for i in reading.opened()
                    if i.program.tree is not None
                    for n in walk(i.program.tree)
                    if isinstance(n, ast.Constant) and isinstance(n.value, str) and n.value.endswith(file.name)
                ),
                reading.log_evidence(file.path, 1, file.name, "named by the run"),
            )
            yield file, place


def _strings(reading: Reading) -> Iterator[str]:
    """String constants of the functions that run, and of the statements outside of functions."""
    for index in reading.opened():
        if index.program.file not in reading.trace.modules or index.program.tree is None:
            continue
        for key, facts in index.functions.items():
            if key in reading.trace.called:
                yield from facts.strings
        for statement in index.program.tree.body:
            if not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
                for node in walk(statement):
                    if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 300:
                        yield node.value


def _counted(reading: Reading) -> set[str]:
    """Names of files that stand where the script works out the bytes of its code."""
    found: set[str] = set()
    for index in reading.opened():
        for key, facts in index.functions.items():
            counts = any("code" in n and ("byte" in n or "size" in n) for n in facts.names)
            if key in reading.trace.called and counts and facts.names & COUNTS:
                found.update(s.rsplit("/", 1)[-1] for s in facts.strings)
                if any("*.py" in s for s in facts.strings):
                    found.update(f.name for f in reading.folder.files if f.name.endswith(".py"))
    return found


_RUN = """
IMPORT
def evaluate(model, val_tokens):
    total = torch.zeros(())
    with torch.no_grad():
        for i in range(0, val_tokens.numel() - 1, 1024):
            total += USE
    return total / val_tokens.numel()


model = GPT()
print(f"final val_bpb:{evaluate(model, load_tokens('fineweb_val_*.bin')):.4f}")
"""
_PLAIN = "model(val_tokens[i : i + 1024], val_tokens[i + 1 : i + 1025])"
_HELPER = "def score(model, x, y):\n    return model(x, y)\n"
_USING = "score(model, val_tokens[i : i + 1024], val_tokens[i + 1 : i + 1025])"

UncountedCode.VIOLATION = (
    Example(
        "the evaluation calls a module beside the script",
        {
            "train_gpt.py": script(_RUN.replace("IMPORT", "from scoring import score").replace("USE", _USING)),
            "scoring.py": _HELPER,
        },
        Status.ACTIVE,
    ),
    Example(
        "a table of its own is loaded from the folder",
        {
            "train_gpt.py": script(_RUN.replace("IMPORT", "PRIORS = np.load('priors.npz')").replace("USE", _PLAIN)),
            "priors.npz": "not really",
        },
        Status.ACTIVE,
    ),
)
UncountedCode.LEGAL = (
    Example("one script", {"train_gpt.py": script(_RUN.replace("IMPORT", "").replace("USE", _PLAIN))}, Status.CLEAN),
    Example(
        "a preparation script that the run does not import",
        {
            "train_gpt.py": script(_RUN.replace("IMPORT", "").replace("USE", _PLAIN)),
            "prepare.py": "print('makes shards')\n",
        },
        Status.CLEAN,
    ),
    Example(
        "the tokenizer beside the script",
        {
            "train_gpt.py": script(
                _RUN.replace("IMPORT", "TOKENIZER = open('tokenizer.json').read()").replace("USE", _PLAIN)
            ),
            "tokenizer.json": "{}",
        },
        Status.CLEAN,
    ),
)
