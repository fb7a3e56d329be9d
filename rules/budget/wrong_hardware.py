"""Timings of a record taken on something other than 8xH100 SXM.

**What it catches.** A run behind a record claim that trained or was evaluated on another machine: fewer (or more)
than eight processes, or devices that are no H100 SXM: H100 PCIe or NVL, H200, B200, A100, consumer cards.

**Why it breaks the budget.** Ten minutes mean something only on one machine. On a faster one more steps fit into the
same 600 seconds; on a slower one the time stated is no evidence that the method fits.

**Legal look-alikes.** Non-record submissions may run on anything. A log that names no device but counts eight
processes is the ordinary case and says nothing against the run. "NVIDIA H100 80GB HBM3" is the SXM module. Logs of
ablations or smoke tests beside the claimed runs don't count. A machine may hold more devices than the run uses.
A submission that calls itself a non-record one although its folder is on the record track, and a draft that states no
result yet and ships the log of a smoke test, are told so, as an advisory.

**How it is read.** From the logs that carry the claim: the world size printed and the device names of
nvidia-smi tables or of lines that name the run's device. Where no log says anything, what submission.json admits
about the hardware is a reason to look, not a proof.

**Remedy.** Repeat the claimed runs on 8xH100 SXM, or submit to the non-record track.

**Ruling.** README: under 10 minutes on 8xH100, "specifically the SXM variant". Organisers on #1959 and #2103
(2 May 2026: timings from 4xH100 don't count). Settled.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from auditor.clock import NO_RECORD, eased
from auditor.logs import Fact, Gpu, RunLog
from auditor.reading import Reading
from auditor.verdict import Confidence, Effect, Evidence, Status
from rules.base import Example, Finding, Rule
from rules.examples import script

PROCESSES = 8

_H100 = re.compile(r"(?i)(?<![a-z])H100(?!\d)")
_NOT_SXM = re.compile(r"(?i)PCI-?e|NVL|HBM2|\bMIG\b")
_DEVICE_LINE = re.compile(r"(?i)\b(?:gpus?|devices?|cuda|device_name|hardware|accelerator)\b[\w ]{0,20}[:=\[]")
_PER_DEVICE = re.compile(r"(?i)\bgrad(?:ient)?_accum(?:ulation)?(?:_steps)?$")
_ADMITS = re.compile(
    r"(?i)(?<![\w.])(?:(\d{1,2})\s*[x\u00d7]\s*)?(?:NVIDIA\s+)?"
    r"(H100|GH200|H200|B200|B300|A100|A6000|L40S?|RTX\s*\w*\d{4}|DGX Spark|GB10|V100|T4|M[1-4] (?:Pro|Max|Ultra))"
    r"((?:[\s-]*(?:SXM\d?|PCI-?e|NVL|\d+\s*GB|HBM\d\w?))*)"
)


@dataclass(frozen=True)
class Machine:
    """What one run's log says about where it ran."""

    run: RunLog
    processes: Fact[int] | None
    devices: tuple[Gpu, ...]

    @property
    def foreign(self) -> tuple[Gpu, ...]:
        """Devices that are no H100 SXM."""
        return tuple(g for g in self.devices if not _H100.search(g.name) or _NOT_SXM.search(g.name))

    @property
    def wrong_count(self) -> bool:
        return self.processes is not None and self.processes.value != PROCESSES

    @property
    def told(self) -> bool:
        return self.processes is not None or bool(self.devices)


class WrongHardware(Rule):
    """See the module's documentation."""

    slug = "wrong-hardware"
    group = "budget"
    title = "record timings not from 8xH100 SXM"
    official = Effect.VIOLATION
    strict = Effect.VIOLATION
    evidence = ("log",)
    precedents = (
        "README: training and evaluation under 10 minutes each on 8xH100 SXM",
        "organiser on #1959 and #2103, 2 May 2026: 4xH100 timings",
    )

    def check(self, reading: Reading) -> Finding:
        if reading.folder.track == "non-record":
            return Finding(Status.NOT_APPLICABLE, "A non-record submission may run on any hardware.")
        reported = reading.run.reported()
        runs = dict.fromkeys((*reading.run.claim_runs, *reading.run.training_runs))
        machines = [_machine(reading, run) for run in runs]
        wrong = [m for m in machines if m.wrong_count or m.foreign]
        right = [m for m in machines if m.told and m not in wrong]
        if reading.folder.track == "unknown":
            return Finding(
                Status.NOT_APPLICABLE,
                "The track is not known, and only a record is bound to 8xH100 SXM.",
                evidence=tuple(_evidence(reading, wrong)),
            )
        if wrong:
            linked = reported is not None and reported.linked
            evidence = tuple(_evidence(reading, wrong))
            what = _describe(wrong[0])
            if not linked and (right or reported is None):
                why = "but no log could be tied to the claim" if right else "and shows no result"
                return Finding(
                    Status.SUSPECT,
                    f"A log of this record was written {what}, {why}: check which runs the claimed figure rests on.",
                    Confidence.LOW,
                    evidence,
                )
            certain = Confidence.HIGH if linked else Confidence.MEDIUM
            many = f"{len(wrong)} of {len(machines)} runs behind the record ran" if len(machines) > 1 else "The run ran"
            own = NO_RECORD if reading.claims_no_record else ""
            official = eased(reading)
            if not linked and _claims_no_score(reading):
                own, official = own or "; no score is claimed yet", Effect.ADVISORY
            told = f"{many} {what}, not on 8xH100 SXM{own}."
            return Finding(Status.ACTIVE, told, certain, evidence, official=official)
        if not right:
            return _admitted(reading)
        seen = next((m for m in right if m.devices), None)
        if seen is not None:
            count = seen.processes.value if seen.processes is not None else len(seen.devices)
            return Finding(
                Status.CLEAN,
                f"The claim's logs list {seen.devices[0].name} and {count} processes.",
                evidence=tuple(_evidence(reading, [seen], every=True))[:2],
            )
        return Finding(
            Status.CLEAN,
            "The claim's logs count eight processes; they name no device.",
            Confidence.MEDIUM,
            tuple(_evidence(reading, right, every=True))[:2],
        )


def _claims_no_score(reading: Reading) -> bool:
    """Whether submission.json states no result: a draft, whose logs are of what could be run so far."""
    claim = reading.run.claim
    return claim.val_bpb is None and claim.val_loss is None and not claim.per_seed


def _machine(reading: Reading, run: RunLog) -> Machine:
    """What a run says, or else what another run in the same file said before it."""
    others = [r for r in reading.run.logs if r.file == run.file and r.first_line < run.first_line]
    processes: Fact[int] | None = None
    devices: tuple[Gpu, ...] = ()
    for asked in (run, *reversed(others)):
        processes = processes or asked.facts.world_size or _from_accumulation(asked)
        devices = devices or _own_devices(asked)
    return Machine(run, processes, devices)


def _own_devices(run: RunLog) -> tuple[Gpu, ...]:
    """The devices listed by nvidia-smi, or named on a line about the run's device."""
    listed = tuple(g for g in run.facts.gpus if g.index is not None)
    return listed or tuple(g for g in run.facts.gpus if _DEVICE_LINE.search(run.log.index.line(g.line)[:200]))


def _from_accumulation(run: RunLog) -> Fact[int] | None:
    """The reference script splits eight micro-batches over its processes: 8 / accumulation steps."""
    for name, value in run.hyperparameters.items():
        if _PER_DEVICE.search(name) and value.value in ("4", "8"):
            line = run.log.index.line(value.line)
            if "world_size" in line or "ddp" in line:
                return Fact[int](value=8 // int(value.value), line=value.line)
    return None


def _describe(machine: Machine) -> str:
    devices = machine.foreign
    count = machine.processes.value if machine.processes is not None else None
    if devices:
        number = f"{count}x " if count is not None else ""
        return f"on {number}{devices[0].name}"
    return f"with {count} process{'' if count == 1 else 'es'} instead of eight"


def _evidence(reading: Reading, machines: list[Machine], *, every: bool = False) -> Iterator[Evidence]:
    for machine in machines[:4]:
        places: list[tuple[int, str]] = []
        if machine.processes is not None and (machine.wrong_count or every):
            places.append((machine.processes.line, f"{machine.processes.value} processes"))
        devices = machine.devices if every else machine.foreign
        places += [(g.line, f"device: {g.name}") for g in devices[:1]]
        for line, role in places:
            yield reading.log_evidence(machine.run.file, line, machine.run.log.index.line(line), role)


def _admitted(reading: Reading) -> Finding:
    """No log says where it ran: what the documents say themselves."""
    for file, line, text, source in _statements(reading):
        found = _ADMITS.search(text)
        if found is None:
            continue
        count, device = found[1], f"{found[2]}{found[3]}"
        if device.upper().startswith("H100") and not _NOT_SXM.search(device) and count in (None, "8"):
            return Finding(
                Status.CLEAN,
                f"No log says where the runs took place; {source} states 8xH100.",
                Confidence.LOW,
                (reading.log_evidence(file, line, text, "hardware as stated, not shown by a log"),),
            )
        return Finding(
            Status.SUSPECT,
            f"No log says where the runs took place, and {source} names {found[0].strip()}: a record must be timed on"
            " 8xH100 SXM.",
            Confidence.LOW,
            (reading.log_evidence(file, line, text, "hardware as stated"),),
        )
    if not reading.run.logs:
        return Finding(Status.NOT_APPLICABLE, "There is no train log that could say where the run took place.")
    return Finding(Status.CLEAN, "No log says on which or on how many devices it ran.", Confidence.LOW)


def _statements(reading: Reading) -> Iterator[tuple[str, int, str, str]]:
    """What submission.json says under a key about hardware."""
    claim = reading.run.claim
    if claim.file is None:
        return
    for key, value in claim.raw.items():
        if re.search(r"(?i)hardware|gpu|device", str(key)) and isinstance(value, str | list | dict):
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            yield claim.file, claim.line_of(str(key)), text[:300], "submission.json"


_CODE = script(
    """
    def main():
        model = GPT()
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(100):
            tokens = load_tokens("fineweb_train_*.bin")
            model(tokens[:-1], tokens[1:]).backward()
            opt.step()
        print(f"final_exact val_loss:2.1 val_bpb:1.25000000")

    main()
    """
)
_JSON = '{"track": "track_10min_16mb", "val_bpb": 1.25}\n'
_SMI = "|   {0}  {1}          On  |   00000000:1{0}:00.0 Off |                    0 |\n"
_END = "step:900/20000 val_loss:2.2 val_bpb:1.30 train_time:600000ms\nfinal_exact val_loss:2.1 val_bpb:1.25000000\n"


def _files(log: str, **more: str) -> dict[str, str]:
    return {"train_gpt.py": _CODE, "submission.json": _JSON, "train_seed42.log": log + _END} | more


WrongHardware.VIOLATION = (
    Example("two processes", _files("world_size:2 grad_accum_steps:4\nseed:42\n"), Status.ACTIVE),
    Example(
        "eight NVL modules",
        _files("".join(_SMI.format(i, "NVIDIA H100 NVL") for i in range(8)) + "world_size:8\nseed:42\n"),
        Status.ACTIVE,
    ),
    Example("another module, named", _files("GPU: NVIDIA H200\nworld_size:8\nseed:42\n"), Status.ACTIVE),
)
WrongHardware.LEGAL = (
    Example(
        "eight SXM modules",
        _files("".join(_SMI.format(i, "NVIDIA H100 80GB HBM3") for i in range(8)) + "world_size:8\nseed:42\n"),
        Status.CLEAN,
    ),
    Example("no device named", _files("world_size:8 grad_accum_steps:1\nseed:42\n"), Status.CLEAN),
    Example("a smoke test beside the run", _files("world_size:8\nseed:42\n", **{
        "smoke/try.log": "world_size:1\nseed:1\nfinal_exact val_loss:4.1 val_bpb:2.45000000\n"}), Status.CLEAN),
    Example(
        "a non-record run on one card",
        _files("world_size:1\nseed:42\n") | {"submission.json": '{"track": "non-record", "val_bpb": 1.25}\n'},
        Status.NOT_APPLICABLE,
    ),
    Example(
        "only a statement about other hardware",
        _files("seed:42\n")
        | {"submission.json": '{"track": "track_10min_16mb", "val_bpb": 1.25, "hardware": "4xH100 80GB SXM"}\n'},
        Status.SUSPECT,
    ),
)  # fmt: skip
