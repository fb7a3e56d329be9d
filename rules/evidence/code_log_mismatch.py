"""The code behind a log is not the code submitted.

**What it catches.** Many scripts print themselves into their log. Where that program, unpacked, does something else
than the one submitted, the log was written by other code. Also logs whose hyperparameter dump holds names that the
submitted code does not know, and logs whose count of the code's bytes is far from any file shipped.

**Why it breaks the claim.** What is reviewed must be what produced the number. An edit after the run may be honest
tidying, or it may hide what the run did; nobody can tell from the outside.

**Legal look-alikes.** Comments, layout, docstrings, annotations, imports and printed messages make no other program,
nor do defaults that were set to what the run's environment gave. A packed or minified script is the same program. A
function that only one side has and nobody calls changes nothing. A log may embed a helper that is also shipped.

**How it is read.** The source between the log's lines is cut out, unpacked if need be, and compared function by
function with the scripts of the folder; the closest counts. Names of a hyperparameter dump are looked up in the code.

**Remedy.** Ship the very script that wrote the logs.

**Ruling.** None on its own; README asks for a train_gpt.py that reproduces the run. Advisory.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from auditor.code_diff import CodeDifference, code_lines, difference, first_change
from auditor.logs import RunLog
from auditor.reading import Reading
from auditor.submission import Change, SubmissionFile
from auditor.unpack import Program, read_program
from auditor.verdict import Confidence, Effect, Evidence, Status
from rules.base import Example, Finding, Rule
from rules.examples import script

MAX_LOGS = 6
MAX_SCRIPTS = 8
FAR_BYTES = 1_000
FAR_SHARE = 0.02
"""A count of code bytes that is further off than both is another program; nearer, it may be a comment."""

ALIKE = 0.05
"""The share of foreign lines up to which source that cannot be parsed counts as the submitted one."""

_RULE_LINE = re.compile(r"^[=\-*]{20,}\s*$")
_NAME = re.compile(r"^[a-z][a-z0-9]*(?:_[a-z0-9]+)+$")


@dataclass(frozen=True)
class Embedded:
    """Source that a log holds: lines ``first`` and on of the run's file."""

    run: RunLog
    first: int
    text: str


class CodeLogMismatch(Rule):
    """See the module's documentation."""

    slug = "code-log-mismatch"
    group = "evidence"
    title = "the code embedded in or implied by the log is not the code submitted"
    official = Effect.ADVISORY
    strict = Effect.VIOLATION
    evidence = ("log", "code")
    precedents = ("README: the train_gpt.py in the folder must run and reproduce the result",)

    def check(self, reading: Reading) -> Finding:
        runs = tuple(dict.fromkeys((*reading.run.claim_runs, *reading.run.training_runs)))
        if not runs:
            return Finding(Status.NOT_APPLICABLE, "There is no train log to compare the code with.")
        problem = reading.unreadable()
        if problem is not None:
            return Finding(Status.UNKNOWN, f"The code could not be read: {problem}.")
        embedded = list(_embedded(runs))
        same = 0
        for source in embedded:
            finding = _judge(reading, source)
            if finding is not None:
                return finding
            same += 1
        if same:
            many = f"The {same} different programs" if same > 1 else "The program"
            return Finding(
                Status.CLEAN, f"{many} embedded in the logs do{'' if same > 1 else 'es'} what the submitted one does."
            )
        return _foreign_names(reading, runs) or _size(reading, runs)


def _embedded(runs: tuple[RunLog, ...]) -> Iterator[Embedded]:
    """The programs in the logs, each text once."""
    seen: set[str] = set()
    for run in runs:
        ranges = [r for r in run.embedded_source if r[1] - r[0] >= 2]
        if not ranges or len(seen) >= MAX_LOGS:
            continue
        first, last = max(ranges, key=lambda r: r[1] - r[0])
        lines = [run.log.index.line(n) for n in range(first, last + 1)]
        while lines and (not lines[-1].strip() or _RULE_LINE.match(lines[-1])):
            lines.pop()
        text = "\n".join(lines)
        if text not in seen:
            seen.add(text)
            yield Embedded(run, first, text)


def _judge(reading: Reading, source: Embedded) -> Finding | None:
    """None if the embedded program is one of those submitted."""
    lines = code_lines(source.text)
    own = {s.rstrip() for s in lines}
    scripts = sorted(reading.python_files.items(), key=lambda kv: kv[0] not in reading.entry_candidates)[:MAX_SCRIPTS]
    texts = [file.text.replace("\r\n", "\n") for _, file in scripts]
    if any(code_lines(text) == lines for text in texts):
        return None
    program = _read(source)
    if program is None or program.tree is None:
        return _by_lines(reading, source, lines, texts)
    entry = reading.entry
    candidates = [entry.program] if entry is not None else []
    overlap = [(len(own & set(code_lines(text))), path) for text, (path, _) in zip(texts, scripts, strict=True)]
    # another script only where it is closer than the entry
    least = len(own & set(code_lines(entry.program.text))) if entry is not None else 0
    for _, path in [o for o in sorted(overlap, reverse=True) if o[0] > least][:2]:
        index = reading.index(path)
        if index is not None and index.program not in candidates:
            candidates.append(index.program)
    found: list[tuple[CodeDifference, Program]] = []
    for shipped in candidates:
        if shipped.tree is None:
            continue
        try:
            told = difference(program.text, program.tree, shipped.text, shipped.tree)
        except RecursionError:
            continue
        if told.minified or told.nothing or _only_unused(told, program, shipped):
            return None
        found.append((told, shipped))
    if not found:
        return _by_lines(reading, source, lines, texts)
    told, shipped = min(found, key=lambda f: len(f[0].changed) + len(f[0].only_first) + len(f[0].only_second))
    return _mismatch(reading, source, program, told, shipped)


def _by_lines(reading: Reading, source: Embedded, lines: list[str], texts: list[str]) -> Finding | None:
    """For source that was cut off or printed in pieces: whether its lines are the submitted ones."""
    entry = reading.entry
    shipped = {line.strip() for text in texts for line in code_lines(text)}
    if entry is not None:
        shipped.update(line.strip() for line in code_lines(entry.program.text))
    foreign = [line for line in lines if line.strip() not in shipped]
    if len(foreign) <= ALIKE * len(lines):
        return None
    found = reading.log_evidence(source.run.file, source.first, foreign[0], "source in the log, not in one piece")
    return Finding(
        Status.SUSPECT,
        f"The source embedded in {source.run.file.rsplit('/', 1)[-1]} is not complete, and {len(foreign)} of its"
        f" {len(lines)} lines stand nowhere in the submitted code.",
        Confidence.LOW,
        (found,),
    )


def _read(source: Embedded) -> Program | None:
    """The embedded text as a program, unpacked if it is packed; cut back to what is valid where its end is not code."""
    text = source.text
    for _ in range(3):
        data = text.encode("utf-8", "replace")
        program = read_program(SubmissionFile(source.run.file, len(data), Change.ADDED, partial(bytes, data)), {})
        if program.problem != "broken-script":
            return program
        try:
            ast.parse(text)
            return None
        except SyntaxError as error:
            cut = (error.lineno or 1) - 1
        except (ValueError, RecursionError, MemoryError):
            return None
        if cut < 0.9 * text.count("\n"):
            return None
        text = "\n".join(text.split("\n")[:cut])
    return None


def _only_unused(told: CodeDifference, program: Program, shipped: Program) -> bool:
    """Whether only one side has some functions, and that side never names them elsewhere."""
    if told.changed:
        return False
    for units, own in ((told.only_first, program), (told.only_second, shipped)):
        for unit in units:
            name = unit.name.rstrip("'").split(".")[-1]
            if unit.name.startswith("<") or len(re.findall(rf"\b{re.escape(name)}\b", own.text)) > 1:
                return False
    return True


def _mismatch(reading: Reading, source: Embedded, program: Program, told: CodeDifference, shipped: Program) -> Finding:
    def in_log(line: int, role: str) -> Evidence:
        text = program.text.split("\n")[line - 1]
        shown = source.first + line - 1 if program.view == "shipped" else source.first
        return reading.log_evidence(source.run.file, shown, text, role)

    def in_code(line: int, role: str) -> Evidence:
        return reading.evidence(shipped, ast.Pass(lineno=line, col_offset=0), role)

    names = [a.name for a, _ in told.changed]
    names += [f"{u.name} (log only)" for u in told.only_first]
    names += [f"{u.name} (submission only)" for u in told.only_second]
    places: list[Evidence] = []
    for ours, theirs in told.changed[:3]:
        lines = first_change(ours, theirs)
        places.append(in_log(lines[0], f"{ours.name}, as the log has it"))
        places.append(in_code(lines[1], f"{theirs.name}, as submitted"))
    for unit in told.only_first[: 3 - len(told.changed)]:
        places.append(in_log(unit.line, f"{unit.name}, only in the log's program"))
    for unit in told.only_second[: 3 - len(told.changed)]:
        places.append(in_code(unit.line, f"{unit.name}, only in the submitted program"))
    listed = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
    log = source.run.file.rsplit("/", 1)[-1]
    return Finding(
        Status.ACTIVE,
        f"The program embedded in {log} is not the one submitted: {len(names)} of {told.units} functions and blocks"
        f" differ ({listed}).",
        Confidence.HIGH,
        tuple(places),
    )


def _foreign_names(reading: Reading, runs: tuple[RunLog, ...]) -> Finding | None:
    """Names in a hyperparameter dump that the code does not hold, among names that it does."""
    used = set().union(*(facts.names for i in reading.opened() for facts in i.functions.values()))
    texts: list[str] = []

    def known(name: str) -> bool:
        if name in used:
            return True
        if not texts:
            texts.extend(i.program.text.lower() for i in reading.opened())
            texts.extend(f.text.lower() for f in reading.python_files.values())
        return any(name in text for text in texts)

    for run in runs[:MAX_LOGS]:
        lines = {v.line: n for n, v in run.hyperparameters.items() if _NAME.match(n)}
        strange = {line: name for line, name in lines.items() if not known(name)}
        foreign = [
            (line, name)
            for line, name in strange.items()
            # within the dump: between two names that the code knows
            if all(any(n in lines and n not in strange for n in (line + d, line + 2 * d)) for d in (-1, 1))
        ]
        if len(foreign) >= 2 and len(lines) - len(strange) >= 5 * len(foreign):
            listed = ", ".join(name for _, name in foreign[:4])
            places = tuple(
                reading.log_evidence(run.file, line, run.log.index.line(line), "a setting that the code does not know")
                for line, _ in foreign[:4]
            )
            if any("environ.items" in text or "dict(os.environ" in text for text in texts):
                continue  # it prints whatever the environment holds
            return Finding(
                Status.ACTIVE,
                f"The log's hyperparameter dump holds {len(foreign)} names that stand nowhere in the submitted code"
                f" ({listed}): another script wrote it.",
                Confidence.MEDIUM,
                places,
            )
    return None


def _size(reading: Reading, runs: tuple[RunLog, ...]) -> Finding:
    """The code's bytes as logged, against the files shipped."""
    entry = reading.entry
    shipped = {path: file.size for path, file in reading.python_files.items()}
    sizes = set(shipped.values()) | {sum(shipped.values())}
    if entry is not None:
        sizes |= {len(entry.program.text.encode("utf-8", "replace"))}
    for run in runs:
        told = run.facts.size("code")
        if told is None or not told.exact or not sizes:
            continue
        nearest = min(sizes, key=lambda s: abs(s - told.bytes))
        off = abs(nearest - told.bytes)
        place = reading.log_evidence(run.file, told.line, run.log.index.line(told.line), "bytes of code, as logged")
        if off == 0:
            return Finding(
                Status.CLEAN,
                f"The log counts {told.bytes:,} bytes of code, which is what was submitted.",
                Confidence.MEDIUM,
                (place,),
            )
        packed = run.facts.size("code-compressed")
        if off > FAR_BYTES and off > FAR_SHARE * told.bytes and packed is None:
            return Finding(
                Status.SUSPECT,
                f"The log counts {told.bytes:,} bytes of code, and the submitted code has {nearest:,}: the script that"
                " ran was another version, and only it could show whether the difference matters.",
                Confidence.LOW,
                (place,),
            )
        return Finding(
            Status.CLEAN,
            f"The log embeds no source; it counts {told.bytes:,} bytes of code, within {off:,} of what was submitted.",
            Confidence.LOW,
            (place,),
        )
    return Finding(Status.CLEAN, "The logs embed no source, and nothing in them contradicts the code.", Confidence.LOW)


_CODE = script(
    """
    def train(model, steps=900):
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(steps):
            tokens = load_tokens("fineweb_train_*.bin")
            model(tokens[:-1], tokens[1:]).backward()
            opt.step()


    def main():
        torch.manual_seed(int(os.environ.get("SEED", "1")))
        model = GPT()
        train(model)
        print(f"final_exact val_loss:2.1 val_bpb:1.25000000")


    if __name__ == "__main__":
        main()
    """
)
_JSON = '{"track": "track_10min_16mb", "val_bpb": 1.25}\n'
_LINE = "=" * 100 + "\n"
_OUTPUT = (
    "seed:1\nworld_size:8\nstep:900/900 train_loss:2.2 train_time:590000ms\n"
    "final_exact val_loss:2.1 val_bpb:1.25000000\n"
)


def _files(embedded: str, **more: str) -> dict[str, str]:
    log = (embedded + _LINE if embedded else "") + _OUTPUT
    return {"train_gpt.py": _CODE, "submission.json": _JSON, "train_seed1.log": log} | more


def _edited(old: str, new: str) -> str:
    """The program with one edit, which must apply."""
    assert old in _CODE
    return _CODE.replace(old, new)


_SETTINGS = (
    "warmup_steps",
    "head_dim",
    "num_heads",
    "mlp_mult",
    "rope_base",
    "logit_cap",
    "grad_clip",
    "ema_decay",
) * 2


def _dumped(extra: str) -> dict[str, str]:
    """A log with a dump of settings; the script knows all of them but those in ``extra``, unless it names them."""
    names = [f"{name}_{i // 8}" for i, name in enumerate(_SETTINGS)]
    known = "\n\nclass Hyperparameters:\n" + "".join(f"    {n} = 1\n" for n in [*names, "warmup_steps", "head_dim"])
    shown = [f"  {n}: 1\n" for n in names]
    log = "Hyperparameters:\n" + "".join(shown[:8]) + extra + "".join(shown[8:]) + _OUTPUT
    return {"train_gpt.py": _CODE + known, "submission.json": _JSON, "train_seed1.log": log}


CodeLogMismatch.VIOLATION = (
    Example(
        "another optimiser",
        _files(_edited("SGD(model.parameters(), lr=0.1)", "AdamW(model.parameters())")),
        Status.ACTIVE,
    ),
    Example(
        "a second training that was taken out",
        _files(_edited("    train(model)\n", "    train(model)\n    train(model, 50)\n")),
        Status.ACTIVE,
    ),
    Example(
        "settings in the dump that the script does not know",
        _dumped("  cache_buckets: 16384\n  cache_embed: True\n"),
        Status.ACTIVE,
    ),
)
CodeLogMismatch.LEGAL = (
    Example(
        "a dump of the settings that the script knows",
        _dumped("  seed: 1\n  warmup_steps: 20\n  head_dim: 64\n"),
        Status.CLEAN,
    ),
    Example("the same script", _files(_CODE), Status.CLEAN),
    Example(
        "comments, annotations and a message",
        _files(
            _edited("(model, steps=900):", '(model: nn.Module, steps: int = 900) -> None:\n    """Train."""').replace(
                "        opt.step()", "        opt.step()  # go\n        print(step)"
            )
        ),
        Status.CLEAN,
    ),
    Example("another default of a setting", _files(_edited('"SEED", "1"', '"SEED", "42"')), Status.CLEAN),
    Example(
        "an unused function was taken out",
        _files(_edited("def main():", "def unused(x):\n    return x + 1\n\n\ndef main():")),
        Status.CLEAN,
    ),
    Example(
        "a helper that ran",
        _files(_edited("lr=0.1", "lr=0.2"), **{"run_two.py": _edited("lr=0.1", "lr=0.2")}),
        Status.CLEAN,
    ),
    Example("no source in the log", _files(""), Status.CLEAN),
)
