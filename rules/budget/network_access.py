"""The submission's own run downloads or installs something.

**What it catches.** `pip`, `apt-get`, `git clone`, `curl`, `wget` or a hub client run as a program, and
`urllib`, `requests`, `huggingface_hub`, `load_dataset`, `from_pretrained` and the like called from Python,
where the run comes to them under its effective configuration.

**Why it matters.** What is fetched at evaluation is not in the 16 MB; and a run that needs the network
can't be repeated as it was.

**Legal look-alikes.** Preparation scripts that the run does not import, data and packages fetched in the
set-up that README describes, an installation only after a failed import, a download only where
files are missing.

**How it is read.** The trace lists the calls in order. After training has ended, or inside the reported
evaluation, it is access at evaluation; before that it is part of the set-up. Conditions on a missing file
or a failed import make it a fallback: the logged run had what it needed, or fetched it before its clock.

**Remedy.** Fetch everything in the set-up, and say so in README.

**Ruling.** README, 18 March 2026: "No external downloads, training dataset access, or network calls are
allowed during evaluation." No submission is known to have been closed on this ground.
"""

from __future__ import annotations

import ast
import re

from auditor.index.commands import command_words
from auditor.index.names import leaf_name
from auditor.index.trace import Event, Kind, Trace
from auditor.reading import Reading
from auditor.unpack.walk import walk
from auditor.verdict import Confidence, Effect, Status
from rules.base import Example, Finding, Rule
from rules.examples import script

TRANSFER = frozenset({"curl", "wget", "gdown", "aria2c", "scp", "rsync", "gsutil"})
INSTALLERS = frozenset({"pip", "pip3", "uv", "conda", "mamba", "apt", "apt-get", "npm", "cargo", "brew"})
HUBS = frozenset({"hf", "huggingface-cli", "kaggle"})
GIT_FETCHES = frozenset({"clone", "fetch", "pull", "submodule"})
LOCAL_SETS = frozenset({"json", "text", "csv", "parquet", "arrow", "imagefolder"})
FILE_TESTS = frozenset(
    {"exists", "isfile", "isdir", "is_file", "is_dir", "glob", "rglob", "listdir", "which", "find_spec"}
)
MISSING = "only where files are missing: the run had them, or fetched them before its clock"
_SHELL_FETCH = re.compile(
    r"\b(?:curl|wget|gdown)\s|\b(?:pip3?|uv(?: pip)?|conda|apt(?:-get)?)\s+(?:-\S+\s+)*install\b|\bgit\s+clone\b"
    r"|\b(?:hf|huggingface-cli)\s+download\b"
)


class NetworkAccess(Rule):
    """See the module's documentation."""

    slug = "network-access"
    group = "budget"
    title = "download or install by the submission's own run"
    official = Effect.VIOLATION
    strict = Effect.VIOLATION
    evidence = ("code", "probe")
    precedents = ("README, 18 Mar 2026: no external downloads or network calls during evaluation",)

    def check(self, reading: Reading) -> Finding:
        problem = reading.unreadable()
        if problem is not None:
            return Finding(Status.UNKNOWN, f"The code could not be read: {problem}.", Confidence.HIGH)
        trace = reading.trace
        if not any(e.kind in (Kind.STEP, Kind.SCORE) for e in trace.events) and reading.run.claim.val_bpb is None:
            return Finding(
                Status.NOT_APPLICABLE,
                "The script that was read neither trains nor evaluates: it prepares something, which is set-up.",
                Confidence.MEDIUM,
            )
        happens: list[tuple[Event, str]] = []
        doubtful: list[tuple[Event, str]] = []
        fallbacks: list[tuple[Event, str, str]] = []
        for event, what in _fetches(trace):
            why = _fallback(event)
            if why is None and reading.lacks_import(event):
                why = "it only runs when an import fails"
            ran = reading.ran(event)[0] if why is None else None
            if why is None and (ran is False or (event.fallible and reading.failed(event))):
                why = "the log shows that it did not run"
            if why is not None:
                fallbacks.append((event, what, why))
            elif ran is None and any(g.settings for g in event.undecided):
                doubtful.append((event, what))
            else:
                happens.append((event, what))
        at_evaluation = [(e, w) for e, w in happens if _during_evaluation(reading, e)]
        if at_evaluation:
            return self._found(reading, *at_evaluation[0], "at evaluation", None)
        if happens:
            return self._found(reading, *happens[0], "before its training, as a set-up of its own", Effect.ADVISORY)
        if doubtful:
            event, what = doubtful[0]
            return Finding(
                Status.SUSPECT,
                f"The run may fetch something ({what}); the submission's files do not say whether it does.",
                Confidence.LOW,
                (reading.at(event, what), *reading.guard_evidence(event.undecided, "condition not decided")),
                reading.call_path(event),
            )
        if fallbacks:
            event, what, why = fallbacks[0]
            return Finding(
                Status.LATENT,
                f"The script can fetch something ({what}), but {why}.",
                Confidence.MEDIUM,
                (reading.at(event, what), *reading.guard_evidence(event.guards, "condition")),
                reading.call_path(event),
            )
        return self._none(reading)

    def _found(self, reading: Reading, event: Event, what: str, when: str, official: Effect | None) -> Finding:
        return Finding(
            Status.ACTIVE,
            f"The run itself fetches something from the network {when}: {what}.",
            Confidence.HIGH if not event.undecided and not event.fallible else Confidence.MEDIUM,
            (reading.at(event, what),),
            reading.call_path(event),
            official=official,
        )

    def _none(self, reading: Reading) -> Finding:
        names = {name for index in reading.opened() for name in index.fetching_names}
        possible = reading.switched_off(names)
        known = {id(e.node) for e, _ in _fetches(reading.trace)}
        for event, what in _fetches(possible) if possible is not None else []:
            if id(event.node) not in known:
                switches = sorted(event.switches)
                return Finding(
                    Status.LATENT,
                    f"The script can fetch something ({what}), but is told not to in this run"
                    + (f" ({', '.join(switches[:3])})." if switches else "."),
                    Confidence.MEDIUM,
                    (reading.at(event, what), *reading.setting_evidence(switches)),
                    reading.call_path(event),
                    tuple(switches),
                )
        return Finding(Status.CLEAN, "Nothing that the run comes to downloads or installs anything.", Confidence.HIGH)


def _fetches(trace: Trace) -> list[tuple[Event, str]]:
    """The events that fetch something, with what they do in a few words; once per place in the code."""
    found: dict[int, tuple[Event, str]] = {}
    for event in trace.events:
        what = None
        if event.kind is Kind.NETWORK:
            name = event.text or ""
            if name.endswith(".from_pretrained") and not _is_hub_name(event.detail):
                continue
            what = f"{name}({event.detail.split(' ')[0]})" if event.detail else name
        elif event.kind is Kind.DATA:
            first = (event.text or "").split(" ")[0]
            if first and first not in LOCAL_SETS:
                what = f"load_dataset({first})"
        elif event.kind is Kind.EXTERNAL:
            what = _command(event)
        if what is not None:
            found.setdefault(id(event.node), (event, what))
    return list(found.values())


def _is_hub_name(detail: str) -> bool:
    """Whether the argument is the name of a published model rather than a path or something unknown."""
    name = detail.split(" ")[0]
    return bool(name) and "?" not in name and name[0] not in "./~" and name.count("/") <= 1


def _command(event: Event) -> str | None:
    """The command that fetches something, or None."""
    words = command_words(event.value)
    if not words:
        return None
    if "ctypes" in (event.text or "") or "cpp_extension" in (event.text or ""):
        return None
    line = " ".join(words)
    program = words[0].rsplit("/", 1)[-1]
    rest = words[1:]
    if "-m" in rest[:2]:
        module = rest[rest.index("-m") + 1 :]
        if module:
            program, rest = module[0], module[1:]
    if program == "sudo" and rest:
        program, rest = rest[0], rest[1:]
    shown = f"{program} {' '.join(rest[:3])}".strip().replace("\x00", "…")[:80]
    if program in TRANSFER:
        return shown
    if program in INSTALLERS and any(w in ("install", "add", "sync") for w in rest):
        return shown
    if program in HUBS and any("download" in w for w in rest):
        return shown
    if program == "git" and any(w in GIT_FETCHES for w in rest[:3]):
        return shown
    if program in ("sh", "bash") or "os.system" in (event.text or "") or "popen" in (event.text or "").lower():
        match = _SHELL_FETCH.search(line)
        return line[match.start() :][:80].replace("\x00", "…") if match is not None else None
    return None


def _fallback(event: Event) -> str | None:
    """Why this only happens when something is missing, or None."""
    for guard in event.guards:
        if "<exception>" in guard.settings:
            return "it only runs when something else fails"
        if _asks_for_files(guard.node):
            return MISSING
    return MISSING if _returns_early(event) else None


def _returns_early(event: Event) -> bool:
    """Whether the function leaves before the call where files are there: ``if path.exists(): return``."""
    function = event.frames[-1].definition if event.frames else None
    if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return False
    return any(
        isinstance(statement, ast.If)
        and isinstance(statement.body[-1], ast.Return)
        and statement.lineno < getattr(event.node, "lineno", 0)
        and _asks_for_files(statement.test)
        for statement in function.body
    )


def _asks_for_files(test: ast.expr) -> bool:
    """Whether a condition asks for the presence of files."""
    for node in walk(test):
        if isinstance(node, ast.Call):
            leaf = leaf_name(node)
            if leaf in FILE_TESTS:
                return True
    return False


def _during_evaluation(reading: Reading, event: Event) -> bool:
    """Whether a call comes inside the reported evaluation, or between the end of training and its figure."""
    reported = reading.reported
    function = reported.function
    if function is not None and any(f.id == function.id for f in event.frames):
        return True
    steps = [e.seq for e in reading.trace.of(Kind.STEP) if "val" not in e.roles]
    scores = [s.seq for s in reported.scores]
    last = reported.metric.seq if reported.metric is not None else max(scores, default=0)
    return bool(steps) and steps[-1] < event.seq < last


_RUN = """
import subprocess
import urllib.request


def evaluate(model, val_tokens):
    total = torch.zeros(())
    with torch.no_grad():
        for i in range(0, val_tokens.numel() - 1, 1024):
            total += model(val_tokens[i : i + 1024], val_tokens[i + 1 : i + 1025])
    return total / val_tokens.numel()


def train(model, tokens):
    optimizer = torch.optim.AdamW(model.parameters())
    for i in range(0, tokens.numel() - 1, 1024):
        model(tokens[i : i + 1024], tokens[i + 1 : i + 1025]).backward()
        optimizer.step()


SETUP
model = GPT()
train(model, load_tokens("fineweb_train_*.bin"))
LATER
print(f"final val_bpb:{evaluate(model, load_tokens('fineweb_val_*.bin')):.4f}")
"""


def _run(setup: str = "", later: str = "") -> dict[str, str]:
    return {"train_gpt.py": script(_RUN.replace("SETUP", setup).replace("LATER", later))}


NetworkAccess.VIOLATION = (
    Example(
        "a table is downloaded after training",
        _run(later='urllib.request.urlretrieve("https://example.org/table.npz", "table.npz")'),
        Status.ACTIVE,
    ),
    Example(
        "packages are installed each time the script starts",
        _run(setup='subprocess.run(["pip", "install", "brotli"], check=True)'),
        Status.ACTIVE,
    ),
)
NetworkAccess.LEGAL = (
    Example("nothing is fetched", _run(), Status.CLEAN),
    Example(
        "installed only where the import fails",
        _run(
            setup="try:\n    import brotli\nexcept ImportError:\n"
            '    subprocess.run(["pip", "install", "brotli"], check=True)'
        ),
        Status.LATENT,
    ),
    Example(
        "data downloaded only where they are missing",
        _run(
            setup='if not os.path.exists("fineweb_val_000000.bin"):\n'
            '    urllib.request.urlretrieve("https://example.org/val.bin", "fineweb_val_000000.bin")'
        ),
        Status.LATENT,
    ),
    Example(
        "a preparation script that the run does not import",
        {**_run(), "prepare.py": 'import urllib.request\nurllib.request.urlretrieve("https://example.org/a", "a")\n'},
        Status.CLEAN,
    ),
)
