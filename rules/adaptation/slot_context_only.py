"""Parameters of a window optimised on already scored positions only (context-only SLOT).

**What it catches.** For each window of the reported evaluation, a delta on the hidden state or a logit bias is made (or
carried over from the window before), optimised by gradient steps on the loss of positions that are scored already, and
used to score the positions that follow.

**Why it matters.** No target takes part in an update that precedes its own score, so that the four conditions of
issue #1017 can hold; whether the form is allowed was asked (issue #1336) and never answered. The report says so, and
does not decide.

**Legal look-alikes.** Score-first test-time training of weights and per-document adapters; biases and temperatures
learnt in training; calibration on training tokens. Where one tensor is optimised for a whole batch of overlapping
windows, a neighbour scores what is context here: that is `slot-scored-region`, as is every loop whose loss
covers scored positions.

**How it is read.** As `slot-scored-region`: steps on tensors that no network owns, the spans that restrict their loss
and those that restrict the score, as numbers at a window in the middle of the run. A score that comes before the step
on parameters that the next window starts from counts as context as well.

**Remedy.** None needed by a ruling; a record should say that its score rests on an unruled method.

**Ruling.** None (issue #1336). No such submission was merged.
"""

from __future__ import annotations

from auditor.index.window_parameters import Relation, WindowParameters
from auditor.reading import Reading
from auditor.verdict import Effect, Status
from rules.adaptation.inner_optimisation import judge
from rules.base import Example, Finding, Rule
from rules.examples import script


class SlotContextOnly(Rule):
    """See the module's documentation."""

    slug = "slot-context-only"
    group = "adaptation"
    title = "per-window parameters optimised on already scored context only"
    official = Effect.ADVISORY
    strict = Effect.ADVISORY
    precedents = ("issue #1336: asked, never answered", "unmerged: #1217, #1306, #1333, #1350, #1372")

    def check(self, reading: Reading) -> Finding:
        return judge(reading, _wanted, "optimises parameters on already scored positions")


def _wanted(inner: WindowParameters) -> bool:
    return inner.relation in (Relation.CONTEXT, Relation.EARLIER)


_MODEL = """
class Net(GPT):
    def hidden(self, x):
        return self.embed(x)

    def head(self, h):
        return F.linear(h, self.embed.weight)
"""
_WINDOW_BY_WINDOW = """
def evaluate(model, val_tokens, seq_len=1024, stride=64, steps=8):
    total = val_tokens.numel() - 1
    loss_sum = torch.zeros(())
    for ws in range(0, total, stride):
        end = min(ws + seq_len, total)
        x = val_tokens[ws:end]
        y = val_tokens[ws + 1 : end + 1]
        s = 0 if ws == 0 else max(end - ws - stride, 0)
        with torch.no_grad():
            hidden = model.hidden(x)
        delta = torch.zeros(1, hidden.size(-1), requires_grad=True)
        if s > 0:
            optimizer = torch.optim.SGD([delta], lr=0.01)
            for step in range(steps):
                optimizer.zero_grad()
                F.cross_entropy(model.head(hidden[FIT] + delta), y[FIT]).backward()
                optimizer.step()
        with torch.no_grad():
            loss_sum += F.cross_entropy(model.head(hidden[s:] + delta), y[s:], reduction="sum")
    return loss_sum / total
"""
_SCORE_FIRST = """
def evaluate(model, val_tokens, seq_len=1024, steps=8):
    total = val_tokens.numel() - 1
    loss_sum = torch.zeros(())
    delta = torch.zeros(64, requires_grad=True)
    optimizer = torch.optim.SGD([delta], lr=0.01)
    for ws in range(0, total, seq_len):
        x = val_tokens[ws : ws + seq_len]
        y = val_tokens[ws + 1 : ws + seq_len + 1]
        with torch.no_grad():
            hidden = model.hidden(x)
            loss_sum += F.cross_entropy(model.head(hidden + delta), y, reduction="sum")
        for step in range(steps):
            optimizer.zero_grad()
            F.cross_entropy(model.head(hidden + delta), y).backward()
            optimizer.step()
    return loss_sum / total
"""
_MAIN = """
model = Net()
val_tokens = load_tokens("fineweb_val_*.bin")
steps = int(os.environ.get("STEPS", "8"))
print(f"final val_bpb:{evaluate(model, val_tokens, steps=steps):.4f}")
"""

SlotContextOnly.VIOLATION = (
    Example(
        "window by window, optimised on its scored context",
        {"train_gpt.py": script(_MODEL, _WINDOW_BY_WINDOW.replace("FIT", ":s"), _MAIN)},
        Status.ACTIVE,
    ),
    Example(
        "each window is scored, then teaches the delta of the next",
        {"train_gpt.py": script(_MODEL, _SCORE_FIRST, _MAIN)},
        Status.ACTIVE,
    ),
)
SlotContextOnly.LEGAL = (
    Example(
        "optimised on what it scores: another rule's matter",
        {"train_gpt.py": script(_MODEL, _WINDOW_BY_WINDOW.replace("FIT", "s:"), _MAIN)},
        Status.CLEAN,
    ),
    Example(
        "no inner optimisation",
        {
            "train_gpt.py": script(
                """
                val_tokens = load_tokens("fineweb_val_*.bin")
                model = GPT()
                loss_sum = torch.zeros(())
                with torch.no_grad():
                    for i in range(0, val_tokens.numel() - 1, 1024):
                        loss_sum += model(val_tokens[i : i + 1024], val_tokens[i + 1 : i + 1025])
                print(f"final val_bpb:{loss_sum / val_tokens.numel():.4f}")
                """
            )
        },
        Status.CLEAN,
    ),
    Example(
        "no steps, by the launch command",
        {
            "train_gpt.py": script(_MODEL, _WINDOW_BY_WINDOW.replace("FIT", ":s"), _MAIN),
            "README.md": "# Run\n\n```bash\nSTEPS=0 torchrun --nproc_per_node=8 train_gpt.py\n```\n",
        },
        Status.LATENT,
    ),
    Example(
        "score-first training of the weights",
        {
            "train_gpt.py": script(
                _MODEL,
                _SCORE_FIRST.replace("[delta]", "model.parameters()")
                .replace(" + delta", "")
                .replace("    delta = torch.zeros(64, requires_grad=True)\n", ""),
                _MAIN,
            )
        },
        Status.CLEAN,
    ),
)
