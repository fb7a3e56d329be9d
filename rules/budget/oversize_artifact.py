"""Code and compressed model together are over 16,000,000 bytes.

**What it catches.** A run whose compressed model plus counted code exceed the cap: by the sizes that its log
prints and the bytes of the script as shipped; where no log tells, by a compressed model among the files, else by what
submission.json states.

**Why it breaks the score.** The contest asks for the best model in 16 MB. More bytes buy a better score.

**Legal look-alikes.** A log total that counts the readable script although the submission ships it packed: the
shipped bytes count. A readable script whose log counts it packed: merged records do the same, so it
fits if that total does. The size of the raw checkpoint, which logs print next to the compressed one. A run
of another seed or an ablation that the claim does not rest on. A log whose export is not the one submitted: a
later quantiser made the claimed figure and the size stated with it. An export that is only printed, beside the
one that is submitted. The cap is decimal: 16 MiB are too many.

**How it is read.** For each run behind the claim: the compressed model from the log, the code as the log counts it,
and the script's own bytes as shipped. All the totals are shown, since organisers have used either.

**Remedy.** Ship the script packed, or compress the model further, and let the log count what is shipped.

**Ruling.** README, 18 March 2026: artifact = code bytes plus compressed model bytes, 16,000,000 decimal. Organisers
on #1809 and #1959 (over once the code is counted). On #1835 the log's total was taken although the shipped script is
packed and fits; the records merged later count the packed script. Here the shipped bytes decide.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal

from auditor.contest import ARTIFACT_CAP
from auditor.logs import RunLog, Size
from auditor.reading import Reading
from auditor.submission import SubmissionFile
from auditor.verdict import Confidence, Effect, Evidence, Status
from rules.base import Example, Finding, Rule
from rules.examples import script

LEAST_PACKED = 0.12
"""No packer makes a script smaller than this share of it (the contest's best is 0.19)."""
SAME_SIZE = 5_000
"""Bytes by which a stated size may differ from a logged one by rounding."""
SAME_BPB = 5e-4
"""Bits per byte by which a claimed figure may differ from a logged one by rounding."""
_FORMAT = re.compile(r"(?i)int\d|zlib|zstd|lzma|brotli|lrzip|quant|ternary|compress|group|artifact")
CHECKPOINT = 40_000_000
"""Bytes from which a size without further words is a raw checkpoint, not an artifact."""


@dataclass(frozen=True)
class Script:
    """The entry script: its bytes as shipped, and whether these hold a packed program."""

    file: SubmissionFile
    size: int
    readable: int
    packed: bool


@dataclass(frozen=True)
class Measured:
    """One run's artifact in bytes: the compressed model, the code as the log counts it, and the log's total."""

    run: RunLog
    model: Size | None
    code: Size | None
    total: Size | None

    @property
    def model_bytes(self) -> int | None:
        if self.model is not None:
            return self.model.bytes
        if self.total is not None and self.code is not None:
            return self.total.bytes - self.code.bytes
        return None

    @property
    def exact(self) -> bool:
        """Whether the log gives bytes, not megabytes."""
        told = self.model or self.total
        return told is not None and told.exact

    @property
    def logged(self) -> int | None:
        """The total as logged, or model and code added up."""
        if self.total is not None:
            return self.total.bytes
        if self.model is not None and self.code is not None:
            return self.model.bytes + self.code.bytes
        return None

    def shipped(self, code: Script | None) -> int | None:
        """The total with the script as shipped."""
        model = self.model_bytes
        return model + code.size if model is not None and code is not None else None


class OversizeArtifact(Rule):
    """See the module's documentation."""

    slug = "oversize-artifact"
    group = "budget"
    title = "code + compressed model over 16,000,000 bytes"
    official = Effect.VIOLATION
    strict = Effect.VIOLATION
    evidence = ("log", "files")
    precedents = (
        "README, 18 Mar 2026: 16,000,000 decimal bytes, code included",
        "organisers on #1809 (28 Apr 2026) and #1959 (2 May 2026): over once the code is counted",
        "merged with the script counted packed: #1736, #1855, #2135 and others",
    )

    def check(self, reading: Reading) -> Finding:
        code = _script(reading)
        runs = reading.run.claim_runs if _claimed(reading) else reading.run.logs
        measured = [m for run in runs if (m := _measure(run)) is not None]
        judged = [(m, *_judge(m, code)) for m in measured]
        over = [j for j in judged if j[1] is Status.ACTIVE]
        doubtful = [j for j in judged if j[1] is Status.SUSPECT]
        if over:
            worst = max(over, key=lambda j: j[0].shipped(code) or j[0].logged or 0)
            return self._over(reading, worst[0], worst[2], code, [j[0] for j in over], measured)
        if doubtful:
            run, _, why = doubtful[0]
            return Finding(
                Status.SUSPECT,
                f"{_told(run, code)}: {why}.",
                Confidence.LOW,
                _evidence(reading, run, code),
            )
        if judged:
            largest = max((j[0] for j in judged), key=lambda m: m.shipped(code) or m.logged or 0)
            why = next(j[2] for j in judged if j[0] is largest)
            which = f"the largest of {len(judged)} runs" if len(judged) > 1 else "the run"
            return Finding(
                Status.CLEAN,
                f"{_told(largest, code)} in {which}: {why}.",
                Confidence.HIGH if largest.shipped(code) is not None else Confidence.MEDIUM,
                _evidence(reading, largest, code),
            )
        return _stated(reading, code)

    def _over(
        self,
        reading: Reading,
        run: Measured,
        why: str,
        code: Script | None,
        over: list[Measured],
        measured: list[Measured],
    ) -> Finding:
        of = len(measured)
        linked = reading.reported.log is not None and reading.reported.log.linked
        certain = len(over) == of or (linked and _claimed(reading))
        how_many = f" ({len(over)} of {of} runs)" if of > 1 else ""
        reason = f"{_told(run, code)}{how_many}: {why}"
        if not certain:
            return Finding(
                Status.SUSPECT,
                f"{reason}; which of these runs the claim rests on is not told.",
                Confidence.LOW,
                _evidence(reading, run, code),
            )
        if not linked and _of_another(reading, measured):
            return Finding(
                Status.SUSPECT,
                f"{reason}; but the claimed figure stands in no log, and neither does the size stated with it: the"
                " claim seems to rest on another artifact, which a person must see.",
                Confidence.LOW,
                _evidence(reading, run, code),
            )
        if _of_a_run_that_fits(reading, over, measured):
            return Finding(
                Status.SUSPECT,
                f"{reason}; but the claimed figure is that of a run whose artifact fits: whether the claim rests on"
                " the others, too, a person must see.",
                Confidence.LOW,
                _evidence(reading, run, code),
            )
        if not _claimed(reading) and reading.folder.track == "unknown" and reading.run.claim.file is None:
            return Finding(
                Status.SUSPECT,
                f"{reason}; but nothing is submitted as a result: a log outside of the records, no submission.json.",
                Confidence.LOW,
                _evidence(reading, run, code),
            )
        other = next((e for m in over if (e := _printed_beside(reading, m, code)) is not None), None)
        if other is not None:
            return Finding(
                Status.SUSPECT,
                f"{reason}; but the size stated with the claim, which is within the cap, is printed in the same log:"
                " another export than the one counted there seems to be the artifact, which a person must see.",
                Confidence.LOW,
                (*_evidence(reading, run, code), other),
            )
        return Finding(
            Status.ACTIVE,
            f"{reason}.",
            Confidence.HIGH if run.exact else Confidence.MEDIUM,
            _evidence(reading, run, code),
        )


def _of_a_run_that_fits(reading: Reading, over: list[Measured], measured: list[Measured]) -> bool:
    """Whether the claimed figure is a single run's that is within the cap, no other's, and not the mean of all."""
    claimed = reading.run.claim.val_bpb
    if claimed is None or len(over) == len(measured):
        return False
    half = Decimal(5).scaleb(min(int(claimed.as_tuple().exponent), 0) - 1)
    figures = [(m in over, {f.label: f.bpb for f in m.run.final_metrics}) for m in measured]
    hits = {too_large for too_large, found in figures if any(abs(n - claimed) <= half for n in found.values())}
    if hits != {False}:
        return False
    labels = frozenset[str].intersection(*(frozenset(found) for _, found in figures))
    means = (sum((found[label] for _, found in figures), Decimal(0)) / len(figures) for label in labels)
    return not any(abs(mean - claimed) <= half for mean in means)


def _printed_beside(reading: Reading, run: Measured, code: Script | None) -> Evidence | None:
    """Where the run prints a size within the cap that the claim states, other than the parts of the total counted.

    A total is stated where the log may print the model alone.
    """
    counted = {n for n in (run.model_bytes, run.logged) if n is not None}
    added = [0, *(n for n in (code.size if code else 0, run.code.bytes if run.code else 0) if n)]
    told = [n for _, n in _totals(reading.run.claim.raw, _ANY_SIZE) if n <= ARTIFACT_CAP]
    for size in (n - extra for n in told for extra in added):
        if size <= 1_000_000 or size in counted:
            continue
        digits = f"{size:,}".replace(",", "[,_]?")
        printed = re.compile(rf"(?<![\d.,]){digits}(?![\d.])")
        for file, line, text in reading.run.find(printed):
            if file == run.run.file and run.run.first_line <= line <= run.run.last_line:
                return reading.log_evidence(file, line, text, "the size stated with the claim")
    return None


def _of_another(reading: Reading, measured: list[Measured]) -> bool:
    """Whether a claim that no log carries states, or is of, an artifact other than those that the logs measure."""
    claim = reading.run.claim
    if not _claimed(reading):
        return False
    stated = [n for k, n in _totals(claim.raw, _SIZE_KEY) if 1_000_000 < n <= CHECKPOINT]
    within = [n for n in stated if n <= ARTIFACT_CAP]
    if stated:
        logged = [n for m in measured for n in (m.model_bytes, m.logged) if n is not None]
        return bool(within) and not any(abs(n - size) <= SAME_SIZE for n in within for size in logged)
    if len(measured) > 1 or claim.val_bpb is None:
        return False
    figures = [float(m.val_bpb) for m in measured[0].run.final_metrics]
    return not any(abs(n - float(claim.val_bpb)) <= SAME_BPB for n in figures)


def _claimed(reading: Reading) -> bool:
    claim = reading.run.claim
    return claim.val_bpb is not None or bool(claim.seed_values())


def _script(reading: Reading) -> Script | None:
    entry = reading.entry
    if entry is None:
        return None
    file = next((f for f in reading.python_files.values() if f.path == entry.program.file), None)
    if file is None:
        return None
    readable = len(entry.program.text.encode("utf-8", "replace"))
    return Script(file, file.size, readable, entry.program.view == "unpacked")


def _measure(run: RunLog) -> Measured | None:
    """The smallest artifact that a run prints: several formats may have been tried."""
    sizes = run.facts.sizes
    model = _smallest(sizes, "model")
    total = _smallest(sizes, "total")
    code = next((s for s in reversed(sizes) if s.kind == "code-compressed"), None) or _smallest(sizes, "code")
    if model is not None and _raw(model):
        model = None
    if total is not None and _raw(total):
        total = None
    if model is not None and total is not None and model.bytes > total.bytes:
        model = None
    if model is None and total is None:
        return None
    return Measured(run, model, code, total)


def _raw(size: Size) -> bool:
    """Whether a size is that of a checkpoint before compression: large, and no format is named."""
    return size.bytes > CHECKPOINT and not _FORMAT.search(size.label)


def _smallest(sizes: tuple[Size, ...], kind: str) -> Size | None:
    found = [s for s in sizes if s.kind == kind and s.bytes > 0]
    exact = [s for s in found if s.exact]
    return min(exact or found, key=lambda s: s.bytes, default=None)


def _judge(run: Measured, code: Script | None) -> tuple[Status, str]:
    cap = f"{ARTIFACT_CAP:,}"
    shipped, logged, model = run.shipped(code), run.logged, run.model_bytes
    if model is not None and model > ARTIFACT_CAP:
        return Status.ACTIVE, f"the compressed model alone is over {cap} bytes"
    if shipped is None or code is None:
        if logged is None:
            return Status.CLEAN, f"the compressed model alone stays within {cap} bytes"
        over = logged > ARTIFACT_CAP
        return (Status.ACTIVE, f"over {cap} bytes") if over else (Status.CLEAN, f"within {cap} bytes")
    if shipped <= ARTIFACT_CAP:
        if logged is not None and logged > ARTIFACT_CAP:
            if not code.packed and run.code is not None and run.code.bytes > 1.1 * code.size:
                return Status.SUSPECT, f"over {cap} bytes by the log, and the script that ran is not the one shipped"
            how = "the script is shipped packed" if code.packed else "the shipped script is shorter"
            return Status.CLEAN, f"within {cap} bytes as shipped; the log counts more code, but {how}"
        return Status.CLEAN, f"within {cap} bytes"
    if logged is not None and logged > ARTIFACT_CAP:
        return Status.ACTIVE, f"over {cap} bytes, as logged and as shipped"
    if run.code is not None and logged is not None:
        if run.code.bytes >= LEAST_PACKED * code.readable:
            return (
                Status.CLEAN,
                f"within {cap} bytes with the script counted packed, as merged records count it, though not as shipped",
            )
        return Status.SUSPECT, "the log counts less code than packing can explain"
    return Status.SUSPECT, f"over {cap} bytes with the script as shipped, and the log does not say how it counts code"


def _told(run: Measured, code: Script | None) -> str:
    """The totals in words: model and code as logged, model and code as shipped."""
    parts = []
    model = run.model_bytes
    if run.logged is not None:
        counted = f" (code {run.code.bytes:,})" if run.code is not None else ""
        parts.append(f"{run.logged:,} bytes as logged{counted}")
    shipped = run.shipped(code)
    if shipped is not None and code is not None and shipped != run.logged:
        packed = "packed " if code.packed else ""
        parts.append(f"{shipped:,} with the {packed}script as shipped ({code.size:,})")
    if not parts and model is not None:
        parts.append(f"{model:,} bytes of compressed model")
    return "The artifact has " + ", ".join(parts)


def _evidence(reading: Reading, run: Measured, code: Script | None) -> tuple[Evidence, ...]:
    found = []
    for size, role in (
        (run.total, "total, as logged"),
        (run.model, "compressed model, as logged"),
        (run.code, "code, as logged"),
    ):
        if size is not None:
            line = reading.line_text(run.run.file, size.line) or f"{size.label}: {size.bytes}"
            found.append(reading.log_evidence(run.run.file, size.line, line, role))
    if code is not None:
        first = code.file.text.lstrip("\ufeff").split("\n", 1)[0][:120]
        found.append(reading.log_evidence(code.file.path, 1, first, f"the script as shipped, {code.size:,} bytes"))
    return tuple(found)


# -- without sizes in a log -----------------------------------------------------------------------------------

_TOTAL_KEY = re.compile(
    r"(?i)bytes_total|total_bytes|artifact\w*bytes|submission\w*bytes|bytes\w*artifact|artifact_size"
)
_ANY_SIZE = re.compile(r"(?i)bytes|size")
_SIZE_KEY = re.compile(rf"{_TOTAL_KEY.pattern}|bytes_model|model\w*bytes")
_NOT_A_TOTAL = re.compile(
    r"(?i)limit|cap\b|_cap|cap_|over|margin|headroom|slack|under|remaining|expected|estimat|budget"
)
_ADMITTED = re.compile(
    r"(?i)\b(?:over|exceed(?:s|ed|ing)?|above|beyond|violat\w+)\s+(?:the\s+)?(?:16[.,\d]*\s?(?:MB|M\b|,000,000)|"
    r"(?:size|artifact|byte)\s+(?:cap|limit|budget))|\bover(?:size|[- ]limit|[- ]cap)\b|\(over (?:the )?(?:cap|limit)\)"
)


_ARTIFACT = re.compile(r"(?i)\.ptz$|model[\w.-]*\.(?:lzma|xz|br|zst|zlib|lrz|7z)$")


def _as_files(reading: Reading, code: Script | None) -> Finding | None:
    """The compressed model as a file of the submission, where it ships one and no log gives a size."""
    models = [f for f in reading.folder.files if f.change != "deleted" and _ARTIFACT.search(f.name)]
    model = max((f for f in models if f.size > 1_000_000), key=lambda f: f.size, default=None)
    if model is None:
        return None
    total = model.size + (code.size if code is not None else 0)
    shown = [reading.log_evidence(model.path, 1, model.name, f"the compressed model as shipped, {model.size:,} bytes")]
    told = f"The shipped model {model.name} has {model.size:,} bytes"
    if code is not None:
        first = code.file.text.lstrip("\ufeff").split("\n", 1)[0][:120]
        shown.append(reading.log_evidence(code.file.path, 1, first, f"the script as shipped, {code.size:,} bytes"))
        told += f", with the script {total:,}"
    if total <= ARTIFACT_CAP:
        return Finding(Status.CLEAN, f"{told}: within {ARTIFACT_CAP:,}.", Confidence.HIGH, tuple(shown))
    if model.size > ARTIFACT_CAP:
        return Finding(Status.ACTIVE, f"{told}: over {ARTIFACT_CAP:,}.", Confidence.HIGH, tuple(shown))
    return Finding(
        Status.SUSPECT,
        f"{told}: over {ARTIFACT_CAP:,} as shipped, and nothing tells how the code is to be counted.",
        Confidence.LOW,
        tuple(shown),
    )


def _stated(reading: Reading, code: Script | None) -> Finding:
    """What submission.json and README say where no log gives a size."""
    shipped = _as_files(reading, code)
    if shipped is not None:
        return shipped
    claim = reading.run.claim
    if claim.file is not None:
        stated = [(k, n) for k, n in _totals(claim.raw) if n > 1_000_000]
        over = [(k, n) for k, n in stated if n > ARTIFACT_CAP]
        if stated:
            key, value = max(over or stated, key=lambda p: p[1])
            line = claim.line_of(key)
            shown = reading.log_evidence(
                claim.file, line, reading.line_text(claim.file, line) or f"{key}: {value}", "stated size"
            )
            told = f"No log prints a size; submission.json states {value:,} bytes ({key})"
            within = _within(reading, stated)
            if over and within is not None:
                return Finding(
                    Status.SUSPECT,
                    f"{told}, over {ARTIFACT_CAP:,}; but {within[0]}: a person must see which artifact is submitted.",
                    Confidence.LOW,
                    (shown, *within[1:]),
                )
            if over and value <= CHECKPOINT:
                return Finding(Status.ACTIVE, f"{told}, over {ARTIFACT_CAP:,}.", Confidence.MEDIUM, (shown,))
            if not over:
                return Finding(Status.CLEAN, f"{told}, within {ARTIFACT_CAP:,}.", Confidence.LOW, (shown,))
    for document in reading.run.documents[:2]:
        for piece in document.prose[:300]:
            if _ADMITTED.search(piece.text) and re.search(r"\d\s?(?:MB|MiB|bytes)", piece.text):
                role = "speaks of an artifact over the cap"
                return Finding(
                    Status.SUSPECT,
                    "No log prints a size, and the description speaks of an artifact over the cap: a person must see"
                    " which one is submitted.",
                    Confidence.LOW,
                    (reading.log_evidence(document.file, piece.line, piece.text, role),),
                )
    if code is not None and code.size > ARTIFACT_CAP:
        return Finding(
            Status.ACTIVE,
            f"The script alone has {code.size:,} bytes.",
            Confidence.HIGH,
            (reading.log_evidence(code.file.path, 1, code.file.name, f"{code.size:,} bytes"),),
        )
    if not reading.run.logs and claim.val_bpb is None:
        return Finding(
            Status.NOT_APPLICABLE, "No result is claimed and no run is logged: there is no artifact.", Confidence.MEDIUM
        )
    return Finding(
        Status.UNKNOWN, "Neither a log nor submission.json gives the size of the compressed model.", Confidence.HIGH
    )


def _within(reading: Reading, stated: list[tuple[str, int]]) -> tuple[str, *tuple[Evidence, ...]] | None:
    """What speaks for an artifact within the cap, in words, where submission.json also states a larger one."""
    if reading.run.claim.val_bpb is None and any(n <= ARTIFACT_CAP for _, n in stated):
        return ("it states others within the cap, and no figure is claimed for one of them",)
    for run in reading.run.claim_runs:
        for size in run.facts.sizes:
            if 1_000_000 < size.bytes <= ARTIFACT_CAP and _FORMAT.search(size.label):
                line = reading.line_text(run.file, size.line) or size.label
                return (
                    "a log prints a compressed size within the cap",
                    reading.log_evidence(run.file, size.line, line, "compressed size, as logged"),
                )
    return None


def _totals(raw: object, wanted: re.Pattern[str] = _TOTAL_KEY, key: str = "") -> Iterator[tuple[str, int]]:
    if isinstance(raw, Mapping):
        for name, value in raw.items():
            yield from _totals(value, wanted, str(name))
    elif isinstance(raw, list):
        for value in raw[:50]:
            yield from _totals(value, wanted, key)
    elif isinstance(raw, int) and wanted.search(key) and not _NOT_A_TOTAL.search(key):
        yield key, raw


_SCRIPT = script(
    """
    model = GPT()
    print("final val_bpb:1.2000")
    """
)
_JSON = '{"val_bpb": 1.2000}\n'
_PACKED = (
    "import base64, zlib\n"
    f"exec(zlib.decompress(base64.b85decode({base64.b85encode(zlib.compress(_SCRIPT.encode(), 9)).decode()!r})))\n"
)


def _log(total: int, model: int, code: int) -> str:
    return (
        f"Serialized model: 67224983 bytes\nCode size: {code} bytes\nTotal submission size: {67224983 + code} bytes\n"
        f"Serialized model int8+zlib: {model} bytes\nTotal submission size int8+zlib: {total} bytes\n"
        "final_int8_zlib_roundtrip val_loss:2.0262 val_bpb:1.2000\n"
    )


OversizeArtifact.VIOLATION = (
    Example(
        "over the cap once the code is counted",
        {"train_gpt.py": _SCRIPT, "submission.json": _JSON, "train.log": _log(16_000_150, 15_999_416, 734)},
        Status.ACTIVE,
    ),
    Example(
        "the compressed model alone is over the cap",
        {"train_gpt.py": _SCRIPT, "submission.json": _JSON, "train.log": _log(16_651_000, 16_650_000, 1_000)},
        Status.ACTIVE,
    ),
    Example(
        "the claimed figure is of a run over the cap, the stated size of a later one in the same file",
        {
            "train_gpt.py": _SCRIPT,
            "submission.json": '{"val_bpb": 1.2000, "bytes_total": 15986252}\n',
            "train.log": _log(16_155_712, 16_154_978, 734)
            + "logs/second.txt\nstep:0/100 val_loss:6.93 val_bpb:4.10 train_time:0ms\n"
            + _log(15_986_252, 15_985_518, 734).replace("1.2000", "1.2011"),
        },
        Status.ACTIVE,
    ),
    Example(
        "no log, and submission.json states a size in the megabytes of 1,048,576",
        {"train_gpt.py": _SCRIPT, "submission.json": '{"val_bpb": 1.2, "bytes_total": 16408223}\n'},
        Status.ACTIVE,
    ),
)

OversizeArtifact.LEGAL = (
    Example(
        "within the cap",
        {"train_gpt.py": _SCRIPT, "submission.json": _JSON, "train.log": _log(15_898_600, 15_850_000, 48_600)},
        Status.CLEAN,
    ),
    Example(
        "the log counts the readable script, but it is shipped packed",
        {"train_gpt.py": _PACKED, "submission.json": _JSON, "train.log": _log(16_000_114, 15_999_380, 734)},
        Status.CLEAN,
    ),
    Example(
        "the log counts the readable script packed, as merged records do",
        {"train_gpt.py": _SCRIPT, "submission.json": _JSON, "train.log": _log(15_999_850, 15_999_500, 350)},
        Status.CLEAN,
    ),
    Example(
        "the log's export is over the cap, the claimed figure and size are those of another",
        {
            "train_gpt.py": _SCRIPT,
            "submission.json": '{"val_bpb": 1.1740, "bytes_model_int6": 14784000, "bytes_model_int8": 18612000}\n',
            "train.log": _log(18_612_734, 18_612_000, 734),
        },
        Status.SUSPECT,
    ),
    Example(
        "the figure of the best seed is claimed, and another seed's artifact is over the cap",
        {
            "train_gpt.py": _SCRIPT,
            "submission.json": '{"val_bpb": 1.2000, "seed_results": {"1": {"val_bpb": 1.2}, '
            '"2": {"val_bpb": 1.2054}}}\n',
            "train_seed1.log": "seed:1\n" + _log(15_798_600, 15_797_866, 734),
            "train_seed2.log": "seed:2\n" + _log(16_453_242, 16_452_508, 734).replace("1.2000", "1.2054"),
        },
        Status.SUSPECT,
    ),
    Example(
        "submission.json states the checkpoint's size, and the log a compressed one",
        {
            "train_gpt.py": _SCRIPT,
            "submission.json": '{"val_bpb": 1.2000, "bytes_total": 25055000}\n',
            "train.log": "  size fp16   : 23.89 MB\n  size lzma   : 15.10 MB\nfinal val_loss:2.0262 val_bpb:1.2000\n",
        },
        Status.SUSPECT,
    ),
    Example(
        "an export over the cap is printed beside the one whose size is stated",
        {
            "train_gpt.py": _SCRIPT,
            "submission.json": '{"val_bpb": 1.2000, "bytes_packed_weights": 15612895}\n',
            "train.log": "Packed weights: 15612895 bytes in 28 tensors\n" + _log(42_950_518, 42_949_784, 734),
        },
        Status.SUSPECT,
    ),
    Example(
        "a later export, whose line adds model and code up under a name of its own",
        {
            "train_gpt.py": _SCRIPT,
            "submission.json": _JSON,
            "train.log": _log(16_800_734, 16_800_000, 734)
            + "gptq_int6_brotli: 14,934,784 bytes | code: 734 | total: 14,935,518 (14.94MB)\n",
        },
        Status.CLEAN,
    ),
    Example(
        "sizes are not told anywhere",
        {"train_gpt.py": _SCRIPT, "submission.json": _JSON},
        Status.UNKNOWN,
    ),
)
