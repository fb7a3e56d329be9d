"""The script imports, its network is built, and a forward pass gives finite outputs.

**What is done.** The submission is imported (its main flow left out), its network is built from its own constructor
call, tiny, and applied to tokens. It is built once more under the settings of the run, at full size but without
memory (on the meta device), and its parameters are counted.

**What must stay.** The number of parameters is that which the claim's logs state, where they do.

Nothing is violated here: what could not run says what stopped it, and a count that differs from the log's is told. It
may come from settings that neither launch command nor log states.
"""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from auditor.evidence import Evidence
from auditor.probe.base import Probe
from auditor.probe.forward import Built, Full, full_size, measure
from auditor.probe.result import Number, ProbeResult, ProbeStatus, Stop
from auditor.probe.run import Bench
from auditor.reading import Reading

_LOGGED = re.compile(
    r"(?i)\b(?:model[_ ]?)?(?:total[_ ])?(?:n_)?param(?:eter)?s?(?:[_ ]count|[_ ]total)?\s*[:=]?\s*(\d[\d,_]{5,})"
)
"""A line that states a whole number of parameters."""


class RunsAtAll(Probe):
    """See the module's documentation."""

    name: ClassVar[str] = "runs-at-all"
    title: ClassVar[str] = "does it import, build and run, and how large is it?"
    level: ClassVar[Literal["model", "evaluation"]] = "model"
    rules: ClassVar[tuple[str, ...]] = ("broken-script",)

    def run(self, bench: Bench) -> ProbeResult:
        done = measure(bench)
        if isinstance(done, Stop):
            return ProbeResult.could_not_run(self.name, done, sandboxed=bench.sandboxed)
        built = [m for m in done.told.models if m.parameters is not None]
        if not built or not done.told.paths:
            problems = [*(m.problem for m in done.told.models if m.problem), *done.told.skipped]
            message = f"It imports, but {'no forward pass ran' if built else 'no network could be built'}"
            stop = Stop(kind="not-found", message=f"{message}: {'; '.join(problems[:3]) or 'none was found'}.")
            return done.furnish(ProbeResult.could_not_run(self.name, stop))
        full = full_size(bench, done)
        return done.furnish(judge(self.name, bench.reading, built, full, [p.path for p in done.told.paths]))


def judge(name: str, reading: Reading, tiny: list[Built], full: Full, paths: list[str]) -> ProbeResult:
    """What was built, and whether its size is the log's."""
    model = tiny[0]
    numbers = [Number(name=f"parameters of {m.name} as built here", value=m.parameters or 0) for m in tiny]
    logged = stated_parameters(reading)
    evidence: tuple[Evidence, ...] = ()
    sizes = {m.name: m.parameters for m in full.models if m.parameters is not None}
    problem = full.problem or next((m.problem for m in full.models if m.problem), "no network is made")
    expected = float(logged[0]) if logged is not None else None
    if logged is not None:
        evidence = (reading.log_evidence(*logged[1:], "the log states the number of parameters"),)
    for cls, count in sizes.items():
        numbers.append(Number(name=f"parameters of {cls} under the run's settings", value=count, expected=expected))
    if not sizes:
        size = f" At full size it could not be built: {problem}."
    elif logged is None:
        size = f" Under the run's settings it has {_listed(sizes)} parameters; no log states a number."
    else:
        same = logged[0] in sizes.values()
        size = f" Under the run's settings it has {_listed(sizes)} parameters, " + (
            "as the log states." if same else f"while the log states {logged[0]:,}."
        )
    return ProbeResult(
        name=name,
        status=ProbeStatus.CLEAN,
        reason=f"It imports, builds {model.name} and runs {' and '.join(dict.fromkeys(paths))}.{size}",
        subject=model.name,
        changed="sizes, for a forward pass; nothing but the device, for the count",
        must_stay="the number of parameters that the log states",
        numbers=tuple(numbers),
        evidence=evidence,
    )


def stated_parameters(reading: Reading) -> tuple[int, str, int, str] | None:
    """The number of parameters that the claim's logs state first, with file, line and text."""
    for file, line, text in reading.run.find(_LOGGED):
        match = _LOGGED.search(text)
        if match is not None:
            return int(re.sub(r"[,_]", "", match[1])), file, line, text
    return None


def _listed(sizes: dict[str, int]) -> str:
    if len(sizes) == 1:
        return f"{next(iter(sizes.values())):,}"
    return " and ".join(f"{count:,} ({cls})" for cls, count in sizes.items())
