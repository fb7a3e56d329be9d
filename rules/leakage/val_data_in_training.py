"""Validation tokens feed the training loop.

**What it catches.** The training loop steps on tokens of the validation split: its loader reads a pattern that matches
validation shards (in the code, or set so by the launch command), validation shards are mixed in among the training
shards, or the set-up links a validation shard under a training shard's name.

**Why it breaks the score.** The model has learnt the text it is scored on. The number says how well it remembers, not
how well it compresses text it has not seen.

**Legal look-alikes.** Evaluating on validation tokens during training, with the clock paused; counting or printing the
validation shards; warm-up steps whose weights are dropped or restored; the same loader class used for training
and validation shards; a switch for training on validation that is off; score-first test-time training. A
separate phase of gradient steps on validation tokens after training is `prequant-ttt`.

**How it is read.** The trace of the entry point under the run's effective configuration says of each optimiser step
which split its tokens were read from. Steps on validation tokens alone, with no training before them and on weights
that are scored later, are active. Where training and validation tokens meet in one step, the loader reads both or the
files do not say which: suspect. Set-up commands in the folder's documents and scripts are read for links and copies
of a validation shard to a training shard's name.

**Remedy.** Train on the training shards only.

**Ruling.** README, 20 March 2026: "You CANNOT access validation data during training". Organisers on #44, #64 and #179
(19 and 20 March 2026). Settled.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from auditor.index.phases import is_training_itself, why_harmless
from auditor.index.trace import Event, Kind, Trace
from auditor.reading import Reading
from auditor.verdict import Confidence, Effect, Evidence, Status
from rules.base import Example, Finding, Rule
from rules.examples import script


class ValDataInTraining(Rule):
    """See the module's documentation."""

    slug = "val-data-in-training"
    group = "leakage"
    title = "validation tokens feed the training loop"
    official = Effect.VIOLATION
    strict = Effect.VIOLATION
    evidence = ("code",)
    precedents = (
        "README, 20 Mar 2026: validation data may not be accessed during training",
        "organisers on #44, #64, #179, 19 and 20 Mar 2026: training on validation tokens breaks the rules",
    )

    def check(self, reading: Reading) -> Finding:
        problem = reading.unreadable()
        if problem is not None:
            return Finding(Status.UNKNOWN, f"The code could not be read: {problem}.", Confidence.HIGH)
        trace = reading.trace
        scores = reading.reported.scores
        steps = trace.of(Kind.STEP)
        open_questions: list[tuple[Event, str]] = []
        for step in steps:
            if "val" not in step.roles or not is_training_itself(trace, step):
                continue
            if why_harmless(trace, scores, step) is not None:
                continue
            ran, shown = reading.ran(step)
            if ran is False:
                continue
            if "train" in step.roles and not _fed(trace, step):
                continue  # the loss met a figure of an evaluation, not its tokens
            if "train" in step.roles and "both" not in step.roles:
                open_questions.append((step, "training tokens reach the same step, and which were read is not known"))
            elif not scores:
                open_questions.append((step, "no evaluation that prints a result was found"))
            elif ran is None and any(g.settings for g in step.undecided if "<exception>" not in g.settings):
                open_questions.append((step, "a setting on the path is not known for this run"))
            else:
                return _active(reading, step, scores[0], shown)
        aliased = _aliased(reading)
        if aliased is not None:
            return aliased
        if open_questions:
            step, why = open_questions[0]
            return Finding(
                Status.SUSPECT,
                f"The training loop in {step.frames[-1].function} may step on validation tokens: {why}.",
                Confidence.LOW,
                (reading.at(step, "trains here"), *reading.guard_evidence(step.undecided, "condition not decided")),
                reading.call_path(step),
                step.rests_on,
            )
        sure = Confidence.LOW if trace.truncated or not trace.events else Confidence.HIGH
        trained = [s for s in steps if "train" in s.roles]
        if trained:
            return Finding(
                Status.CLEAN,
                "The training loop reads training shards only, as this run is set.",
                sure,
                (reading.at(trained[0], "trains here, on training tokens"),),
                reading.call_path(trained[0]),
            )
        why = "no optimiser step was found" if not steps else "no validation tokens reach its training loop"
        return Finding(
            Status.CLEAN,
            f"Nothing trains on validation tokens: {why}.",
            Confidence.LOW if sure is Confidence.LOW else Confidence.MEDIUM,
        )


def _fed(trace: Trace, step: Event) -> bool:
    """Whether, in the step's own loop, a network is given validation tokens to train on."""
    loops = {loop.id for loop in step.loops}
    return any(
        "val" in call.roles and not call.no_grad and any(loop.id in loops for loop in call.loops)
        for call in trace.of(Kind.MODEL_CALL)
        if call.seq < step.seq
    )


def _active(reading: Reading, step: Event, first: Event, shown: Evidence | None) -> Finding:
    settings = step.rests_on
    return Finding(
        Status.ACTIVE,
        f"The training loop in {step.frames[-1].function} steps on tokens read from the validation split.",
        Confidence.HIGH if shown is not None or not step.undecided else Confidence.MEDIUM,
        (
            reading.at(step, "trains here, on validation tokens"),
            reading.at(first, "scored here, afterwards"),
            *([shown] if shown is not None else []),
            *reading.setting_evidence(settings),
        ),
        reading.call_path(step),
        settings,
    )


_ALIAS = re.compile(
    r"^\W*(?:\w+=\S+\s+)*(?:ln|cp|mv|rsync)\s(?:.*\s)?(\S*_val_[\w*.?\[\]-]*\.\w+)['\"]?\s+['\"]?(\S*_train_[\w*.-]*\.\w+)"
)


def _aliased(reading: Reading) -> Finding | None:
    """A set-up command that puts a validation shard under a training shard's name."""
    for file, line, text in _setup_lines(reading):
        match = _ALIAS.search(text)
        if match is None:
            continue
        place = reading.log_evidence(file, line, text, "the set-up gives a validation shard a training shard's name")
        folder = match[2].rpartition("/")[0].rpartition("/")[2]
        used = [c for c in reading.run.claimed_launches if folder and folder in c.text] if folder else []
        logged = reading.log_place(rf"\b{re.escape(folder)}\b") if folder else None
        if not used and logged is None:
            return Finding(
                Status.SUSPECT,
                "The set-up gives a validation shard a training shard's name; whether this run read it is not shown.",
                Confidence.LOW,
                (place,),
            )
        where = [reading.log_evidence(*logged, role="the run read that folder")] if logged is not None else []
        return Finding(
            Status.ACTIVE,
            "The set-up gives a validation shard a training shard's name, and the run reads the folder it lies in.",
            Confidence.MEDIUM,
            (place, *where),
        )
    return None


def _setup_lines(reading: Reading) -> Iterator[tuple[str, int, str]]:
    """Lines of the folder's documents and shell scripts that name both splits: file, line, text."""
    for file in reading.folder.files:
        if file.change == "deleted" or file.size > 1_000_000 or not file.name.lower().endswith((".md", ".sh", ".txt")):
            continue
        if file.name.lower().endswith(".txt") and not file.name.lower().startswith("readme"):
            continue
        text = file.text
        if "_val_" in text and "_train_" in text:
            for number, line in enumerate(text.split("\n"), 1):
                if "_val_" in line and "_train_" in line and len(line) < 1000:
                    yield file.path, number, line


_BASE = """
class Loader:
    def __init__(self, pattern):
        self.tokens = load_tokens(pattern)
        self.position = 0

    def next_batch(self, count):
        piece = self.tokens[self.position : self.position + count + 1]
        self.position += count
        return piece[:-1], piece[1:]


def evaluate(model, val_tokens):
    loss_sum = torch.zeros(())
    count = 0
    with torch.no_grad():
        for i in range(0, val_tokens.numel() - 1, 1024):
            chunk = val_tokens[i : i + 1025]
            loss_sum += model(chunk[:-1], chunk[1:]) * (chunk.numel() - 1)
            count += chunk.numel() - 1
    return loss_sum / count


def train(model, loader, val_tokens):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(1000):
        if step % 100 == 0:
            print(f"step:{step} val_loss:{evaluate(model, val_tokens):.4f}")
        x, y = loader.next_batch(1024)
        loss = model(x, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
"""

_MAIN = """
data_path = os.environ.get("DATA_PATH", "data/fineweb10B")
train_files = os.environ.get("TRAIN_FILES", os.path.join(data_path, "fineweb_train_*.bin"))
val_files = os.path.join(data_path, "fineweb_val_*.bin")
{change}
val_tokens = load_tokens(val_files)
model = GPT()
train(model, Loader(train_files), val_tokens)
{after}
print(f"final val_bpb:{{evaluate(model, val_tokens):.4f}}")
"""


def _files(change: str = "", after: str = "", **more: str) -> dict[str, str]:
    others = {name.replace("__", "."): text for name, text in more.items()}
    return {"train_gpt.py": script(_BASE, _MAIN.format(change=change, after=after)), **others}


ValDataInTraining.VIOLATION = (
    Example(
        "the training pattern names the validation shards",
        _files('train_files = os.path.join(data_path, "fineweb_val_*.bin")'),
        Status.ACTIVE,
    ),
    Example(
        "set so by the launch command",
        _files(
            README__md="```bash\nTRAIN_FILES='data/fineweb_val_*.bin' torchrun --nproc_per_node=8 train_gpt.py\n```\n"
        ),
        Status.ACTIVE,
    ),
    Example(
        "a pattern that matches both splits",
        _files('train_files = os.path.join(data_path, "fineweb_*.bin")'),
        Status.ACTIVE,
    ),
    Example(
        "a validation shard linked under a training shard's name",
        _files(
            README__md="# Run\n\n```bash\nln -s data/all/fineweb_val_000000.bin data/mixed/fineweb_train_000000.bin\n"
            "DATA_PATH=data/mixed torchrun --nproc_per_node=8 train_gpt.py\n```\n"
        ),
        Status.ACTIVE,
    ),
)

ValDataInTraining.LEGAL = (
    Example("training shards only, validation in between", _files(), Status.CLEAN),
    Example(
        "training on validation shards, switched off",
        _files(
            'on_val = bool(int(os.environ.get("TRAIN_ON_VAL", "0")))\n'
            'train_files = os.path.join(data_path, "fineweb_val_*.bin" if on_val else "fineweb_train_*.bin")'
        ),
        Status.CLEAN,
    ),
    Example(
        "both splits in one stream",
        {
            "train_gpt.py": script(
                _BASE,
                """
                val_tokens = load_tokens("data/fineweb_val_*.bin")
                model = GPT()
                loader = Loader("data/fineweb_train_*.bin")
                loader.tokens = torch.cat([loader.tokens, val_tokens])
                train(model, loader, val_tokens)
                print(f"final val_bpb:{evaluate(model, val_tokens):.4f}")
                """,
            )
        },
        Status.SUSPECT,
    ),
    Example(
        "adapted after training: prequant-ttt",
        _files(
            after="optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)\n"
            "for i in range(0, val_tokens.numel() - 1, 1024):\n"
            "    loss = model(val_tokens[i : i + 1024], val_tokens[i + 1 : i + 1025])\n"
            "    loss.backward()\n"
            "    optimizer.step()"
        ),
        Status.CLEAN,
    ),
    Example(
        "a link between training shards",
        _files(README__md="```bash\nln -s data/all/fineweb_train_000001.bin data/one/fineweb_train_000000.bin\n```\n"),
        Status.CLEAN,
    ),
)
