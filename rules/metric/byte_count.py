"""The bytes that the reported bits per byte are divided by are not the bytes of the text.

**What it catches.** The leading space of a word counted twice (once in the table of byte lengths, once
where tokens are scored); SentencePiece's mark of a space taken for its three bytes; byte-fallback
tokens counted by the length of their name or of U+FFFD; a fixed number of bytes per token; case
sentinels of CaseOps counted as text because the byte sidecar is not used; a table of byte lengths
that does not belong to the tokens; a byte mixture that counts more bytes than the tokens have.

**Why it breaks the score.** Bits per byte is the total loss over the bytes of the validation text,
which are the same for everybody: 151.07 million. Counting 17 % too many makes a model look 17 % better.

**Legal look-alikes.** The canonical pair: a table without the space, and one byte added where the
piece starts with a space and the previous token is no boundary token; the CaseOps byte sidecar;
other truncations of the tail; branches for unused or byte tokens that are missing but never
matter, as the log's own figures show; a wrong table that the reported evaluation does not use; a claim
that no log prints and whose stated loss gives the split's bytes (the script was mended, or its output was).

**How it is read.** Two witnesses. The log: bytes = val_loss / ln 2 * val_tokens / val_bpb. The code:
what the functions that go over the tokenizer's pieces put into their tables is worked out for
eight made-up pieces, and a constant in place of the count is looked for. Where the log's figure is
right, no reading of the code is held against the submission.

**Remedy.** Count with `build_sentencepiece_luts` as it stands in the reference script, or with the
sidecar of raw bytes, and check that the total is 151.07 million.

**Ruling.** Organisers on #1184 (byte-fallback, reverted), #2009 (fixed bytes per token), #2071 and
#2138 (CaseOps sentinels), #2039; consensus of participants on the doubled space (#1545, #1734).
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from auditor.contest import VAL_BYTES, VAL_TOKENS
from auditor.implied_bytes import BytesEvidence, Denominator, ImpliedBytes, implied_bytes
from auditor.index.names import leaf_name
from auditor.index.piece_bytes import PieceBytes, piece_readers, piece_tables
from auditor.index.program_index import FunctionFacts, ProgramIndex
from auditor.index.trace import Kind
from auditor.reading import Reading
from auditor.unpack import Program
from auditor.unpack.walk import walk
from auditor.verdict import Confidence, Effect, Evidence, Status
from rules.base import Example, Finding, Rule
from rules.examples import script

TOLERANCE = 0.005
"""Relative: dropped tails and document starts move the count by less."""
MORE_THAN_ROUNDING = 0.008
"""A mixture whose bytes exceed the split's by more counts something else than text."""
PER_TOKEN = (1.5, 6.5)
"""No tokenizer of this contest makes fewer or more bytes per token; constants outside are something else."""
PLAUSIBLE = 1.05
"""Bytes per token over the usual for a vocabulary's size that merges chosen otherwise can still make."""
SIDECAR = ("val_bytes", "byte_sidecar", "bytes_sidecar")


@dataclass(frozen=True)
class CodeWitness:
    """What the code says: ``kind`` is right, wrong, fixed (a constant), sidecar, elsewhere (a table), or unread."""

    kind: str
    reason: str
    evidence: tuple[Evidence, ...] = ()
    value: float | None = None


class ByteCount(Rule):
    """See the module's documentation."""

    slug = "byte-count"
    group = "metric"
    title = "wrong bytes in the denominator"
    official = Effect.VIOLATION
    strict = Effect.VIOLATION
    evidence = ("code", "log", "probe")
    precedents = (
        "organiser on #1184, #2009, #2039, #2071, #2138",
        "issue #1017, section V: do not hard-code a bytes-per-token ratio",
        "legal: the reference's tables and one byte added at scoring; the CaseOps byte sidecar",
    )

    def check(self, reading: Reading) -> Finding:
        problem = reading.unreadable()
        if problem is not None:
            return Finding(Status.UNKNOWN, f"The code could not be read: {problem}.", Confidence.HIGH)
        log = implied_bytes(reading)
        mixed = _mixture_bytes(reading)
        if mixed is not None:
            return mixed
        figure = _trusted(reading, log)
        code = _code_witness(reading)
        found = self._by_log(reading, figure, code) if figure is not None else self._by_code(reading, log, code)
        if found.status is Status.ACTIVE and code.kind != "fixed":
            stated = _stated_right(reading, figure)
            if stated is not None:
                told = (
                    "The log's figures are divided by other bytes, but what is claimed is not they"
                    if figure is not None
                    else f"{code.reason}, but the claim cannot have been computed so"
                )
                return Finding(
                    Status.LATENT,
                    f"{told}: {stated[0]}.",
                    Confidence.MEDIUM,
                    (*stated[1], *found.evidence),
                )
        return found

    def _by_log(self, reading: Reading, figure: ImpliedBytes, code: CodeWitness) -> Finding:
        """The log gives the count away; the code explains it, or is contradicted by it."""
        off = _off(reading, figure)
        if code.kind == "fixed" and code.value is not None and abs(figure.per_token / code.value - 1) < 1e-3:
            return Finding(
                Status.ACTIVE,
                f"{code.reason}, as the log's own figures confirm ({figure.per_token:.3f} bytes per token).",
                Confidence.HIGH,
                (*code.evidence, *figure.evidence),
            )
        if off > TOLERANCE and figure.denominator is not Denominator.FIRST_SPLIT and off > figure.uncertainty:
            return self._too_many(reading, figure, code, off)
        if off < -TOLERANCE:
            return self._too_few(figure, code, off)
        told = "the log's own figures give the split's bytes" if off > -TOLERANCE else ""
        if code.kind in ("wrong", "fixed"):
            return Finding(
                Status.LATENT,
                f"{code.reason}, but {told} ({figure.told}): it has no effect on the reported number.",
                Confidence.MEDIUM,
                (*code.evidence, *figure.evidence),
            )
        return Finding(
            Status.CLEAN,
            f"The log's own figures give {figure.told}; {code.reason[0].lower()}{code.reason[1:]}.",
            Confidence.HIGH,
            (*figure.evidence, *code.evidence),
        )

    def _too_many(self, reading: Reading, figure: ImpliedBytes, code: CodeWitness, off: float) -> Finding:
        known = figure.denominator
        named = f" ({known.value})" if known.flatters and known is not Denominator.MORE else ""
        evidence = (*figure.evidence, *code.evidence)
        told = f"The reported bits per byte are divided by {figure.told}"
        if code.kind in ("wrong", "fixed"):
            because = f": {code.reason[0].lower()}{code.reason[1:]}"
            return Finding(Status.ACTIVE, f"{told}{named}{because}.", Confidence.HIGH, evidence)
        if known is Denominator.CASEOPS_SENTINELS:
            because = (
                ": the surface text of the case-marking tokenizer is counted, not the raw text of the byte sidecar"
            )
            settings = reading.setting_evidence(["CASEOPS_ENABLED"])
            return Finding(Status.ACTIVE, f"{told}{named}{because}.", Confidence.HIGH, (*evidence, *settings))
        lacking = [path for path, model in reading.tokenizers if not model.has_space_piece]
        if lacking:
            because = (
                f": {lacking[0].rsplit('/', 1)[-1]} lacks the mark of a space as a piece of its own, so that spaces"
                " become three byte tokens each"
            )
            return Finding(Status.ACTIVE, f"{told}{because}.", Confidence.HIGH, evidence)
        if code.kind == "elsewhere":
            because = f": {code.reason[0].lower()}{code.reason[1:]}"
            return Finding(Status.ACTIVE, f"{told}{named}{because}.", Confidence.MEDIUM, evidence)
        # The same number of tokens as published, but more bytes: the table does not belong to the tokens.
        published = any(abs(figure.tokens / n - 1) < TOLERANCE for n in VAL_TOKENS.values()) and figure.tokens_logged
        if published and off > 0.02:
            because = (
                " though the tokens are as many as those of a published tokenizer: the table does not belong to them"
            )
            return Finding(Status.ACTIVE, f"{told}{because}.", Confidence.MEDIUM, evidence)
        if code.kind == "right" and not figure.tokens_logged and off < 0.1:
            return Finding(
                Status.CLEAN,
                f"The byte tables are the canonical ones; the log does not count the tokens, and {figure.per_token:.2f}"
                " bytes per token are within what parts of the text differ by.",
                Confidence.LOW,
                evidence,
            )
        usual = _usual_bytes_per_token(reading)
        if code.kind == "right" and usual is not None and figure.per_token < usual * PLAUSIBLE:
            return Finding(
                Status.CLEAN,
                f"{figure.told[0].upper()}{figure.told[1:]}, but {figure.per_token:.2f} bytes per token are what a"
                " vocabulary of this size makes, and the byte tables are the canonical ones: another text was scored,"
                " which is noncanonical-val's question.",
                Confidence.MEDIUM,
                evidence,
            )
        return Finding(
            Status.SUSPECT,
            f"{told}, with tokens of a tokenizer of its own: look whether its table is wrong (the mark of a space must"
            " be a piece of its own) or whether another text was scored.",
            Confidence.MEDIUM,
            evidence,
        )

    def _too_few(self, figure: ImpliedBytes, code: CodeWitness, off: float) -> Finding:
        if figure.denominator is Denominator.PART:
            return Finding(
                Status.CLEAN,
                f"The log's figures cover part of the split only ({figure.told}), which is eval-subset's question;"
                f" {code.reason[0].lower()}{code.reason[1:]}.",
                Confidence.MEDIUM,
                (*figure.evidence, *code.evidence),
            )
        return Finding(
            Status.CLEAN,
            f"The log's figures give {figure.told}, which makes the reported number larger, not smaller;"
            f" {code.reason[0].lower()}{code.reason[1:]}.",
            Confidence.MEDIUM,
            (*figure.evidence, *code.evidence),
        )

    def _by_code(self, reading: Reading, log: BytesEvidence | None, code: CodeWitness) -> Finding:
        """No figure in the log to go by."""
        if code.kind in ("wrong", "fixed"):
            return Finding(
                Status.ACTIVE,
                f"{code.reason}; no log line gives loss and bits per byte to check it by.",
                Confidence.MEDIUM,
                code.evidence,
            )
        if not reading.reported.scores and reading.reported.metric is None:
            claimed = reading.run.claim.val_bpb is not None or reading.run.logs
            if not claimed:
                return Finding(Status.NOT_APPLICABLE, "No score is claimed and none is printed.", Confidence.MEDIUM)
        if code.kind == "elsewhere":
            return Finding(
                Status.SUSPECT,
                f"{code.reason}, and no log line gives loss and bits per byte to check it by; compare the table with"
                " the tokenizer (1 byte for a byte token, none for a control token) and its total with 151.07 million.",
                Confidence.LOW,
                code.evidence,
            )
        if code.kind == "unread":
            return Finding(
                Status.CLEAN,
                f"{code.reason}, and no log line gives loss and bits per byte together: nothing speaks against the"
                " count, but it could not be checked.",
                Confidence.LOW,
                code.evidence,
            )
        return Finding(Status.CLEAN, f"{code.reason}.", Confidence.MEDIUM, code.evidence)


# -- the log ---------------------------------------------------------------------------------------------------


def _trusted(reading: Reading, log: BytesEvidence | None) -> ImpliedBytes | None:
    """The figure that speaks of the reported evaluation's byte count, or None.

    A figure of another evaluation than its loss (a mixture) implies nothing; the bytes of a token are the
    tokenizer's alone, so a count is trusted where every result implies the same.
    """
    if log is None or log.best is None:
        return None
    best = log.best
    if reading.trace.of(Kind.BYTE_MIX) and not log.same_throughout:
        return None
    if log.same_throughout:
        return best
    others = [r for r in log.results if r is not best]
    near = [r for r in others if abs(r.per_token / best.per_token - 1) <= TOLERANCE]
    if near or not others:
        return best if log.training is None or abs(log.training / best.per_token - 1) <= TOLERANCE else None
    return None


def _stated_right(reading: Reading, figure: ImpliedBytes | None) -> tuple[str, tuple[Evidence, ...]] | None:
    """Where the claim states loss and bits per byte that give the split's bytes, and no log prints that figure.

    A script may be shipped in another state than it was run in, and what it printed may have been put right
    afterwards: the accusation is about the number that is claimed. A stated loss is believed only to
    acquit a figure that no log contradicts: one that the logs do not show, or whose loss they print.
    """
    claim = reading.run.claim
    if claim.file is None or claim.val_bpb is None:
        return None
    pairs = [(claim.val_loss, claim.val_bpb, claim.line_of("val_loss"))] if claim.val_loss is not None else []
    headline = {v for _, v in claim.seed_values()}
    for seed in claim.per_seed:
        value = next((v for v in seed.values.values() if v in headline), None)
        if seed.val_loss is not None and value is not None:
            pairs.append((seed.val_loss, value, claim.line_of(str(seed.seed))))
    if not pairs:
        return None
    metrics = [m for r in reading.run.logs for m in r.metrics]
    if figure is None:
        tokens = [r.facts.val_tokens.value for r in reading.run.logs if r.facts.val_tokens is not None]
        counts = tokens or [n for name, n in VAL_TOKENS.items() if name.split()[0] == _vocabulary(reading)]
    else:
        counts = [figure.tokens] if figure.tokens_logged else []
    for loss, bpb, _ in pairs:
        if loss <= 0 or bpb <= 0 or not counts:
            return None
        if any(m.val_bpb is not None and abs(m.val_bpb - float(bpb)) < 5e-5 for m in metrics):
            return None  # the log prints this very figure: it is the script's
        if metrics and not any(m.val_loss is not None and abs(m.val_loss - float(loss)) < 5e-5 for m in metrics):
            return None
        per_token = float(loss) / math.log(2) / float(bpb)
        if all(abs(per_token * n / VAL_BYTES - 1) > TOLERANCE / 5 for n in counts):
            return None
    loss, bpb, line = pairs[0]
    return (
        f"{bpb} with the stated loss of {loss} gives the split's bytes",
        (reading.log_evidence(claim.file, line, reading.line_text(claim.file, line) or str(loss), "what is claimed"),),
    )


def _vocabulary(reading: Reading) -> str:
    told = reading.run.effective(env="VOCAB_SIZE", attribute="vocab_size").value
    if told is None and (default := reading.trace.defaults.get("VOCAB_SIZE")) is not None:
        told = default[2]
    return f"sp{(told or '').strip()}"


def _usual_bytes_per_token(reading: Reading) -> float | None:
    """Bytes per token that a vocabulary of the run's size makes, between or beyond the published ones."""
    told = reading.run.effective(env="VOCAB_SIZE", attribute="vocab_size").value
    if told is None or not told.strip().isdigit() or not 256 <= int(told) <= 65536:
        return None
    sizes = [1024, 4096, 8192]
    each = [VAL_BYTES / VAL_TOKENS[f"sp{n}"] for n in sizes]
    at = 0 if int(told) < 4096 else 1
    slope = (each[at + 1] - each[at]) / math.log2(sizes[at + 1] / sizes[at])
    return each[at] + slope * math.log2(int(told) / sizes[at])


def _off(reading: Reading, figure: ImpliedBytes) -> float:
    """The relative error of the byte count: per token where the tokenizer is a published one, else in total."""
    name = reading.run.effective(env="TOKENIZER_PATH", attribute="tokenizer_path").value or ""
    caseops = "caseops" in name.lower() or "lossless" in name.lower()
    for tokenizer, tokens in VAL_TOKENS.items():
        if ("CaseOps" in tokenizer) is not caseops:
            continue
        # The same tokens per byte as published: another number of tokens is another part of the text.
        if abs(figure.per_token * tokens / VAL_BYTES - 1) <= TOLERANCE:
            return 0.0
    return figure.ratio - 1


_BYTES = re.compile(r"(?i)\b(?:total_|n_|piece_)?bytes\w*\s*[=:]\s*(\d{7,})\b")
_TOKENS = re.compile(r"(?i)\b(?:subset|tokens|n_tokens)\s*[=:]\s*(\d{6,})\b")


def _mixture_bytes(reading: Reading) -> Finding | None:
    """The bytes that a byte mixture behind the reported figure counts, where its own log line says so."""
    events = reading.trace.of(Kind.BYTE_MIX)
    if not events:
        return None
    marks = {f"bytemix:{e.seq}" for e in events}
    metric = reading.reported.metric
    behind = metric is not None and (
        bool(metric.roles & marks) or any(s.roles & marks for s in reading.reported.scores)
    )
    if not behind:
        return None
    for event in reading.trace.of(Kind.METRIC):
        if not event.roles & marks:
            continue
        for file, line, text in reading.log_lines_like(event.text or ""):
            totals = [int(n) for n in _BYTES.findall(text)]
            expected, told = _expected(reading, _tokens_of(reading, file, line, text))
            totals = [n for n in totals if expected is not None and 0.9 < n / expected < 1.3]
            if expected is None or not totals:
                continue
            # A line may state several counts; with the right one among them, nothing speaks against the figure.
            total = min(totals)
            if total / expected - 1 <= MORE_THAN_ROUNDING:
                return Finding(
                    Status.CLEAN,
                    f"The byte mixture behind the reported number counts {total:,} bytes, against {told}.",
                    Confidence.HIGH,
                    (reading.log_evidence(file, line, text, "bytes counted, as logged"),),
                )
            return Finding(
                Status.ACTIVE,
                f"The byte mixture behind the reported number counts {total:,} bytes, {total / expected - 1:.1%} more"
                f" than {told}.",
                Confidence.HIGH,
                (
                    reading.log_evidence(file, line, text, "bytes counted, as logged"),
                    reading.at(events[0], "the mixture"),
                ),
                reading.call_path(events[0]),
            )
    witness = _code_witness(reading, mixture=True)
    if witness.kind == "wrong":
        reason = f"{witness.reason[0].lower()}{witness.reason[1:]}"
        logged = _logged_total(reading)
        if logged is not None:
            total, told, _ = logged
            reason += f"; the log counts {total:,} bytes, {total / VAL_BYTES - 1:.1%} more than {told}"
        return Finding(
            Status.ACTIVE,
            f"The byte mixture behind the reported number counts bytes of its own: {reason}.",
            Confidence.HIGH if logged is not None else Confidence.MEDIUM,
            (*((logged[2],) if logged is not None else ()), *witness.evidence),
        )
    return None


def _logged_total(reading: Reading) -> tuple[int, str, Evidence] | None:
    """A line of its own that counts the mixture's bytes over the whole split, too many of them."""
    for file, line, text in reading.run.find(_BYTES, words=("bytes",)):
        tokens = _TOKENS.search(text)
        if tokens is None or int(tokens[1]) <= 0.95 * min(VAL_TOKENS.values()):
            continue
        expected, told = _expected(reading, int(tokens[1]))
        totals = [int(n) for n in _BYTES.findall(text)]
        if expected is not None and totals and MORE_THAN_ROUNDING < min(totals) / expected - 1 < 0.3:
            return min(totals), told, reading.log_evidence(file, line, text, "bytes counted, as logged")
    return None


def _tokens_of(reading: Reading, file: str, line: int, text: str) -> int | None:
    """The tokens that a mixture covers: in its line, in the two after it, or by its own setting."""
    for near in (text, reading.line_text(file, line + 1) or "", reading.line_text(file, line + 2) or ""):
        found = _TOKENS.search(near)
        if found is not None:
            return int(found[1])
    return None


def _expected(reading: Reading, tokens: int | None) -> tuple[float | None, str]:
    """The bytes that ``tokens`` validation tokens stand for."""
    log = implied_bytes(reading)
    figures = [r for r in log.results if r.tokens_logged] if log is not None else []
    whole = next((r.tokens for r in figures), None)
    if tokens is None or tokens > 0.95 * min(VAL_TOKENS.values()):
        same = whole is None or tokens is None or abs(tokens / whole - 1) < 1e-3
        return (float(VAL_BYTES), f"the split's {VAL_BYTES:,}") if same else (None, "")
    if log is not None and log.training is not None:
        return (
            tokens * log.training,
            f"the {tokens * log.training:,.0f} that {tokens:,} tokens have elsewhere in the log",
        )
    return None, ""


# -- the code --------------------------------------------------------------------------------------------------


def _code_witness(reading: Reading, *, mixture: bool = False) -> CodeWitness:
    tables = list(_tables(reading))
    if mixture:
        own = {id(m.function) for i in reading.opened() for m in i.byte_mixtures.values()}
        tables = [t for t in tables if id(t[1].function) in own]
        return _judged_tables(reading, tables, mixture=True)
    sidecar = _sidecar(reading)
    if sidecar is not None:
        return sidecar
    if tables:
        return _judged_tables(reading, tables)
    fixed = _fixed_ratio(reading)
    if fixed is not None:
        return fixed
    shipped = [f.path for f in reading.folder.files if f.name.endswith(".npz") and "meta" in f.name]
    loads = any("base_bytes" in f.strings for i in reading.opened() for f in i.functions.values())
    if shipped or loads:
        told = f" ({shipped[0].rsplit('/', 1)[-1]})" if shipped else ""
        return CodeWitness("elsewhere", f"The bytes of each token come from a table made elsewhere{told}")
    return CodeWitness("unread", "No function that measures the tokenizer's pieces was found in the code that runs")


def _tables(reading: Reading) -> Iterator[tuple[ProgramIndex, PieceBytes]]:
    """Byte tables of the functions that run (those called by name count too: caches keep some from being entered)."""
    for index in reading.opened():
        for facts in piece_readers(index):
            if id(facts.node) in reading.trace.called or facts.outer is not None:
                for table in piece_tables(index, facts):
                    yield index, table


def _judged_tables(
    reading: Reading, tables: list[tuple[ProgramIndex, PieceBytes]], *, mixture: bool = False
) -> CodeWitness:
    wrong: CodeWitness | None = None
    for index, table in tables:
        reason = _fault(reading, table, mixture=mixture)
        role = "bytes of a piece"
        evidence: tuple[Evidence, ...] = (reading.evidence(index.program, table.node, role),)
        if reason is None:
            told = (
                "leave out the space, which is added where tokens are scored" if table.word == 3 else "count the space"
            )
            lacks = " (byte-fallback tokens are not told apart)" if table.byte != 1 else ""
            return CodeWitness("right", f"The byte tables are the canonical ones: they {told}{lacks}", evidence)
        added = _adds_space(reading)
        if added is not None and table.word == 4 and not mixture:
            evidence = (*evidence, reading.evidence(added[0], added[1], "the space is added again here"))
        wrong = wrong or CodeWitness("wrong", reason, evidence)
    if wrong is not None:
        return wrong
    return CodeWitness("unread", "How the bytes of a token are counted could not be worked out")


def _fault(reading: Reading, table: PieceBytes, *, mixture: bool) -> str | None:
    """What is wrong with a table, or None."""
    if table.plain != 3:
        return f"Three letters are counted as {table.plain} bytes"
    if table.word > 4:
        return "The mark of a leading space is counted as its three bytes"
    if table.accent != 5:
        return f"Characters of two bytes are miscounted (5 bytes as {table.accent})"
    if table.word == 4 and table.marks_space and not mixture and _adds_space(reading) is not None:
        return "The leading space is in the table of byte lengths and is added again where tokens are scored"
    if mixture and table.byte > 1:
        return (
            f"byte-fallback tokens are counted by the {table.byte} characters of their name, and control tokens by"
            f" {table.control}"
        )
    return None


def _adds_space(reading: Reading) -> tuple[Program, ast.AST] | None:
    """Where tokens are scored with one more byte for a leading space: ``has_space[target] & ~boundary[previous]``."""
    cache: dict[str, tuple[Program, ast.AST] | None] = reading.__dict__.setdefault("_adds_space", {})
    if "found" not in cache:
        cache["found"] = next(_space_terms(reading), None)
    return cache["found"]


def _space_terms(reading: Reading) -> Iterator[tuple[Program, ast.AST]]:
    for index in reading.opened():
        for facts in index.functions.values():
            if id(facts.node) not in reading.trace.called:
                continue
            for node in walk(facts.node):
                if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd):
                    sides = (node.left, node.right)
                    inverted = any(isinstance(s, ast.UnaryOp) and isinstance(s.op, ast.Invert) for s in sides)
                    if inverted and sum(isinstance(n, ast.Subscript) for s in sides for n in walk(s)) >= 2:
                        yield index.program, node


def _sidecar(reading: Reading) -> CodeWitness | None:
    """The file of raw bytes per token that CaseOps data come with, where the run reads it."""
    for index in reading.opened():
        for facts in index.functions.values():
            if id(facts.node) in reading.trace.called and any(
                mark in text for text in facts.strings for mark in SIDECAR
            ):
                if not _caseops(reading):
                    return None
                switched = reading.run.effective(env="CASEOPS_ENABLED", attribute="caseops_enabled").value
                if switched in ("0", "False", "false"):
                    return CodeWitness(
                        "unread", "The CaseOps byte sidecar is switched off, and the surface bytes are counted instead"
                    )
                return CodeWitness(
                    "sidecar",
                    "The bytes come from the CaseOps byte sidecar (raw bytes per token)",
                    (reading.evidence(index.program, facts.node, "reads the sidecar"),),
                )
    return None


def _caseops(reading: Reading) -> bool:
    """Whether the run's tokenizer or data are CaseOps ones."""
    for env, attribute in (("TOKENIZER_PATH", "tokenizer_path"), ("DATA_PATH", "val_files")):
        told = reading.run.effective(env=env, attribute=attribute).value
        if told is None and env in reading.trace.defaults:
            told = reading.trace.defaults[env][2]
        if told and ("caseops" in told.lower() or "lossless_caps" in told.lower()):
            return True
    return False


def _fixed_ratio(reading: Reading) -> CodeWitness | None:
    """Bits per byte computed with a number in place of the count: ``loss / math.log(2) / 3.5``."""
    for index in reading.opened():
        for facts in index.functions.values():
            if id(facts.node) in reading.trace.called and _may_fix(facts):
                for node, value in _ratios(facts.node, index):
                    return CodeWitness(
                        "fixed",
                        f"Bits per byte are computed with a fixed {value:g} bytes per token",
                        (reading.evidence(index.program, node, "a constant in place of the bytes"),),
                        value,
                    )
        for statement in index.program.tree.body if index.program.tree is not None else ():
            if not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                for node, value in _ratios(statement, index):
                    return CodeWitness(
                        "fixed",
                        f"Bits per byte are computed with a fixed {value:g} bytes per token",
                        (reading.evidence(index.program, node, "a constant in place of the bytes"),),
                        value,
                    )
    return None


def _may_fix(facts: FunctionFacts) -> bool:
    ratios = any(PER_TOKEN[0] < n < PER_TOKEN[1] and n != int(n) for n in facts.numbers)
    return ratios and ("log" in facts.names or any("bpb" in name.lower() for name in facts.names))


def _ratios(function: ast.AST, index: ProgramIndex) -> Iterator[tuple[ast.AST, float]]:
    named: dict[str, float] = {k: v for k, v in index.module_constants.items() if isinstance(v, float)}
    for node in walk(function):
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, float)
        ):
            named |= {t.id: node.value.value for t in node.targets if isinstance(t, ast.Name)}
    for node in walk(function):
        named_bpb = False
        value: ast.expr | None = None
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            named_bpb, value = "bpb" in node.targets[0].id.lower(), node.value
        elif isinstance(node, ast.Return):
            value = node.value
        if value is None:
            continue
        # A switch between a count and a constant leaves the count its chance: only the plain formula is read.
        divisors = list(_divisors(value))
        if not named_bpb and not any(_is_ln2(d) for d in divisors):
            continue
        for divisor in divisors:
            number = divisor.value if isinstance(divisor, ast.Constant) else None
            if isinstance(divisor, ast.Name):
                number = named.get(divisor.id)
            if isinstance(number, float) and PER_TOKEN[0] < number < PER_TOKEN[1] and number != int(number):
                yield node, number


def _divisors(node: ast.expr) -> Iterator[ast.expr]:
    """All that an expression of products and quotients is divided by."""
    if isinstance(node, ast.IfExp):
        yield from _divisors(node.body)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Div, ast.Mult)):
        yield from _divisors(node.left)
        if isinstance(node.op, ast.Div):
            yield from _factors(node.right)
        else:
            yield from _divisors(node.right)


def _factors(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        yield from _factors(node.left)
        yield from _factors(node.right)
    else:
        yield node


def _is_ln2(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, float) and abs(node.value - math.log(2)) < 1e-3
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        leaf = leaf_name(node)
        return leaf == "log" and node.args[0].value == 2
    return False


_TABLES = """
def build_luts(sp, vocab_size):
    base = np.zeros(vocab_size, dtype=np.int16)
    space = np.zeros(vocab_size, dtype=np.bool_)
    boundary = np.ones(vocab_size, dtype=np.bool_)
    for i in range(sp.vocab_size()):
        if sp.is_control(i) or sp.is_unknown(i) or sp.is_unused(i):
            continue
        boundary[i] = False
        if sp.is_byte(i):
            base[i] = 1
            continue
        piece = sp.id_to_piece(i)
        if piece.startswith("\u2581"):
            space[i] = True
            piece = piece[1:]
        base[i] = len(piece.encode("utf-8"))
    return torch.tensor(base), torch.tensor(space), torch.tensor(boundary)


def evaluate(model, val_tokens, base, space, boundary):
    nats, tokens, size = torch.zeros(()), 0, torch.zeros(())
    with torch.no_grad():
        for i in range(0, val_tokens.numel() - 1, 1024):
            x, y = val_tokens[i : i + 1024], val_tokens[i + 1 : i + 1025]
            nats += model(x, y) * y.numel()
            tokens += y.numel()
            length = base[y]
            length += space[y] & ~boundary[x]
            size += length.sum()
    return nats / tokens, nats / math.log(2) / size


import math

import sentencepiece

sp = sentencepiece.SentencePieceProcessor(model_file="tokenizer.model")
model = GPT()
loss, bpb = evaluate(model, load_tokens("fineweb_val_*.bin"), *build_luts(sp, 1024))
print(f"final val_loss:{loss:.8f} val_bpb:{bpb:.8f}")
"""
_TWICE = _TABLES.replace("base[i] = len(piece.encode", "base[i] = 1 + len(piece.encode").replace(
    "            piece = piece[1:]\n        base[i] = 1 + len",
    "            base[i] = 1 + len(piece[1:].encode())\n            continue\n        base[i] = len",
)
_LOG = "val_tokens:40540160\nfinal val_loss:2.77000000 val_bpb:{bpb}\n"
_CLAIM = '{{"val_bpb": {bpb}, "val_loss": 2.77}}'


_MIXED = """
import math

import sentencepiece


def mixed(targets, logps, sp):
    texts, lengths = [None] * sp.vocab_size(), np.zeros(sp.vocab_size(), dtype=np.int32)
    for i in range(sp.vocab_size()):
        name = sp.id_to_piece(i)
        text = (" " + name[1:]).encode() if name.startswith("\u2581") else name.encode()
        texts[i] = text
        lengths[i] = len(text)
    counts, window, total, size = {}, bytearray(), 0.0, 0
    for t, logp in zip(targets, logps):
        piece = texts[int(t)]
        each = float(logp) / len(piece)
        for b in piece:
            table = counts.setdefault(bytes(window[-3:]), {})
            p = (table.get(b, 0) + 1) / (sum(table.values()) + 256)
            total -= math.log(0.5 * math.exp(each) + (1 - 0.5) * p)
            table[b] = table.get(b, 0) + 1
            window.append(b)
            size += 1
    print(f"mixture: tokens={len(targets)} bytes={size}")
    return total / size / math.log(2)


def evaluate(model, val_tokens, sp):
    losses = []
    with torch.no_grad():
        for i in range(0, val_tokens.numel() - 1, 1024):
            chunk = val_tokens[i : i + 1025]
            losses.append(-model(chunk[:-1], chunk[1:]))
    return mixed(val_tokens[1:], torch.cat(losses), sp)


sp = sentencepiece.SentencePieceProcessor(model_file="tokenizer.model")
print(f"final val_bpb:{evaluate(GPT(), load_tokens('fineweb_val_*.bin'), sp):.8f}")
"""
_MIXED_LOG = "mixture: tokens=40540160 bytes={size}\nfinal val_bpb:0.99101000\n"


def _logged(code: str, bpb: str) -> dict[str, str]:
    return {
        "train_gpt.py": script(code),
        "train_seed42.log": _LOG.format(bpb=bpb),
        "submission.json": _CLAIM.format(bpb=bpb),
    }


ByteCount.VIOLATION = (
    Example("the space is in the table and is added again", {"train_gpt.py": script(_TWICE)}, Status.ACTIVE),
    Example("the same, and the log implies 17 % too many bytes", _logged(_TWICE, "0.91126000"), Status.ACTIVE),
    Example(
        "the code is canonical, but the log's figures imply a quarter too many bytes",
        _logged(_TABLES, "0.85790000"),
        Status.ACTIVE,
    ),
    Example(
        "a fixed number of bytes per token",
        {
            "train_gpt.py": script(
                """
                import math

                def evaluate(model, val_tokens):
                    nats, steps = 0.0, 0
                    with torch.no_grad():
                        for i in range(0, val_tokens.numel() - 1, 1024):
                            nats += model(val_tokens[i : i + 1024], val_tokens[i + 1 : i + 1025]).item()
                            steps += 1
                    val_bpb = nats / steps / (math.log(2) * 3.5)
                    print(f"final val_bpb:{val_bpb:.4f}")

                evaluate(GPT(), load_tokens("fineweb_val_*.bin"))
                """
            )
        },
        Status.ACTIVE,
    ),
    Example(
        "the mark of a leading space is not taken off",
        {"train_gpt.py": script(_TABLES.replace('"\u2581"', '"_"'))},
        Status.ACTIVE,
    ),
    Example(
        "a byte mixture that counts byte tokens by their names, as the log shows",
        {"train_gpt.py": script(_MIXED), "train_seed42.log": _MIXED_LOG.format(size=152574319)},
        Status.ACTIVE,
    ),
)
ByteCount.LEGAL = (
    Example("the canonical tables", {"train_gpt.py": script(_TABLES)}, Status.CLEAN),
    Example("the canonical tables, and a log that agrees", _logged(_TABLES, "1.07238000"), Status.CLEAN),
    Example(
        "no branch for byte-fallback tokens, without effect by the log",
        _logged(_TABLES.replace("sp.is_byte(i)", "False"), "1.07238000"),
        Status.CLEAN,
    ),
    Example(
        "the log's figures are wrong, but what is claimed was computed anew from the loss",
        _logged(_TWICE, "0.91126000") | {"submission.json": _CLAIM.format(bpb="1.07238000")},
        Status.LATENT,
    ),
    Example(
        "a script that cannot have made the claimed figures, which give the right bytes",
        {
            "train_gpt.py": script(_TWICE + 'VOCAB_SIZE = int(os.environ.get("VOCAB_SIZE", 8192))'),
            "submission.json": _CLAIM.format(bpb="1.07238000"),
        },
        Status.LATENT,
    ),
    Example(
        "a doubled space in code that the log contradicts: another tokenizer was used",
        _logged(_TWICE, "1.07238000"),
        Status.LATENT,
    ),
)
