"""The script as shipped cannot be run: it does not compile, or a file it cannot do without is missing.

**What it catches.** Text that is no valid Python (also after unpacking); an import at the start of the program
of a module that belongs to the submission but was not shipped with it; a script that hands over to a file that
isn't there.

**Why it breaks the score.** A submission must be a script that runs inside its folder. What can't be started
can't have produced the number in this form, and nobody can reproduce it.

**Legal look-alikes.** Syntax of Python 3.12 and later; a UTF-8 byte order mark; modules beside the script,
below it, carried inside a packed script, or put among the loaded modules by the script itself; the repository's
own modules, for a script that lies outside of records/; packages from an index (FlashAttention, Triton, MLX and
so on), named in the set-up notes or not; imports that are tried and may fail; imports in functions that this run
doesn't enter; a pull request that adds a tool and claims nothing.

**How it is read.** The syntax tree says whether it compiles (by Python's own parser and, for newer syntax, by
LibCST). Of the imports that every run executes, those are looked up that are neither in the standard library
nor shipped. A missing one is the submission's own if it is relative, if it lies in a folder that the script
itself puts on the path, if it carries the name of the repository's own modules, or if the documents name it as
a file; otherwise it may be a package.

**Remedy.** Ship the missing file or put its code into the script; start the script once inside an empty copy of
the folder.

**Ruling.** README: the folder holds a train_gpt.py that "must successfully compile and run within the records
folder". Settled. Several reviews called scripts broken that were not (a byte order mark, a sibling module, an
older Python).
"""

from __future__ import annotations

import re

from auditor.index.program_index import ProgramIndex
from auditor.index.trace import Kind
from auditor.needs import (
    REPOSITORY_MODULES,
    claims_nothing,
    holds_no_program,
    missing_modules,
    only_starts_another,
    whole_script,
)
from auditor.reading import Reading
from auditor.unpack import Program
from auditor.verdict import Confidence, Effect, Evidence, Status
from rules.base import Example, Finding, Rule
from rules.examples import script


class BrokenScript(Rule):
    slug = "broken-script"
    group = "evidence"
    title = "the script does not compile, or cannot run in its folder"
    evidence = ("code", "probe")
    official = Effect.VIOLATION
    strict = Effect.VIOLATION
    precedents = ("README: train_gpt.py must compile and run within the records folder",)

    def check(self, reading: Reading) -> Finding:
        if not reading.python_files:
            return Finding(Status.NOT_APPLICABLE, "There is no Python script.")
        entry = reading.entry
        if entry is None:
            return Finding(Status.UNKNOWN, "No entry script was found.")
        for program in self._required(reading, entry):
            if program.problem == "broken-script":
                return _no_python(program)
        if entry.program.tree is None:
            return Finding(Status.UNKNOWN, f"The script can't be read: {entry.program.detail or 'no syntax tree'}.")
        missing = missing_modules(reading)
        own = next((m for m in missing if m.why is not None), None)
        if own is not None:
            reason = f"The script needs the module {own.name}, which was not shipped ({own.why})."
            return Finding(Status.ACTIVE, reason, Confidence.HIGH, own.evidence)
        if holds_no_program(reading):
            if claims_nothing(reading):
                return Finding(Status.NOT_APPLICABLE, "No record folder and no claim: the script need not train.")
            place = whole_script(reading)
            return Finding(
                Status.ACTIVE, "The script neither trains nor evaluates anything.", Confidence.HIGH, (place,)
            )
        if missing:
            return Finding(
                Status.SUSPECT,
                f"The script imports {missing[0].name}, which is neither shipped nor a declared package:"
                " see whether it is a package or a file that was left out.",
                Confidence.MEDIUM,
                missing[0].evidence,
            )
        handed = reading.trace.of(Kind.DELEGATE)
        if handed and not reading.trace.of(Kind.STEP) and not reading.trace.of(Kind.SCORE):
            return _handed_over(reading)
        started = only_starts_another(reading) if not entry.program.layers and not entry.program.bundled else None
        if started is not None and not handed:
            return Finding(
                Status.SUSPECT,
                "The script itself neither trains nor evaluates, but can run other files: see which, and whether they"
                " are there when it runs.",
                Confidence.LOW,
                (started,),
            )
        if entry.program.rewritten:
            return Finding(Status.CLEAN, "The script compiles (it uses newer syntax); the modules it needs are there.")
        return Finding(Status.CLEAN, "The script compiles, and its own modules that it imports are there.")

    @staticmethod
    def _required(reading: Reading, entry: ProgramIndex) -> list[Program]:
        """The programs that must compile: the script that ran, the train_gpt.py at the top, what the former imports."""
        found = [entry.program]
        top = reading.index("train_gpt.py")
        if top is not None:
            found.append(top.program)
        imported = {x.top for x in entry.imports if not x.guarded}
        for path in reading.python_files:
            if "/" not in path and path.removesuffix(".py") in imported:
                sibling = reading.index(path)
                if sibling is not None:
                    found.append(sibling.program)
        return found


def _no_python(program: Program) -> Finding:
    detail = (program.detail or "it is no valid Python").rstrip(".")
    place = re.search(r"\b(\d+):(\d+)", detail)
    line, column = (int(place[1]), int(place[2])) if place else (1, 1)
    shipped_line, shipped_column = program.locate(line, column) if program.view == "unpacked" else (None, None)
    evidence = Evidence(
        file=program.file, line=line, column=column, snippet=program.snippet(line, column),
        role="Python stops reading here", view=program.view, shipped_line=shipped_line, shipped_column=shipped_column,
    )  # fmt: skip
    name = program.file.rsplit("/", 1)[-1]
    return Finding(Status.ACTIVE, f"{name} is not valid Python: {detail}.", Confidence.HIGH, (evidence,))


def _handed_over(reading: Reading) -> Finding:
    event = reading.trace.of(Kind.DELEGATE)[0]
    target = event.text or "another file"
    names = {f.name for f in reading.folder.files if f.change != "deleted"}
    evidence = (reading.at(event, "hands over here"),)
    if re.fullmatch(r"[\w-]+\.pyw?", target) and target not in names:
        where = (
            "the repository's root holds one of that name" if target.removesuffix(".py") in REPOSITORY_MODULES else ""
        )
        return Finding(
            Status.SUSPECT if where else Status.ACTIVE,
            f"The script only hands over to {target}, which the folder does not hold{f' ({where})' if where else ''}.",
            Confidence.MEDIUM,
            evidence,
            reading.call_path(event),
        )
    return Finding(
        Status.SUSPECT,
        f"The script hands over to {target}: see whether that is there when it runs.",
        Confidence.LOW,
        evidence,
        reading.call_path(event),
    )


BrokenScript.VIOLATION = (
    Example("a bracket is never closed", {"train_gpt.py": "import torch\nprint(torch.zeros(1)\n"}, Status.ACTIVE),
    Example(
        "a notebook's magic line was copied along",
        {"train_gpt.py": "import torch\n", "train_mine.py": "x = 1\n"}
        | {"train_gpt.py": "%%writefile train_gpt.py\nx = 1\n"},
        Status.ACTIVE,
    ),
    Example(
        "the package behind the wrapper was not shipped",
        {
            "train_gpt.py": "import sys\nfrom pathlib import Path\n\n"
            'sys.path.insert(0, str(Path(__file__).parent / "src"))\nfrom mylab.loop import main\n\nmain()\n'
        },
        Status.ACTIVE,
    ),
    Example(
        "the repository's own script is imported as a module",
        {"train_mine.py": script("from train_gpt import Hyperparameters\n\nprint(Hyperparameters, GPT())")},
        Status.ACTIVE,
    ),
)
BrokenScript.LEGAL = (
    Example(
        "siblings, packages, and imports that may fail",
        {
            "train_gpt.py": script(
                """
                import flash_attn_interface
                import helper

                try:
                    import fused_cutlass_op
                except ImportError:
                    fused_cutlass_op = None

                print(helper.double(2), GPT())
                """
            ),
            "helper.py": "def double(x):\n    return 2 * x\n",
        },
        Status.CLEAN,
    ),
    Example(
        "a function that is never called imports something unknown",
        {"train_gpt.py": script("def plot():\n    import prettyplots\n    prettyplots.show()\n\nprint(GPT())")},
        Status.CLEAN,
    ),
    Example(
        "a module that the script makes of its own text",
        {
            "train_gpt.py": script(
                """
                import sys
                import types


                def add(name, text):
                    module = types.ModuleType(name)
                    sys.modules[name] = module
                    exec(text, module.__dict__)


                add("helpers", "")
                add("helpers.double", "def double(x):\\n    return 2 * x\\n")
                from helpers.double import double

                print(double(2), GPT())
                """
            )
        },
        Status.CLEAN,
    ),
    Example(
        "a launcher of a script of another folder",
        {
            "train_gpt.py": "import runpy\nfrom pathlib import Path\n\n"
            'base = Path(__file__).resolve().parents[1] / "2026-01-01_Base" / "train_gpt.py"\n'
            'runpy.run_path(str(base), run_name="__main__")\n'
        },
        Status.SUSPECT,
    ),
    Example(
        "the repository's root is put on the path",
        {
            "train_mine.py": script(
                """
                import sys
                from pathlib import Path

                ROOT = Path(__file__).resolve().parent.parent.parent.parent
                sys.path.insert(0, str(ROOT))
                from train_gpt import Hyperparameters

                print(Hyperparameters, GPT())
                """
            )
        },
        Status.SUSPECT,
    ),
    Example(
        "a byte order mark",
        {"helper.py": "\ufeff".join(("", "x = 1\n")).lstrip("\ufeff"), "train_gpt.py": script("print(GPT())")},
        Status.CLEAN,
    ),
    Example(
        "an unknown module that may be a package",
        {"train_gpt.py": script("import fancyoptimizers\n\nprint(fancyoptimizers.Sophia, GPT())")},
        Status.SUSPECT,
    ),
)
