"""Data from outside the challenge's set used in training.

**What it catches.** An optimiser steps on texts of a public data set that the script opens by name and that is not the
one the challenge's shards were made from; or the training shards come from a folder named after another data set.

**Why it matters.** The contest compares methods on one training set. Better or other text is an advantage that no
method has earned, and the score can't be set beside the others.

**Legal look-alikes.** The challenge's own shards in any tokenisation, a folder of one's own naming, more or fewer of
them; texts of the same public collection the shards were drawn from (suspect: which documents can't be seen from here);
other data used only to try things out, or to train a tokenizer; random or generated tokens.

**How it is read.** Each optimiser step knows which data set, opened by name, its loss came from. Folder names say
less: a name of another well-known collection in the path of the training shards is suspect. Data that is copied into
the challenge's own shards beforehand does not show.

**Remedy.** Train on the challenge's shards.

**Ruling.** None. #2076, which adds 8,192 tokens of an outside data set, was excluded on other grounds. Unsettled:
reported, never decides.
"""

from __future__ import annotations

import re

from auditor.index.trace import Event, Kind
from auditor.reading import Reading
from auditor.verdict import Confidence, Effect, Status
from rules.base import Example, Finding, Rule
from rules.examples import script

_SAME = re.compile(r"^HuggingFaceFW/fineweb(?:\s|$)")
_OTHER = re.compile(
    r"(?i)(?<![a-z])(?:fineweb[-_]?(?:edu|2)|dclm|open[-_]?web[-_]?text|the[-_]?pile|pile|wikipedia|wikitext|cosmopedia"
    r"|(?:slim|red)pajama|tiny[-_]?stories|gutenberg|bookcorpus|starcoder|the[-_]?stack|openwebmath|oscar|c4)(?![a-z])"
)


class ExternalTrainData(Rule):
    """See the module's documentation."""

    slug = "external-train-data"
    group = "leakage"
    title = "data from outside the challenge's set"
    official = Effect.ADVISORY
    strict = Effect.ADVISORY
    evidence = ("code",)

    def check(self, reading: Reading) -> Finding:
        problem = reading.unreadable()
        if problem is not None:
            return Finding(Status.UNKNOWN, f"The code could not be read: {problem}.", Confidence.HIGH)
        trace = reading.trace
        opened = {f"data:{e.seq}": e for e in trace.of(Kind.DATA)}
        same: tuple[Event, Event] | None = None
        for step in trace.of(Kind.STEP) if opened else ():
            for mark in sorted(step.roles & opened.keys(), key=lambda m: opened[m].seq):
                source = opened[mark]
                if source.text and not _SAME.search(source.text):
                    return _found(reading, Status.ACTIVE, source, step)
                same = same or (source, step)
        if same is not None:
            return _found(reading, Status.SUSPECT, *same)
        named = _named_otherwise(reading)
        if named is not None:
            return named
        sure = Confidence.LOW if trace.truncated or not trace.events else Confidence.MEDIUM
        if opened:
            event = next(iter(opened.values()))
            return Finding(
                Status.CLEAN,
                f"The data set {event.text} is opened, but no optimiser step uses it.",
                sure,
                (reading.at(event, "opens a public data set"),),
                reading.call_path(event),
            )
        return Finding(Status.CLEAN, "No other data set is opened or named as the source of training shards.", sure)


def _found(reading: Reading, status: Status, source: Event, step: Event) -> Finding:
    if status is Status.ACTIVE:
        reason = f"Training steps use texts of {source.text}, which is not the challenge's data set."
    else:
        reason = (
            f"Training steps use texts of {source.text}, the collection the challenge's shards were drawn from; which"
            " documents, and whether any are validation documents, is not shown."
        )
    return Finding(
        status,
        reason,
        Confidence.HIGH if status is Status.ACTIVE and not step.undecided else Confidence.MEDIUM,
        (reading.at(source, "opens the data set"), reading.at(step, "trains on its texts")),
        reading.call_path(step),
    )


def _named_otherwise(reading: Reading) -> Finding | None:
    """Training shards in a folder that bears the name of another collection."""
    for name in ("DATA_PATH", "TRAIN_FILES", "DATA_DIR", "DATASETS_DIR"):
        for value in reversed(reading.values_of(name)):
            parts = value.value.replace("\\", "/").rstrip("/").split("/")
            match = next((m for p in parts[-3:] if (m := _OTHER.search(p))), None)
            if match is None:
                break  # the strongest source decides
            line = reading.line_text(value.file, value.line) or f"{name}={value.value}"
            return Finding(
                Status.SUSPECT,
                f"The training shards' folder bears the name of another collection ({match[0]}).",
                Confidence.LOW,
                (reading.log_evidence(value.file, value.line, line, f"setting {name}, from the {value.origin}"),),
                settings=(name,),
            )
    return None


_TRAIN = """
from datasets import load_dataset


def train(model, tokens):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(100):
        loss = model(tokens[:-1], tokens[1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def encode(texts):
    return torch.tensor([b for text in texts for b in text.encode()])


def texts_of(name):
    return [row["text"] for row in load_dataset(name, split="train", streaming=True)]


def evaluate(model, val_tokens):
    loss_sum = torch.zeros(())
    with torch.no_grad():
        for i in range(0, val_tokens.numel() - 1, 1024):
            loss_sum += model(val_tokens[i : i + 1024], val_tokens[i + 1 : i + 1025])
    return loss_sum
"""

_MAIN = """
model = GPT()
{train}
print(f"val_bpb:{{evaluate(model, load_tokens('data/fineweb_val_*.bin')):.4f}}")
"""


def _files(*train: str, **more: str) -> dict[str, str]:
    others = {name.replace("__", "."): text for name, text in more.items()}
    return {"train_gpt.py": script(_TRAIN, _MAIN.format(train="\n".join(train))), **others}


ExternalTrainData.VIOLATION = (
    Example(
        "another public data set in the training loop",
        _files('train(model, encode(texts_of("wikimedia/wikipedia")))'),
        Status.ACTIVE,
    ),
    Example(
        "mixed in among the challenge's shards",
        _files(
            'tokens = load_tokens("data/fineweb_train_*.bin")',
            'train(model, torch.cat([tokens, encode(texts_of("HuggingFaceFW/fineweb-edu"))]))',
        ),
        Status.ACTIVE,
    ),
)

ExternalTrainData.LEGAL = (
    Example("the challenge's shards", _files('train(model, load_tokens("data/fineweb_train_*.bin"))'), Status.CLEAN),
    Example(
        "another data set opened, for statistics only",
        _files(
            'print("words", len(texts_of("wikimedia/wikipedia")))',
            'train(model, load_tokens("data/fineweb_train_*.bin"))',
        ),
        Status.CLEAN,
    ),
    Example(
        "texts of the collection the shards were drawn from",
        _files('train(model, encode(texts_of("HuggingFaceFW/fineweb")))'),
        Status.SUSPECT,
    ),
    Example(
        "a folder named after another collection",
        _files(
            'path = os.environ.get("DATA_PATH", "data/fineweb10B")',
            'train(model, load_tokens(os.path.join(path, "fineweb_train_*.bin")))',
            README__md="```bash\nDATA_PATH=data/fineweb_edu_10B torchrun --nproc_per_node=8 train_gpt.py\n```\n",
        ),
        Status.SUSPECT,
    ),
)
