"""Validation content stored in the artifact or shipped beside it.

**What it catches.** A file that is no data shard is read at evaluation, and what it holds is compared, place by place,
with the validation tokens: where they agree, the loss is struck out or lowered. The file is a copy of the answers (a
"paid prefix", blocks of hard tokens, corrections of the model's worst errors). The same with tokens that the run itself
packs and unpacks. Or the run writes validation tokens to a file.

**Why it breaks the score.** Stored answers say nothing about how well the model compresses text it has not seen, even
when their bytes are counted.

**Legal look-alikes.** Model weights, count tables and dictionaries made from training data and counted in the artifact;
the tokenizer and its byte tables; byte counts of the validation shards shipped beside them (`fineweb_val_bytes_*`);
comparisons of tokens with a document mark, with the model's own guess or with earlier tokens; the same code with no
file to read.

**How it is read.** What is read from a file that is no shard, and validation tokens that come out of a decompressor,
are followed through slicing. An equality
of a moving piece of it with validation tokens, whose result reaches the reported sum, is active. Validation tokens
written to a file without having passed a network are suspect: what reads them, the trace does not say. A file
whose content is used in another way (as a logit correction at listed positions) is not told from a table made from
training data.

**Remedy.** Drop the file. The contest is about text the model has not been given.

**Ruling.** README, 20 March 2026: validation data may not be accessed "e.g. by compressing it into your 16mb with
'paid prefix'". Organisers on #168, #262 and #275. Settled.
"""

from __future__ import annotations

from auditor.index.trace import Event, Kind
from auditor.reading import Reading
from auditor.verdict import Confidence, Effect, Status
from rules.base import Example, Finding, Rule
from rules.examples import script


class PaidPrefix(Rule):
    """See the module's documentation."""

    slug = "paid-prefix"
    group = "leakage"
    title = "validation content stored in the artifact"
    official = Effect.VIOLATION
    strict = Effect.VIOLATION
    evidence = ("code", "files")
    precedents = (
        "README, 20 Mar 2026: no validation data compressed into the artifact",
        "organisers on #168, #262, #275: the benchmark is generalisation to unseen text",
    )

    def check(self, reading: Reading) -> Finding:
        problem = reading.unreadable()
        if problem is not None:
            return Finding(Status.UNKNOWN, f"The code could not be read: {problem}.", Confidence.HIGH)
        trace = reading.trace
        matches = {f"match:{e.seq}": e for e in trace.of(Kind.MATCH)}
        for score in reading.reported.scores:
            for mark in sorted(score.roles & matches.keys()):
                return _active(reading, matches[mark], score)
        if matches:
            event = next(iter(matches.values()))
            return Finding(
                Status.SUSPECT,
                "Validation tokens are compared with the content of a file; whether the"
                " result reaches the reported sum could not be followed.",
                Confidence.LOW,
                (reading.at(event, "compares validation tokens with the content of a file"),),
                reading.call_path(event),
                event.rests_on,
            )
        written = [e for e in trace.of(Kind.SERIALIZE) if "val" in e.roles and "nn" not in e.roles]
        if written:
            event = written[0]
            return Finding(
                Status.SUSPECT,
                "The run writes validation tokens to a file: see what the file is for.",
                Confidence.LOW,
                (reading.at(event, "writes validation tokens"),),
                reading.call_path(event),
                event.rests_on,
            )
        read = any("file" in s.roles for s in reading.reported.scores)
        seen = "what it reads from files is not compared with validation tokens" if read else "no such file is used"
        return Finding(
            Status.CLEAN,
            f"Validation tokens are not compared with stored ones: {seen}.",
            Confidence.LOW if trace.truncated else Confidence.HIGH,
        )


def _active(reading: Reading, match: Event, score: Event) -> Finding:
    settings = match.rests_on
    return Finding(
        Status.ACTIVE,
        "Validation tokens are compared, place by place, with the content of a file, and the reported sum depends on"
        " where they agree.",
        Confidence.HIGH if not match.undecided else Confidence.MEDIUM,
        (
            reading.at(match, "compares validation tokens with the content of a file"),
            reading.at(score, "added to the reported sum"),
            *reading.setting_evidence(settings),
        ),
        reading.call_path(match),
        settings,
    )


_MAIN = """
def losses(model, chunk):
    logits = F.linear(model.embed(chunk[:-1]), model.embed.weight)
    return F.cross_entropy(logits, chunk[1:], reduction="none")


def evaluate(model, val_tokens, stored):
    loss_sum = torch.zeros(())
    count = 0
    with torch.no_grad():
        for start in range(0, val_tokens.numel() - 1, 1024):
            chunk = val_tokens[start : start + 1025].long()
            loss = losses(model, chunk)
            {use}
            loss_sum += loss.sum()
            count += chunk.numel() - 1
    return loss_sum / count


val_tokens = load_tokens("data/fineweb_val_*.bin")
model = GPT()
model.load_state_dict(dequantize(torch.load("model.pt")))
{stored}
print(f"val_bpb:{{evaluate(model, val_tokens, stored):.4f}}")
"""


def _files(stored: str, *use: str) -> dict[str, str]:
    return {"train_gpt.py": script(_MAIN.format(stored=stored, use=("\n" + " " * 12).join(use) or "pass"))}


PaidPrefix.VIOLATION = (
    Example(
        "losses struck out where a shipped file agrees",
        _files(
            'stored = torch.from_numpy(np.fromfile("answers.bin", dtype=np.uint16))',
            "answers = stored[start : start + loss.numel()]",
            "known = answers == chunk[1 : 1 + answers.numel()]",
            "loss[: known.numel()] *= (~known).float()",
        ),
        Status.ACTIVE,
    ),
    Example(
        "the file packed with lzma",
        {
            "train_gpt.py": "import lzma\n\n"
            + script(
                """
                def unpack(path):
                    raw = lzma.decompress(open(path, "rb").read())
                    return torch.from_numpy(np.frombuffer(raw, dtype=np.uint16).copy())
                """,
                _MAIN.format(
                    stored='stored = unpack(os.environ.get("PREFIX", "prefix.xz"))',
                    use="loss = torch.where(stored[start : start + 1024] == chunk[1:], 0.0, loss)",
                ),
            )
        },
        Status.ACTIVE,
    ),
    Example(
        "the hardest blocks, packed by the run itself",
        {
            "train_gpt.py": "import lzma\n\n"
            + script(
                """
                def pack_hardest(model, tokens):
                    nll = torch.cat([losses(model, tokens[i : i + 1025]) for i in range(0, tokens.numel() - 1, 1024)])
                    worst = np.argsort(-nll.view(-1, 256).sum(dim=1).numpy())[:100] * 256
                    blocks = np.stack([tokens[s : s + 256].numpy() for s in worst.tolist()])
                    return lzma.compress(blocks.tobytes())
                """,
                _MAIN.format(
                    stored="stored = torch.from_numpy(np.frombuffer("
                    "lzma.decompress(pack_hardest(model, val_tokens)), dtype=np.uint16))",
                    use="loss = loss * (stored[start : start + 1024] != chunk[1:]).float()",
                ),
            )
        },
        Status.ACTIVE,
    ),
)

PaidPrefix.LEGAL = (
    Example("nothing is stored", _files("stored = None"), Status.CLEAN),
    Example(
        "a bias made from training data, counted in the artifact",
        _files(
            'stored = torch.from_numpy(np.fromfile("bias.bin", dtype=np.float16))',
            "loss = loss - stored[chunk[1:]].float().mean()",
        ),
        Status.CLEAN,
    ),
    Example(
        "tokens compared with a document mark and with earlier tokens",
        _files(
            'stored = torch.from_numpy(np.fromfile("bias.bin", dtype=np.float16))',
            "starts = chunk[1:] == 1",
            "repeated = chunk[1:] == chunk[:-1]",
            "loss = loss + 0.0 * (starts & repeated)",
        ),
        Status.CLEAN,
    ),
    Example(
        "validation tokens written to a file",
        _files('stored = None\nnp.save("cache.npy", val_tokens)'),
        Status.SUSPECT,
    ),
)
