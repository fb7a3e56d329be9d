"""Hidden state mixes in later positions.

**What it catches.** In the forward pass of the reported evaluation a position's state depends on tokens after it: each
attention runs without a causal mask, or activations are rolled towards earlier positions and added to those that are
there, or a recurrent layer starts its next round over a sequence from the state that it left at the end of it. The
network then sees the token it is asked to predict.

**Why it breaks the score.** The probability of a token may depend only on the tokens before it (condition C1 of issue
#1017). A network that looks ahead copies the answer.

**Legal look-alikes.** Targets shifted by one for the loss; a causal convolution padded on the left; attention with a
mask or a window given to it; a single new position that attends to a cache of earlier ones; cross-attention to a
memory of the past; attention over heads, channels or layers; rolling towards later positions; U-Net skips between
layers; the same in training-only heads or in a pass that is not reported. Masked-diffusion models attend both ways
and are scored on tokens that are hidden from them: suspect, since what is hidden is a matter of data.

**How it is read.** Forward passes of networks that could look ahead are followed, with each attention call's mask and
causality under the run's configuration, and activations that are rolled along the sequence. Active: every attention of
the reported pass is open, in code that decides it, on tokens that nothing hides; or rolled activations are added to
unrolled ones and reach the reported sum. Some open attention among causal ones is suspect, and so is a final state
that is handed to another round in a loop. Means over the sequence, convolutions and scans are not followed. What
decides: change the last tokens of an input and compare the logits of the positions before them (a probe).

**Remedy.** Mask later positions; pad on the left; shift states by one chunk.

**Ruling.** None by an organiser; authors withdrew or relabelled their submissions (#1047), and issue #1017 names the
condition. Consensus.
"""

from __future__ import annotations

from auditor.index.trace import Event, Kind
from auditor.reading import Reading
from auditor.verdict import Confidence, Effect, Status
from rules.base import Example, Finding, Rule
from rules.examples import script

# Names that hint at tokens being hidden from the network, which only ever turns an accusation into a question.
_HIDING = frozenset(
    {"rand", "rand_like", "bernoulli", "randperm", "randint", "multinomial", "mask_id", "mask_token", "mask_token_id",
     "masked_fill", "masked_fill_", "where", "mask"}
)  # fmt: skip

HIDING = _HIDING - {"where", "mask", "masked_fill", "masked_fill_"}
"""Those of them that hardly have another use in an evaluation; where a probe has shown the rest, only these matter."""

_DRAWING = frozenset({"rand", "rand_like", "bernoulli", "randperm", "multinomial", "mask_token_id", "mask_id"})


class NoncausalModel(Rule):
    """See the module's documentation."""

    slug = "noncausal-model"
    group = "architecture"
    title = "hidden state mixes in later positions"
    official = Effect.VIOLATION
    strict = Effect.VIOLATION
    evidence = ("code", "probe")
    precedents = ("#1047: the author relabelled a non-causal DeltaNet as invalid", "issue #1017, condition C1")

    def check(self, reading: Reading) -> Finding:
        problem = reading.unreadable()
        if problem is not None:
            return Finding(Status.UNKNOWN, f"The code could not be read: {problem}.", Confidence.HIGH)
        trace = reading.trace
        scores = reading.reported.scores
        own = {f.id for s in scores for f in s.own_frames} | {s.frame for s in scores}
        inside = [e for e in trace.of(Kind.LOOKAHEAD) if any(f.id in own for f in e.frames)]
        attentions = {id(e.node) for e in trace.of(Kind.ATTENTION) if any(f.id in own for f in e.frames)}
        if not inside and not attentions:
            inside = trace.of(Kind.LOOKAHEAD)  # the reported pass could not be followed: another may stand for it
        if not inside:
            return _clean(reading, bool(trace.of(Kind.LOOKAHEAD)))
        for event in inside:
            if event.detail == "shift" and not event.undecided and any("ahead" in s.roles for s in scores):
                return _finding(
                    reading,
                    Status.ACTIVE,
                    event,
                    "{} adds states of later positions to those of earlier ones, on the way to the reported sum.",
                )
        opened = {id(e.node): e for e in inside if e.detail == "attention"}
        certain = [e for e in opened.values() if not e.undecided]
        decided = opened.keys() == attentions and len(certain) == len(opened)
        if opened and decided and not hides_tokens(reading, certain):
            return _finding(
                reading,
                Status.ACTIVE,
                certain[0],
                "Attention in {} has no causal mask, and the network that is scored has no other attention.",
            )
        carried = next((e for e in inside if e.detail == "state"), None)
        if carried is not None:
            return _finding(
                reading,
                Status.SUSPECT,
                carried,
                "{} hands the state that a layer leaves after the whole sequence to its next round over the same"
                " sequence, so the first positions of that round may have seen the last. A probe that changes the last"
                " tokens decides.",
            )
        event = next((e for e in inside if e.detail == "attention"), inside[0])
        return _finding(
            reading,
            Status.SUSPECT,
            event,
            "{} may let positions see later ones; whether what it attends to holds tokens still to be predicted is"
            " not decided by reading. A probe that changes the last tokens decides.",
        )


def _finding(reading: Reading, status: Status, event: Event, text: str) -> Finding:
    scores = reading.reported.scores
    settings = tuple(sorted(s for g in event.guards for s in g.settings if s[0] != "<"))
    what = {
        "attention": "attends without a mask",
        "shift": "adds later positions to earlier ones",
        "state": "the state of the whole sequence enters the next round over it",
    }[event.detail]
    return Finding(
        status,
        text.format(event.frames[-1].function),
        Confidence.MEDIUM if status is Status.ACTIVE else Confidence.LOW,
        (
            reading.at(event, what),
            *((reading.at(scores[0], "scored here"),) if scores else ()),
            *reading.setting_evidence(settings),
        ),
        reading.call_path(event),
        settings,
    )


def _clean(reading: Reading, elsewhere: bool) -> Finding:
    trace = reading.trace
    if elsewhere:
        why = "what could look ahead is not part of the reported pass"
    elif any(index.has_lookahead for index in reading.opened()):
        why = "attention is causal or masked as this run is set"
    else:
        why = "every attention call is causal or masked, and no state is rolled towards earlier positions"
    return Finding(
        Status.CLEAN,
        f"No later positions are mixed in as far as attention and rolls show: {why}.",
        Confidence.LOW if trace.truncated or not reading.reported.scores else Confidence.MEDIUM,
    )


def hides_tokens(reading: Reading, attentions: list[Event], hiding: frozenset[str] = _HIDING) -> bool:
    """Whether the functions of the reported evaluation name a way to hide tokens, or the network draws at random.

    A masked-diffusion network often hides the tokens itself. ``where`` and masks mean little inside a network;
    that it draws random numbers in the pass that is scored means more.
    """
    frames = {id(f.definition): f for s in reading.reported.scores for f in s.own_frames}
    for attention in attentions:
        definitions = [id(f.definition) for f in attention.frames]
        inside = next((n for n, d in enumerate(definitions, 1) if d in frames), len(definitions))
        for definition in definitions[inside:]:  # the network's own functions, below the evaluation's
            for index in reading.opened():
                facts = index.functions.get(definition)
                if facts is not None and definition not in frames and facts.names & _DRAWING:
                    return True
    for frame in frames.values():
        for index in reading.opened():
            facts = index.functions.get(id(frame.definition))
            if facts is not None and facts.names & hiding:
                return True
    return any("random" in s.roles for s in reading.reported.scores)


_MODEL = """
class Attention(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim)

    def forward(self, x):
        q, k, v = self.qkv(x).unsqueeze(1).chunk(3, dim=-1)
        {attend}
        return y.squeeze(1)


class Network(nn.Module):
    def __init__(self, vocab=1024, dim=64):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        self.attention = Attention(dim)

    def forward(self, ids, targets):
        x = self.embed(ids)
        {mix}
        x = x + self.attention(x)
        return F.cross_entropy(F.linear(x, self.embed.weight).flatten(0, 1), targets.flatten())


def evaluate(model, val_tokens):
    loss_sum = torch.zeros(())
    count = 0
    with torch.no_grad():
        for i in range(0, val_tokens.numel() - 1024, 1024):
            chunk = val_tokens[i : i + 1025]
            {hide}
            loss_sum += model(ids.unsqueeze(0), chunk[1:].unsqueeze(0)) * 1024
            count += 1024
    return loss_sum / count


val_tokens = load_tokens("data/fineweb_val_*.bin")
print(f"val_bpb:{{evaluate(Network(), val_tokens):.4f}}")
"""
_CAUSAL = "y = F.scaled_dot_product_attention(q, k, v, is_causal=True)"


def _files(attend: str = _CAUSAL, mix: str = "x = x * 1.0", hide: str = "ids = chunk[:-1]") -> dict[str, str]:
    return {"train_gpt.py": script(_MODEL.format(attend=attend, mix=mix, hide=hide))}


NoncausalModel.VIOLATION = (
    Example(
        "attention without a mask",
        _files("y = F.scaled_dot_product_attention(q, k, v, is_causal=False)"),
        Status.ACTIVE,
    ),
    Example(
        "states of the next position added",
        _files(mix="x = x + 0.1 * torch.roll(x, -1, dims=1)"),
        Status.ACTIVE,
    ),
)

NoncausalModel.LEGAL = (
    Example("causal attention, targets shifted by one", _files(), Status.CLEAN),
    Example(
        "a mask given to the attention",
        _files(
            "mask = torch.ones(x.size(1), x.size(1), dtype=torch.bool).tril()\n"
            "        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)"
        ),
        Status.CLEAN,
    ),
    Example("states of the position before added", _files(mix="x = x + 0.1 * torch.roll(x, 1, dims=1)"), Status.CLEAN),
    Example("channels rolled", _files(mix="x = x + 0.1 * torch.roll(x, -8, dims=2)"), Status.CLEAN),
    Example(
        "causal, as set",
        _files('y = F.scaled_dot_product_attention(q, k, v, is_causal=os.environ.get("CAUSAL", "1") == "1")'),
        Status.CLEAN,
    ),
    Example(
        "masked diffusion: attends both ways, on tokens some of which are hidden",
        _files(
            "y = F.scaled_dot_product_attention(q, k, v)",
            hide="ids = torch.where(torch.rand(1024) < 0.5, chunk[:-1], 0)",
        ),
        Status.SUSPECT,
    ),
    Example(
        "masked diffusion whose network hides the tokens itself",
        _files(
            "y = F.scaled_dot_product_attention(q, k, v, is_causal=False)",
            mix="x = torch.where((torch.rand_like(ids.float()) < 0.5).unsqueeze(-1), self.embed.weight[0], x)",
        ),
        Status.SUSPECT,
    ),
    Example(
        "open attention to a memory beside causal attention",
        _files(
            _CAUSAL + "\n        memory = x.new_zeros(1, 1, 4, x.size(-1))\n"
            "        y = y + F.scaled_dot_product_attention(q, memory, memory)"
        ),
        Status.SUSPECT,
    ),
)
