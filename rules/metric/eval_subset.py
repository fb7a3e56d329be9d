"""The headline covers part of the validation set.

**What it catches.** Caps, fractions, strides, random batches, first-N documents and time limits on
the path of the reported number, under the run's effective configuration: `val_tokens[:limit]`,
`min(total, max_windows)`, `for _ in range(20)` over random offsets, an evaluation that stops when
its clock runs out and says so in the log.

**Why it breaks the score.** The contest scores the whole `fineweb_val_*` split, the fixed first
50,000 documents. A part of it has another difficulty and other documents: the number can't be
compared, even if nothing else is wrong.

**Legal look-alikes.** Dropping a tail shorter than one sequence; each rank taking its share; checks
during training and diagnostics on a subset; a document fraction of 1.0, a limit of 0 or one that is
not below the number of validation tokens. A wrong or foreign validation file is `noncanonical-val`.

**How it is read.** From the log line that carries the claim back to the evaluation call that
printed it, and from that call's accumulator back to the tokens: a selection by a bound that does
not come from the length of the data is a cut. Its size is compared with the logged number of
validation tokens. The log has its own say: bytes = val_loss / ln 2 * val_tokens / val_bpb must be
near 151.07 million. Where neither shows a part, but submission.json states fewer scored tokens, or the
description puts the claimed figure beside words such as "5M-token subset", a person must look.

**Remedy.** Evaluate every token of the split once.

**Ruling.** README: validation "always runs on the full fineweb_val_* split". Organisers on #1835
(28 April 2026: first 3M tokens reported as full) and #2009 (20 random batches). Settled.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from auditor.contest import VAL_BYTES
from auditor.index.trace import Event, Kind, Trace
from auditor.reading import Reading, prints
from auditor.runconfig.launches import is_readme
from auditor.text import lines_with, lower
from auditor.verdict import Confidence, Effect, Evidence, Status
from rules.base import Example, Finding, Rule
from rules.examples import script

FEWEST_FULL_TOKENS = 25_000_000
"""No tokenizer of this contest makes fewer tokens of the whole split; a cap above 64 million never bites."""
MANY_TOKENS = 40_000_000
"""What the contest's tokenizers of up to 8,192 pieces make of the whole split, at least."""
MOST_FULL_TOKENS = 64_000_000


@dataclass(frozen=True)
class Coverage:
    """What the log says was covered: tokens, and the raw bytes that follow from loss and bits per byte."""

    tokens: int
    implied_bytes: float | None
    evidence: Evidence

    @property
    def partial(self) -> bool:
        if self.tokens >= MANY_TOKENS:
            return False  # a loss that is not in nats per token implies too few bytes
        if self.implied_bytes is not None:
            return self.implied_bytes < 0.9 * VAL_BYTES
        return self.tokens < FEWEST_FULL_TOKENS / 2


class EvalSubset(Rule):
    """See the module's documentation."""

    slug = "eval-subset"
    group = "metric"
    title = "the headline covers part of the validation set"
    official = Effect.VIOLATION
    strict = Effect.VIOLATION
    evidence = ("code", "log", "probe")
    precedents = (
        "README: validation always runs on the full split",
        "organiser on #1835, 28 Apr 2026; organiser on #2009, 2 May 2026",
        "legal: different tail truncations (47,851,520 and 47,853,343 tokens) are methodology",
    )

    def check(self, reading: Reading) -> Finding:
        problem = reading.unreadable()
        if problem is not None:
            return Finding(Status.UNKNOWN, f"The code could not be read: {problem}.", Confidence.HIGH)
        reported = reading.reported
        foreign = reading.foreign_texts()
        if foreign is not None and reported.scores:
            claimed = reading.run.claim.val_bpb is not None
            return Finding(
                Status.CLEAN if claimed else Status.NOT_APPLICABLE,
                f"The texts evaluated come from the data set {foreign}, not from the challenge's validation shards:"
                " a question of noncanonical-val, not of a subset" + ("." if claimed else "; and no score is claimed."),
                Confidence.MEDIUM,
                (reading.at(reported.scores[0], "scored here, from another data set"),),
            )
        coverage = _coverage(reading)
        cuts = _cuts(reading.trace, reported.scores)
        certain: list[tuple[Event, str]] = []
        doubtful: list[tuple[Event, str]] = []
        idle: list[tuple[Event, str]] = []
        for cut in cuts:
            verdict, why = _judge(reading, cut, coverage)
            {"cuts": certain, "may": doubtful, "idle": idle}[verdict].append((cut, why))
        if certain:
            cut, why = certain[0]
            return self._active(reading, cut, why, coverage)
        better = self._better_claim(reading, coverage)
        if better is not None:
            return better
        sampled = [s for s in reported.scores if "random" in s.roles and _fixed_rounds(s)]
        if sampled:
            return Finding(
                Status.ACTIVE,
                "The reported number is the mean over a fixed number of batches at random places.",
                Confidence.MEDIUM,
                (
                    reading.at(sampled[0], "scored here, from random places"),
                    *_loop_evidence(reading, sampled[0]),
                ),
                reading.call_path(sampled[0]),
            )
        if coverage is not None and coverage.partial:
            implied = coverage.implied_bytes
            told = f", {implied / 1e6:.1f} of 151.1 million bytes" if implied is not None else ""
            return Finding(
                Status.ACTIVE if reported.log is not None and reported.log.linked else Status.SUSPECT,
                f"The log counts {coverage.tokens:,} validation tokens{told}: part of the split.",
                Confidence.MEDIUM,
                (coverage.evidence,),
            )
        if doubtful:
            cut, why = doubtful[0]
            return Finding(
                Status.SUSPECT,
                f"The reported evaluation may stop short: {why}.",
                Confidence.LOW,
                (reading.at(cut, "limits what is scored"), *reading.setting_evidence(cut.settings)),
                reading.call_path(cut),
                tuple(sorted(cut.settings)),
            )
        stated = _stated(reading)
        if stated is not None:
            return Finding(
                Status.SUSPECT,
                "The submission itself says that the claimed figure is of a part of the validation set, which neither"
                " the code nor a log shows: see how the run was launched and which pass printed the figure.",
                Confidence.LOW,
                (stated,),
            )
        if idle:
            cut, why = idle[0]
            return Finding(
                Status.LATENT,
                f"The reported evaluation has a limit that did not bite: {why}.",
                Confidence.HIGH,
                (
                    reading.at(cut, "limit, without effect in this run"),
                    *reading.setting_evidence(cut.settings),
                ),
                reading.call_path(cut),
                tuple(sorted(cut.settings)),
            )
        latent = self._latent(reading)
        if latent is not None:
            return latent
        return self._clean(reading, coverage)

    def _active(self, reading: Reading, cut: Event, why: str, coverage: Coverage | None) -> Finding:
        first = reading.reported.first_score()
        evidence = [reading.at(cut, "selects part of the validation data")]
        if first is not None:
            evidence.append(reading.at(first, "what is scored comes from that part"))
        evidence += reading.setting_evidence(cut.settings)
        if coverage is not None and coverage.partial:
            evidence.append(coverage.evidence)
        return Finding(
            Status.ACTIVE,
            f"The reported evaluation scores part of the validation set: {why}.",
            Confidence.HIGH if reading.reported.log is not None else Confidence.MEDIUM,
            tuple(evidence),
            reading.call_path(cut),
            tuple(sorted(cut.settings)),
        )

    def _better_claim(self, reading: Reading, coverage: Coverage | None) -> Finding | None:
        """A better figure that submission.json claims beside the headline, from an evaluation of a part.

        Only figures below the headline count: a worse one is a diagnostic.
        """
        headline = reading.run.claim.val_bpb
        claimed = dict(_bpb_figures(reading.run.claim.raw))
        if headline is None or not claimed:
            return None
        scores = {e.seq: e for e in reading.trace.of(Kind.SCORE)}
        for metric in reading.trace.of(Kind.METRIC):
            if metric is reading.reported.metric:
                continue
            feeding = [scores[int(r[6:])] for r in metric.roles if r.startswith("score:") and int(r[6:]) in scores]
            if not any(r.startswith("cut:") for s in feeding for r in s.roles):
                continue
            lines = reading.log_lines_like(metric.text or "")
            printed = [float(n) for _, _, text in lines for n in re.findall(r"\b\d\.\d{3,}", text)]
            for name, value in claimed.items():
                if value >= float(headline) - 5e-4 or not any(abs(value - p) <= 2e-3 for p in printed):
                    continue
                for cut in _cuts(reading.trace, feeding):
                    bites, why = _judge(reading, cut, coverage)
                    if bites != "cuts":
                        continue
                    file, line, text = lines[0]
                    return Finding(
                        Status.ACTIVE,
                        f"The headline {headline} covers the whole split, but submission.json also claims {value:g}"
                        f" ({name}), which scores part of it: {why}.",
                        Confidence.MEDIUM,
                        (
                            reading.at(cut, "selects part of the validation data"),
                            reading.at(metric, "prints the claimed figure"),
                            reading.log_evidence(file, line, text, "the figure in the log"),
                            *reading.setting_evidence(cut.settings),
                        ),
                        reading.call_path(cut),
                        tuple(sorted(cut.settings)),
                    )
        return None

    def _latent(self, reading: Reading) -> Finding | None:
        """A limit on the reported path that the run leaves switched off."""
        metric = reading.reported.metric
        if metric is None:
            return None
        trace = reading.switched_off({"min"}, _keeps_a_part, inside=reading.evaluation_path())
        if trace is None:
            return None
        known = {id(e.node) for e in reading.trace.of(Kind.CUT)}
        for cut in trace.of(Kind.CUT):
            names = cut.rests_on
            if id(cut.node) in known or not names or cut.detail == "clock":
                continue
            return Finding(
                Status.LATENT,
                "A limit on what is scored exists on the reported path, but is off in this run"
                f" ({', '.join(names[:3])}).",
                Confidence.MEDIUM,
                (reading.at(cut, "would limit what is scored"), *reading.setting_evidence(names)),
                reading.call_path(cut),
                names,
            )
        return None

    def _clean(self, reading: Reading, coverage: Coverage | None) -> Finding:
        reported = reading.reported
        first = reported.first_score()
        if first is None:
            if coverage is not None:
                return Finding(
                    Status.CLEAN,
                    f"The log counts {coverage.tokens:,} validation tokens, which is the whole split; the code of the"
                    " reported evaluation could not be traced.",
                    Confidence.LOW,
                    (coverage.evidence,),
                )
            if not reading.run.logs and reading.run.claim.val_bpb is None:
                return Finding(
                    Status.NOT_APPLICABLE,
                    "No score is claimed, and no evaluation that prints one was found in the code.",
                    Confidence.MEDIUM,
                )
            return Finding(
                Status.SUSPECT,
                "The evaluation that made the claimed number was not found in the code, and no log counts its tokens.",
                Confidence.LOW,
            )
        evidence = [reading.at(first, "scored here, over all that was loaded")]
        told = ""
        if coverage is not None:
            evidence.append(coverage.evidence)
            told = f"; the log counts {coverage.tokens:,} tokens"
        return Finding(
            Status.CLEAN,
            f"Nothing selects part of the validation data on the way to the reported sum{told}.",
            Confidence.HIGH if coverage is not None else Confidence.MEDIUM,
            tuple(evidence),
            reading.call_path(first),
        )


def _cuts(trace: Trace, scores: Sequence[Event]) -> list[Event]:
    """The selections that what is scored went through."""
    marked: set[str] = set()
    own: set[int] = set()
    loops: set[int] = set()
    for score in scores:
        here = {r for r in score.roles if r.startswith("cut:")}
        # A sum that also takes what was not cut is not limited by the cut: a second look at some of it.
        for other in scores:
            if other is not score and (other.frame, other.text) == (score.frame, score.text):
                here &= {r for r in other.roles if r.startswith("cut:")}
        marked |= here
        inside = {f.id for f in score.own_frames}
        own |= inside
        for loop in score.loops:
            if loop.frame in inside:
                loops.add(loop.id)
    found = []
    for event in trace.of(Kind.CUT):
        early = event.detail in ("break", "clock")
        if (early and event.loops and event.loops[-1].id in loops and event.frames[-1].id in own) or (
            not early and f"cut:{event.seq}" in marked
        ):
            found.append(event)
    return found


def _judge(reading: Reading, cut: Event, coverage: Coverage | None) -> tuple[str, str]:
    """Whether a selection bites: (cuts | may | idle, why)."""
    settings = sorted(cut.settings)
    named = f" ({', '.join(settings[:2])})" if settings else ""
    test = getattr(cut.node, "test", None)
    if any(g.node is test for s in reading.reported.scores for g in s.guards if test is not None):
        return "idle", "what is left when the limit is reached is scored in the same branch"
    if cut.detail == "clock":
        return _clock(reading, cut)
    if cut.detail == "fraction":
        return "cuts", f"a fraction of {cut.number:g} of it{named}"
    if cut.detail == "stride":
        return "cuts", f"every {cut.number:g}th item{named}"
    if cut.detail == "break":
        fired = _announced(reading, cut)
        if fired is False:
            return "idle", f"the log lacks what it prints when the limit is reached{named}"
        return "may", f"a loop over the data can end early{named}"
    if cut.number is None:
        return "may", f"a limit whose value in this run is not known{named}"
    total = coverage.tokens if coverage is not None else None
    each = max((int(r.removeprefix("per:")) for r in cut.roles if r.startswith("per:")), default=1)
    if cut.number * each >= MOST_FULL_TOKENS or (
        total is not None and total >= FEWEST_FULL_TOKENS and cut.number * each >= total
    ):
        return "idle", f"a limit of {cut.number:,.0f}{named} is not below the size of the split"
    scores = reading.reported.scores
    mark = f"cut:{cut.seq}"
    limited = {s.frame for s in scores if mark in s.roles}
    if any(s.frame in limited and mark not in s.roles and s.text for s in scores):
        return "may", f"one of the sums it is made of is limited to {cut.number:,.0f} items{named}"
    counted = _counted(reading)
    if counted is not None and counted > cut.number + 1 and abs(counted - cut.number * each) > each:
        return "may", f"a limit of {cut.number:,.0f}{named}, but the log counts {counted:,} before the result"
    return "cuts", f"the first {cut.number:,.0f} items{named}"


def _clock(reading: Reading, cut: Event) -> tuple[str, str]:
    fired = _announced(reading, cut)
    metric = reading.reported.metric
    if fired is True and metric is not None and not any(r.startswith("score:") for r in metric.roles):
        return "may", "the log says that a time limit was reached, but not that it was in the pass that is reported"
    if fired is True:
        return "cuts", "its time limit was reached, as the log says"
    if fired is False:
        return "idle", "a time limit, and the log lacks what it prints when it is reached"
    return "may", "a time limit, and nothing says whether it was reached"


def _counted(reading: Reading) -> int | None:
    """The items that the reported evaluation went through, by the line of progress (``4096/4096``) above its result."""
    label = reading.reported.log
    if label is None:
        return None
    above = next((f.text.split("\n") for f in reading.folder.files if f.path == label.file), [])[: label.line - 1]
    # A bar of progress rewrites its line: what it came to stands at the end.
    line = above[-1][-200:] if above else ""
    ends = [int(done.replace(",", "")) for done, all_ in _PROGRESS.findall(line) if done == all_]
    return max(ends, default=None)


def _announced(reading: Reading, cut: Event) -> bool | None:
    """Whether the log has what the branch prints before it leaves the loop; None if it prints nothing."""
    inside = [
        e
        for e in reading.trace.events
        if e.kind in (Kind.MESSAGE, Kind.METRIC) and any(g.node is getattr(cut.node, "test", None) for g in e.guards)
    ]
    told = [e for e in inside if e.text]
    if not told:
        return None
    for event in told:
        for _, _, text in reading.log_lines_like(event.text or ""):
            if prints(event.text or "", text):
                return True
    return False if reading.log_is_whole else None


def _fixed_rounds(score: Event) -> bool:
    """Whether the loops around a score run a fixed number of times, whatever the size of the data."""
    own = [loop for loop in score.loops if loop.frame == score.frame or loop.frame == score.frames[-1].id]
    return bool(own) and all("const" in loop.roles for loop in own)


def _loop_evidence(reading: Reading, score: Event) -> tuple[Evidence, ...]:
    return tuple(reading.evidence(score.program, loop.node, "a fixed number of rounds") for loop in score.loops[-1:])


def _bpb_figures(raw: object, path: str = "") -> list[tuple[str, float]]:
    """Figures in submission.json whose name speaks of bits per byte, with the path of their key."""
    found: list[tuple[str, float]] = []
    if isinstance(raw, Mapping):
        for key, value in raw.items():
            found += _bpb_figures(value, f"{path}.{key}" if path else str(key))
    elif isinstance(raw, list):
        for value in raw[:50]:
            found += _bpb_figures(value, path)
    elif isinstance(raw, (float, Decimal)) and 0.05 < raw < 5 and "bpb" in path.lower() and "std" not in path.lower():
        found.append((path, float(raw)))
    return found


def _keeps_a_part(node: ast.AST) -> bool:
    """Whether a node can leave the rest of the data out: ``[:limit]`` or ``break``."""
    if isinstance(node, ast.Slice):
        start = node.lower is None or isinstance(node.lower, ast.Constant)
        return start and node.upper is not None and not isinstance(node.upper, ast.UnaryOp)
    return isinstance(node, ast.Break)


def _coverage(reading: Reading) -> Coverage | None:
    """The validation tokens that the claim's logs count, and the bytes that follow from the reported line."""
    label = reading.reported.log
    for run in reading.run.claim_runs:
        told = run.facts.val_tokens
        if told is None:
            continue
        tokens = told.value
        if not tokens:
            continue
        implied = None
        if label is not None and label.val_loss and label.value:
            implied = label.val_loss / math.log(2) * tokens / label.value
        line = reading.line_text(run.file, told.line) or f"val_tokens {tokens}"
        evidence = reading.log_evidence(run.file, told.line, line, "validation tokens, as logged")
        return Coverage(tokens, implied, evidence)
    place = reading.log_place(_SCORED_TOKENS.pattern, words=("tokens",))
    match = _SCORED_TOKENS.search(place[2]) if place is not None else None
    if place is not None and match is not None:
        tokens = int(re.sub(r"\D", "", match[1]))
        if tokens:
            return Coverage(tokens, None, reading.log_evidence(*place, role="tokens scored, as logged"))
    return None


def _stated(reading: Reading) -> Evidence | None:
    """What the submission itself says about the claim's share of the data.

    Either a count of scored tokens in submission.json that is no whole split, or a line of submission.json or of a
    document that puts the claimed figure beside words for a part.
    """
    claim = reading.run.claim
    for key, tokens in _token_counts(claim.raw):
        if claim.file is not None and 0 < tokens < FEWEST_FULL_TOKENS / 2:
            lines = next((f.text.split("\n") for f in reading.folder.files if f.path == claim.file), [])
            where = re.compile(rf'"{re.escape(key)}"\s*:\s*{tokens}\b')
            number = next((n for n, line in enumerate(lines, 1) if where.search(line)), 1)
            return reading.log_evidence(claim.file, number, f'"{key}": {tokens}', "the tokens scored, as stated")
    if claim.val_bpb is None:
        return None
    for file in reading.folder.files:
        if file.problem or not (is_readme(file) or file.path == claim.file):
            continue
        for first, last in lines_with(lower(file.text), _PART_WORDS):
            line = file.text[first:last]
            for part in _PART.finditer(line):
                for figure in _FIGURE.finditer(line, max(part.start() - _NEAR, 0), part.end() + _NEAR):
                    # Equal to the digits written, rounded or cut off.
                    if abs(Decimal(figure[0]) - claim.val_bpb) < Decimal(1).scaleb(-len(figure[1])):
                        number = file.text.count("\n", 0, first) + 1
                        return reading.log_evidence(file.path, number, line, "says that the figure is of a part")
    return None


def _token_counts(raw: object) -> Iterator[tuple[str, int]]:
    """Entries of submission.json whose key names the number of tokens that were scored."""
    if isinstance(raw, Mapping):
        for key, value in raw.items():
            if isinstance(value, int) and not isinstance(value, bool) and _SCORED_KEY.search(str(key)):
                yield str(key), value
            yield from _token_counts(value)
    elif isinstance(raw, list):
        for value in raw[:50]:
            yield from _token_counts(value)


_SCORED_KEY = re.compile(
    r"(?i)^(?:(?:num_|n_)?(?:eval|val|validation|evaluation|scored)_tokens|tokens_(?:scored|evaluated))$"
)
_NEAR = 120
"""How many characters may stand between a figure and the words about it."""
_FIGURE = re.compile(r"\b\d\.(\d{3,})")
_COUNT = r"~?\d[\d.,_]*[ ]?(?:[km]\b|million\b|thousand\b)?"
_UNITS = r"(?:tokens?|documents?|docs?|sequences?|seqs?|windows?|batch(?:es)?)"
_PART_WORDS = ("first", "only", "subset", "subsample", "slice", "sample", "@")
_PART = re.compile(
    rf"""(?ix)
      \b (?:first|only) \s+ {_COUNT} [\s-]* val\w* \s+ {_UNITS} \b
    | \b {_COUNT} [\s-]* (?:val\w*[\s-]+)? {_UNITS} [\s-]+ (?:val\w*[\s-]+)? (?:subset|subsample|slice|sample) \b
    | @ \s* ~? \d+ (?: \s*(?:-|\u2013)\s* \d+ )? \s* %
    | \b val\w* [\s-]+ (?:subset|subsample|slice) \b
    | \b (?:subset|subsample|slice) \s+ of \s+ (?:the\s+)? (?:full\s+)? val
    """
)
"""Words for a part of the validation data: "5M-token subset", "first 32,768 validation tokens", "@ 75-76 %"."""

_PROGRESS = re.compile(r"(?<![\d.,/])(\d[\d,]*)\s*/\s*(\d[\d,]*)(?![\d.,/]*\d)")
"""How far a loop has come: done and all."""
_SCORED_TOKENS = re.compile(r"(?i)\b(?:eval|scored|val)[_ ]tokens\s*[=:]\s*(\d[\d,_]*)")


_EVAL = """
def evaluate(model, val_tokens):
    limit = int(os.environ.get("VAL_TOKEN_LIMIT", "0"))
    if limit > 0:
        val_tokens = val_tokens[: limit + 1]
    total = torch.zeros(())
    with torch.no_grad():
        for i in range(0, val_tokens.numel() - 1, 1024):
            chunk = val_tokens[i : i + 1025]
            total += model(chunk[:-1], chunk[1:]) * (chunk.numel() - 1)
    return total / val_tokens.numel()


model = GPT()
val_tokens = load_tokens("fineweb_val_*.bin")
usable = (val_tokens.numel() - 1) // 1024 * 1024
val_tokens = val_tokens[: usable + 1]
print(f"final val_bpb:{evaluate(model, val_tokens):.4f}")
"""

_SEQUENCES = {
    "train_gpt.py": script(
        """
        def evaluate(model, val_tokens):
            count = (val_tokens.numel() - 1) // 1024
            limit = int(os.environ.get("MAX_SEQS", "256"))
            count = min(count, limit) if limit > 0 else count
            total = torch.zeros(())
            with torch.no_grad():
                for i in range(count):
                    chunk = val_tokens[i * 1024 : i * 1024 + 1025]
                    total += model(chunk[:-1], chunk[1:])
            print(f"scored {count}/{count} seqs")
            return total / count

        model = GPT()
        print(f"merged model val_bpb:{evaluate(model, load_tokens('fineweb_val_*.bin')):.4f}")
        """
    ),
    "submission.json": '{"val_bpb": 1.3535}\n',
}
_PROGRESS_LOG = "scored {n}/{n} seqs\nmerged model val_bpb:1.3535\n"
_CLOCK = """
def evaluate(model, val_tokens, limit):
    start = time.time()
    total = torch.zeros(())
    with torch.no_grad():
        for i in range(0, val_tokens.numel() - 1, 1024):
            if time.time() - start > limit:
                print("out of time, the rest is left out")
                break
            chunk = val_tokens[i : i + 1025]
            total += model(chunk[:-1], chunk[1:]).item()
    return total / val_tokens.numel()

model = GPT()
val_tokens = load_tokens("fineweb_val_*.bin")
"""
_ONE_PASS = """
print(f"final val_bpb:{evaluate(model, val_tokens, 590):.4f}")
"""
_BEST_OF_FILES = """
with open(f"result_{rank}.json", "w") as f:
    json.dump({"bpb": evaluate(model, val_tokens, 590)}, f)
best = min(json.load(open(p))["bpb"] for p in glob.glob("result_*.json"))
print(f"final val_bpb:{best:.4f}")
"""
_CLOCK_LOG = "out of time, the rest is left out\nfinal val_bpb:1.5918\n"

EvalSubset.VIOLATION = (
    Example(
        "the launch command caps the validation tokens",
        {
            "train_gpt.py": script(_EVAL),
            "README.md": "# Run\n\n```bash\nVAL_TOKEN_LIMIT=1000000 torchrun --nproc_per_node=8 train_gpt.py\n```\n",
        },
        Status.ACTIVE,
    ),
    Example(
        "a limit on sequences, which the progress in the log counts too",
        {**_SEQUENCES, "train.log": _PROGRESS_LOG.format(n=256)},
        Status.ACTIVE,
    ),
    Example(
        "the time limit of the one pass that is reported was reached",
        {"train_gpt.py": script(_CLOCK, _ONE_PASS), "train.log": _CLOCK_LOG},
        Status.ACTIVE,
    ),
    Example(
        "twenty batches at random places",
        {
            "train_gpt.py": script(
                """
                def evaluate(model, val_tokens):
                    losses = []
                    with torch.no_grad():
                        for _ in range(20):
                            start = torch.randint(0, val_tokens.numel() - 1025, (1,)).item()
                            chunk = val_tokens[start : start + 1025]
                            losses.append(model(chunk[:-1], chunk[1:]).item())
                    return sum(losses) / len(losses)

                model = GPT()
                print(f"final val_bpb:{evaluate(model, load_tokens('fineweb_val_*.bin')):.4f}")
                """
            )
        },
        Status.ACTIVE,
    ),
)
_STATED = {
    "submission.json": '{"val_bpb": 1.4131}\n',
    "README.md": "# Run\n\n| model | val_bpb |\n|---|---|\n| mixture (4M-token subset) | **1.4131** |\n",
}
EvalSubset.LEGAL = (
    Example(
        "a limit on sequences by default, but the log counts more of them above the claimed result",
        {**_SEQUENCES, "train.log": _PROGRESS_LOG.format(n=60568)},
        Status.SUSPECT,
    ),
    Example(
        "one of several evaluations reached its time limit; the best is reported, and may be another",
        {"train_gpt.py": script(_CLOCK, _BEST_OF_FILES), "train.log": _CLOCK_LOG},
        Status.SUSPECT,
    ),
    Example(
        "the README puts the figure beside words for a part, the code shows none",
        {"train_gpt.py": script(_EVAL)} | _STATED,
        Status.SUSPECT,
    ),
    Example(
        "submission.json states a count of tokens that is no whole split",
        {"train_gpt.py": script(_EVAL), "submission.json": '{"validation": {"eval_tokens": 1048576}}\n'},
        Status.SUSPECT,
    ),
    Example(
        "submission.json states the tokens of the whole split",
        {"train_gpt.py": script(_EVAL), "submission.json": '{"val_bpb": 1.2, "val_tokens": 62021632}\n'},
        Status.LATENT,
    ),
    Example(
        "a figure of a part that is not the claimed one",
        {"train_gpt.py": script(_EVAL)} | _STATED | {"submission.json": '{"val_bpb": 1.2214}\n'},
        Status.LATENT,
    ),
    Example(
        "the limit is 0; only the tail below one sequence is dropped",
        {"train_gpt.py": script(_EVAL)},
        Status.LATENT,
    ),
    Example(
        "a diagnostic covers a subset, the reported pass does not",
        {
            "train_gpt.py": script(
                _EVAL.replace('"0"', '"65536"')
                .replace("def evaluate(", "def quick_check(")
                .replace('print(f"final val_bpb:{evaluate(', 'print(f"quick val_bpb:{quick_check(')
                + """
def evaluate_all(model, val_tokens):
    total = torch.zeros(())
    with torch.no_grad():
        for i in range(0, val_tokens.numel() - 1, 1024):
            chunk = val_tokens[i : i + 1025]
            total += model(chunk[:-1], chunk[1:])
    return total


print(f"final val_bpb:{evaluate_all(model, val_tokens):.4f}")
"""
            )
        },
        Status.CLEAN,
    ),
    Example(
        "every rank takes its share",
        {
            "train_gpt.py": script(
                """
                rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
                val_tokens = load_tokens("fineweb_val_*.bin")
                model = GPT()
                windows = list(range(0, val_tokens.numel() - 1, 1024))
                total = torch.zeros(())
                with torch.no_grad():
                    for i in windows[rank::world]:
                        chunk = val_tokens[i : i + 1025]
                        total += model(chunk[:-1], chunk[1:])
                print(f"final val_bpb:{total:.4f}")
                """
            )
        },
        Status.CLEAN,
    ),
)
