"""Code that nobody can read: what is run cannot be worked out from the files.

**What it catches.** A script whose program is encoded, encrypted, fetched or put together at run time in a way
that can't be undone without running it; compiled Python or a native library shipped without its source.

**Why it breaks a review.** Every other rule rests on reading the code. What can't be read can't be cleared.

**Legal look-alikes.** Self-extracting scripts (LZMA, zlib, brotli or zstd in base64 or base85), also nested
ones: these are unpacked and read, and have been merged. Minified code. Triton kernels, and C or CUDA sources
given as text and compiled by the script. Newer syntax.

**How it is read.** The unpacker undoes the whitelisted decoders on constants of the script and stops where a
step depends on something it doesn't know. What it could not undo is reported with the place where it stopped.
Libraries and compiled modules in the folder are listed.

**Remedy.** Ship the readable source beside the packed script, or pack it with a plain decoder.

**Ruling.** LZMA and base85 wrappers are legal and were merged as a way to save bytes; code that stays
unreadable was never ruled on: reported without deciding the verdict.
"""

from __future__ import annotations

import base64
import re
import zlib

from auditor.index.trace import Kind
from auditor.reading import Reading
from auditor.verdict import Confidence, Effect, Evidence, Status
from rules.base import Example, Finding, Rule
from rules.examples import script

COMPILED = (".pyc", ".pyo", ".pyd", ".so", ".dll", ".dylib", ".o", ".a", ".cubin", ".fatbin", ".whl", ".exe")


class OpaqueCode(Rule):
    slug = "opaque-code"
    group = "evidence"
    title = "code that cannot be unpacked or resolved for reading"
    evidence = ("code",)
    official = Effect.ADVISORY
    strict = Effect.ADVISORY
    precedents = ("self-extracting LZMA/base85 scripts were merged",)

    def check(self, reading: Reading) -> Finding:
        compiled = [
            f for f in reading.folder.files
            if f.change != "deleted" and f.name.lower().endswith(COMPILED) and "__pycache__" not in f.path
        ]  # fmt: skip
        if not reading.python_files and not compiled:
            return Finding(Status.NOT_APPLICABLE, "There is no program to read.")
        entry = reading.entry
        if entry is not None and entry.program.problem == "opaque-code":
            program = entry.program
            found = re.search(r"\b(\d+):(\d+)$", program.detail or "")
            line, column = (int(found[1]), int(found[2])) if found else program.anchor
            if program.view == "unpacked":
                line, column = program.anchor
            snippet = reading.line_text(program.file, line) or program.detail or "encoded code"
            evidence = Evidence(
                file=program.file, line=line, column=column, snippet=snippet[:160], role="unpacking ends here"
            )
            reason = f"The program could not be unpacked: {(program.detail or 'encoded code').rstrip('.')}."
            return Finding(Status.ACTIVE, reason, Confidence.HIGH, (evidence,))
        if compiled:
            return self._compiled(reading, [f.path for f in compiled])
        runtime = [e for e in reading.trace.of(Kind.DELEGATE) if (e.text or "").startswith("code that is only made")]
        if runtime and entry is not None and not entry.program.bundled:
            return Finding(
                Status.SUSPECT,
                "The script runs code that it puts together itself: see what that is.",
                Confidence.MEDIUM,
                (reading.at(runtime[0], "runs code made at run time"),),
                reading.call_path(runtime[0]),
            )
        if entry is None:
            return Finding(Status.UNKNOWN, "No entry script was found.")
        if entry.program.layers:
            return Finding(
                Status.CLEAN, f"The packed script was unpacked ({' <- '.join(entry.program.layers)}) and read."
            )
        return Finding(Status.CLEAN, "The script is readable as shipped.")

    def _compiled(self, reading: Reading, paths: list[str]) -> Finding:
        names = {p.rsplit("/", 1)[-1] for p in paths}
        stems = {n.split(".")[0] for n in names}
        loaded = next(
            (
                e
                for e in reading.trace.of(Kind.EXTERNAL)
                if e.value is not None and any(n in str(e.value) for n in names)
            ),
            None,
        )
        shown = Evidence(
            file=paths[0],
            line=1,
            column=1,
            snippet=paths[0].rsplit("/", 1)[-1],
            role="compiled code, without its source",
        )
        listed = ", ".join(sorted(names)[:4])
        if loaded is not None:
            return Finding(
                Status.ACTIVE,
                f"The script loads compiled code that is shipped in the folder ({listed}).",
                Confidence.HIGH,
                (shown, reading.at(loaded, "loaded here")),
                reading.call_path(loaded),
            )
        imported = any(x.top in stems for index in reading.opened() for x in index.imports)
        return Finding(
            Status.SUSPECT,
            f"The folder holds compiled code ({listed})"
            + (": the script imports a module of that name." if imported else "; no call that loads it was found."),
            Confidence.MEDIUM,
            (shown,),
        )


_PACKED_BY_KEY = """
import base64
import os

key = os.environ["KEY"].encode()
blob = base64.b64decode("%s")
exec(bytes(a ^ key[i %% len(key)] for i, a in enumerate(blob)).decode())
"""

OpaqueCode.VIOLATION = (
    Example(
        "the program is decoded with a key from the environment",
        {"train_gpt.py": _PACKED_BY_KEY.lstrip() % ("QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo=" * 60)},
        Status.ACTIVE,
    ),
)
OpaqueCode.LEGAL = (
    Example("readable code", {"train_gpt.py": script("print(GPT())")}, Status.CLEAN),
    Example(
        "packed with zlib and base64",
        {
            "train_gpt.py": "import base64, zlib\nexec(zlib.decompress(base64.b64decode(\n"
            f'    "{base64.b64encode(zlib.compress(script("print(GPT())").encode())).decode()}")))\n'
        },
        Status.CLEAN,
    ),
)
