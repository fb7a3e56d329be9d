"""A compile warm-up takes optimiser steps on real validation tokens.

**What it catches.** Before the reported evaluation starts its clock, the training step of the test-time adaptation is
run once or a few times so that its kernels are compiled, and the tokens it runs on are validation tokens. The weights
or adapters that it changes are dropped or put back.

**Why it matters.** Nothing learnt survives, so the score is not changed beyond noise; but validation tokens are used
as training targets before they are scored, which the letter of condition C3 of issue #1017 forbids, and a reader
cannot see at a glance that nothing is kept. Random tokens do the same job.

**Legal look-alikes.** A warm-up on `torch.randint` tokens or on training tokens; forward passes without a step; steps
whose weights stay (`prequant-ttt`); an adaptation with its own score, whose result is only a diagnostic.

**How it is read.** The trace holds an optimiser step whose loss comes from validation tokens, no score is taken in the
loop it runs in, and what it changes is restored from a saved state or never used again by the reported evaluation.

**Remedy.** Draw the warm-up tokens with `torch.randint`.

**Ruling.** None: #1530 was merged with such a warm-up, after a participant had pointed at it; later records of the
same line draw random tokens. Reported, and not counted against a submission by the official policy.
"""

from __future__ import annotations

from auditor.index.adaptation import is_warm_up
from auditor.index.trace import Event, Kind
from auditor.reading import Reading
from auditor.verdict import Confidence, Effect, Status
from rules.adaptation.order import settings_of, unknown_setting
from rules.base import Example, Finding, Rule
from rules.examples import script


class WarmupOnVal(Rule):
    """See the module's documentation."""

    slug = "warmup-on-val"
    group = "adaptation"
    title = "compile warm-up takes optimiser steps on real validation tokens"
    official = Effect.ADVISORY
    strict = Effect.VIOLATION
    precedents = (
        "#1530: merged with a warm-up on validation rows, which a participant had pointed at (11 and 12 Apr 2026)",
        "legal: #1787 and later (random tokens)",
    )

    def check(self, reading: Reading) -> Finding:
        problem = reading.unreadable()
        if problem is not None:
            return Finding(Status.UNKNOWN, f"The code could not be read: {problem}.", Confidence.HIGH)
        trace = reading.trace
        scores = reading.reported.scores
        steps = [e for e in trace.of(Kind.STEP) if "val" in e.roles and "train" not in e.roles]
        opened: Event | None = None
        idle: Event | None = None
        for step in steps:
            why = is_warm_up(trace, scores, step)
            if why is None:
                continue
            ran, shown = reading.ran(step)
            if ran is False:
                idle = idle or step
            elif ran is None and unknown_setting(step):
                opened = opened or step
            else:
                settings = settings_of(step)
                return Finding(
                    Status.ACTIVE,
                    f"{step.frames[-1].function} takes optimiser steps on validation tokens to warm up; {why}.",
                    Confidence.HIGH if reading.reported.metric is not None else Confidence.MEDIUM,
                    (
                        reading.at(step, "steps here, on validation tokens"),
                        *([shown] if shown is not None else []),
                        *reading.setting_evidence(settings),
                    ),
                    reading.call_path(step),
                    tuple(sorted(settings)),
                )
        if opened is not None:
            return Finding(
                Status.SUSPECT,
                "A warm-up steps on validation tokens, if a setting on the path that is not known for this run is on.",
                Confidence.LOW,
                (
                    reading.at(opened, "steps here, on validation tokens"),
                    *reading.guard_evidence(opened.undecided, "condition not decided"),
                ),
                reading.call_path(opened),
                tuple(sorted(settings_of(opened))),
            )
        if idle is not None:
            return Finding(
                Status.LATENT,
                f"{idle.frames[-1].function} would warm up on validation tokens, but the log lacks every line that it"
                " prints: it did not run.",
                Confidence.MEDIUM,
                (reading.at(idle, "would step here"),),
                reading.call_path(idle),
            )
        return _clean(reading, steps)


def _clean(reading: Reading, steps: list[Event]) -> Finding:
    doubt = Confidence.LOW if reading.trace.truncated else Confidence.HIGH
    if steps:
        return Finding(
            Status.CLEAN,
            "Steps on validation tokens belong to an adaptation that scores or keeps its weights, not to a warm-up.",
            doubt,
            (reading.at(steps[0], "steps here, on validation tokens"),),
        )
    drawn = [e for e in reading.trace.of(Kind.STEP) if "random" in e.roles and "train" not in e.roles]
    if drawn:
        return Finding(
            Status.CLEAN,
            "A warm-up steps on tokens drawn at random, not on validation tokens.",
            doubt,
            (reading.at(drawn[0], "steps here, on random tokens"),),
        )
    return Finding(Status.CLEAN, "No optimiser step uses validation tokens.", doubt)


_BASE = """
class Adapter(nn.Module):
    def __init__(self, dim=64):
        super().__init__()
        self.a = nn.Parameter(torch.zeros(dim, 4))


def step(model, adapter, optimizer, x, y):
    optimizer.zero_grad()
    model(x + adapter(x), y).backward()
    optimizer.step()


def evaluate(model, adapter, val_tokens):
    optimizer = torch.optim.Adam(adapter.parameters(), lr=1e-3)
    total = torch.zeros(())
    for i in range(0, val_tokens.numel() - 1, 1024):
        x, y = val_tokens[i : i + 1024], val_tokens[i + 1 : i + 1025]
        with torch.no_grad():
            total += model(x + adapter(x), y)
        step(model, adapter, optimizer, x, y)
    return total / val_tokens.numel()
"""
_MAIN = """
model = GPT()
val_tokens = load_tokens("fineweb_val_*.bin")
if int(os.environ.get("WARMUP", "1")):
    throwaway = Adapter()
    warm = torch.optim.Adam(throwaway.parameters(), lr=1e-3)
    for length in (256, 512, 1024):
        step(model, throwaway, warm, val_tokens[:length], val_tokens[1 : length + 1])
    del throwaway, warm
print(f"final val_bpb:{evaluate(model, Adapter(), val_tokens):.4f}")
"""

WarmupOnVal.VIOLATION = (
    Example(
        "a throw-away adapter is stepped on the first validation tokens",
        {"train_gpt.py": script(_BASE, _MAIN)},
        Status.ACTIVE,
    ),
)
WarmupOnVal.LEGAL = (
    Example(
        "the warm-up draws random tokens",
        {
            "train_gpt.py": script(
                _BASE,
                _MAIN.replace(
                    "        step(model, throwaway, warm, val_tokens[:length], val_tokens[1 : length + 1])\n",
                    "        drawn = torch.randint(0, 1024, (length + 1,))\n"
                    "        step(model, throwaway, warm, drawn[:-1], drawn[1:])\n",
                ),
            )
        },
        Status.CLEAN,
    ),
    Example(
        "the warm-up only runs forward",
        {
            "train_gpt.py": script(
                _BASE,
                _MAIN.replace(
                    "        step(model, throwaway, warm, val_tokens[:length], val_tokens[1 : length + 1])\n",
                    "        with torch.no_grad():\n"
                    "            model(val_tokens[:length], val_tokens[1 : length + 1])\n",
                ),
            )
        },
        Status.CLEAN,
    ),
    Example(
        "no warm-up at all, by the launch command",
        {
            "train_gpt.py": script(_BASE, _MAIN),
            "README.md": "# Run\n\n```bash\nWARMUP=0 torchrun --nproc_per_node=8 train_gpt.py\n```\n",
        },
        Status.CLEAN,
    ),
)
