"""A logit bias that is optimised during the evaluation and carried from window to window (ETLB).

**What it catches.** A vector over the vocabulary is added to the logits of the reported evaluation, takes gradient
steps on the loss of positions that are scored already, and is where the next window starts from: state built from
validation tokens that no artifact holds.

**Why it matters.** It adapts to the validation text as test-time training does, with order and window layout as part of
the result. Score-first forms can meet the four conditions of issue #1017, but no organiser has ruled on them.

**Legal look-alikes.** A bias learnt in training or fitted on training tokens; a delta on the hidden state
(`slot-context-only`); a bias that takes its loss from positions it then scores (`slot-scored-region`); n-gram and
cache mixtures, which have rules of their own.

**How it is read.** Among the tensors that no network owns and that steps on validation tokens change: those that are
added to logits after the last matrix product, and whose value at the end of one round of the evaluation's loop is
read in the next.

**Remedy.** None needed by a ruling; a record should say that its score rests on an unruled method.

**Ruling.** None. Cases: #1399 and #1415, neither merged.
"""

from __future__ import annotations

from auditor.index.window_parameters import Relation, WindowParameters
from auditor.reading import Reading
from auditor.verdict import Effect, Status
from rules.adaptation.inner_optimisation import judge
from rules.base import Example, Finding, Rule
from rules.examples import script


class EvalLogitBias(Rule):
    """See the module's documentation."""

    slug = "eval-logit-bias"
    group = "adaptation"
    title = "logit bias carried across evaluation windows"
    official = Effect.ADVISORY
    strict = Effect.ADVISORY
    precedents = ("unruled: #1399, #1415",)

    def check(self, reading: Reading) -> Finding:
        return judge(reading, _wanted, "optimises a logit bias that goes from window to window")


def _wanted(inner: WindowParameters) -> bool:
    return inner.carried and bool(inner.biases) and inner.relation not in (Relation.SCORED, Relation.UNCLEAR)


_MODEL = """
class Net(GPT):
    def hidden(self, x):
        return self.embed(x)

    def head(self, h):
        return F.linear(h, self.embed.weight)
"""
_WARM = """
def evaluate(model, val_tokens, seq_len=1024, stride=64, steps=5):
    total = val_tokens.numel() - 1
    loss_sum = torch.zeros(())
    bias = torch.zeros(1024)
    for ws in range(0, total, stride):
        end = min(ws + seq_len, total)
        x = val_tokens[ws:end]
        y = val_tokens[ws + 1 : end + 1]
        with torch.no_grad():
            logits = model.head(model.hidden(x))
        s = 0 if ws == 0 else end - ws - stride
        if s > 0:
            b = START.clone().requires_grad_(True)
            optimizer = torch.optim.SGD([b], lr=0.05)
            for step in range(steps):
                optimizer.zero_grad()
                F.cross_entropy(logits[:s] + b, y[:s]).backward()
                optimizer.step()
            KEPT = b.detach().clamp(-3, 3)
        loss_sum += F.cross_entropy(logits[s:] + KEPT, y[s:], reduction="sum")
    return loss_sum / total
"""
_ONLINE = """
def evaluate(model, val_tokens, seq_len=1024, rate=0.1):
    total = val_tokens.numel() - 1
    loss_sum = torch.zeros(())
    bias = torch.zeros(1024, requires_grad=True)
    for ws in range(0, total, seq_len):
        x = val_tokens[ws : ws + seq_len]
        y = val_tokens[ws + 1 : ws + seq_len + 1]
        with torch.no_grad():
            raw = model.head(model.hidden(x))
        loss = F.cross_entropy(raw + bias, y, reduction="sum")
        loss_sum += loss.detach()
        (slope,) = torch.autograd.grad(loss, [bias])
        with torch.no_grad():
            bias -= rate * slope
    return loss_sum / total
"""
_MAIN = """
model = Net()
val_tokens = load_tokens("fineweb_val_*.bin")
print(f"final val_bpb:{evaluate(model, val_tokens):.4f}")
"""

EvalLogitBias.VIOLATION = (
    Example(
        "each window starts from the bias of the one before",
        {"train_gpt.py": script(_MODEL, _WARM.replace("START", "bias").replace("KEPT", "bias"), _MAIN)},
        Status.ACTIVE,
    ),
    Example(
        "scored first, then a hand-written step for the next window",
        {"train_gpt.py": script(_MODEL, _ONLINE, _MAIN)},
        Status.ACTIVE,
    ),
)
EvalLogitBias.LEGAL = (
    Example(
        "a bias for each window alone",
        {
            "train_gpt.py": script(
                _MODEL,
                _WARM.replace("START", "torch.zeros(1024)")
                .replace("        s = 0", "        own = torch.zeros(1024)\n        s = 0")
                .replace("KEPT", "own"),
                _MAIN,
            )
        },
        Status.CLEAN,
    ),
    Example(
        "a delta on the hidden state",
        {
            "train_gpt.py": script(
                _MODEL,
                _ONLINE.replace("raw = model.head(model.hidden(x))", "raw = model.hidden(x)").replace(
                    "F.cross_entropy(raw + bias, y", "F.cross_entropy(model.head(raw + bias), y"
                ),
                _MAIN,
            )
        },
        Status.CLEAN,
    ),
    Example(
        "a bias learnt on training tokens, then fixed",
        {
            "train_gpt.py": script(
                _MODEL,
                """
                def fit(model, tokens):
                    bias = torch.zeros(1024, requires_grad=True)
                    optimizer = torch.optim.SGD([bias], lr=0.1)
                    for i in range(0, 1000, 10):
                        optimizer.zero_grad()
                        F.cross_entropy(model.head(model.hidden(tokens[i : i + 10])) + bias, tokens[1:11]).backward()
                        optimizer.step()
                    return bias.detach()

                model = Net()
                bias = fit(model, load_tokens("fineweb_train_*.bin"))
                val_tokens = load_tokens("fineweb_val_*.bin")
                loss_sum = torch.zeros(())
                for ws in range(0, val_tokens.numel() - 1, 1024):
                    logits = model.head(model.hidden(val_tokens[ws : ws + 1024])) + bias
                    loss_sum += F.cross_entropy(logits, val_tokens[ws + 1 : ws + 1025], reduction="sum").detach()
                print(f"final val_bpb:{loss_sum / val_tokens.numel():.4f}")
                """,
            )
        },
        Status.CLEAN,
    ),
)
