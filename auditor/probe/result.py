"""What a probe found: the numbers, what they show, and about which rules they speak."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from auditor.evidence import Attempt, Evidence, Frozen, Status


class ProbeStatus(StrEnum):
    """How one probe ended. ``could-not-run`` says nothing about the submission."""

    VIOLATED = "violated"
    LATENT = "latent"
    CLEAN = "clean"
    NOT_APPLICABLE = "not-applicable"
    COULD_NOT_RUN = "could-not-run"


def _rounded(value: float) -> float:
    """Six significant digits: what differs after them is the order of additions, not the submission. Counts stay."""
    return value if value.is_integer() and abs(value) < 2**53 else float(f"{value:.6g}")


Figure = Annotated[float, AfterValidator(_rounded)]
"""A measured number, kept to six significant digits; a whole number is kept as it is."""


def as_sentence(text: str) -> str:
    """``text`` with a capital letter and a full stop, where it lacks them."""
    text = text.strip()
    first = text.split(" ", 1)[0]
    if first.isalpha() and first.islower():
        text = text[0].upper() + text[1:]
    return text if not text or text.endswith((".", "!", "?")) else f"{text}."


class Number(Frozen):
    """A named figure of the proof, and what it had to be."""

    name: str = Field(description='what was measured, such as "sum of the probabilities at position 17"')
    value: Figure
    expected: Figure | None = Field(default=None, description="what a legal submission gives; None where it is context")
    unit: str = Field(default="", description='such as "nats", "bytes", "tokens"')


class Position(Frozen):
    """One place in the token stream where something moved that had to stay, or the other way round.

    ``changed`` is the position (0-based, in the validation stream or in the model's input) whose token was changed;
    ``moved`` the position whose score or logits were looked at, ``before`` and ``after`` that change.
    """

    moved: int = Field(ge=0)
    changed: int | None = Field(default=None, ge=0)
    before: Figure | None = None
    after: Figure | None = None
    note: str = Field(default="", description='such as "first token of document 2"')


class Substitution(Frozen):
    """Something that was put in place of a part of the submission, so that it runs on a CPU."""

    what: str = Field(description='such as "device cuda → cpu", "stand-in for flash_attn_interface"')
    file: str | None = None
    line: int | None = Field(default=None, ge=1)


class Override(Frozen):
    """A setting that has another value in the probe than in the run, mostly to make it small."""

    name: str
    run: str | None = Field(description="its value in the run, None where it is not known")
    probe: str


class Stop(Frozen):
    """What stopped a probe."""

    kind: Literal["no-code", "missing-module", "shape", "time", "memory", "refused", "exception", "not-found"] = Field(
        description="missing-module: no stand-in for it; shape: the tiny size breaks a constraint; refused: the sandbox"
        " did not let it; not-found: the part that the probe needs was not found"
    )
    message: str = Field(description="one sentence")
    exception: str | None = Field(default=None, description="its type")
    file: str | None = None
    line: int | None = Field(default=None, ge=1, description="in the shipped file, or in the program unpacked from it")


class Shown(Frozen):
    """What a probe's result means for one rule.

    ``active``/``latent``: the numbers prove it. ``clean``: they rule out what the rule asks about, as far as the probe
    reaches. ``suspected_only``: the numbers prove that something of this kind happens, but not which; they count for
    this rule if reading suspects it, or if it is the first named and reading suspects none of those named.
    """

    rule: str = Field(description="slug")
    status: Literal[Status.ACTIVE, Status.LATENT, Status.CLEAN]
    reason: str = Field(description="one sentence with the numbers")
    suspected_only: bool = False


class ProbeResult(Frozen):
    """What one probe found. A violation is arithmetic that anyone can check; the numbers are all here."""

    name: str
    status: ProbeStatus
    reason: str = Field(description="one sentence")
    subject: str = Field(default="", description="what was run: the qualified name of the model class or evaluation")
    changed: str = Field(default="", description="what was changed between the runs that are compared")
    must_stay: str = Field(default="", description="what must not move, or must come out at a known value")
    numbers: tuple[Number, ...] = ()
    positions: tuple[Position, ...] = Field(default=(), description="where it shows, worst first; a sample if many")
    tolerance: Figure | None = Field(default=None, description="a difference up to this is rounding")
    noise: Figure | None = Field(default=None, description="largest difference between repeats with nothing changed")
    trials: int = Field(default=0, ge=0, description="perturbed runs that were compared")
    switched_on: tuple[str, ...] = Field(
        default=(), description="settings that are off in the run and were switched on: a violation is latent then"
    )
    shown: tuple[Shown, ...] = ()
    stop: Stop | None = Field(default=None, description="what stopped it; only when it could not run")
    evidence: tuple[Evidence, ...] = ()
    substitutions: tuple[Substitution, ...] = ()
    overrides: tuple[Override, ...] = ()
    attempts: tuple[Attempt, ...] = Field(default=(), description="what the sandboxed run tried")
    sandboxed: bool = True
    seconds: Figure | None = Field(default=None, description="None in a verdict, which does not depend on the machine")

    @model_validator(mode="after")
    def _consistent(self) -> ProbeResult:
        if (self.stop is not None) != (self.status is ProbeStatus.COULD_NOT_RUN):
            raise ValueError("a probe that could not run, and no other, says what stopped it")
        proven = {Status.ACTIVE: ProbeStatus.VIOLATED, Status.LATENT: ProbeStatus.LATENT}
        for item in self.shown:
            if self.status in (ProbeStatus.COULD_NOT_RUN, ProbeStatus.NOT_APPLICABLE):
                raise ValueError("a probe that did not run shows nothing")
            if proven.get(item.status, self.status) is not self.status:
                raise ValueError("what is shown about a rule must follow from the probe's status")
        if self.status is ProbeStatus.LATENT and not self.switched_on:
            raise ValueError("what is latent names the settings that were switched on")
        return self

    @classmethod
    def could_not_run(cls, name: str, stop: Stop, **fields: object) -> ProbeResult:
        """A result for a probe that ``stop`` kept from running; ``fields`` are further fields of the model."""
        return cls.model_validate(
            {"name": name, "status": ProbeStatus.COULD_NOT_RUN, "reason": stop.message, "stop": stop, **fields}
        )


class ProbeReport(Frozen):
    """All probes of one record folder."""

    source: str
    number: int | None = None
    head: str | None = None
    folder: str | None = None
    script: str | None = None
    sandboxed: bool = True
    world: str = Field(default="", description="the tiny world in one line: vocabulary, documents, tokens, bytes")
    results: tuple[ProbeResult, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def substitutions(self) -> tuple[Substitution, ...]:
        """Those of all results, each once."""
        return tuple(dict.fromkeys(s for result in self.results for s in result.substitutions))

    @property
    def overrides(self) -> tuple[Override, ...]:
        """Those of all results, each once."""
        return tuple(dict.fromkeys(o for result in self.results for o in result.overrides))

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Those of all results, each once."""
        return tuple(dict.fromkeys(a for result in self.results for a in result.attempts))
