"""A token's probability is spread over its bytes and mixed with a byte model.

**What it catches.** The log-probability of the realised token is divided by its number of bytes (or
repeated over them, or its root taken), and each share is mixed with what a byte model (PPM-D and its
kin) says of the byte that came; or the token's whole probability is mixed with the product of the
byte model's probabilities of its bytes. Also where the mixing is done by a C or C++ helper, shipped
as a file or held in a string of the script.

**Why it breaks the score.** The contest scores one distribution over the token alphabet, fixed before
the token is known. Here the length of the realised token decides how the network's probability is
cut up, and the byte model gives probability to byte strings, of which several tokens are prefixes
of each other: taken over all tokens, the mixed probabilities do not sum to one.

**Legal look-alikes.** The network's own byte distribution, by summing over all tokens that fit the
bytes so far; models that predict bytes and are scored by bytes; a mixture that is switched off, or
whose figure is printed beside the reported one; bits per byte itself, which divides the sum over
all tokens by the count of all bytes.

**How it is read.** A byte model is a table of counts that is incremented and looked up by a window
of bytes; the mixture is `w * p + (1 - w) * q`, `logaddexp` or its spelled-out forms, with one side
from the byte model and the other from a token's probability. The mixed value is followed to the
figure that the log prints. Native helpers are read as text.

**Remedy.** Score the network's tokens as they are, or turn it into a byte model by summing over all
tokens that start with the bytes so far, and mix that.

**Ruling.** Organisers on #1835 (28 April 2026) and #1991, #2080, #2083, #2098 (2 May 2026): not a
normalised distribution (C2 of issue #1017). Settled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal

from auditor.index.byte_mixtures import ByteMixture
from auditor.index.interpreter.inputs import RANK_NAMES
from auditor.index.trace import Event, Kind
from auditor.reading import Reading
from auditor.verdict import Confidence, Effect, Evidence, Status
from rules.base import Example, Finding, Rule
from rules.examples import script

FORMS = {
    "spread": "a token's log-probability is divided over its bytes and mixed with a byte model's",
    "root": "the root of a token's probability stands for each of its bytes and is mixed with a byte model's",
    "product": "a token's probability is mixed with the product of a byte model's probabilities of its bytes",
    "open": "a probability is mixed with a byte model's, byte by byte",
}
SAME_FIGURE = 2e-3
"""A printed seed value this near to a claimed mean is the same claim."""


class ByteMixUnnormalized(Rule):
    """See the module's documentation."""

    slug = "byte-mix-unnormalized"
    group = "distribution"
    title = "token probability spread over bytes and mixed with a byte model"
    official = Effect.VIOLATION
    strict = Effect.VIOLATION
    evidence = ("code", "probe")
    precedents = (
        "organiser on #1835, 28 Apr 2026; organiser on #1991, #2080, #2083, #2098, 2 May 2026",
        "issue #1872: the mixed probabilities of all token ids do not sum to one",
        "legal: marginalisation over all tokens that fit the bytes so far",
    )

    def check(self, reading: Reading) -> Finding:
        problem = reading.unreadable()
        if problem is not None:
            return Finding(Status.UNKNOWN, f"The code could not be read: {problem}.", Confidence.HIGH)
        events = reading.trace.of(Kind.BYTE_MIX)
        mixtures = {key: m for index in reading.opened() for key, m in index.byte_mixtures.items()}
        if all(m.form == "open" for m in mixtures.values()) and not events:
            return self._absent(reading)
        if not events:
            return self._off(reading, mixtures)
        decided = [e for e in events if mixtures[id(e.node)].form != "open"]
        linked = [e for e in decided if _reported(reading, e)]
        if linked:
            return self._found(reading, linked[0], mixtures, Status.ACTIVE, "in the reported evaluation, ")
        claimed = [(e, told) for e in decided if (told := _claimed(reading, e)) is not None]
        if claimed:
            event, (figure, evidence) = claimed[0]
            return self._found(reading, event, mixtures, Status.ACTIVE, f"for the claimed {figure:g}, ", (evidence,))
        doubtful = [e for e in events if _reported(reading, e)]
        if doubtful:
            return self._found(
                reading,
                doubtful[0],
                mixtures,
                Status.SUSPECT,
                "in the reported evaluation, ",
                told="; look whether the network's side is the sum over all tokens that fit the bytes so far",
            )
        if not decided:
            return self._absent(reading)
        if not reading.reported.in_log:
            return self._found(
                reading,
                decided[0],
                mixtures,
                Status.SUSPECT,
                "in this run, ",
                told="; no log says whether the claimed number is its figure",
            )
        return self._found(
            reading, decided[0], mixtures, Status.LATENT, "beside the reported number, which is another figure, "
        )

    def _found(
        self,
        reading: Reading,
        event: Event,
        mixtures: Mapping[int, ByteMixture],
        status: Status,
        where: str,
        more: tuple[Evidence, ...] = (),
        told: str = "",
    ) -> Finding:
        mixture = mixtures[id(event.node)]
        evidence = [reading.at(event, "mixed here" if mixture.native is None else "calls the native mixture")]
        if mixture.native is not None:
            source, mix, spread = mixture.native
            evidence.append(reading.native_evidence(source, spread, "shared out over the token's bytes"))
            evidence.append(reading.native_evidence(source, mix, "mixed here"))
        elif mixture.source is not None:
            role = "shared out over the token's bytes"
            evidence.insert(0, reading.evidence(event.program, mixture.source, role))
        settings = sorted(event.switches - RANK_NAMES)
        label = reading.reported.log
        if status is Status.ACTIVE and label is not None and not more:
            evidence.append(reading.log_evidence(label.file, label.line, label.text, "the reported figure"))
        text = f"{where}{FORMS[mixture.form]}{told}."
        confidence = Confidence.HIGH if status is Status.ACTIVE and reading.reported.in_log else Confidence.MEDIUM
        return Finding(
            status,
            text[0].upper() + text[1:],
            Confidence.MEDIUM if more else confidence,
            (*evidence, *more, *reading.setting_evidence(settings)),
            reading.call_path(event),
            tuple(settings),
        )

    def _off(self, reading: Reading, mixtures: Mapping[int, ByteMixture]) -> Finding:
        """The code is there, but this run does not come to it."""
        names = {getattr(m.function, "name", "") for m in mixtures.values()}
        index = next(i for i in reading.opened() if i.byte_mixtures)
        first = next(iter(index.byte_mixtures.values()))
        trace = reading.switched_off(index.leading_to({id(m.function) for m in mixtures.values()}))
        opened = [e for e in trace.of(Kind.BYTE_MIX) if mixtures[id(e.node)].form != "open"] if trace else []
        if not opened:
            return Finding(
                Status.CLEAN,
                "A mixture with a byte model is in the code, but nothing calls it"
                f" ({', '.join(sorted(n for n in names if n)[:2])}).",
                Confidence.MEDIUM,
                (reading.evidence(index.program, first.node, "not called"),),
            )
        event = opened[0]
        settings = sorted(event.switches - RANK_NAMES)
        by = f" ({', '.join(settings[:3])})" if settings else ""
        return Finding(
            Status.LATENT,
            f"A mixture with a byte model is in the code, but off in this run{by}.",
            Confidence.HIGH if settings else Confidence.MEDIUM,
            (reading.at(event, "would mix here"), *reading.setting_evidence(settings)),
            reading.call_path(event),
            tuple(settings),
        )

    def _absent(self, reading: Reading) -> Finding:
        native = reading.native
        told = ""
        if native:
            languages = ", ".join(sorted({n.language for n in native}))
            told = f" (native code in {languages} was read as text and holds none)"
        return Finding(Status.CLEAN, f"No byte model is mixed with the network's probabilities{told}.", Confidence.HIGH)


def _mark(event: Event) -> str:
    return f"bytemix:{event.seq}"


def _reported(reading: Reading, event: Event) -> bool:
    """Whether the reported figure is computed from this mixture."""
    reported = reading.reported
    mark = _mark(event)
    if reported.metric is None:
        return False
    if mark in reported.metric.roles or any(mark in s.roles for s in reported.scores):
        return True
    # The figure is printed where it is mixed, after a detour that values can't be followed through.
    return (
        len(event.frames) > 2
        and event.frames[-1].id == reported.metric.frames[-1].id
        and not any(r.startswith("score:") for r in reported.metric.roles)
    )


def _claimed(reading: Reading, event: Event) -> tuple[float, Evidence] | None:
    """A claimed figure that a line printed from this mixture carries, with that line."""
    figures = [(float(v), "bpb") for v in [reading.run.claim.val_bpb] if v is not None]
    headline = figures[0][0] if figures else None
    figures += [(v, key) for v, key in _figures(reading.run.claim.raw) if headline is None or v < headline]
    mark = _mark(event)
    for metric in reading.trace.of(Kind.METRIC):
        if mark not in metric.roles and metric.frames[-1].id != event.frames[-1].id:
            continue
        for file, line, text in reading.log_lines_like(metric.text or ""):
            for number in re.findall(r"(?i)(?:mix|bpb)\w*\s*[:=]\s*(\d\.\d{3,})", text):
                for figure, _ in figures:
                    if abs(float(number) - figure) <= SAME_FIGURE:
                        return figure, reading.log_evidence(file, line, text, "the claimed figure in the log")
    return None


def _figures(raw: object, path: str = "") -> list[tuple[float, str]]:
    """Figures of submission.json under a key that speaks of bits per byte."""
    found: list[tuple[float, str]] = []
    if isinstance(raw, Mapping):
        for key, value in raw.items():
            found += _figures(value, f"{path}.{key}" if path else str(key))
    elif isinstance(raw, (float, Decimal)) and 0.05 < raw < 5 and "bpb" in path.lower() and "std" not in path.lower():
        found.append((float(raw), path))
    return found


_MIXTURE = """
def byte_model_mix(targets, logps, token_bytes, order=3):
    counts, window, total, size = {}, bytearray(), 0.0, 0
    for t, logp in zip(targets, logps):
        piece = token_bytes[int(t)]
        each = float(logp) / len(piece)
        for b in piece:
            table = counts.setdefault(bytes(window[-order:]), {})
            p = (table.get(b, 0) + 1) / (sum(table.values()) + 256)
            total -= math.log(0.5 * math.exp(each) + (1 - 0.5) * p)
            table[b] = table.get(b, 0) + 1
            window.append(b)
            size += 1
    return total / size / math.log(2)


def evaluate(model, val_tokens, token_bytes):
    losses = []
    with torch.no_grad():
        for i in range(0, val_tokens.numel() - 1, 1024):
            chunk = val_tokens[i : i + 1025]
            losses.append(-model(chunk[:-1], chunk[1:]))
    plain = -sum(l.sum() for l in losses) / val_tokens.numel()
    if MIX:
        return byte_model_mix(val_tokens[1:], torch.cat(losses), token_bytes)
    return plain


import math

import sentencepiece

MIX = bool(int(os.environ.get("BYTE_MIX", "DEFAULT")))
sp = sentencepiece.SentencePieceProcessor(model_file="tokenizer.model")
token_bytes = [sp.id_to_piece(i).encode() for i in range(1024)]
model = GPT()
val_tokens = load_tokens("fineweb_val_*.bin")
print(f"final val_bpb:{evaluate(model, val_tokens, token_bytes):.4f}")
"""

_NATIVE = '''
import ctypes
import math

HELPER = r"""
#include <math.h>
#include <stdint.h>
static double mixed(uint32_t *counts, uint8_t b, double nn_logp) {
    uint32_t total = 0;
    for (int i = 0; i < 256; i++) total += counts[i];
    double own = log((counts[b] + 1.0) / (total + 256.0));
    double m = own > nn_logp ? own : nn_logp;
    double both = m + log(0.5 * exp(own - m) + 0.5 * exp(nn_logp - m));
    counts[b]++;
    return both;
}
double score_tokens(const int32_t *ids, const double *nll, long n, const uint8_t *flat, const int32_t *start,
                    const int32_t *lens) {
    static uint32_t counts[256];
    double total = 0;
    for (long i = 0; i < n; i++) {
        int nb = lens[ids[i]];
        double each = -nll[i] / (double)nb;
        for (int j = 0; j < nb; j++) total -= mixed(counts, flat[start[ids[i]] + j], each);
    }
    return total;
}
"""


def evaluate(model, val_tokens, lib):
    losses = []
    with torch.no_grad():
        for i in range(0, val_tokens.numel() - 1, 1024):
            chunk = val_tokens[i : i + 1025]
            losses.append(model(chunk[:-1], chunk[1:]))
    nll = torch.cat(losses).numpy()
    total = lib.score_tokens(val_tokens.numpy(), nll, len(nll))
    return total / math.log(2) / 151074309


open("helper.c", "w").write(HELPER)
model = GPT()
print(f"final val_bpb:{evaluate(model, load_tokens('fineweb_val_*.bin'), ctypes.CDLL('./helper.so')):.4f}")
'''

ByteMixUnnormalized.VIOLATION = (
    Example(
        "the log-probability divided by the bytes of the token, mixed with counts of bytes",
        {"train_gpt.py": script(_MIXTURE.replace("DEFAULT", "1"))},
        Status.ACTIVE,
    ),
    Example("the same in a C helper held in a string", {"train_gpt.py": script(_NATIVE)}, Status.ACTIVE),
)
ByteMixUnnormalized.LEGAL = (
    Example(
        "the mixture is off in this run", {"train_gpt.py": script(_MIXTURE.replace("DEFAULT", "0"))}, Status.LATENT
    ),
    Example(
        "bits per byte of tokens: the sum over all tokens divided by all bytes",
        {
            "train_gpt.py": script(
                """
                import math

                def evaluate(model, val_tokens, base_bytes):
                    nats = torch.zeros(())
                    size = torch.zeros(())
                    with torch.no_grad():
                        for i in range(0, val_tokens.numel() - 1, 1024):
                            chunk = val_tokens[i : i + 1025]
                            nats += model(chunk[:-1], chunk[1:]) * 1024
                            size += base_bytes[chunk[1:]].sum()
                    return nats / math.log(2) / size

                model = GPT()
                base_bytes = torch.ones(1024)
                print(f"val_bpb:{evaluate(model, load_tokens('fineweb_val_*.bin'), base_bytes):.4f}")
                """
            )
        },
        Status.CLEAN,
    ),
    Example(
        "a network that predicts bytes, mixed with counts of bytes: both are distributions over 256 symbols",
        {
            "train_gpt.py": script(
                """
                def evaluate(model, val_bytes):
                    counts = {}
                    window = bytearray()
                    total = torch.zeros(())
                    with torch.no_grad():
                        for i in range(val_bytes.numel() - 1):
                            table = counts.setdefault(bytes(window[-3:]), np.ones(256))
                            own = torch.log_softmax(model(val_bytes[: i + 1], val_bytes[1 : i + 2]), -1)
                            b = int(val_bytes[i + 1])
                            total -= torch.log(0.5 * own.exp()[b] + (1 - 0.5) * table[b] / table.sum())
                            table[b] += 1
                            window.append(b)
                    return total / val_bytes.numel()

                model = GPT(vocab=256)
                print(f"val_bpb:{evaluate(model, load_tokens('fineweb_val_*.bin')):.4f}")
                """
            )
        },
        Status.CLEAN,
    ),
)
