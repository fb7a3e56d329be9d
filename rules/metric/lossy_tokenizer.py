"""The text is changed irreversibly before it is tokenised and its bytes are counted.

**What it catches.** Data and tokenizer of a casefolded, lowercased or otherwise normalised text: a
tokenizer whose rule set folds case, one that has no uppercase piece, a shipped preparation that
lowercases or applies NFKC before it encodes, and a run whose tokens could only come from such a text.

**Why it breaks the score.** The contest asks for the bytes of the validation text. What is easier to
predict because information was thrown away is not the same text; the original can't be decoded
from the tokens.

**Legal look-alikes.** CaseOps and its kin, which write case as marks of their own and can be undone,
scored over the raw bytes of the sidecar; SentencePiece's standard rules `nmt_nfkc`, which the published
tokenizers use; lowercasing option names, keys of tables or pieces for features of the model.

**How it is read.** From the tokenizer file where it is shipped (its rule set and its pieces), from
preparation scripts that are shipped (the value that is encoded), from the paths of the run's
tokenizer and data, and from the bytes per token that the log implies, beside those of the published
tokenizer of the same size.

**Remedy.** Encode case and the like reversibly, or leave the text as it is.

**Ruling.** None by an organiser (issue #1604 was not answered); casefold submissions (#1578, #1585,
#1670, #1873) were never merged, reversible ones were (#1729, #1736). De facto: lossless only.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from auditor.contest import VAL_BYTES, VAL_TOKENS
from auditor.implied_bytes import implied_bytes
from auditor.index.names import leaf_name
from auditor.index.program_index import ProgramIndex
from auditor.reading import Reading
from auditor.unpack import Program, read_program
from auditor.unpack.sentencepiece_model import SentencePieceModel
from auditor.unpack.walk import walk
from auditor.verdict import Confidence, Effect, Evidence, Status
from rules.base import Example, Finding, Rule
from rules.examples import script

FOLDED_NAME = re.compile(r"(?i)case[_-]?fold|lower[_-]?case|(?<![a-z])lower(?![a-z])|uncased|nfkc_cf")
FOLDING_CALLS = frozenset({"lower", "casefold"})
ENCODERS = frozenset({"encode", "EncodeAsIds", "encode_as_ids", "Encode"})
WRITERS = frozenset({"tofile", "write", "save", "SentencePieceTrainer", "Train"})
_FOLDS = FOLDING_CALLS | {"normalize"}
MUCH_MORE = 1.05
"""Bytes per token over the published tokenizer's of the same size; other merges alone gain less."""


@dataclass(frozen=True)
class _Fold:
    """Where a preparation changes the text that it encodes."""

    program: Program
    node: ast.AST
    what: str


class LossyTokenizer(Rule):
    """See the module's documentation."""

    slug = "lossy-tokenizer"
    group = "metric"
    title = "text changed irreversibly before counting bytes"
    official = Effect.ADVISORY
    strict = Effect.VIOLATION
    evidence = ("code", "files")
    precedents = (
        "issue #1604: which normalisations are allowed? no organiser answer",
        "#1578, #1585, #1670, #1873: casefold, never merged",
        "legal: CaseOps (#1729, #1736 merged); SentencePiece's nmt_nfkc",
    )

    def check(self, reading: Reading) -> Finding:
        problem = reading.unreadable()
        if problem is not None:
            return Finding(Status.UNKNOWN, f"The code could not be read: {problem}.", Confidence.HIGH)
        named = list(_named(reading))
        folding = _folding_tokenizer(reading)
        if folding is not None:
            path, why = folding
            used = _is_used(reading, path)
            evidence = (reading.log_evidence(path, 1, path.rsplit("/", 1)[-1], why), *named)
            if used is False:
                return Finding(
                    Status.LATENT,
                    f"A tokenizer of folded text is shipped ({why}), but the run used another.",
                    Confidence.MEDIUM,
                    evidence,
                )
            return Finding(
                Status.ACTIVE,
                f"The shipped tokenizer is one of folded text: {why}.",
                Confidence.HIGH if used else Confidence.MEDIUM,
                evidence,
            )
        folds = list(_folds(reading))
        shown = tuple(reading.evidence(f.program, f.node, f"{f.what} before encoding") for f in folds[:2])
        gain = _gain(reading)
        if named and gain is not None:
            told, evidence = gain
            return Finding(
                Status.ACTIVE,
                f"The run's own paths name data of a folded text, and its tokens fit no other: {told}.",
                Confidence.MEDIUM,
                (*named, *evidence, *shown),
            )
        ran = [f for f in folds if _runs(reading, f)]
        if ran:
            return Finding(
                Status.ACTIVE,
                f"The script changes the text before it encodes it ({ran[0].what}).",
                Confidence.MEDIUM,
                (reading.evidence(ran[0].program, ran[0].node, f"{ran[0].what} before encoding"),),
            )
        if named:
            return Finding(
                Status.SUSPECT,
                "The run's own paths name data of a folded text; look at how the shards were made, and whether the"
                " original can be decoded from the tokens.",
                Confidence.MEDIUM,
                (*named, *shown),
            )
        if folds:
            return Finding(
                Status.SUSPECT,
                f"A shipped preparation changes the text before it encodes it ({folds[0].what}); look whether the run's"
                " shards were made that way.",
                Confidence.LOW,
                shown,
            )
        return Finding(Status.CLEAN, _clean(reading), Confidence.MEDIUM)


def _clean(reading: Reading) -> str:
    for path, model in reading.tokenizers:
        name = path.rsplit("/", 1)[-1]
        if _case_marks(model):
            return f"{name} marks case by symbols of its own (reversible), with the rule set {model.normalizer!r}."
        return f"{name} has upper and lower case and the rule set {model.normalizer!r}, as the published ones."
    return "Nothing in the code, the paths of the run or the folder speaks of a text changed before tokenising."


def _named(reading: Reading) -> Iterator[Evidence]:
    """Paths of the run's tokenizer and data that name a folded text."""
    asked = (("TOKENIZER_PATH", "tokenizer_path"), ("DATA_PATH", "data_path"), ("DATASETS_DIR", "datasets_dir"))
    for env, attribute in asked:
        values = reading.run.setting(env=env, attribute=attribute)
        best = values[-1] if values else None
        if best is not None and FOLDED_NAME.search(best.value):
            text = reading.line_text(best.file, best.line) or best.value
            yield reading.log_evidence(best.file, best.line, text, f"path of the run, from the {best.origin}")
        elif best is None and env in reading.trace.defaults:
            program, node, value = reading.trace.defaults[env]
            if FOLDED_NAME.search(value):
                yield reading.evidence(program, node, "default path of the run")


def _folding_tokenizer(reading: Reading) -> tuple[str, str] | None:
    """A shipped tokenizer that folds case, and what shows it."""
    for path, model in reading.tokenizers:
        if model.normalizer.endswith("_cf"):
            return path, f"its rule set is {model.normalizer}"
        letters = sum(1 for p in model.pieces if any(c.islower() for c in p) and not p.startswith("<"))
        if letters > 300 and model.uppercase <= letters // 200 and not _case_marks(model):
            return path, f"{letters:,} of its pieces have lower-case letters, {model.uppercase} upper-case ones"
    return None


def _case_marks(model: SentencePieceModel) -> bool:
    """Whether pieces hold private-use characters: the marks of a reversible case encoding."""
    return any("\ue000" <= c <= "\uf8ff" for p in model.pieces for c in p)


def _is_used(reading: Reading, path: str) -> bool | None:
    """Whether the run's tokenizer is this file, by name; None if nothing says."""
    values = reading.run.setting(env="TOKENIZER_PATH", attribute="tokenizer_path")
    if not values:
        return None
    return values[-1].value.rsplit("/", 1)[-1] == path.rsplit("/", 1)[-1]


def _gain(reading: Reading) -> tuple[str, tuple[Evidence, ...]] | None:
    """Many more bytes per token than the published tokenizer of the same size makes of the raw text."""
    log = implied_bytes(reading)
    best = log.best if log is not None else None
    size = reading.run.effective(env="VOCAB_SIZE", attribute="vocab_size").value
    if best is None or size is None or not best.tokens_logged:
        return None
    tokens = VAL_TOKENS.get(f"sp{size.strip()}")
    if tokens is None:
        return None
    published = VAL_BYTES / tokens
    if best.per_token < published * MUCH_MORE:
        return None
    told = f"{best.per_token:.2f} bytes per token, where the published {size.strip()} pieces make {published:.2f}"
    return told, best.evidence


def _folds(reading: Reading) -> Iterator[_Fold]:
    """Preparation steps in the folder's scripts that change the text they encode."""
    reversible = any("lossless" in p.rsplit("/", 1)[-1] for p in reading.python_files)
    for file in reading.python_files.values():
        if file.size > 400_000:
            continue
        text = file.text
        if "ncode" not in text or not any(f".{call}(" in text for call in (*FOLDING_CALLS, "normalize")):
            continue
        if reversible or re.search(r"\\u[eE][0-9a-fA-F]{3}", text):
            continue  # case is written down as marks: undone by the same file
        if not any(w in text for w in WRITERS):
            continue
        # Read apart from the programs that the run imports: a preparation is no part of it.
        index = next((i for i in reading.opened() if i.program.file == file.path), None)
        index = index or ProgramIndex(read_program(file, {}))
        tree = index.program.tree
        if tree is None:
            continue
        folding = {
            facts.node.name: what
            for facts in index.functions.values()
            if facts.names & _FOLDS
            for inner in walk(facts.node)
            if isinstance(inner, ast.Return) and inner.value is not None and (what := _changes(inner.value))
        }
        encoding = [f.node for f in index.functions.values() if f.outer is None and f.names & ENCODERS]
        top = [s for s in tree.body if not isinstance(s, ast.FunctionDef | ast.ClassDef)]
        for node in (n for part in (*encoding, *top) for n in walk(part)):
            if not isinstance(node, ast.Call) or leaf_name(node) not in ENCODERS or not node.args:
                continue
            called = [leaf_name(c) for c in walk(node.args[0]) if isinstance(c, ast.Call)]
            what = _changes(node.args[0]) or next((folding[name] for name in called if name in folding), None)
            if what is None and isinstance(node.args[0], ast.Name):
                what = _assigned(tree, node.args[0].id, folding)
            if what is not None:
                yield _Fold(index.program, node, what)
                break


def _changes(node: ast.AST) -> str | None:
    """Whether an expression folds a text: ``x.lower()``, ``unicodedata.normalize("NFKC", x)``."""
    for part in walk(node):
        if not isinstance(part, ast.Call):
            continue
        leaf = leaf_name(part)
        if leaf in FOLDING_CALLS and not part.args and isinstance(part.func, ast.Attribute):
            return f".{leaf}()"
        if leaf == "normalize" and len(part.args) == 2 and isinstance(part.args[0], ast.Constant):
            form = part.args[0].value
            if form == "NFKC" or form == "NFKD":
                return f"{form} of the whole text"
    return None


def _assigned(tree: ast.AST, name: str, folding: dict[str, str]) -> str | None:
    for node in walk(tree):
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            what = _changes(node.value)
            if what is not None:
                return what
            if isinstance(node.value, ast.Call) and leaf_name(node.value) in folding:
                return folding[leaf_name(node.value)]
    return None


def _runs(reading: Reading, fold: _Fold) -> bool:
    """Whether the fold stands in a function that the run comes to."""
    entry = reading.entry
    if entry is None or fold.program is not entry.program:
        return False
    return any(
        key in reading.trace.called and any(n is fold.node for n in walk(f.node)) for key, f in entry.functions.items()
    )


_TRAIN = """
def evaluate(model, val_tokens):
    total = torch.zeros(())
    with torch.no_grad():
        for i in range(0, val_tokens.numel() - 1, 1024):
            total += model(val_tokens[i : i + 1024], val_tokens[i + 1 : i + 1025])
    return total / val_tokens.numel()


print(f"final val_loss:{0:.8f} val_bpb:{evaluate(GPT(), load_tokens('fineweb_val_*.bin')):.8f}")
"""
_PREPARE = """
import sys
import unicodedata

import numpy as np
import sentencepiece


def clean(text):
    return unicodedata.normalize("NFKC", text).lower()


sp = sentencepiece.SentencePieceProcessor(model_file="tokenizer.model")
for number, text in enumerate(open(sys.argv[1])):
    np.array(sp.encode(clean(text)), dtype=np.uint16).tofile(f"fineweb_val_{number}.bin")
"""
_RUN = "tokenizer_path: ./data/{name}.model\nvocab_size: 8192\nval_tokens: {tokens}\n"
_RESULT = "final val_loss:3.07375351 val_bpb:1.06507576\n"

LossyTokenizer.VIOLATION = (
    Example(
        "data of a casefolded text by the run's own paths, and tokens that fit no other text",
        {
            "train_gpt.py": script(_TRAIN),
            "train_seed42.log": _RUN.format(name="sp_8192_casefold", tokens=36286464) + _RESULT,
            "submission.json": '{"val_bpb": 1.06507576}',
        },
        Status.ACTIVE,
    ),
    Example(
        "the script lowercases the texts that it encodes and scores",
        {
            "train_gpt.py": script(
                """
                import sentencepiece

                def prepare(sp, texts):
                    for number, text in enumerate(texts):
                        np.array(sp.encode(text.lower()), dtype=np.uint16).tofile(f"fineweb_val_{number}.bin")

                prepare(sentencepiece.SentencePieceProcessor(model_file="t.model"), open("fineweb_val.txt"))
                """,
                _TRAIN,
            )
        },
        Status.ACTIVE,
    ),
)
LossyTokenizer.LEGAL = (
    Example(
        "a shipped preparation that casefolds: whether the run's data were made so is for a person to see",
        {"train_gpt.py": script(_TRAIN), "prepare.py": _PREPARE},
        Status.SUSPECT,
    ),
    Example("the published tokenizer and data", {"train_gpt.py": script(_TRAIN)}, Status.CLEAN),
    Example(
        "case written as marks of its own before encoding, which can be undone",
        {
            "train_gpt.py": script(_TRAIN),
            "prepare.py": _PREPARE.replace(
                'unicodedata.normalize("NFKC", text).lower()',
                '"".join("\\\\ue001" + c.lower() if c.isupper() else c for c in text)',
            ),
        },
        Status.CLEAN,
    ),
    Example(
        "a preparation that leaves the text as it is",
        {"train_gpt.py": script(_TRAIN), "prepare.py": _PREPARE.replace("encode(clean(text))", "encode(text)")},
        Status.CLEAN,
    ),
)
