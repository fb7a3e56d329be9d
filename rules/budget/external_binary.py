"""An external program, compiler or shared library is run or loaded by the submission itself.

**What it catches.** `subprocess`, `os.system`, `os.popen` and shells; compilers called at run time;
shared libraries through `ctypes`, `cffi`, `torch.utils.cpp_extension`; anything the submission's
own training, serialising or evaluating path reaches outside of Python and its packages. The report
names the program, the phase it runs in, and whether the set-up notes declare it.

**Why it matters.** The artifact must be self-contained: a program that is not counted can carry
compute, data or code. A decompressor that evaluation needs weighs more than a minifier called only
to count code bytes.

**Legal look-alikes.** `nvidia-smi` and `git` queries, just-in-time compilation by torch or Triton,
the C library itself, launchers that only start training, calls that the run's configuration
switches off, installation fallbacks that run only when an import fails (`network-access` looks at
those), also where the failure was noted first (`if brotli is None`). A pull request without record folder and
claim has no set-up notes to declare anything in: told, as an advisory.

**How it is read.** The trace lists every call that leaves Python, with its arguments, under the
effective configuration. A call whose failure is caught, or that only runs when the program is
found, did run unless the log shows that it did not.

**Remedy.** Declare the program in README's set-up section or requirements.txt, or do the work in Python.

Compilers and libraries built at run time from source that the submission ships are accepted too (#1514, merged).

**Ruling.** #1855 (per-group `lrzip` by subprocess, declared as a prerequisite) was merged on 29
April 2026 and stands in the leaderboard: accepted when declared. The letter of issue #1017 asks for
a self-contained artifact.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from auditor.code_size import ships_as
from auditor.index.commands import command_words, split_command
from auditor.index.trace import Event, Kind
from auditor.index.values import HOLE, Const, Value
from auditor.needs import claims_nothing
from auditor.reading import Reading
from auditor.submission import SubmissionKind
from auditor.unpack.walk import walk
from auditor.verdict import Confidence, Effect, Evidence, Status
from rules.base import Example, Finding, Rule
from rules.examples import script

QUERIES = {
    "nvidia-smi",
    "git",
    "hostname",
    "uname",
    "nproc",
    "lscpu",
    "free",
    "df",
    "rocm-smi",
    "amd-smi",
    "which",
    "where",
    "whoami",
}
SYSTEM_LIBRARIES = re.compile(r"^(?:lib(?:c|m|dl|pthread|gomp|cuda|cudart|nvrtc)\b|msvcrt|kernel32)")
CPP_EXTENSION = "c++ (torch.utils.cpp_extension)"
INSTALLERS = {"pip", "pip3", "uv", "conda", "ensurepip"}
LAUNCHERS = {"torchrun", "deepspeed", "accelerate"}


@dataclass(frozen=True)
class Call:
    """One call that leaves Python: what it runs and where."""

    event: Event
    program: str

    @property
    def counts_code_only(self) -> bool:
        """Whether the result only goes into a count of code bytes (the field's minifiers do nothing else)."""
        return self.program in ("pyminify", "python-minifier")


class ExternalBinary(Rule):
    """See the module's documentation."""

    slug = "external-binary"
    group = "budget"
    title = "an external program, compiler or shared library is run or loaded"
    official = Effect.VIOLATION
    strict = Effect.VIOLATION
    evidence = ("code", "files", "probe")
    precedents = (
        "accepted when declared: #1855 (lrzip, merged 29 Apr 2026)",
        "README, 20 Mar 2026: set-up instructions in README; no compute or capabilities may be sneaked in",
    )

    def check(self, reading: Reading) -> Finding:
        problem = reading.unreadable()
        if problem is not None:
            return Finding(Status.UNKNOWN, f"The code could not be read: {problem}.", Confidence.HIGH)
        calls = _calls(reading.trace.of(Kind.EXTERNAL))
        running: list[tuple[Call, Evidence | None]] = []
        fallback: list[Call] = []
        did_not_run: list[tuple[Call, str]] = []
        unsure: list[tuple[Call, str]] = []
        for call in calls:
            event = call.event
            if any("<exception>" in g.settings for g in event.guards) or reading.lacks_import(event):
                fallback.append(call)
                continue
            ran, shown = reading.ran(event)
            if event.fallible and reading.failed(event):
                ran = False
            if ran is not False and call.counts_code_only and (event.fallible or event.undecided):
                ran, shown = _minified(reading, ran, shown)
            if ran is False:
                did_not_run.append((call, "the log shows that it did not run"))
            elif event.undecided and ran is None and not _fires_anyway(event) and not _declared_pick(reading, call):
                unsure.append((call, "whether it runs depends on something the submission's files do not settle"))
            elif not call.program:
                unsure.append((call, "what it runs could not be resolved"))
            else:
                running.append((call, shown))
        if running:
            return self._active(reading, running)
        if unsure:
            call, why = unsure[0]
            return Finding(
                Status.SUSPECT,
                f"{_name(call)} may be run: {why}.",
                Confidence.LOW,
                (
                    reading.at(call.event, "external call"),
                    *reading.guard_evidence(call.event.undecided, "condition not decided"),
                ),
                reading.call_path(call.event),
            )
        if did_not_run or fallback:
            call = did_not_run[0][0] if did_not_run else fallback[0]
            why = did_not_run[0][1] if did_not_run else "it only runs when something else fails"
            return Finding(
                Status.LATENT,
                f"{_name(call)} is in the code, but {why}.",
                Confidence.MEDIUM,
                (reading.at(call.event, "external call, not run"),),
                reading.call_path(call.event),
            )
        return self._none(reading)

    def _active(self, reading: Reading, running: list[tuple[Call, Evidence | None]]) -> Finding:
        by_program: dict[str, tuple[Call, Evidence | None]] = {}
        for call, shown in running:
            by_program.setdefault(_name(call), (call, shown))
        evidence: list[Evidence] = []
        undeclared: list[str] = []
        parts: list[str] = []
        settings: set[str] = set()
        for name, (call, shown) in by_program.items():
            phase = _phase(reading, call.event)
            evidence.append(reading.at(call.event, f"runs {name} {phase}"))
            if shown is not None:
                evidence.append(shown)
            settings |= call.event.switches
            declaration = reading.run.declared(name)
            source = _own_source(reading, name)
            if declaration is None and source is not None:
                evidence.append(source)
                parts.append(f"{name} {phase}, built from the submission's own source")
                continue
            if declaration is not None:
                evidence.append(
                    reading.log_evidence(
                        declaration.file,
                        declaration.line,
                        declaration.text,
                        f"{name} is {declaration.strength} here",
                    )
                )
            elif not call.counts_code_only:
                undeclared.append(name)
            what = f"{name} {phase}"
            if call.counts_code_only:
                what += ", only to count code bytes"
            parts.append(what + ("" if declaration is not None else ", not declared"))
        return Finding(
            Status.ACTIVE,
            f"The submission itself runs {'; '.join(parts)}.",
            Confidence.HIGH if all(not c.event.undecided for c, _ in running) else Confidence.MEDIUM,
            tuple(evidence),
            reading.call_path(next(iter(by_program.values()))[0].event),
            tuple(sorted(settings)),
            official=Effect.ACCEPTED if not undeclared else Effect.ADVISORY if _no_submission(reading) else None,
        )

    def _none(self, reading: Reading) -> Finding:
        names = {name for index in reading.opened() for name in index.calling_names}
        possible = reading.switched_off(names)
        if possible is not None:
            known = {id(e.node) for e in reading.trace.of(Kind.EXTERNAL)}
            for call in _calls(possible.of(Kind.EXTERNAL)):
                if id(call.event.node) in known:
                    continue
                switches = sorted(call.event.switches)
                return Finding(
                    Status.LATENT,
                    f"{_name(call)} could be run, but is switched off in this run"
                    + (f" ({', '.join(switches[:3])})." if switches else "."),
                    Confidence.MEDIUM,
                    (
                        reading.at(call.event, "external call, off in this run"),
                        *reading.setting_evidence(switches),
                    ),
                    reading.call_path(call.event),
                    tuple(switches),
                )
        if not reading.trace.of(Kind.EXTERNAL):
            return Finding(Status.CLEAN, "No external program or library is run or loaded.", Confidence.HIGH)
        return Finding(
            Status.CLEAN,
            "Only queries of the machine or the repository leave Python.",
            Confidence.HIGH,
            tuple(reading.at(e, "a query, not counted") for e in reading.trace.of(Kind.EXTERNAL)[:2]),
        )


def _no_submission(reading: Reading) -> bool:
    """Whether a pull request changes code elsewhere and claims nothing: there are no notes to declare anything in."""
    return reading.submission.kind is not SubmissionKind.RECORD and claims_nothing(reading)


COMPILERS = {"gcc", "g++", "cc", "c++", "clang", "clang++", "nvcc", "cl", "make", CPP_EXTENSION}
NATIVE_SOURCE = (".c", ".cc", ".cpp", ".cu", ".cxx")
_NATIVE_TEXT = re.compile(r"#include\s*[<\"]|extern\s+\"C\"|__global__")


def _own_source(reading: Reading, name: str) -> Evidence | None:
    """The native source, shipped or in a string of the script, that a compiler or a library made from it goes back to.

    A library that is shipped as a binary has no such source.
    """
    library = ".so" in name or name.endswith((".dll", ".dylib", "shared library"))
    if name not in COMPILERS and not library:
        return None
    if library and any(f.name == name for f in reading.folder.files):
        return None
    role = f"{name}: the source it is built from is the submission's own"
    for file in reading.folder.files:
        if file.name.endswith(NATIVE_SOURCE):
            first = next((line for line in file.text.split("\n") if line.strip()), file.name)
            return reading.log_evidence(file.path, file.text.split("\n").index(first) + 1, first, role)
    for index in reading.opened():
        for node in walk(index.program.tree) if index.program.tree is not None else ():
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and _NATIVE_TEXT.search(node.value):
                return reading.evidence(index.program, node, role)
    return None


def _name(call: Call) -> str:
    return call.program.replace(HOLE, "…") or "an external program"


def _calls(events: list[Event]) -> list[Call]:
    """The calls that count, once per place in the code."""
    found: dict[tuple[int, str], Call] = {}
    for event in events:
        program = _program(event)
        if program is not None:
            found.setdefault((id(event.node), program), Call(event, program))
    return list(found.values())


def _program(event: Event) -> str | None:
    """The program that a call runs; "" when it can't be resolved, None when it does not count."""
    api = event.text or ""
    if "load_inline" in api or "cpp_extension" in api:
        return CPP_EXTENSION
    words = command_words(event.value)
    if "ctypes" in api or "load_library" in api or "cdll" in api or "dlopen" in api or "cffi" in api.lower():
        name = words[0].rsplit("/", 1)[-1] if words else ""
        if event.value is None or _is_none(event.value) or SYSTEM_LIBRARIES.match(name):
            return None
        return name if re.search(r"\.(?:so|dll|dylib)\b", name) else "a shared library"
    if api.endswith((".PIPE", ".DEVNULL", ".STDOUT")):
        return None
    if not words:
        return ""
    program = words[0].rsplit("/", 1)[-1]
    if program in QUERIES or program in LAUNCHERS:
        return None
    if program in ("python", "python3", HOLE):
        if "-m" in words[1:3]:
            module = words[words.index("-m") + 1 :]
            return module[0] if module and module[0] in INSTALLERS else None
        if any(w.endswith(".py") for w in words[1:4]):
            return None  # starts another Python script: a launcher, not a foreign program
        return "" if program == HOLE else program
    if program in ("sh", "bash"):
        inner = words[words.index("-c") + 1 :] if "-c" in words else []
        first = split_command(inner[0])[:1] if inner else []
        return first[0].rsplit("/", 1)[-1] if first and first[0] not in QUERIES else program
    return program


def _is_none(value: Value) -> bool:
    return isinstance(value, Const) and value.value is None


def _fires_anyway(event: Event) -> bool:
    """Whether every undecided condition on the path is about ranks or loop counters, not about a switch."""
    return all(not g.settings and not _asks_for_program(g) for g in event.undecided)


def _declared_pick(reading: Reading, call: Call) -> bool:
    """Whether all that is open is which tool was picked, and the set-up notes name this one."""
    undecided = call.event.undecided
    return all(not g.settings and _asks_which(g.node) for g in undecided) and bool(reading.run.declared(call.program))


def _asks_which(test: ast.expr) -> bool:
    """Whether a condition asks which of several named things was picked: ``COMPRESSOR == "lrzip"``."""
    return isinstance(test, ast.Compare) and any(
        isinstance(c, ast.Constant) and isinstance(c.value, str) for c in test.comparators
    )


def _asks_for_program(guard: object) -> bool:
    """Whether a condition asks for what the machine holds: for a program or file, or for the tool that was picked."""
    node = getattr(guard, "node", None)
    if isinstance(node, ast.Compare) and _asks_which(node):
        return True
    text = ast.unparse(node) if isinstance(node, ast.expr) else ""
    return "which" in text or "exists" in text or "is_file" in text or text.isidentifier()


_CODE_SIZE = re.compile(r"(?i)code size[^:]*(?<!un)compressed[^:]*:\s*([\d,_]+)|compressed code[^:]*:\s*([\d,_]+)")


def _minified(reading: Reading, ran: bool | None, shown: Evidence | None) -> tuple[bool | None, Evidence | None]:
    """Whether a minifier ran, by the compressed code size in the log against that of the script as shipped."""
    place = reading.log_place(_CODE_SIZE.pattern)
    entry = reading.entry
    match = _CODE_SIZE.search(place[2]) if place is not None else None
    if place is None or entry is None or match is None:
        return ran, shown
    printed = int(re.sub(r"\D", "", match[1] or match[2]))
    evidence = reading.log_evidence(*place, role="compressed code size as logged")
    if ships_as(entry.program.text, printed):
        return False, evidence
    return ran, evidence


def _phase(reading: Reading, event: Event) -> str:
    """In words: when, against serialising and the reported evaluation."""
    trace = reading.trace
    first = reading.reported.first_score()
    steps = [e.seq for e in trace.of(Kind.STEP) if "train" in e.roles]
    if first is not None and event.seq > first.seq:
        return "during or after the reported evaluation"
    if steps and event.seq < steps[0]:
        return "before training"
    loads = [e.seq for e in trace.of(Kind.LOAD) if steps and e.seq > steps[-1]]
    name = event.frames[-1].function.lower()
    if "decompress" in name or "deserial" in " ".join(f.function.lower() for f in event.frames):
        return "when the artifact is loaded for evaluation"
    if steps and event.seq > steps[-1] and (not loads or event.seq < loads[-1]):
        return "after training, when the artifact is made"
    return "while the script runs"


_PROGRAM = """
import subprocess


def pack(data):
    subprocess.run(["lrzip", "-q", "-o", "out.lrz", "in.bin"], check=True)
    return open("out.lrz", "rb").read()


print(subprocess.run(["nvidia-smi"], capture_output=True, text=True).stdout)
model = GPT()
if os.environ.get("COMPRESSOR", "lrzip") == "lrzip":
    artifact = pack(model.state_dict())
"""

ExternalBinary.VIOLATION = (
    Example(
        "lrzip by subprocess, declared nowhere",
        {"train_gpt.py": script(_PROGRAM), "README.md": "# A model\n"},
        Status.ACTIVE,
    ),
    Example(
        "C code compiled with gcc and loaded through ctypes",
        {
            "train_gpt.py": script(
                """
                import ctypes
                import subprocess

                subprocess.check_call(["gcc", "-O3", "-shared", "-o", "fast.so", "fast.c"])
                fast = ctypes.CDLL("./fast.so")
                """
            )
        },
        Status.ACTIVE,
    ),
)
ExternalBinary.LEGAL = (
    Example(
        "switched off by the launch command",
        {
            "train_gpt.py": script(_PROGRAM),
            "README.md": "# Run\n\n```bash\nCOMPRESSOR=brotli torchrun --nproc_per_node=8 train_gpt.py\n```\n",
        },
        Status.LATENT,
    ),
    Example(
        "only nvidia-smi and git are asked",
        {
            "train_gpt.py": script(
                """
                import subprocess

                print(subprocess.run(["nvidia-smi"], capture_output=True, text=True).stdout)
                print(subprocess.check_output(["git", "rev-parse", "HEAD"], text=True))
                """
            )
        },
        Status.CLEAN,
    ),
    Example(
        "an installer that runs only when an import fails",
        {
            "train_gpt.py": script(
                """
                import subprocess
                import sys

                try:
                    import brotli
                except ImportError:
                    subprocess.check_call([sys.executable, "-m", "pip", "install", "brotli"])
                """
            )
        },
        Status.LATENT,
    ),
    Example(
        "the same, with the failure noted first",
        {
            "train_gpt.py": script(
                """
                import subprocess
                import sys

                try:
                    import brotli
                except ImportError:
                    brotli = None

                if brotli is None:
                    subprocess.check_call([sys.executable, "-m", "pip", "install", "brotli"])
                    import brotli
                """
            )
        },
        Status.LATENT,
    ),
    Example(
        "a compressor that is used only where it is found",
        {
            "train_gpt.py": script(
                """
                import shutil
                import subprocess
                import zlib

                PACKER = "zlib"
                if shutil.which("zpaq") is not None:
                    PACKER = "zpaq"

                def pack(data):
                    if PACKER == "zpaq":
                        subprocess.run(["zpaq", "a", "out.zpaq", "in.bin"], check=True)
                        return open("out.zpaq", "rb").read()
                    return zlib.compress(data)

                artifact = pack(b"weights")
                """
            )
        },
        Status.SUSPECT,
    ),
)
