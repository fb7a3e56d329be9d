"""A previous-token smear that crosses a document start which attention respects.

**What it catches.** SmearGate and its relatives add a gated share of the previous position's state
to the current one, such as `x[:, 1:] + g * x[:, :-1]`. In a packed stream the position before a
document's first token is the last token of another document. Where attention keeps packed documents
apart (varlen `cu_seqlens`, a document mask), the smear must be masked at document starts; otherwise
it is the one path by which a document reads its neighbour.

**Why it breaks the score.** A model that is trained, calibrated or evaluated as if documents were
independent is not: the first token of every packed document carries information from outside the
document.

**Legal look-alikes.** The masked form (`not_bos = input_ids[:, 1:] != BOS_ID` multiplied into the
gate); attention that itself runs across documents everywhere, so that nothing is kept apart; a
smear that the run switches off; hashed n-gram embeddings of the input ids. Passes whose rows hold
one document each have nothing to cross: the report says which passes keep documents apart and
whether the reported one is among them. A smear whose multiplier starts at zero and that no optimiser
holds adds nothing.

**How it is read.** Forward passes are followed under the effective configuration. A shifted hidden
state added to the unshifted one is a smear; it is masked when a comparison of the tokens with a
value flows into it (before or after the mix). Attention is isolating when it is given sequence
offsets or a mask made from the tokens.

**Remedy.** Multiply the gate by `(input_ids[:, 1:] != BOS_ID)`.

**Ruling.** Organiser on #1797, 26 April 2026: SmearGate crosses document boundaries in normal and
TTT paths; the score would not be merged as it is. The masked form was merged (#1851, #1855). #2135
was accepted with the mask off: not enforced there.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable

from auditor.index.trace import Event, Kind, Trace
from auditor.reading import Reading
from auditor.verdict import Confidence, Effect, Evidence, Status
from rules.architecture.smeargate_fix import suggest_mask
from rules.architecture.smeargate_idle import untrained_multiplier
from rules.base import Example, Finding, Rule
from rules.examples import script


class SmearGateBOSLeak(Rule):
    """See the module's documentation."""

    slug = "smeargate-bos-leak"
    group = "architecture"
    title = "previous-token smear crosses a document start that attention respects"
    official = Effect.VIOLATION
    strict = Effect.VIOLATION
    evidence = ("code", "probe")
    precedents = (
        "organiser on #1797, 26 Apr 2026: crosses document boundaries; would not be merged as is",
        "legal: #1851, #1855, #1953, #2014 (masked at BOS)",
        "not enforced: #2135 (mask switched off, accepted)",
    )

    def check(self, reading: Reading) -> Finding:
        problem = reading.unreadable()
        if problem is not None:
            return Finding(Status.UNKNOWN, f"The code could not be read: {problem}.", Confidence.HIGH)
        trace = reading.trace
        smears = trace.of(Kind.SMEAR)
        if not smears:
            return self._none_in_this_run(reading)
        bare = [s for s in smears if not s.detail]
        unclear = [s for s in smears if s.detail == "mask unclear"]
        if not bare and not unclear:
            masked = _first_by_place(smears)
            return Finding(
                Status.CLEAN,
                "The previous-token smear is masked where the tokens mark a document start, in every pass.",
                Confidence.HIGH,
                tuple(reading.at(s, f"smear, {s.detail} at document starts") for s in masked[:4]),
                reading.call_path(masked[0]),
            )
        crossing = [s for s in bare if _isolation(trace, s) == "documents"]
        if crossing:
            return self._active(reading, crossing, smears)
        open_passes = [s for s in (*bare, *unclear) if _isolation(trace, s) in ("unknown", "documents")]
        if open_passes and _mentions_isolation(reading):
            smear = open_passes[0]
            what = "masked" if smear.detail else "kept apart by attention"
            return Finding(
                Status.SUSPECT,
                f"A previous-token smear is applied, and reading cannot tell whether documents are {what}"
                " in that pass.",
                Confidence.LOW,
                (reading.at(smear, "previous-token smear"),),
                reading.call_path(smear),
            )
        smear = bare[0] if bare else unclear[0]
        plain = next((a for a in trace.of(Kind.ATTENTION) if a.forward_pass == smear.forward_pass), None)
        evidence = [reading.at(smear, "previous-token smear, not masked")]
        if plain is not None:
            evidence.append(reading.at(plain, "attention that runs across documents"))
        return Finding(
            Status.CLEAN,
            "The smear is not masked, but no pass keeps packed documents apart: attention itself runs across"
            " them, so nothing is leaked.",
            Confidence.HIGH if plain is not None else Confidence.MEDIUM,
            tuple(evidence),
            reading.call_path(smear),
        )

    def _active(self, reading: Reading, crossing: list[Event], smears: list[Event]) -> Finding:
        trace = reading.trace
        reported = reading.reported
        function = reported.function
        inside = {function.id} if function is not None else set()
        passes = sorted({_pass_name(s) for s in crossing})
        in_reported = [s for s in smears if inside & {f.id for f in s.frames}]
        leaks = [s for s in crossing if s in in_reported]
        if not in_reported:
            about = "the reported pass could not be told apart"
        elif leaks:
            about = "the reported pass is one of them"
        else:
            about = "the reported pass itself is not: its rows are not kept apart by offsets or a mask"
        first = crossing[0]
        isolating = next(
            a for a in trace.of(Kind.ATTENTION) if a.forward_pass == first.forward_pass and a.detail == "documents"
        )
        settings = {s for e in crossing for s in e.switches}
        evidence: list[Evidence] = [
            *(reading.at(s, "previous-token smear, not masked at document starts") for s in _first_by_place(crossing)),
            reading.at(isolating, "attention keeps packed documents apart here"),
            *reading.setting_evidence(settings),
        ]
        idle = [untrained_multiplier(reading, s) for s in _first_by_place(crossing)]
        if all(made is not None for made in idle):
            made = [reading.evidence(first.program, m, "starts at zero") for m in idle[:1] if m is not None]
            return Finding(
                Status.SUSPECT,
                f"The smear is not masked in passes whose attention separates documents ({', '.join(passes[:5])}), but"
                " its multiplier starts at zero and no optimiser was found that holds it: then it adds nothing.",
                Confidence.LOW,
                (*evidence[:2], *made),
                reading.call_path(first),
                tuple(sorted(settings)),
            )
        undecided = [g for g in first.undecided if g.settings and "<exception>" not in g.settings]
        return Finding(
            Status.ACTIVE if not undecided else Status.SUSPECT,
            f"The smear is not masked in passes whose attention separates documents ({', '.join(passes[:5])});"
            f" {about}.",
            Confidence.HIGH if not undecided else Confidence.MEDIUM,
            tuple(evidence),
            reading.call_path(first),
            tuple(sorted(settings)),
            fix=suggest_mask(reading, _first_by_place(smears)),
        )

    def _none_in_this_run(self, reading: Reading) -> Finding:
        if not any(index.has_shift for index in reading.opened()):
            return Finding(
                Status.NOT_APPLICABLE,
                "No network mixes a position's state with the one before it.",
                Confidence.HIGH,
            )
        methods = [m for index in reading.opened() for m in index.methods]
        trace = reading.switched_off({"roll", "pad"}, lambda n: isinstance(n, ast.Slice), inside=methods)
        if trace is None:
            return Finding(
                Status.CLEAN,
                "No forward pass of this run adds a position's state to the one before it.",
                Confidence.MEDIUM,
            )
        possible = [s for s in trace.of(Kind.SMEAR) if not s.detail]
        leaking = [s for s in possible if _isolation(trace, s) == "documents"]
        if leaking:
            names = sorted({s for e in leaking for s in e.switches})
            return Finding(
                Status.LATENT,
                "A previous-token smear that is not masked at document starts is in the code, but switched off"
                + (f" ({', '.join(names[:3])})." if names else "."),
                Confidence.HIGH,
                (reading.at(leaking[0], "smear, off in this run"), *reading.setting_evidence(names)),
                reading.call_path(leaking[0]),
                tuple(names),
            )
        return Finding(
            Status.CLEAN,
            "No forward pass of this run mixes a position's state with the one before it across documents that"
            " attention keeps apart.",
            Confidence.MEDIUM,
        )


def _isolation(trace: Trace, smear: Event) -> str:
    """documents, none, or unknown: what attention does in the forward pass of this smear."""
    kinds = {a.detail for a in trace.of(Kind.ATTENTION) if a.forward_pass == smear.forward_pass}
    if "documents" in kinds:
        return "documents"
    return "none" if kinds else "unknown"


def _pass_name(smear: Event) -> str:
    """The function that applies the network: the last call before the forward pass."""
    for before, frame in zip(smear.frames, smear.frames[1:], strict=False):
        if "." in frame.function and "forward" in frame.function.rsplit(".", 1)[-1]:
            return before.function
    return smear.frames[-1].function


def _first_by_place(events: Iterable[Event]) -> list[Event]:
    """One event for each place in the code."""
    return list({id(e.node): e for e in reversed(list(events))}.values())[::-1]


def _mentions_isolation(reading: Reading) -> bool:
    """Whether any code that was read could keep documents apart."""
    words = ("varlen", "cu_seqlens", "block_mask", "flex_attention", "document_mask", "doc_mask")
    return any(
        any(word in name for word in words)
        for index in reading.opened()
        for facts in index.functions.values()
        for name in facts.names
    )


_MODEL = """
from flash_attn_interface import flash_attn_func, flash_attn_varlen_func

BOS_ID = 1


class Attention(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim)

    def forward(self, x, cu_seqlens=None):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        if cu_seqlens is not None:
            return flash_attn_varlen_func(q, k, v, cu_seqlens_q=cu_seqlens, cu_seqlens_k=cu_seqlens, causal=True)
        return flash_attn_func(q, k, v, causal=True)


class SmearGPT(nn.Module):
    def __init__(self, vocab=1024, dim=64):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        self.attn = Attention(dim)
        self.gate = nn.Linear(12, 1)
        self.smear = bool(int(os.environ.get("SMEAR", "1")))

    def forward(self, input_ids, targets, cu_seqlens=None):
        x = self.embed(input_ids)
        if self.smear:
            g = torch.sigmoid(self.gate(x[:, 1:, :12]))
            x = torch.cat([x[:, :1], x[:, 1:] + g * x[:, :-1]], dim=1)
        x = x + self.attn(x, cu_seqlens=cu_seqlens)
        return F.cross_entropy(F.linear(x, self.embed.weight).flatten(0, 1), targets.flatten())


def offsets(tokens):
    return (tokens == BOS_ID).nonzero().flatten().to(torch.int32)
"""
_RUN = """
model = SmearGPT()
optimizer = torch.optim.AdamW(model.parameters())
tokens = load_tokens("fineweb_train_*.bin")
for step in range(100):
    x, y = tokens[None, :-1], tokens[None, 1:]
    loss = model(x, y, cu_seqlens=offsets(x))
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
val_tokens = load_tokens("fineweb_val_*.bin")
total = torch.zeros(())
with torch.no_grad():
    for i in range(0, val_tokens.numel() - 1, 1024):
        x, y = val_tokens[None, i : i + 1024], val_tokens[None, i + 1 : i + 1025]
        total += model(x, y, cu_seqlens=offsets(x))
print(f"final val_bpb:{total:.4f}")
"""

# The multiplier is a parameter of its own, and the optimiser is given the attention's parameters only.
_UNTRAINED = (
    script(_MODEL, _RUN)
    .replace(
        "        self.smear = bool(", "        self.scale = nn.Parameter(torch.zeros(1))\n        self.smear = bool("
    )
    .replace("            g = torch.sigmoid(", "            g = self.scale * torch.sigmoid(")
    .replace("AdamW(model.parameters())", "AdamW(list(model.attn.parameters()))")
)

SmearGateBOSLeak.VIOLATION = (
    Example(
        "the multiplier starts at zero, and an optimiser holds it",
        {
            "train_gpt.py": _UNTRAINED.replace(
                "list(model.attn.parameters())", "[*model.attn.parameters(), model.scale]"
            )
        },
        Status.ACTIVE,
    ),
    Example(
        "not masked, with varlen attention in training and evaluation",
        {"train_gpt.py": script(_MODEL, _RUN)},
        Status.ACTIVE,
    ),
)
SmearGateBOSLeak.LEGAL = (
    Example(
        "the multiplier starts at zero, and nothing trains it",
        {"train_gpt.py": _UNTRAINED},
        Status.SUSPECT,
    ),
    Example(
        "masked where the current token starts a document",
        {
            "train_gpt.py": script(_MODEL, _RUN).replace(
                "            x = torch.cat(",
                "            g = g * (input_ids[:, 1:] != BOS_ID).unsqueeze(-1).to(g.dtype)\n"
                "            x = torch.cat(",
            )
        },
        Status.CLEAN,
    ),
    Example(
        "not masked, but attention runs across documents everywhere",
        {"train_gpt.py": script(_MODEL, _RUN).replace(", cu_seqlens=offsets(x)", "")},
        Status.CLEAN,
    ),
    Example(
        "switched off by the launch command",
        {
            "train_gpt.py": script(_MODEL, _RUN),
            "README.md": "# Run\n\n```bash\nSMEAR=0 torchrun --nproc_per_node=8 train_gpt.py\n```\n",
        },
        Status.LATENT,
    ),
    Example(
        "no smear, only hashed embeddings of neighbouring input ids",
        {
            "train_gpt.py": script(_MODEL, _RUN)
            .replace("        if self.smear:\n", "")
            .replace("            g = torch.sigmoid(self.gate(x[:, 1:, :12]))\n", "")
            .replace(
                "            x = torch.cat([x[:, :1], x[:, 1:] + g * x[:, :-1]], dim=1)",
                "        x[:, 1:] += self.embed((36313 * input_ids[:, 1:] ^ 27191 * input_ids[:, :-1]) % 1024)",
            )
        },
        Status.CLEAN,
    ),
)
