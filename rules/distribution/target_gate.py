"""A gate, hint or mixing weight depends on a property of the realised target.

**What it catches.** Whether a cache's probability or hint is used at a position is decided by the token that stands
there: a hint is only given if the scored token does not start a word (`if not starts_word[tokens[i]]`), in Python or in
a shipped C or C++ helper; a cache is only mixed in where the realised token's own count is not zero (`full > 0`).

**Why it breaks the score.** The distribution at a position must be fixed before its token is known (condition C1 of
issue #1017). A gate on the realised token tells the predictor part of the answer: that the next token continues the
word, or that it was seen before.

**Legal look-alikes.** The same gate on the previous token (`tokens[i - 1]`); the token's property used after
the prediction, to update the state; hints of the token-only channel, which hash the strict prefix;
a helper that still holds the within-word and word-start experts while the run keeps them off
(`within_gate=0 word_gate=0` in the log); a gate on the count of the context; properties of the
target that only count bytes.

**How it is read.** Two ways. Behind the reported figure, conditions on the count that is looked up for the realised
token are followed to the blend. In loops along a token stream, Python by its syntax tree and native code as text, a
prediction written for this round's position under a condition on a table of properties read at this round's token is
a gate; the log's own count of the positions it opened (found by following what the message prints) says whether it had
any effect in the run.

**Remedy.** Gate on the prefix only, or drop the expert.

**Ruling.** Organiser, #2041 and #2118, 2 May 2026: within-word and word-start gates that are not zero are not
accepted; #1514 (token-only hints) was merged. Settled.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from auditor.index.flow import Item, Site
from auditor.index.names import leaf_name
from auditor.index.program_index import ProgramIndex
from auditor.index.streams import NativeStreamGate, StreamGate, native_gates, stream_gates
from auditor.index.trace import Event, Kind
from auditor.index.values import HOLE
from auditor.reading import Reading
from auditor.unpack.walk import walk
from auditor.verdict import Confidence, Effect, Evidence, Status
from rules.base import Example, Finding, Rule
from rules.distribution.caches import ratio_evidence, undecided
from rules.examples import script

# A loop along tokens that learns tables names these; one that runs networks does not do both.
_LOOPS = frozenset({"enumerate", "range", "prange"})
_NETWORKS = frozenset({"backward", "zero_grad", "state_dict", "inference_mode", "no_grad", "Linear", "environ"})
_LABEL = re.compile(r"([A-Za-z_]\w*)\s*[=:]\s*$")


@dataclass(frozen=True)
class Opened:
    """How many positions a gate opened, as a log line says."""

    label: str
    count: int
    evidence: Evidence | None
    """None where a whole log lacks the line: the helper did not run."""


class TargetGate(Rule):
    """See the module's documentation."""

    slug = "target-gate"
    group = "distribution"
    title = "a gate, hint or weight depends on a property of the realised target"
    official = Effect.VIOLATION
    strict = Effect.VIOLATION
    evidence = ("code", "probe")
    precedents = (
        "organiser on #2041 and #2118, 2 May 2026: within-word and word-start n-gram gates are not zero",
        "legal: #1514 (token-only channel), gates on the previous token",
    )

    def check(self, reading: Reading) -> Finding:
        problem = reading.unreadable()
        if problem is not None:
            return Finding(Status.UNKNOWN, f"The code could not be read: {problem}.", Confidence.HIGH)
        tables = reading.tables
        if tables.ratios and tables.gates:
            gate = tables.gates[0]
            return undecided(reading, gate.ratio) or Finding(
                Status.ACTIVE,
                "Whether the cache is mixed in is decided by the count of the token being scored.",
                Confidence.HIGH if reading.reported.in_log else Confidence.MEDIUM,
                (
                    reading.evidence(gate.site.program, gate.node, "decided by the token being scored"),
                    *ratio_evidence(reading, gate.ratio),
                ),
                reading.call_path(tables.starts[0]) if tables.starts else (),
            )
        return self._streams(reading)

    def _streams(self, reading: Reading) -> Finding:
        reached: list[tuple[ProgramIndex, StreamGate]] = []
        idle: list[tuple[ProgramIndex, StreamGate]] = []
        for index in reading.opened():
            for facts in index.functions.values():
                if _LOOPS & facts.names and (facts.tallies or "get" in facts.names) and not _NETWORKS & facts.names:
                    side = reached if id(facts.node) in reading.trace.called else idle
                    side += [(index, gate) for gate in stream_gates(facts.node)]
        native = [g for source, function in reading.native_called() for g in native_gates(source, function)]
        unused = [g for g in native if _is_called(reading, g.function.name) is False]
        native = [g for g in native if g not in unused]
        if not reached and not native:
            if idle or unused:
                name = idle[0][1].body.name if idle else unused[0].function.name
                return Finding(
                    Status.LATENT,
                    f"{name} predicts a token under a condition on that token, but is not reached in this run.",
                    Confidence.MEDIUM,
                    _places(reading, *idle[0]) if idle else _native_places(reading, unused[0]),
                )
            return Finding(
                Status.CLEAN,
                "No condition on the token being scored decides over a cache's probability or hint.",
                Confidence.HIGH if reading.tables.starts else Confidence.MEDIUM,
            )
        evidence = [e for index, gate in reached for e in _places(reading, index, gate)]
        for found in native:
            evidence += _native_places(reading, found)
        name = native[0].function.name if native else reached[0][1].body.name
        opened = list(_opened(reading, [g for _, g in reached], native))
        biting = [o for o in opened if o.count]
        if biting:
            return Finding(
                Status.ACTIVE,
                f"{name} gives a hint for a position only if the token that stands there has some property; the log"
                f" counts {biting[0].count:,} such positions ({biting[0].label}).",
                Confidence.HIGH,
                (*_lines(biting), *evidence[:6]),
            )
        if opened:
            told = ", ".join(dict.fromkeys(o.label for o in opened))
            silent = all(o.evidence is None for o in opened)
            why = "the log lacks the line that counts them" if silent else f"the log counts none ({told})"
            return Finding(
                Status.LATENT,
                f"{name} can give hints under a condition on the token being scored, but they were off in this run:"
                f" {why}.",
                Confidence.MEDIUM if silent else Confidence.HIGH,
                (*_lines(opened), *evidence[:6]),
            )
        return Finding(
            Status.SUSPECT,
            f"{name} gives hints under a condition on the token that stands at the position, and no log says how many:"
            " look at whether these experts have any weight in this run.",
            Confidence.LOW,
            tuple(evidence[:6]),
        )


def _lines(opened: list[Opened]) -> tuple[Evidence, ...]:
    return tuple(o.evidence for o in opened if o.evidence is not None)[:1]


def _places(reading: Reading, index: ProgramIndex, gate: StreamGate) -> tuple[Evidence, ...]:
    return (
        reading.evidence(index.program, gate.property, "property of the round's own token"),
        reading.evidence(index.program, gate.condition, "decides over this position's hint"),
        reading.evidence(index.program, gate.outputs[0][1], "the hint for this position"),
    )


def _native_places(reading: Reading, gate: NativeStreamGate) -> tuple[Evidence, ...]:
    return (
        reading.native_evidence(gate.source, gate.property, "property of the round's own token"),
        reading.native_evidence(gate.source, gate.condition, "decides over this position's hint"),
    )


def _is_called(reading: Reading, name: str) -> bool | None:
    """Whether a function that ran calls the native function ``name``; None where no call of that name is seen."""
    seen = False
    for index in reading.opened():
        for i, facts in index.functions.items():
            if name in facts.names and any(isinstance(n, ast.Call) and leaf_name(n) == name for n in walk(facts.node)):
                seen = True
                if i in reading.trace.called:
                    return True
    return False if seen else None


def _opened(reading: Reading, gates: list[StreamGate], native: list[NativeStreamGate]) -> Iterator[Opened]:
    """What the log prints that is computed from gated predictions alone: how many positions they were made for."""
    gated = {id(value) for gate in gates for _, value in gate.outputs}
    bound: set[tuple[int, str]] = set()
    free: set[tuple[int, str]] = set()
    for index in reading.opened() if native else ():
        for facts in index.functions.values():
            for found in native:
                if found.function.name in facts.names:
                    bound |= set(_arguments(facts.node, found, found.outputs))
                    free |= set(_arguments(facts.node, found, found.free))
    flow = reading.tables.flow
    for event in reading.trace.events:
        if event.kind is not Kind.MESSAGE or not event.text or HOLE not in event.text:
            continue
        fields = list(_fields(event))
        site = flow.site_of(event) if fields else None
        for label, value in fields:
            if site is None or not _from_gates(reading, value, site, gated, bound, free):
                continue
            lines = reading.log_lines_like(event.text)
            for file, number, text in lines:
                match = re.search(rf"\b{label}\s*[=:]\s*(\d+)(?![\d.])", text)
                if match is not None:
                    yield Opened(label, int(match[1]), reading.log_evidence(file, number, text, "positions, as logged"))
            if not lines and reading.log_is_whole:
                yield Opened(label, 0, None)


def _from_gates(
    reading: Reading,
    value: ast.expr,
    site: Site,
    gated: set[int],
    bound: set[tuple[int, str]],
    free: set[tuple[int, str]],
) -> bool:
    """Whether a value is computed from gated predictions, and from no prediction that is made for every token."""
    hit = False
    for item in reading.tables.flow.walk([Item(value, site)], enter=_not_a_size, limit=600):
        node = item.node
        hit = hit or id(node) in gated
        if isinstance(node, ast.Name):
            place = (id(item.site.body), node.id)
            if place in free:
                return False
            hit = hit or place in bound
    return hit


def _not_a_size(item: Item) -> bool:
    if isinstance(item.node, ast.Call):
        return leaf_name(item.node) not in ("len", "size", "numel")
    return not (isinstance(item.node, ast.Attribute) and item.node.attr in ("size", "shape"))


def _fields(event: Event) -> Iterator[tuple[str, ast.expr]]:
    """The labelled values of the f-strings that a message prints: ``opened={count}``."""
    for text in walk(event.node):
        if not isinstance(text, ast.JoinedStr):
            continue
        before = ""
        for part in text.values:
            if isinstance(part, ast.Constant):
                before = str(part.value)
            elif isinstance(part, ast.FormattedValue):
                match = _LABEL.search(before)
                if match is not None:
                    yield match[1], part.value
                before = ""


def _arguments(
    body: ast.AST, found: NativeStreamGate, names: tuple[str, ...] | frozenset[str]
) -> Iterator[tuple[int, str]]:
    """The Python arrays that are passed to a native function for these parameters, with the function they are in."""
    for call in walk(body):
        if not isinstance(call, ast.Call) or leaf_name(call) != found.function.name:
            continue
        for parameter, argument in zip(found.function.parameters, call.args, strict=False):
            if parameter not in names:
                continue
            inner: ast.expr = argument
            while not isinstance(inner, ast.Name):
                if isinstance(inner, ast.Call) and inner.args and not isinstance(inner.func, ast.Attribute):
                    inner = inner.args[0]
                elif isinstance(inner, ast.Call):
                    inner = inner.func
                elif isinstance(inner, (ast.Attribute, ast.Subscript)):
                    inner = inner.value
                else:
                    break
            if isinstance(inner, ast.Name):
                yield id(body), inner.id


_STREAM = """
class Hints:
    def __init__(self):
        self.best = {}
        self.seen = {}
        self.context = ()

    def run(self, tokens, starts_word):
        hint = np.full(len(tokens), -1)
        for i, token in enumerate(tokens):
            inside = not starts_word[token]
            if inside and self.context in self.best:
                hint[i] = self.best[self.context]
            pair = self.seen.get((self.context, token), 0) + 1
            self.seen[(self.context, token)] = pair
            if pair >= self.seen.get((self.context, self.best.get(self.context)), 0):
                self.best[self.context] = token
            self.context = (*self.context[-3:], token)
        return hint


class LM(GPT):
    def logits(self, x):
        return F.linear(self.embed(x), self.embed.weight)


def evaluate(model, val_tokens, starts_word):
    use = int(os.environ.get("INSIDE_HINTS", "1"))
    hint = Hints().run(val_tokens[1:].tolist(), starts_word if use else np.ones_like(starts_word))
    opened = hint >= 0
    print(f"hints: opened={int(opened.sum())} of={len(hint)}")
    hint, opened = torch.from_numpy(hint), torch.from_numpy(opened)
    total = torch.zeros(())
    with torch.no_grad():
        for start in range(0, val_tokens.numel() - 1, 1024):
            chunk = val_tokens[start : start + 1025]
            x, y = chunk[:-1], chunk[1:]
            log_p = F.log_softmax(model.logits(x), dim=-1)
            nll = -log_p.gather(1, y[:, None]).squeeze(1)
            h = hint[start : start + 1024]
            q = log_p.gather(1, h.clamp(min=0)[:, None]).squeeze(1).exp()
            tilted = nll - 1.5 * (y == h) + torch.log1p(q * (np.exp(1.5) - 1))
            total += torch.where(opened[start : start + 1024], tilted, nll).sum()
    return total / val_tokens.numel()


starts_word = np.load("starts_word.npy")
print(f"final val_bpb:{evaluate(LM(), load_tokens('fineweb_val_*.bin'), starts_word):.4f}")
"""
_RESULT = '{"val_bpb": 1.1234}'
_TWO_CACHES = """
class LM(GPT):
    def logits(self, x):
        return F.linear(self.embed(x), self.embed.weight)


def evaluate(model, val_tokens):
    words, word_pairs = np.zeros(1 << 20), np.zeros(1 << 20)
    phrases, phrase_pairs = np.zeros(1 << 18), np.zeros(1 << 18)
    tokens = val_tokens.numpy()
    total = 0.0
    with torch.no_grad():
        for start in range(8, val_tokens.numel() - 1, 1024):
            chunk = val_tokens[start : start + 1025]
            x, y = chunk[:-1], chunk[1:]
            p = F.softmax(model.logits(x), dim=-1).gather(1, y[:, None]).squeeze(1).numpy()
            at = np.arange(start + 1, start + 1 + len(p))
            key = (tokens[at - 1] * 36313) % (1 << 20)
            pair = ((tokens[at - 1] * 36313) ^ (tokens[at] * 27191)) % (1 << 20)
            seen, both = words[key], word_pairs[pair]
            known = seen > 0
            p[known] = (np.minimum(both[known], seen[known]) + 2.0 * p[known]) / (seen[known] + 2.0)
            long_key = (tokens[at - 7] * 51647 + tokens[at - 3] * 81929) % (1 << 18)
            long_pair = ((tokens[at - 7] * 51647 + tokens[at - 3] * 81929) ^ (tokens[at] * 27191)) % (1 << 18)
            seen, both = phrases[long_key], phrase_pairs[long_pair]
            known = seen > 0
            p[known] = (np.minimum(both[known], seen[known]) + 2.0 * p[known]) / (seen[known] + 2.0)
            total -= np.log(p).sum()
            np.add.at(words, key, 1)
            np.add.at(word_pairs, pair, 1)
            np.add.at(phrases, long_key, 1)
            np.add.at(phrase_pairs, long_pair, 1)
    return total / val_tokens.numel()


print(f"final val_bpb:{evaluate(LM(), load_tokens('fineweb_val_*.bin')):.4f}")
"""
_AFTERTHOUGHT = """
def validate(model, val_tokens):
    total = torch.zeros(())
    with torch.no_grad():
        for start in range(0, val_tokens.numel() - 1, 1024):
            chunk = val_tokens[start : start + 1025]
            total += model(chunk[:-1], chunk[1:]).sum()
    return total / val_tokens.numel()


def with_cache(model, val_tokens):
    rows = {}
    total = 0.0
    with torch.no_grad():
        for start in range(0, val_tokens.numel() - 1, 1024):
            chunk = val_tokens[start : start + 1025]
            nll = model(chunk[:-1], chunk[1:]).tolist()
            x, y = chunk[:-1].tolist(), chunk[1:].tolist()
            for t in range(len(y)):
                p = np.exp(-nll[t])
                row = rows.get(x[t], {})
                count = row.get(y[t], 0)
                if count > 0:
                    p = 0.8 * p + 0.2 * count / sum(row.values())
                total -= np.log(p)
            for t in range(len(y)):
                row = rows.setdefault(x[t], {})
                row[y[t]] = row.get(y[t], 0) + 1
    return total / val_tokens.numel()


def main():
    model = GPT()
    optimizer = torch.optim.AdamW(model.parameters())
    train_tokens, val_tokens = load_tokens("fineweb_train_*.bin"), load_tokens("fineweb_val_*.bin")
    step = 0
    while True:
        if step % 1000 == 0:
            print(f"step:{step}/20000 val_bpb:{validate(model, val_tokens):.4f}")
        if step == 20000:
            break
        x = train_tokens[step * 1024 : (step + 1) * 1024 + 1]
        model(x[:-1], x[1:]).mean().backward()
        optimizer.step()
        step += 1
    print(f"after quantising val_bpb:{validate(model, val_tokens):.4f}")
    print(f"with the cache val_bpb:{with_cache(model, val_tokens):.4f}")


main()
"""


def _files(code: str, opened: int) -> dict[str, str]:
    return {
        "train_gpt.py": script(code),
        "submission.json": _RESULT,
        "train_seed1.log": f"hints: opened={opened} of=62021632\nfinal val_bpb:1.1234\n",
    }


TargetGate.VIOLATION = (
    Example("hints only inside words, told from the scored token itself", _files(_STREAM, 31_415_926), Status.ACTIVE),
    Example(
        "a cache that is mixed in only where the realised token was counted",
        {
            "train_gpt.py": script(
                """
                def evaluate(model, val_tokens):
                    rows = {}
                    total = 0.0
                    with torch.no_grad():
                        for start in range(0, val_tokens.numel() - 1, 1024):
                            chunk = val_tokens[start : start + 1025]
                            nll = model(chunk[:-1], chunk[1:]).tolist()
                            x, y = chunk[:-1].tolist(), chunk[1:].tolist()
                            for t in range(len(y)):
                                p = np.exp(-nll[t])
                                row = rows.get(x[t], {})
                                count = row.get(y[t], 0)
                                if count > 0:
                                    p = 0.8 * p + 0.2 * count / sum(row.values())
                                total -= np.log(p)
                            for t in range(len(y)):
                                row = rows.setdefault(x[t], {})
                                row[y[t]] = row.get(y[t], 0) + 1
                    return total / val_tokens.numel()

                print(f"final val_bpb:{evaluate(GPT(), load_tokens('fineweb_val_*.bin')):.4f}")
                """
            )
        },
        Status.ACTIVE,
    ),
)
TargetGate.LEGAL = (
    Example("the same helper, kept off: the log counts no such position", _files(_STREAM, 0), Status.LATENT),
    Example(
        "the gate looks at the previous token; the token's own property only updates the state",
        _files(
            _STREAM.replace(
                "            inside = not starts_word[token]\n",
                "            inside = i > 0 and not starts_word[tokens[i - 1]]\n",
            ).replace(
                "            self.context = (*self.context[-3:], token)\n",
                "            self.context = () if starts_word[token] else (*self.context[-3:], token)\n",
            ),
            31_415_926,
        ),
        Status.CLEAN,
    ),
    Example(
        "two caches in turn, each mixed in wherever its context was seen before",
        {"train_gpt.py": script(_TWO_CACHES)},
        Status.CLEAN,
    ),
    Example(
        "the claim is a validation in training; the run ended before the evaluation with the gated cache",
        {
            "train_gpt.py": script(_AFTERTHOUGHT),
            "submission.json": '{"val_bpb": 1.2345}',
            "train_seed1.log": "step:0/20000 val_bpb:3.9876\nstep:20000/20000 val_bpb:1.2345\n"
            "after quantising val_bpb:1.2399\n",
        },
        Status.CLEAN,
    ),
    Example(
        "the target's properties count bytes",
        {
            "train_gpt.py": script(
                """
                def evaluate(model, val_tokens, base_bytes, leading_space, boundary):
                    total, size = torch.zeros(()), 0.0
                    with torch.no_grad():
                        for start in range(0, val_tokens.numel() - 1, 1024):
                            chunk = val_tokens[start : start + 1025]
                            total += model(chunk[:-1], chunk[1:]).sum()
                            tokens = chunk.tolist()
                            for i in range(1, len(tokens)):
                                size += base_bytes[tokens[i]]
                                if leading_space[tokens[i]] and not boundary[tokens[i - 1]]:
                                    size += 1
                    return total / np.log(2) / size

                luts = [np.load(f"{name}.npy") for name in ("bytes", "space", "boundary")]
                print(f"final val_bpb:{evaluate(GPT(), load_tokens('fineweb_val_*.bin'), *luts):.4f}")
                """
            )
        },
        Status.CLEAN,
    ),
)
