"""Runs the evaluation probes' branches on one submission, once for all of these probes."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auditor.evidence import Attempt, Evidence
from auditor.probe.evaluations import (
    LARGER,
    Branch,
    Outcomes,
    Stream,
    Target,
    counted,
    first_branches,
    job,
    make_stream,
    read_outcomes,
)
from auditor.probe.harness import Harness, JobResult
from auditor.probe.overrides import Overrides, plan_overrides
from auditor.probe.result import Override, ProbeResult, ProbeStatus, Stop, Substitution
from auditor.probe.run import Bench

COPY = "/out/world"
"""Where the driver puts a copy of the world that can be written to."""
SECONDS = 400.0
"""At most, for the branches that all probes share."""
RUN_SECONDS = 120.0


@dataclass(frozen=True)
class Told:
    """What is said of every probe that looks at the same runs."""

    subject: str
    evidence: tuple[Evidence, ...]
    substitutions: tuple[Substitution, ...]
    overrides: tuple[Override, ...]
    attempts: tuple[Attempt, ...]
    sandboxed: bool


class Session:
    """One submission in the tiny world. ``stop`` says why there are no outcomes."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.stop: Stop | None = None
        self.outcomes: Outcomes | None = None
        self._substitutions: dict[Substitution, None] = {}
        self._attempts: dict[Attempt, None] = {}
        self.plan: Overrides = plan_overrides(bench.reading, mount=COPY)
        self.target = Target.of(bench.reading)
        self.stream: Stream | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="evaluation-")
        self._root = Path(self._folder.name)
        self._run_first()

    @classmethod
    def of(cls, bench: Bench) -> Session:
        """The session of a bench; the runs are made when it is first asked for."""
        known = bench.cache.get("evaluation")
        if not isinstance(known, cls):
            bench.cache["evaluation"] = known = cls(bench)
        return known

    def _run_first(self) -> None:
        if self.target is None:
            message = "no printed line with the reported number was found in the code"
            self.stop = Stop(kind="not-found", message=message)
            return
        world = self._root / "world"
        self.stream = make_stream(world, **self.plan.world())
        branches = first_branches(self.stream)
        outcomes = self._run(branches, None, min(SECONDS, self.bench.left()))
        if outcomes is None:
            return
        base = outcomes.runs.get("base")
        error = outcomes.summary.get("error")
        if base is None and isinstance(error, dict):
            self.stop = self._stopped(error)
        elif base is None or not base.ok:
            raw = outcomes.summary.get("runs", {}).get("base", {}).get("error")
            self.stop = (
                self._stopped(raw)
                if isinstance(raw, dict)
                else Stop(kind="not-found", message="the program printed no bits per byte for the reported evaluation")
            )
        else:
            self.outcomes = outcomes

    def tail_in_larger_world(self) -> int | str:
        """How many tokens at the end are not scored in a world of about twice the size; or why that is not known."""
        world = self._root / "larger"
        stream = make_stream(world, documents=LARGER, **self.plan.world())
        branches = [b for b in first_branches(stream) if b.id in ("base", "late-base") or b.id.startswith("bit-")]
        outcomes = self._run(branches, None, min(SECONDS, self.bench.left()), stream)
        if outcomes is None:
            return "a world of twice the size could not be run"
        found = counted(outcomes)
        return found if isinstance(found, str) else stream.last - found.end

    def more(self, branches: Sequence[Branch], seconds: float) -> None:
        """Make further late runs, and add them to the outcomes."""
        if self.outcomes is None:
            return
        summary = self.outcomes.summary
        call = (int(summary.get("target_report", 0)), int(summary.get("target_entry", 0)))
        found = self._run(branches, call, min(seconds, self.bench.left()))
        if found is not None:
            self.outcomes.runs.update(found.runs)

    def _run(
        self, branches: Sequence[Branch], call: tuple[int, int] | None, seconds: float, stream: Stream | None = None
    ) -> Outcomes | None:
        stream = stream or self.stream
        assert self.target is not None and stream is not None
        arguments = job(self.target, stream, branches, reported_call=call, seconds=seconds, run_seconds=RUN_SECONDS)
        with Harness(
            self.bench.reading,
            world=stream.world.root,
            overrides=self.plan,
            protected=self.bench.sandboxed,
            progress=self.bench.progress,
        ) as harness:
            done: JobResult = harness.run("evaluation:run", arguments, wall=seconds + 60)
            self._substitutions.update(dict.fromkeys(done.substitutions))
            self._attempts.update(dict.fromkeys(done.attempts))
            if done.stop is not None or done.output is None:
                if stream is self.stream and self.outcomes is None:
                    self.stop = done.stop
                return None
            return read_outcomes(done.value, done.output / "probe", stream, self.target)

    def _stopped(self, error: dict[str, object]) -> Stop:
        kinds = ("no-code", "missing-module", "shape", "time", "memory", "refused", "exception", "not-found")
        kind = error.get("kind")
        line = error.get("line")
        return Stop(
            kind=kind if kind in kinds else "exception",  # type: ignore[arg-type]
            message=str(error.get("message", "no reason given"))[:400],
            exception=str(error["exception"])[:100] if error.get("exception") else None,
            file=str(error["file"]) if error.get("file") else None,
            line=line if isinstance(line, int) and line > 0 else None,
        )

    def could_not_run(self, probe: str, message: str | None = None) -> ProbeResult:
        """That a probe could not run: for this session's reason, or because of ``message``."""
        stop = Stop(kind="not-found", message=message) if message is not None else self.stop
        assert stop is not None
        told = self.told
        evidence = told.evidence
        return ProbeResult.could_not_run(
            probe,
            stop,
            subject=told.subject,
            evidence=evidence,
            substitutions=told.substitutions,
            overrides=told.overrides,
            attempts=told.attempts,
            sandboxed=told.sandboxed,
        )

    def result(self, probe: str, status: ProbeStatus, reason: str, **fields: Any) -> ProbeResult:
        """A result of a probe that ran; ``fields`` are further fields of the model."""
        told = self.told
        assert self.outcomes is not None
        return ProbeResult(
            name=probe,
            status=status,
            reason=reason,
            subject=told.subject,
            noise=self.outcomes.noise,
            evidence=told.evidence,
            substitutions=told.substitutions,
            overrides=told.overrides,
            attempts=told.attempts,
            sandboxed=told.sandboxed,
            **fields,
        )

    @property
    def told(self) -> Told:
        """What every result says of how it was come by."""
        reading = self.bench.reading
        evidence: list[Evidence] = []
        function = reading.reported.function
        if function is not None and function.definition is not None:
            evidence.append(reading.evidence(function.program, function.definition, "the evaluation that was run"))
        return Told(
            subject=function.function if function is not None else "the script's main flow",
            evidence=tuple(evidence),
            substitutions=tuple(self._substitutions),
            overrides=self.plan.changed,
            attempts=tuple(self._attempts),
            sandboxed=self.bench.sandboxed,
        )
