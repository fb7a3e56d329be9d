"""Parameters of a window optimised on the very positions that they then score (SLOT).

**What it catches.** For each window or batch of windows of the reported evaluation, a delta on the hidden state or a
logit bias is made, optimised by gradient steps on the loss of positions of that window, and used to score positions
among them. The variant that takes its loss from already scored context only, but optimises one tensor for a batch of
overlapping windows, belongs here as well: a position that is context in one window is what its neighbour scores.

**Why it breaks the score.** The loss that is reported is a loss after fitting: the targets took part in the update that
precedes their score (conditions C1 and C3 of issue #1017). Changing one scored target changes the loss of others.

**Legal look-alikes.** Biases and scales learnt in training; score-first test-time training of weights and
per-document adapters; optimisation on windows that were scored before; rounding or scales optimised while a matrix is
quantised; temperature fitted on training tokens. The same loop restricted to scored context, with a tensor of
its own for each window, is `slot-context-only`; one whose result is only a diagnostic is latent.

**How it is read.** The trace follows tensors that no network owns and that are made to be optimised. A step on them
whose loss comes from validation tokens, and a score that depends on them, are compared by the spans that restrict
either: slices, masks set at some positions, comparisons of positions. Bounds are compared as numbers, taken at a
window in the middle of the run.

**Remedy.** Take the inner loss from positions scored before, with parameters of each window's own, or drop it.

**Ruling.** None by an organiser; never merged. Community consensus: breaks causality (measured in #1240: every pair of
positions tested leaks).
"""

from __future__ import annotations

from auditor.index.window_parameters import Relation, WindowParameters
from auditor.reading import Reading
from auditor.verdict import Effect, Status
from rules.adaptation.inner_optimisation import judge
from rules.base import Example, Finding, Rule
from rules.examples import script


class SlotScoredRegion(Rule):
    """See the module's documentation."""

    slug = "slot-scored-region"
    group = "adaptation"
    title = "per-window parameters optimised on the positions they then score"
    official = Effect.ADVISORY
    strict = Effect.VIOLATION
    evidence = ("code", "probe")
    precedents = (
        "consensus: #1240 (240 of 240 pairs of positions leak), issue #1336",
        "no organiser ruling; no such submission was merged",
    )

    def check(self, reading: Reading) -> Finding:
        return judge(reading, _wanted, "optimises parameters of a window on positions it scores", unsure=_unsure)


def _wanted(inner: WindowParameters) -> bool:
    return inner.relation in (Relation.SCORED, Relation.SHARED)


def _unsure(inner: WindowParameters) -> bool:
    return inner.relation is Relation.UNCLEAR


_MODEL = """
class Net(GPT):
    def hidden(self, x):
        return self.embed(x)

    def head(self, h):
        return F.linear(h, self.embed.weight)
"""
_WINDOWS = """
def evaluate(model, val_tokens, seq_len=1024, stride=64, batch=16, steps=8):
    total = val_tokens.numel() - 1
    starts = [ws for ws in range(0, total, stride) if min(ws + seq_len, total) - ws >= 1]
    loss_sum = torch.zeros(())
    count = 0
    for bi in range(0, len(starts), batch):
        windows = starts[bi : bi + batch]
        x = torch.zeros(len(windows), seq_len, dtype=torch.int64)
        y = torch.zeros(len(windows), seq_len, dtype=torch.int64)
        mask = torch.zeros(len(windows), seq_len)
        for i, ws in enumerate(windows):
            end = min(ws + seq_len, total)
            chunk = val_tokens[ws : end + 1]
            x[i, : end - ws] = chunk[:-1]
            y[i, : end - ws] = chunk[1:]
            s = 0 if ws == 0 else max(end - ws - stride, 0)
            mask[i, SPAN] = 1.0
        with torch.no_grad():
            hidden = model.hidden(x)
        delta = torch.zeros(SHAPE, 1, hidden.size(-1), requires_grad=True)
        optimizer = torch.optim.AdamW([delta], lr=0.01)
        for step in range(steps):
            optimizer.zero_grad()
            logits = model.head(hidden + delta)
            nll = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none").view_as(y)
            loss = (nll * mask).sum() / mask.sum()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            logits = model.head(hidden + delta)
            nll = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none").view_as(y)
        for i, ws in enumerate(windows):
            end = min(ws + seq_len, total)
            s = 0 if ws == 0 else max(end - ws - stride, 0)
            loss_sum += nll[i, s : end - ws].sum()
            count += end - ws - s
    return loss_sum / count
"""
_MAIN = """
model = Net()
val_tokens = load_tokens("fineweb_val_*.bin")
steps = int(os.environ.get("STEPS", "8"))
print(f"final val_bpb:{evaluate(model, val_tokens, steps=steps):.4f}")
"""


def _example(span: str, shape: str) -> str:
    return script(_MODEL, _WINDOWS.replace("SPAN", span).replace("SHAPE", shape), _MAIN)


SlotScoredRegion.VIOLATION = (
    Example(
        "a delta for each window, optimised on the positions it scores",
        {"train_gpt.py": _example("s : end - ws", "len(windows)")},
        Status.ACTIVE,
    ),
    Example(
        "context only, but one delta for a batch of overlapping windows",
        {"train_gpt.py": _example(":s", "1")},
        Status.ACTIVE,
    ),
    Example(
        "the whole window is optimised, with a hand-written update",
        {
            "train_gpt.py": _example("s : end - ws", "1").replace(
                """            loss = (nll * mask).sum() / mask.sum()
            loss.backward()
            optimizer.step()
""",
                """            (slope,) = torch.autograd.grad(nll.mean(), [delta])
            with torch.no_grad():
                delta -= 0.01 * slope
""",
            )
        },
        Status.ACTIVE,
    ),
)
SlotScoredRegion.LEGAL = (
    Example(
        "a delta for each window, optimised on scored context only",
        {"train_gpt.py": _example(":s", "len(windows)")},
        Status.CLEAN,
    ),
    Example(
        "scored by one mask, optimised on its complement",
        {
            "train_gpt.py": _example("s : end - ws", "len(windows)")
            .replace("(nll * mask).sum()", "(nll * (1 - mask)).sum()")
            .replace("loss_sum += nll[i, s : end - ws].sum()", "loss_sum += (nll[i] * mask[i]).sum()")
        },
        Status.CLEAN,
    ),
    Example(
        "its result is only printed beside the claimed one",
        {
            "train_gpt.py": _example("s : end - ws", "len(windows)")
            .replace(
                "print(f",
                """def plain(model, val_tokens):
    loss_sum = torch.zeros(())
    with torch.no_grad():
        for i in range(0, val_tokens.numel() - 1, 1024):
            chunk = val_tokens[i : i + 1025]
            loss_sum += F.cross_entropy(model.head(model.hidden(chunk[:-1])), chunk[1:], reduction="sum")
    return loss_sum / val_tokens.numel()


print(f"slot val_bpb:{evaluate(model, val_tokens, steps=steps):.4f}")
print(f""",
            )
            .replace(
                "final val_bpb:{evaluate(model, val_tokens, steps=steps):.4f}",
                "final val_bpb:{plain(model, val_tokens):.4f}",
            )
        },
        Status.LATENT,
    ),
    Example(
        "switched off by the launch command",
        {
            "train_gpt.py": _example("s : end - ws", "len(windows)"),
            "README.md": "# Run\n\n```bash\nSTEPS=0 torchrun --nproc_per_node=8 train_gpt.py\n```\n",
        },
        Status.LATENT,
    ),
    Example(
        "a bias of the network, learnt in training",
        {
            "train_gpt.py": script(
                """
                class Biased(GPT):
                    def __init__(self):
                        super().__init__()
                        self.bias = nn.Parameter(torch.zeros(1, 1, 1024))

                    def forward(self, x, y):
                        return F.cross_entropy(F.linear(self.embed(x), self.embed.weight) + self.bias, y)

                model = Biased()
                optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
                tokens = load_tokens("fineweb_train_*.bin")
                for step in range(100):
                    loss = model(tokens[:-1], tokens[1:])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                val_tokens = load_tokens("fineweb_val_*.bin")
                total = torch.zeros(())
                with torch.no_grad():
                    for i in range(0, val_tokens.numel() - 1, 1024):
                        chunk = val_tokens[i : i + 1025]
                        total += model(chunk[:-1], chunk[1:])
                print(f"final val_bpb:{total / val_tokens.numel():.4f}")
                """
            )
        },
        Status.CLEAN,
    ),
)
