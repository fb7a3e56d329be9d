"""The better of several results on the tokens that did come is kept.

**What it catches.** A token, a window or a document is scored more than once (by several passes, epochs, adapters or
experts) and the smallest loss goes into the reported sum: `best = torch.minimum(best, nll)`, `if new_nll < nll: nll =
new_nll`, the best epoch of a document.

**Why it breaks the score.** Which result is smallest is known only once the token is known. A code built that way
would have to say which of the models it used; the reported number leaves these bits out (condition C4 of issue #1017:
no selection among several executions on observed outcomes).

**Legal look-alikes.** `min` and `torch.minimum` on clipping ranges of a quantiser, learning rates, window ends; a
floor or ceiling on a loss or probability (`torch.maximum(p, eps)`); the maximum inside a log-sum-exp; mixtures whose
weights are fixed before the token is seen; the best checkpoint chosen by a validation loss; a comparison that is
only counted or printed; places found by sorting losses, which are compared as places (`paid-prefix` and
`two-pass-rescore` look at what is done there).

**How it is read.** The trace marks losses and probabilities of the tokens that did come (a cross entropy, a gather at
the targets, a pass that is given them). Where two of these are compared, or the smaller one is taken, or a result
replaces the best so far, the outcome is marked; the finding is active if a score that feeds the reported number
carries that mark or is kept on that condition.

**Remedy.** Report one execution, chosen before scoring, or mix the distributions with weights that depend on earlier
tokens only.

**Ruling.** Organiser, 24 March 2026, on #573, #596, #605, #611, #614, #685: the lowest score is kept, the same as
training on the validation set; on #659: peeking at the correct token. Settled.
"""

from __future__ import annotations

from auditor.index.trace import Event, Kind, Trace
from auditor.reading import Reading
from auditor.verdict import Confidence, Effect, Status
from rules.adaptation.order import settings_of, unknown_setting
from rules.base import Example, Finding, Rule
from rules.examples import script

CALLS = frozenset({"minimum", "fmin"})


class OracleMin(Rule):
    """See the module's documentation."""

    slug = "oracle-min"
    group = "adaptation"
    title = "minimum over passes, epochs or experts taken on the realised loss"
    official = Effect.VIOLATION
    strict = Effect.VIOLATION
    precedents = (
        "organiser on #596: the lowest score is kept as the document's loss",
        "organiser on #659: keeping whichever of cache and model gives the lower loss is peeking at the correct token",
    )

    def check(self, reading: Reading) -> Finding:
        problem = reading.unreadable()
        if problem is not None:
            return Finding(Status.UNKNOWN, f"The code could not be read: {problem}.", Confidence.HIGH)
        trace = reading.trace
        picks = trace.of(Kind.PICK)
        opened: tuple[Event, Event] | None = None
        idle: tuple[Event, Event] | None = None
        for score, pick in _kept(trace, reading.reported.scores):
            ran, shown = reading.ran(score)
            if ran is False:
                idle = idle or (score, pick)
            elif ran is None and unknown_setting(score, pick):
                opened = opened or (score, pick)
            else:
                settings = score.switches | pick.switches
                return Finding(
                    Status.ACTIVE,
                    f"{pick.frames[-1].function} keeps the better of several results on the tokens that came,"
                    " and the reported number is made of these.",
                    Confidence.HIGH if reading.reported.metric is not None else Confidence.MEDIUM,
                    (
                        reading.at(pick, "the better result is chosen here, knowing the token"),
                        reading.at(score, "and kept here"),
                        *([shown] if shown is not None else []),
                        *reading.setting_evidence(settings),
                    ),
                    reading.call_path(pick),
                    tuple(sorted(settings)),
                )
        if opened is not None:
            score, pick = opened
            return Finding(
                Status.SUSPECT,
                "The better of several results is kept, if a setting on the path that is not known for this run is on.",
                Confidence.LOW,
                (
                    reading.at(pick, "the better result is chosen here"),
                    reading.at(score, "and kept here"),
                    *reading.guard_evidence(score.undecided, "condition not decided"),
                ),
                reading.call_path(pick),
                tuple(sorted(settings_of(score))),
            )
        if idle is not None:
            score, pick = idle
            return Finding(
                Status.LATENT,
                f"{pick.frames[-1].function} would keep the better of several results, but the log lacks every line"
                " that it prints: it did not run.",
                Confidence.MEDIUM,
                (reading.at(pick, "would choose here"), reading.at(score, "would keep it here")),
                reading.call_path(pick),
            )
        latent = self._latent(reading)
        if latent is not None:
            return latent
        aside = [e for e in picks if e.detail in ("both", "best so far")]
        if aside:
            return Finding(
                Status.CLEAN,
                "Losses on the same tokens are compared, but what is kept does not go into the reported sum.",
                Confidence.MEDIUM,
                (reading.at(aside[0], "compared here"),),
            )
        doubt = Confidence.LOW if trace.truncated or not reading.reported.scores else Confidence.HIGH
        return Finding(Status.CLEAN, "No minimum over losses goes into the reported sum.", doubt)

    def _latent(self, reading: Reading) -> Finding | None:
        trace = reading.switched_off(reading.training_names() | CALLS)
        if trace is None:
            return None
        seen = {id(e.node) for e in reading.trace.of(Kind.PICK)}
        for score, pick in _kept(trace, trace.of(Kind.SCORE)):
            if id(pick.node) in seen:
                continue
            switches = score.switches | pick.switches
            names = sorted({s for b in reading.trace.skipped for s in b.settings} & switches)
            if not names:
                continue
            return Finding(
                Status.LATENT,
                f"{pick.frames[-1].function} could keep the better of several results, but is switched off in this run"
                f" ({', '.join(names[:3])}).",
                Confidence.MEDIUM,
                (reading.at(pick, "would choose here"), *reading.setting_evidence(names)),
                reading.call_path(pick),
                tuple(names),
            )
        return None


def _kept(trace: Trace, scores: list[Event] | tuple[Event, ...]) -> list[tuple[Event, Event]]:
    """Scores that are the better of several results, or kept on that condition, each with where it is chosen."""
    picks = {e.seq: e for e in trace.of(Kind.PICK) if e.detail in ("both", "best so far")}
    if not picks:
        return []
    found = []
    for score in scores:
        marks = {*score.roles, *(r for g in score.guards for r in g.roles)}
        chosen = [picks[n] for r in marks if r.startswith("pick:") and (n := int(r[5:])) in picks]
        found += [(score, pick) for pick in sorted(chosen, key=lambda e: e.seq)]
    return found


_HEAD = """
model = GPT()
val_tokens = load_tokens("fineweb_val_*.bin")
"""
_PASSES = """
def evaluate(model, val_tokens, passes):
    best = torch.full((val_tokens.numel(),), float("inf"))
    for number in range(passes):
        for i in range(0, val_tokens.numel() - 1, 1024):
            chunk = val_tokens[i : i + 1025]
            with torch.no_grad():
                logits = model(chunk[:-1] + number, None)
            nll = F.cross_entropy(logits, chunk[1:], reduction="none")
            best[i : i + 1024] = torch.minimum(best[i : i + 1024], nll)
    return best.mean()
"""
_EXPERTS = """
def evaluate(model, table, val_tokens):
    total = 0.0
    for i in range(0, val_tokens.numel() - 1, 1024):
        chunk = val_tokens[i : i + 1025]
        with torch.no_grad():
            log_p = F.log_softmax(model(chunk[:-1], None), dim=-1)
        for t in range(1024):
            nll = -log_p[t, chunk[t + 1]]
            mixed = -torch.log(0.9 * log_p[t, chunk[t + 1]].exp() + 0.1 * table[chunk[t], chunk[t + 1]])
            if mixed < nll:
                nll = mixed
                total += mixed
            else:
                total += nll
    return total / val_tokens.numel()
"""
_PRINT = """
print(f"final val_bpb:{evaluate(model, val_tokens, int(os.environ.get('PASSES', '3'))):.4f}")
"""

OracleMin.VIOLATION = (
    Example("the minimum over passes", {"train_gpt.py": script(_PASSES, _HEAD + _PRINT)}, Status.ACTIVE),
    Example(
        "whichever of cache and network does better on the token",
        {
            "train_gpt.py": script(
                _EXPERTS,
                _HEAD
                + """
table = torch.rand(1024, 1024)
print(f"final val_bpb:{evaluate(model, table, val_tokens):.4f}")
""",
            )
        },
        Status.ACTIVE,
    ),
    Example(
        "a document's best epoch",
        {
            "train_gpt.py": script(
                """
                def evaluate(model, val_tokens, epochs):
                    total = torch.zeros(())
                    starts = (val_tokens == 1).nonzero().flatten().tolist()
                    for start, end in zip(starts, starts[1:]):
                        document = val_tokens[start:end]
                        best = float("inf")
                        for epoch in range(epochs):
                            loss = model(document[:-1] + epoch, document[1:]).item()
                            if loss < best:
                                best = loss
                        total += best
                    return total / val_tokens.numel()
                """,
                _HEAD + _PRINT,
            )
        },
        Status.ACTIVE,
    ),
)
OracleMin.LEGAL = (
    Example(
        "minimum in a quantiser, a learning rate and a window's end; a floor under a probability",
        {
            "train_gpt.py": script(
                """
                def clip(weight, limit):
                    return torch.minimum(weight.abs().amax(dim=1), limit)

                def evaluate(model, val_tokens, passes):
                    total = torch.zeros(())
                    floor = torch.tensor(1e-9)
                    for i in range(0, val_tokens.numel() - 1, 1024):
                        end = min(i + 1024, val_tokens.numel() - 1)
                        x, y = val_tokens[i:end], val_tokens[i + 1 : end + 1]
                        with torch.no_grad():
                            p = F.softmax(model(x, None), dim=-1).gather(-1, y[:, None])
                        p = torch.maximum(p, floor)
                        total += -torch.log(p).sum()
                    return total / val_tokens.numel()
                """,
                _HEAD
                + """
model.embed.weight.data = clip(model.embed.weight.data, torch.tensor(1.0))
"""
                + _PRINT,
            )
        },
        Status.CLEAN,
    ),
    Example(
        "a log-sum-exp of two experts, with weights fixed before the token is seen",
        {
            "train_gpt.py": script(
                """
                def evaluate(model, other, val_tokens):
                    total = torch.zeros(())
                    for i in range(0, val_tokens.numel() - 1, 1024):
                        x, y = val_tokens[i : i + 1024], val_tokens[i + 1 : i + 1025]
                        with torch.no_grad():
                            a = -F.cross_entropy(model(x, None), y, reduction="none") - 0.1
                            b = -F.cross_entropy(other(x, None), y, reduction="none") - 2.3
                        high = torch.maximum(a, b)
                        total -= (high + torch.log(torch.exp(a - high) + torch.exp(b - high))).sum()
                    return total / val_tokens.numel()
                """,
                _HEAD + 'print(f"final val_bpb:{evaluate(model, GPT(), val_tokens):.4f}")\n',
            )
        },
        Status.CLEAN,
    ),
    Example(
        "the better result is only counted",
        {
            "train_gpt.py": script(
                """
                def evaluate(model, other, val_tokens):
                    total, wins = torch.zeros(()), 0
                    for i in range(0, val_tokens.numel() - 1, 1024):
                        x, y = val_tokens[i : i + 1024], val_tokens[i + 1 : i + 1025]
                        with torch.no_grad():
                            loss, plain = model(x, y), other(x, y)
                        if loss < plain:
                            wins += 1
                        total += loss
                    print(f"better in {wins} windows")
                    return total / val_tokens.numel()
                """,
                _HEAD + 'print(f"final val_bpb:{evaluate(model, GPT(), val_tokens):.4f}")\n',
            )
        },
        Status.CLEAN,
    ),
    Example(
        "places that a sort of losses gave are compared with a window's bounds",
        {
            "train_gpt.py": script(
                """
                def evaluate(model, other, val_tokens):
                    total = torch.zeros(())
                    with torch.no_grad():
                        first = F.cross_entropy(other(val_tokens[:-1], None), val_tokens[1:], reduction="none")
                    hard = torch.argsort(first)[:10]
                    for i in range(0, val_tokens.numel() - 1, 1024):
                        x, y = val_tokens[i : i + 1024], val_tokens[i + 1 : i + 1025]
                        with torch.no_grad():
                            loss = model(x, y)
                        low, high = max(i, int(hard[0])), min(i + 1024, int(hard[-1]))
                        if low < high:
                            loss = loss * 1.0
                        total += loss
                    return total / val_tokens.numel()
                """,
                _HEAD + 'print(f"final val_bpb:{evaluate(model, GPT(), val_tokens):.4f}")\n',
            )
        },
        Status.CLEAN,
    ),
    Example(
        "the minimum is switched off by the launch command",
        {
            "train_gpt.py": script(
                _PASSES.replace(
                    "            best[i : i + 1024] = torch.minimum(best[i : i + 1024], nll)\n",
                    "            if int(os.environ.get('KEEP_BEST', '1')):\n"
                    "                best[i : i + 1024] = torch.minimum(best[i : i + 1024], nll)\n"
                    "            else:\n"
                    "                best[i : i + 1024] = nll\n",
                ),
                _HEAD + _PRINT,
            ),
            "README.md": "# Run\n\n```bash\nKEEP_BEST=0 torchrun --nproc_per_node=8 train_gpt.py\n```\n",
        },
        Status.LATENT,
    ),
)
