"""The output at a position depends only on the tokens up to it.

**What is changed.** In a row of random tokens, one token (each position in turn), all tokens after a position (each in
turn), and the other rows of the batch. Targets change with them where only logits are looked at.

**What must stay.** Logits, and losses where the pass returns them for each token, at all positions before the first
changed token. In float32 the sums behind them are made of the very same numbers, so the difference is zero or close to
it; a difference counts from 64 units in the last place of the largest logit.

**What it is run on.** Every way in which the code applies its network (forward, forward_logits, forward_ttt, ...) that
can be called with tokens, targets, document boundaries and the submission's own adapters; tiny, in evaluation mode,
switches such as looped layers as they are set for evaluation and as the constructor leaves them. Weights that start at
zero are filled with seeded random values: a leak behind a gate at zero would not show.

**What counts.** A pass that the reported evaluation makes, or may make. A pass that only training makes may look ahead
without harm to the score, and so may a network whose evaluation hides the tokens that it is scored on (masked
diffusion): not applicable, since what is hidden is a matter of data.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from auditor.evidence import Status
from auditor.index.trace import Kind
from auditor.probe.base import Probe
from auditor.probe.forward import (
    Measurement,
    Pass,
    figure,
    look_ahead,
    look_ahead_positions,
    measure,
    unfinished,
    unmeasured,
    use_of,
)
from auditor.probe.result import Number, ProbeResult, ProbeStatus, Shown, Stop
from auditor.probe.run import Bench
from auditor.reading import Reading
from rules.architecture.noncausal_model import HIDING, hides_tokens

CHANGED = "one token, all tokens after a position, or the other rows of the batch; each position in turn"
MUST_STAY = "logits (and losses, where each token has one) at the positions before the first changed token"


class Causality(Probe):
    """See the module's documentation."""

    name: ClassVar[str] = "causality"
    title: ClassVar[str] = "does a position's output depend on later tokens?"
    level: ClassVar[Literal["model", "evaluation"]] = "model"
    rules: ClassVar[tuple[str, ...]] = ("noncausal-model",)

    def run(self, bench: Bench) -> ProbeResult:
        done = measure(bench)
        if isinstance(done, Stop):
            return ProbeResult.could_not_run(self.name, done, sandboxed=bench.sandboxed)
        result = judge(self.name, bench.reading, done.told)
        return done.furnish(result)


def judge(name: str, reading: Reading, done: Measurement) -> ProbeResult:
    """What the measured passes show."""
    uses = {p: use_of(reading, p) for p in done.paths}
    counted = [p for p, use in uses.items() if use.used is not False and use.scored is not False]
    missing = unmeasured(reading, done)
    live = [p for p in counted if p.reacts]
    ahead = sorted((p for p in live if look_ahead(p) > p.tolerance), key=look_ahead, reverse=True)
    elsewhere = [p for p, use in uses.items() if p not in counted and look_ahead(p) > p.tolerance]
    if ahead and hides_tokens(reading, [], HIDING):
        return ProbeResult(
            name=name,
            status=ProbeStatus.NOT_APPLICABLE,
            reason=f"{ahead[0].label} looks ahead ({figure(look_ahead(ahead[0]))}), but its evaluation names ways to"
            " hide tokens from it, as masked diffusion does; whether it sees what it is scored on is a matter of data.",
            subject=", ".join(dict.fromkeys(p.path for p in ahead)),
            changed=CHANGED,
            must_stay=MUST_STAY,
            numbers=tuple(_numbers(ahead)),
            tolerance=ahead[0].tolerance,
            noise=ahead[0].noise,
            trials=sum(p.trials for p in counted),
        )
    if ahead:
        worst = ahead[0]
        positions = tuple(x for p in ahead for x in look_ahead_positions(p))[:12]
        where = f"position {positions[0].moved}" if positions else "a row"
        what = f"the tokens from position {positions[0].changed} on" if positions else "the other rows of the batch"
        reason = (
            f"{worst.label}: the {worst.what} at {where} move by {figure(look_ahead(worst))} when {what} change"
            f" (rounding: {figure(worst.tolerance)})."
        )
        return ProbeResult(
            name=name,
            status=ProbeStatus.VIOLATED,
            reason=reason,
            subject=", ".join(dict.fromkeys(p.path for p in ahead)),
            changed=CHANGED,
            must_stay=MUST_STAY,
            numbers=tuple(_numbers(ahead)),
            positions=positions,
            tolerance=worst.tolerance,
            noise=worst.noise,
            trials=sum(p.trials for p in counted),
            shown=(Shown(rule="noncausal-model", status=Status.ACTIVE, reason=reason),),
            evidence=tuple(
                reading.at(e, "positions may see later ones here") for e in reading.trace.of(Kind.LOOKAHEAD)[:3]
            ),
        )
    late = unfinished(counted)
    if missing is None and late is not None:
        return ProbeResult.could_not_run(name, Stop(kind="time", message=late))
    if not live or missing is not None:
        why = missing or _why_nothing(done)
        return ProbeResult.could_not_run(name, Stop(kind="not-found", message=why))
    reason = (
        f"No output of {_listed(live)} moves when later tokens change, at any of {live[0].length} positions"
        f" (largest difference {figure(max(map(look_ahead, live)))})."
    )
    if elsewhere:
        reason += f" {_listed(elsewhere)} looks ahead, but the reported evaluation does not apply it."
    return ProbeResult(
        name=name,
        status=ProbeStatus.CLEAN,
        reason=reason,
        subject=", ".join(dict.fromkeys(p.path for p in live)),
        changed=CHANGED,
        must_stay=MUST_STAY,
        numbers=tuple(_numbers(live)),
        tolerance=max(p.tolerance for p in live),
        noise=max(p.noise for p in live),
        trials=sum(p.trials for p in live),
        shown=(Shown(rule="noncausal-model", status=Status.CLEAN, reason=reason),),
    )


def _numbers(paths: list[Pass]) -> list[Number]:
    return [
        Number(
            name=f"largest change before the first changed token, {p.label}{f' with {p.state}' if p.state else ''}",
            value=look_ahead(p),
            expected=0.0,
            unit="" if p.what == "logits" else "nats",
        )
        for p in paths[:8]
    ]


def _listed(paths: list[Pass]) -> str:
    return " and ".join(list(dict.fromkeys(p.path for p in paths))[:4])


def _why_nothing(done: Measurement) -> str:
    dead = next((p for p in done.paths if not p.reacts), None)
    if dead is not None:
        return f"The outputs of {dead.path} do not depend on earlier tokens, so nothing would show."
    problems = [f"{m.name}: {m.problem}" for m in done.models if m.problem]
    return f"No forward pass could be applied: {'; '.join((*done.skipped[:3], *problems[:2])) or 'none was found'}."
