"""Training shards contain validation documents.

**What it catches.** A run that trained on a local preparation of the data set which set fewer documents
aside for validation than the evaluation then scores: the rest of the validation documents is in the training shards.

**Why it breaks the score.** The model was trained on most of the documents it is scored on.

**Legal look-alikes.** The preparation script itself, whose default sets 10,000 documents aside: merged records ship it
and used the published shards. The published shards in any number (80, or a part of them: 39, 10, 1), and those of
other tokenizers (128, 143, 180; 476 for bytes). Evaluation on just the 10,000 documents that were set aside, which is
`eval-subset`. A doubled `datasets/datasets` folder name. A local preparation whose command, as described, sets all
50,000 documents aside: a suspicion, since the number of shards cannot refute it (a run of that script on the default
counted 1,502 shards, from which the 40,000 documents more take three or four). The same number of shards of other
tokens than the case-marked ones: a suspicion too.

**How it is read.** The number of training shards that the log counts: the local preparation with the default makes
1,499 of them for the case-marking tokenizer, where the published sets hold up to 151. The number of validation
tokens tells whether more than the documents set aside were scored. Where the folder holds no log, those beside an
identical script elsewhere in the pull request are read.

**Remedy.** Train on the published shards, or prepare with all 50,000 validation documents set aside.

**Ruling.** Raised on issue #2127; organisers excluded #2018 and #2130 for it (2 May 2026). Settled.
"""

from __future__ import annotations

import re

from auditor.contest import VAL_TOKENS
from auditor.logs import RunLog
from auditor.reading import Reading
from auditor.verdict import Confidence, Effect, Evidence, Status
from rules.base import Example, Finding, Rule
from rules.examples import script

LOCAL_SHARDS = 1_499
"""Shards of the local preparation that sets 10,000 documents aside; with 50,000 there are four fewer."""
_WHOLE_SPLIT = re.compile(r"--val[-_]docs[ \t=]+50[_,]?000\b")
SHARDS_PER_TOKEN = 196 / VAL_TOKENS["sp1024"]
"""Shards of the whole published set per validation token: both grow alike with the tokens that a text makes."""
SET_ASIDE_TOKENS = 9_700_000
"""Case-marked tokens of 10,000 documents, at most."""
MOST_PUBLISHED = 196
"""Shards of the whole set with the usual tokenizer, where the log does not count validation tokens."""


class TrainValOverlap(Rule):
    """See the module's documentation."""

    slug = "train-val-overlap"
    group = "leakage"
    title = "training shards contain validation documents"
    official = Effect.VIOLATION
    strict = Effect.VIOLATION
    evidence = ("log",)
    precedents = (
        "organisers on #2018 and #2130, 2 May 2026: excluded",
        "legal: the preparation script shipped with its default (#1736, #1855 and other merged records)",
    )

    def check(self, reading: Reading) -> Finding:
        counted = [r for r in reading.run.claim_runs if _shards(r)]
        # The claim may rest on logs of evaluation alone: then the others in the folder tell of training.
        runs = counted or [r for r in reading.run.logs if _shards(r)]
        runs = runs or [r for r in reading.runs_elsewhere if _shards(r)]
        if not runs:
            if not reading.run.logs and reading.run.claim.val_bpb is None:
                return Finding(Status.NOT_APPLICABLE, "No result is claimed and no run is logged.", Confidence.MEDIUM)
            return Finding(
                Status.CLEAN,
                "No log counts the training shards; nothing in the files shows an overlap.",
                Confidence.LOW,
            )
        worst = max(runs, key=_shards)
        shards = _shards(worst)
        evidence = _evidence(reading, worst)
        scored = worst.facts.val_tokens.value if worst.facts.val_tokens is not None else None
        case_marked = scored is not None and abs(scored / VAL_TOKENS["sp8192 CaseOps"] - 1) < 1e-3
        if shards == LOCAL_SHARDS:
            if scored is not None and scored <= SET_ASIDE_TOKENS:
                return Finding(
                    Status.CLEAN,
                    f"Trained on {shards:,} locally prepared shards, but scored on {scored:,} tokens only: no more"
                    " than the documents that the preparation sets aside.",
                    Confidence.MEDIUM,
                    evidence,
                )
            if scored is not None and not case_marked:
                return Finding(
                    Status.SUSPECT,
                    f"Trained on {shards:,} shards, as many as the local preparation of case-marked tokens makes with"
                    f" 10,000 documents set aside; but these are other tokens ({scored:,} of the split), for which the"
                    " number proves nothing: a person must compare the first training shard with the split.",
                    Confidence.LOW,
                    evidence,
                )
            stated = _stated_preparation(reading)
            if stated is not None:
                return Finding(
                    Status.SUSPECT,
                    f"Trained on {shards:,} locally prepared shards; the description says that they were prepared with"
                    " all 50,000 validation documents set aside. The number of shards alone cannot refute that: a"
                    " person must compare the first training shard with the split.",
                    Confidence.LOW,
                    (*evidence, stated),
                )
            which = sum(1 for r in runs if _shards(r) == shards)
            runs_told = f" ({which} of {len(runs)} runs)" if len(runs) > 1 else ""
            return Finding(
                Status.ACTIVE,
                f"Trained on {shards:,} shards{runs_told}: the local preparation that sets 10,000 documents aside; the"
                " other 40,000 validation documents are among them.",
                Confidence.HIGH if case_marked else Confidence.MEDIUM,
                evidence,
            )
        whole = scored is not None and scored > 2 * SET_ASIDE_TOKENS
        many = shards > (SHARDS_PER_TOKEN * scored + 1 if whole and scored is not None else MOST_PUBLISHED)
        if many and (scored is None or scored > SET_ASIDE_TOKENS):
            return Finding(
                Status.SUSPECT,
                f"Trained on {shards:,} shards, more than were published: a local preparation. How many validation"
                " documents it set aside is not told; a person must compare its first shards with the split.",
                Confidence.LOW,
                evidence,
            )
        if many:
            return Finding(
                Status.CLEAN,
                f"Trained on {shards:,} locally prepared shards, but scored on {scored:,} tokens only: no more than"
                " the documents that the preparation sets aside.",
                Confidence.MEDIUM,
                evidence,
            )
        return Finding(
            Status.CLEAN,
            f"The log counts {shards:,} training shards, as many as published sets or parts of them have.",
            Confidence.HIGH if len(counted) == len(reading.run.claim_runs) else Confidence.MEDIUM,
            evidence,
        )


def _stated_preparation(reading: Reading) -> Evidence | None:
    """Where the documents give the preparation's command with the whole split set aside."""
    for document in reading.run.documents:
        for piece in (*document.snippets, *document.prose):
            found = _WHOLE_SPLIT.search(piece.text)
            if found is not None:
                text = next(line for line in piece.text.splitlines() if _WHOLE_SPLIT.search(line))
                line = piece.line + piece.text[: found.start()].count("\n")
                return reading.log_evidence(document.file, line, text.strip(), "the preparation, as stated")
    return None


def _shards(run: RunLog) -> int:
    return run.facts.train_shards.value if run.facts.train_shards is not None else 0


def _evidence(reading: Reading, run: RunLog) -> tuple[Evidence, ...]:
    found = []
    for fact, role in (
        (run.facts.train_shards, "training shards, as logged"),
        (run.facts.val_tokens, "validation tokens, as logged"),
    ):
        if fact is not None:
            found.append(reading.log_evidence(run.file, fact.line, run.log.index.line(fact.line), role))
    return tuple(found)


_SCRIPT = script(
    """
    model = GPT()
    print("quantized_ttt val_bpb:1.0580")
    """
)
_JSON = '{"val_bpb": 1.0580}\n'


def _log(shards: int, tokens: int) -> str:
    return f"train_shards: {shards}\nval_tokens: {tokens}\nquantized_ttt val_loss:2.3153 val_bpb:1.0580\n"


TrainValOverlap.VIOLATION = (
    Example(
        "the local preparation's shards, and the whole split scored",
        {"train_gpt.py": _SCRIPT, "submission.json": _JSON, "train.log": _log(1499, 47_851_520)},
        Status.ACTIVE,
    ),
)

TrainValOverlap.LEGAL = (
    Example(
        "the published shards, with a preparation script beside them",
        {
            "train_gpt.py": _SCRIPT,
            "prepare_data.py": "import argparse\n\nparser = argparse.ArgumentParser()\n"
            'parser.add_argument("--val-docs", type=int, default=10_000)\n',
            "submission.json": _JSON,
            "train.log": _log(80, 47_851_520),
        },
        Status.CLEAN,
    ),
    Example(
        "a part of the published shards",
        {"train_gpt.py": _SCRIPT, "submission.json": _JSON, "train.log": _log(39, 47_851_520)},
        Status.CLEAN,
    ),
    Example(
        "another tokenizer's shards",
        {"train_gpt.py": _SCRIPT, "submission.json": _JSON, "train.log": _log(128, 40_540_160)},
        Status.CLEAN,
    ),
    Example(
        "bytes as tokens make more shards of the same texts",
        {"train_gpt.py": _SCRIPT, "submission.json": _JSON, "train.log": _log(476, 151_130_112)},
        Status.CLEAN,
    ),
    Example(
        "scored on the documents that were set aside, and on no more",
        {"train_gpt.py": _SCRIPT, "submission.json": _JSON, "train.log": _log(1499, 9_662_464)},
        Status.CLEAN,
    ),
    Example(
        "the description gives a preparation with the whole split set aside",
        {
            "train_gpt.py": _SCRIPT,
            "README.md": "# Data\n\n```bash\npython3 prepare_data.py \\\n    --val-docs 50000\n```\n",
            "submission.json": _JSON,
            "train.log": _log(1499, 47_851_520),
        },
        Status.SUSPECT,
    ),
    Example(
        "the same number of shards of other tokens",
        {"train_gpt.py": _SCRIPT, "submission.json": _JSON, "train.log": _log(1499, 43_000_832)},
        Status.SUSPECT,
    ),
    Example(
        "more shards than were published",
        {"train_gpt.py": _SCRIPT, "submission.json": _JSON, "train.log": _log(488, 47_851_520)},
        Status.SUSPECT,
    ),
)
