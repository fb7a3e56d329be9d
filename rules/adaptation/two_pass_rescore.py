"""A second pass scores the validation tokens again, with state that the first pass built from them.

**What it catches.** The evaluation goes over the validation tokens, fills a table or trains weights with them, and
then scores the same tokens (all, or the first chunks) again with that state; the second result replaces the first.
Also: the results of one pass are stored, a table of counts is built from the complete set, and both are blended.

**Why it breaks the score.** In the second pass every token is scored by a state that holds it, and all that follow it
(conditions C1 and C4 of issue #1017). Leaving out a token's own count does not mend that: what follows remains.

**Legal look-alikes.** A first pass that is only a diagnostic (the round trip after quantisation, a sliding window) and
whose tokens do not enter the state of the reported pass; overlapping windows, of which each token is scored once; a
table that is updated with each chunk after the chunk was scored, in one pass; a last, shorter chunk scored after
the loop; tables of training tokens; code that is switched off.

**How it is read.** The trace marks tables into which validation tokens are counted, parameters that are trained on
them, stored results, and sums from which an earlier score is taken out again. It is active where a score behind the
reported number is computed with such a state after the loop that built it is over, and the tokens are shown to be
the same: the first pass's stored results are used again, its loss is taken out of the sum, the table was complete
before anything was scored with it, or the whole set is scored again by the trained parameters. Where the sameness
cannot be shown, it is suspect.

**Remedy.** Report the first pass, in which each token is scored before it is counted.

**Ruling.** Organiser, 27 March 2026, on #846, #853, #868, #870, #881, #888, #893, #907 and others: the second pass
evaluates tokens trained on in the first; on #959: illegal regardless of the legality of n-gram caches. Settled.
"""

from __future__ import annotations

import ast
import re

from auditor.index.adaptation import Rescoring, rescorings
from auditor.index.trace import Event, Kind
from auditor.reading import Reading
from auditor.verdict import Confidence, Effect, Evidence, Status
from rules.adaptation.order import settings_of, unknown_setting
from rules.base import Example, Finding, Rule
from rules.examples import script

PROOFS = {
    "stored": "stored results of the first pass are blended with it",
    "replaced": "the first pass's loss is taken out of the sum and the new one put in its place",
    "all": "the table is complete before anything is scored with it",
    "phase": "the whole set is scored again after a first pass scored and trained on it",
}
PROSE = re.compile(r"(?i)\btwo[- ]pass|\bsecond pass|\brescor|\bpass 2\b")
SWITCH = re.compile(r"(?i)two_?pass|second_?pass|rescore")
COUNTING = frozenset({"bincount", "scatter_add_", "index_add_"})


class TwoPassRescore(Rule):
    """See the module's documentation."""

    slug = "two-pass-rescore"
    group = "adaptation"
    title = "a second pass rescoring with state from the first"
    official = Effect.VIOLATION
    strict = Effect.VIOLATION
    evidence = ("code", "probe")
    precedents = (
        "organiser on #846, #868, #870, #881: the second pass evaluates tokens trained on in the first",
        "organiser on #959: illegal regardless of the legality of the implementation of n-gram caches",
    )

    def check(self, reading: Reading) -> Finding:
        problem = reading.unreadable()
        if problem is not None:
            return Finding(Status.UNKNOWN, f"The code could not be read: {problem}.", Confidence.HIGH)
        found = reading.rescorings
        opened: tuple[Rescoring, str] | None = None
        idle: Rescoring | None = None
        for case in found:
            ran, shown = reading.ran(case.score)
            if ran is False or reading.ran(case.state)[0] is False:
                idle = idle or case
            elif not case.proof:
                opened = opened or (case, "whether these are the same tokens could not be shown")
            elif ran is None and unknown_setting(case.state, case.score):
                opened = opened or (case, "a setting on the path is not known for this run")
            else:
                return self._active(reading, case, shown)
        if opened is not None:
            case, why = opened
            return Finding(
                Status.SUSPECT,
                f"A score is computed with a state that an earlier pass built from validation tokens; {why}.",
                Confidence.LOW,
                (*_places(reading, case), *reading.guard_evidence(case.score.undecided, "condition not decided")),
                reading.call_path(case.score),
                tuple(sorted(settings_of(case.score))),
            )
        if idle is not None:
            return Finding(
                Status.LATENT,
                f"{idle.score.frames[-1].function} would score the tokens again, but the log lacks every line that this"
                " part of it prints: it did not run.",
                Confidence.MEDIUM,
                _places(reading, idle),
                reading.call_path(idle.score),
            )
        return self._latent(reading) or self._clean(reading)

    def _active(self, reading: Reading, case: Rescoring, shown: Evidence | None) -> Finding:
        settings = case.state.switches | case.score.switches
        return Finding(
            Status.ACTIVE,
            f"{case.score.frames[-1].function} scores validation tokens with a state built from them in a pass that is"
            f" over: {PROOFS[case.proof]}.",
            Confidence.HIGH if reading.reported.metric is not None else Confidence.MEDIUM,
            (
                *_places(reading, case),
                *([shown] if shown is not None else []),
                *reading.setting_evidence(settings),
            ),
            reading.call_path(case.score),
            tuple(sorted(settings)),
        )

    def _latent(self, reading: Reading) -> Finding | None:
        trace = reading.switched_off(reading.training_names() | COUNTING) or reading.switched_off(
            (), _adds_score, inside=reading.evaluation_path()
        )
        if trace is None:
            return None
        happened = {id(e) for e in reading.trace.events}
        for case in rescorings(trace, trace.of(Kind.SCORE), None):
            if id(case.score) in happened:
                continue
            switches = case.state.switches | case.score.switches
            names = sorted({s for b in reading.trace.skipped for s in b.settings} & switches)
            if not names:
                continue
            told = _told(reading, names)
            if told is not None:
                return Finding(
                    Status.SUSPECT,
                    f"{case.score.frames[-1].function} scores the tokens again with state from a first pass if it is"
                    " switched on, which it is not by default; the README says that it was, and no log shows either.",
                    Confidence.LOW,
                    (*_places(reading, case), told, *reading.setting_evidence(names)),
                    reading.call_path(case.score),
                    tuple(names),
                )
            return Finding(
                Status.LATENT,
                f"{case.score.frames[-1].function} could score the tokens again with state from a first pass, but is"
                f" switched off in this run ({', '.join(names[:3])}).",
                Confidence.MEDIUM,
                (*_places(reading, case), *reading.setting_evidence(names)),
                reading.call_path(case.score),
                tuple(names),
            )
        return None

    def _clean(self, reading: Reading) -> Finding:
        trace = reading.trace
        off = sorted(
            n for n, (_, _, v) in trace.defaults.items() if SWITCH.search(n) and v in ("0", "False", "false", "")
        )
        told = _told(reading, off) if off and not reading.run.claim_runs and not reading.run.claimed_launches else None
        if told is not None:
            return Finding(
                Status.SUSPECT,
                "The README tells of a second pass, the code holds a switch for one that is off by default, and neither"
                " a log nor a launch command shows how it was set.",
                Confidence.LOW,
                (told, *reading.setting_evidence(off)),
                (),
                tuple(off),
            )
        doubt = Confidence.LOW if trace.truncated or not reading.reported.scores else Confidence.HIGH
        counts = trace.of(Kind.COUNT)
        steps = [e for e in trace.of(Kind.STEP) if "val" in e.roles]
        states: list[Event] = [*counts[:1], *steps[:1]]
        if states:
            return Finding(
                Status.CLEAN,
                "State is built from validation tokens, but nothing that feeds the reported number is scored with it"
                " after the pass that built it.",
                doubt,
                tuple(reading.at(e, "validation tokens enter the state here") for e in states),
            )
        return Finding(Status.CLEAN, "No state is built from validation tokens: there is no second pass.", doubt)


def _places(reading: Reading, case: Rescoring) -> tuple[Evidence, ...]:
    first = () if case.first is None else (reading.at(case.first, "scored here, in the first pass"),)
    return (
        *first,
        reading.at(case.state, "validation tokens enter the state here"),
        reading.at(case.score, "scored here, with that state"),
    )


def _adds_score(node: ast.AST) -> bool:
    """Whether a branch that is switched off may replace or blend scores: it takes something out of a sum."""
    return isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub) and isinstance(node.left, (ast.Name, ast.BinOp))


def _told(reading: Reading, names: list[str]) -> Evidence | None:
    """A line of the README that says one of these settings was on, where no log can contradict it."""
    if any(v.origin == "log" for name in names for v in reading.values_of(name)):
        return None
    for file in reading.folder.files:
        if not file.path.lower().endswith("readme.md"):
            continue
        for number, line in enumerate(file.text.split("\n"), 1):
            told = any(re.search(rf"\b{re.escape(n)}\b\W+(?:1|true|on)\b", line, re.IGNORECASE) for n in names)
            if told or (not reading.run.claim_runs and PROSE.search(line)):
                return reading.log_evidence(file.path, number, line, "the README says that it ran")
    return None


_CACHE = """
class Cache:
    def __init__(self, buckets=65536):
        self.context = [np.zeros(buckets) for _ in range(3)]
        self.pairs = [np.zeros(buckets) for _ in range(3)]

    def update(self, tokens, start, end):
        for order in range(3):
            context = tokens[start:end] % 65536
            np.add.at(self.context[order], context, 1)
            np.add.at(self.pairs[order], (context * 31 + tokens[start + 1 : end + 1]) % 65536, 1)

    def look_up(self, tokens, start, end):
        found = np.zeros(end - start)
        for order in range(3):
            context = tokens[start:end] % 65536
            pair = (context * 31 + tokens[start + 1 : end + 1]) % 65536
            found = self.pairs[order][pair] / np.maximum(self.context[order][context], 1)
        return found


def probability(model, tokens, start, end):
    with torch.no_grad():
        p = F.softmax(model(tokens[start:end], None), dim=-1)
    return p.gather(-1, tokens[start + 1 : end + 1, None]).squeeze(-1).numpy()
"""
_FIRST = """
def evaluate(model, val_tokens):
    numbers = val_tokens.numpy()
    cache = Cache()
    total = 0.0
    chunks = []
    for start in range(0, len(numbers) - 1, 4096):
        end = min(start + 4096, len(numbers) - 1)
        p = 0.7 * probability(model, val_tokens, start, end) + 0.3 * cache.look_up(numbers, start, end)
        loss = -np.log(p).sum()
        total += loss
        chunks.append(loss)
        cache.update(numbers, start, end)
"""
_SECOND = """
    if int(os.environ.get("TWO_PASS", "1")):
        again = 0.0
        for start in range(0, 50 * 4096, 4096):
            end = min(start + 4096, len(numbers) - 1)
            p = 0.7 * probability(model, val_tokens, start, end) + 0.3 * cache.look_up(numbers, start, end)
            again += -np.log(p).sum()
        total = total - sum(chunks[:50]) + again
"""
_END = "    return total / len(numbers)\n"
_MAIN = """
model = GPT()
print(f"final val_bpb:{evaluate(model, load_tokens('fineweb_val_*.bin')):.4f}")
"""
_FULL = """
def evaluate(model, val_tokens):
    numbers = val_tokens.numpy()
    stored = []
    for start in range(0, len(numbers) - 1, 4096):
        stored.append(probability(model, val_tokens, start, min(start + 4096, len(numbers) - 1)))
    cache = Cache()
    cache.update(numbers, 0, len(numbers) - 1)
    p = 0.7 * np.concatenate(stored) + 0.3 * cache.look_up(numbers, 0, len(numbers) - 1)
    return -np.log(p).sum() / len(numbers)
"""
_TTT = """
def adapt(model, val_tokens):
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    total = torch.zeros(())
    for i in range(0, val_tokens.numel() - 1, 1024):
        x, y = val_tokens[i : i + 1024], val_tokens[i + 1 : i + 1025]
        with torch.no_grad():
            total += model(x, y)
        optimizer.zero_grad()
        model(x, y).backward()
        optimizer.step()
    return total / val_tokens.numel()


def evaluate(model, val_tokens):
    total = torch.zeros(())
    with torch.no_grad():
        for i in range(0, val_tokens.numel() - 1, 1024):
            total += model(val_tokens[i : i + 1024], val_tokens[i + 1 : i + 1025])
    return total / val_tokens.numel()


model = GPT()
val_tokens = load_tokens("fineweb_val_*.bin")
"""
# Scripts that tell what they do, and the log of a run of the one with a second pass.
_TOLD_FIRST = _FIRST + '    print(f"first pass done, loss {total / len(numbers):.6f}")\n'
_TOLD_SECOND = _SECOND.replace(
    "        again = 0.0\n", '        again = 0.0\n        print("second pass: first 50 chunks")\n'
)
_TOLD_MAIN = """
model = GPT()
print("weights and tokenizer loaded")
print("evaluation of the validation split starts")
result = evaluate(model, load_tokens("fineweb_val_*.bin"))
print("evaluation of the validation split done")
print(f"final val_bpb:{result:.4f}")
"""
_LOG = """\
weights and tokenizer loaded
evaluation of the validation split starts
first pass done, loss 0.712300
second pass: first 50 chunks
evaluation of the validation split done
final val_bpb:1.0276
"""

TwoPassRescore.VIOLATION = (
    Example(
        "the log shows the second pass",
        {
            "train_gpt.py": script(_CACHE, _TOLD_FIRST + _TOLD_SECOND + _END, _TOLD_MAIN),
            "submission.json": '{"val_bpb": 1.0276}\n',
            "train.log": _LOG,
        },
        Status.ACTIVE,
    ),
    Example(
        "the first chunks are scored again with the full cache, and replace their first score",
        {"train_gpt.py": script(_CACHE, _FIRST + _SECOND + _END, _MAIN)},
        Status.ACTIVE,
    ),
    Example(
        "stored probabilities are blended with a cache of the complete set",
        {"train_gpt.py": script(_CACHE, _FULL, _MAIN)},
        Status.ACTIVE,
    ),
    Example(
        "scored first and trained on, then scored again by the trained weights",
        {
            "train_gpt.py": script(
                _TTT,
                """
                print(f"first pass val_bpb:{adapt(model, val_tokens):.4f}")
                print(f"final val_bpb:{evaluate(model, val_tokens):.4f}")
                """,
            )
        },
        Status.ACTIVE,
    ),
)
TwoPassRescore.LEGAL = (
    Example(
        "the log holds what the evaluation prints, but not what its second pass always prints",
        {
            "train_gpt.py": script(_CACHE, _TOLD_FIRST + _TOLD_SECOND + _END, _TOLD_MAIN),
            "submission.json": '{"val_bpb": 1.0276}\n',
            "train.log": _LOG.replace("second pass: first 50 chunks\n", ""),
        },
        Status.LATENT,
    ),
    Example(
        "one pass: each chunk is scored, then counted",
        {"train_gpt.py": script(_CACHE, _FIRST + _END, _MAIN)},
        Status.CLEAN,
    ),
    Example(
        "the second pass is switched off by the launch command",
        {
            "train_gpt.py": script(_CACHE, _FIRST + _SECOND + _END, _MAIN),
            "README.md": "# Run\n\n```bash\nTWO_PASS=0 torchrun --nproc_per_node=8 train_gpt.py\n```\n",
        },
        Status.LATENT,
    ),
    Example(
        "the first pass is a diagnostic that trains nothing; the reported pass is score-first",
        {
            "train_gpt.py": script(
                _TTT,
                """
                print(f"plain val_bpb:{evaluate(model, val_tokens):.4f}")
                print(f"final val_bpb:{adapt(model, val_tokens):.4f}")
                """,
            )
        },
        Status.CLEAN,
    ),
    Example(
        "a first, score-first pass whose weights are put back before the reported one",
        {
            "train_gpt.py": script(
                _TTT,
                """
                saved = {k: v.clone() for k, v in model.state_dict().items()}
                print(f"adapted val_bpb:{adapt(model, val_tokens):.4f}")
                model.load_state_dict(saved)
                print(f"final val_bpb:{evaluate(model, val_tokens):.4f}")
                """,
            )
        },
        Status.CLEAN,
    ),
    Example(
        "the number of tokens is counted, too: a loss per byte is not made of counts",
        {
            "train_gpt.py": script(
                """
                def evaluate(model, val_tokens):
                    counts = np.bincount(val_tokens.numpy(), minlength=1024)
                    widths = np.ones(1024)
                    total = 0.0
                    with torch.no_grad():
                        for i in range(0, val_tokens.numel() - 1, 1024):
                            total += model(val_tokens[i : i + 1024], val_tokens[i + 1 : i + 1025]).item()
                    return total / (counts * widths).sum()
                """,
                _MAIN,
            )
        },
        Status.CLEAN,
    ),
)
