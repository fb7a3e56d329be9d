"""Gradient steps on validation tokens before the pass that is reported.

**What it catches.** After training, and before the evaluation whose result is claimed, an optimiser steps on the
validation tokens: an "adaptation" of the averaged model before it is quantised, or between quantisation and the
reported evaluation. The tokens are then scored by weights that have already learnt them.

**Why it breaks the score.** The reported bits per byte are no longer those of a model that has not seen the text:
every scored token took part, as a target, in an update made before it was scored (condition C3 of issue #1017).

**Legal look-alikes.** Score-first test-time training: a chunk is scored, its loss is added to the
reported sum, and only then is it trained on, for any number of epochs; per-document adapters
trained on the part of the document already scored; global SGD over documents already scored earlier
in the same pass; throw-away compile warm-up whose weights are dropped or restored; the same
function fed with training shards; training passes that end after the reported evaluation. Adapting
to a chunk and then scoring the same chunk inside the evaluation loop is `score-after-adapt`, and training
on validation shards from the start is `val-data-in-training`, not this rule.

**How it is read.** The trace of the entry point under the run's effective configuration shows, in
order, each optimiser step with the tokens its loss came from, and each addition to the reported
sum. A step on validation tokens that is finished before the reported evaluation scores its first
token, on weights that are used afterwards, is active. Where the function that steps prints
something and the whole log lacks it, the code did not run and the finding is latent.

**Remedy.** Drop the phase, or score each chunk before training on it.

**Ruling.** README, 20 March 2026: test-time training only on tokens already evaluated. Organiser,
#1972, 2 May 2026: "score-after-adapt on validation data and violates the score-first/C3 rule".
Settled.
"""

from __future__ import annotations

import re

from auditor.index.adaptation import share_loop
from auditor.index.phases import is_training_itself, why_harmless
from auditor.index.trace import Event, Kind
from auditor.reading import Reading, prints
from auditor.verdict import Confidence, Effect, Evidence, Status
from rules.base import Example, Finding, Rule
from rules.examples import script


class PrequantTTT(Rule):
    """See the module's documentation."""

    slug = "prequant-ttt"
    group = "leakage"
    title = "gradient steps on validation tokens before the pass that is reported"
    official = Effect.VIOLATION
    strict = Effect.VIOLATION
    evidence = ("code", "probe")
    precedents = (
        "README, 20 Mar 2026: test-time training only on tokens already evaluated",
        "organiser on #1972, 2 May 2026: score-after-adapt on validation data",
        "legal: #549, #1413, #1493, #1514 (score-first, several epochs), #1610 (global SGD on scored documents)",
    )

    def check(self, reading: Reading) -> Finding:
        problem = reading.unreadable()
        if problem is not None:
            return Finding(Status.UNKNOWN, f"The code could not be read: {problem}.", Confidence.HIGH)
        trace = reading.trace
        reported = reading.reported
        first = reported.first_score()
        steps = [e for e in trace.of(Kind.STEP) if "val" in e.roles]
        harmless: list[tuple[Event, str]] = []
        open_questions: list[tuple[Event, str]] = []
        did_not_run: list[Event] = []
        for step in steps:
            why = why_harmless(trace, reported.scores, step) or _training_itself(reading, step)
            if why is not None:
                harmless.append((step, why))
                continue
            ran, shown = reading.ran(step)
            if ran is False:
                did_not_run.append(step)
                continue
            undecided = [g for g in step.undecided if "<exception>" not in g.settings and g.settings]
            if undecided and ran is None:
                open_questions.append((step, "a setting on the path is not known for this run"))
                continue
            if "train" in step.roles:
                open_questions.append((step, "the same loss also comes from training tokens"))
                continue
            if first is None:
                open_questions.append((step, "no evaluation that prints a result was found to order it against"))
                continue
            if reading.result_not_logged:
                open_questions.append(
                    (
                        step,
                        "the log ends before the result that follows it: where the claimed number is from is not shown",
                    )
                )
                continue
            return self._active(reading, step, first, shown)
        if open_questions:
            step, why = open_questions[0]
            return Finding(
                Status.SUSPECT,
                f"An optimiser steps on validation tokens in {step.frames[-1].function}, but {why}.",
                Confidence.LOW,
                (
                    reading.at(step, "trains on validation tokens"),
                    *reading.guard_evidence(step.undecided, "condition not decided"),
                ),
                reading.call_path(step),
                step.rests_on,
            )
        if did_not_run:
            step = did_not_run[0]
            return Finding(
                Status.LATENT,
                f"{step.frames[-1].function} trains on validation tokens before the reported pass, but the log"
                " lacks every line it prints: it did not run.",
                Confidence.MEDIUM,
                (reading.at(step, "would train on validation tokens"),),
                reading.call_path(step),
            )
        latent = self._latent(reading)
        if latent is not None:
            return latent
        unexplained = _phase_in_log_only(reading)
        if unexplained is not None:
            return Finding(
                Status.SUSPECT,
                "The log shows an adaptation phase before the reported result that the submitted code does not print:"
                " the run may have used other code.",
                Confidence.LOW,
                (unexplained,),
            )
        if harmless:
            step, why = harmless[-1]
            evidence = [reading.at(step, "trains on validation tokens")]
            if first is not None:
                evidence.insert(0, reading.at(first, "scored here"))
            return Finding(
                Status.CLEAN,
                f"Steps on validation tokens are in their legal form: {why}.",
                Confidence.HIGH if first is not None else Confidence.MEDIUM,
                tuple(evidence),
                reading.call_path(step),
            )
        if not trace.of(Kind.STEP):
            return Finding(
                Status.CLEAN,
                "No optimiser step was found on any path from the entry point.",
                Confidence.LOW if trace.truncated or not trace.events else Confidence.MEDIUM,
            )
        return Finding(
            Status.CLEAN,
            "No optimiser step uses validation tokens: every step found uses training tokens or other data.",
            Confidence.LOW if trace.truncated else Confidence.HIGH,
        )

    def _active(self, reading: Reading, step: Event, first: Event, shown: Evidence | None) -> Finding:
        settings = step.switches
        evidence = [
            reading.at(step, "trains here, on validation tokens"),
            reading.at(first, "scored here, afterwards"),
            *([shown] if shown is not None else []),
            *reading.setting_evidence(settings),
        ]
        name = step.frames[-1].function
        reason = (
            f"{name} takes optimiser steps on validation tokens before the reported evaluation"
            f" ({_evaluation(reading)}) scores its first token."
        )
        sure = bool(step.text) and reading.reported.metric is not None
        return Finding(
            Status.ACTIVE,
            reason,
            Confidence.HIGH if sure and (shown is not None or not step.undecided) else Confidence.MEDIUM,
            tuple(evidence),
            reading.call_path(step),
            tuple(sorted(settings)),
        )

    def _latent(self, reading: Reading) -> Finding | None:
        """The same pattern in code that this run switches off."""
        trace = reading.switched_off(reading.training_names())
        if trace is None:
            return None
        scores = trace.of(Kind.SCORE)
        known = {id(e.node) for e in reading.trace.of(Kind.STEP) if "val" in e.roles}
        for step in trace.of(Kind.STEP):
            if "val" not in step.roles or id(step.node) in known:
                continue
            if any(s.seq < step.seq and share_loop(s, step) for s in scores):
                continue
            switches = step.switches
            off = [b for b in reading.trace.skipped if b.settings & switches and b.settings]
            names = sorted(set().union(*(b.settings for b in off)) & switches) or sorted(switches)
            return Finding(
                Status.LATENT,
                f"{step.frames[-1].function} could train on validation tokens, but is switched off in this run"
                + (f" ({', '.join(names[:3])})." if names else "."),
                Confidence.MEDIUM,
                (reading.at(step, "would train on validation tokens"), *reading.setting_evidence(names)),
                reading.call_path(step),
                tuple(names),
            )
        return None


_EPOCH_LINE = re.compile(r"(?i)\b(?:ttt|adapt|finetune)[\w-]*[:_ ]+epoch[ :=]*\d")


def _phase_in_log_only(reading: Reading) -> Evidence | None:
    """A line of the claim's log that tells of epochs of adaptation, and that nothing in the code can have printed."""
    label = reading.reported.log
    if label is None:
        return None
    texts = [e.text for e in reading.trace.events if e.kind in (Kind.MESSAGE, Kind.METRIC) and e.text]
    for file, line, text in reading.run.find(_EPOCH_LINE, words=("epoch",)):
        if file == label.file and line < label.line and not any(prints(t, text) for t in texts):
            return reading.log_evidence(file, line, text, "an adaptation phase, in the log only")
    return None


def _training_itself(reading: Reading, step: Event) -> str | None:
    if is_training_itself(reading.trace, step):
        return "they are the training itself: a question of the training data (val-data-in-training)"
    return None


def _evaluation(reading: Reading) -> str:
    function = reading.reported.function
    return function.function if function is not None else "the reported evaluation"


_BASE = """
def train(model, tokens):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(100):
        x, y = tokens[:-1], tokens[1:]
        loss = model(x, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def evaluate(model, val_tokens):
    loss_sum = torch.zeros(())
    count = 0
    with torch.no_grad():
        for i in range(0, val_tokens.numel() - 1, 1024):
            chunk = val_tokens[i : i + 1025]
            loss_sum += model(chunk[:-1], chunk[1:]) * (chunk.numel() - 1)
            count += chunk.numel() - 1
    return loss_sum / count
"""

PrequantTTT.VIOLATION = (
    Example(
        "adapted on the validation tokens before quantisation",
        {
            "train_gpt.py": script(
                _BASE,
                """
                def adapt(model, val_tokens, epochs):
                    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
                    for epoch in range(epochs):
                        for i in range(0, val_tokens.numel() - 1, 1024):
                            chunk = val_tokens[i : i + 1025]
                            loss = model(chunk[:-1], chunk[1:])
                            optimizer.zero_grad()
                            loss.backward()
                            optimizer.step()

                model = GPT()
                train(model, load_tokens("fineweb_train_*.bin"))
                val_tokens = load_tokens("fineweb_val_*.bin")
                if int(os.environ.get("ADAPT", "1")):
                    adapt(model, val_tokens, 3)
                torch.save(quantize(model.state_dict()), "model.bin")
                model.load_state_dict(dequantize(torch.load("model.bin")))
                print(f"final val_bpb:{evaluate(model, val_tokens):.4f}")
                """,
            )
        },
        Status.ACTIVE,
    ),
)
_ADAPTER = script(
    """
    class Adapter:
        def __init__(self, model, rate):
            self.rate = rate
            self.optimizer = torch.optim.Adam(model.parameters(), lr=rate)

        @property
        def enabled(self):
            return self.rate > 0.0

        def step(self, model, x, y):
            if not self.enabled:
                return
            self.optimizer.zero_grad()
            model(x, y).backward()
            self.optimizer.step()
    """,
    _BASE,
    """
    def adapt(model, val_tokens, adapter):
        for i in range(0, val_tokens.numel() - 1, 1024):
            chunk = val_tokens[i : i + 1025]
            adapter.step(model, chunk[:-1], chunk[1:])

    model = GPT()
    train(model, load_tokens("fineweb_train_*.bin"))
    val_tokens = load_tokens("fineweb_val_*.bin")
    adapt(model, val_tokens, Adapter(model, float(os.environ.get("ADAPT_LR", "0.0"))))
    print(f"final val_bpb:{evaluate(model, val_tokens):.4f}")
    """,
)
PrequantTTT.VIOLATION = (
    *PrequantTTT.VIOLATION,
    Example(
        "an adapter whose switch is a property, on in the launch command",
        {
            "train_gpt.py": _ADAPTER,
            "README.md": "# Run\n\n```bash\nADAPT_LR=0.001 torchrun --nproc_per_node=8 train_gpt.py\n```\n",
        },
        Status.ACTIVE,
    ),
)
PrequantTTT.LEGAL = (
    Example("the same adapter, off by its default rate", {"train_gpt.py": _ADAPTER}, Status.LATENT),
    Example(
        "the log breaks off before the evaluation that follows: the claimed number is not from there",
        {
            "train_gpt.py": PrequantTTT.VIOLATION[0]
            .files["train_gpt.py"]
            .replace("model = GPT()", 'print("model made")\nmodel = GPT()\nprint("training begins")', 1)
            .replace("if int(os", 'print("training is over")\nprint("tokens for validation loaded")\nif int(os', 1),
            "train.log": "run_id:a seed:1337\nlearning_rate:0.001 iterations:100\nmodel made\ntraining begins\n"
            "step:100/100 val_loss:2.0444 val_bpb:1.2108 train_time:600000ms\ntraining is over\n"
            "tokens for validation loaded\n",
            "submission.json": '{"val_bpb": 1.1999}\n',
        },
        Status.SUSPECT,
    ),
    Example(
        "switched off by the launch command",
        {
            "train_gpt.py": PrequantTTT.VIOLATION[0].files["train_gpt.py"],
            "README.md": "# Run\n\n```bash\nADAPT=0 torchrun --nproc_per_node=8 train_gpt.py\n```\n",
        },
        Status.LATENT,
    ),
    Example(
        "score-first: each chunk is scored, then trained on for three epochs",
        {
            "train_gpt.py": script(
                _BASE,
                """
                def evaluate_ttt(model, val_tokens):
                    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
                    loss_sum = torch.zeros(())
                    for i in range(0, val_tokens.numel() - 1, 1024):
                        chunk = val_tokens[i : i + 1025]
                        with torch.no_grad():
                            loss_sum += model(chunk[:-1], chunk[1:])
                        for epoch in range(3):
                            optimizer.zero_grad()
                            model(chunk[:-1], chunk[1:]).backward()
                            optimizer.step()
                    return loss_sum / val_tokens.numel()

                model = GPT()
                train(model, load_tokens("fineweb_train_*.bin"))
                print(f"ttt val_bpb:{evaluate_ttt(model, load_tokens('fineweb_val_*.bin')):.4f}")
                """,
            )
        },
        Status.CLEAN,
    ),
    Example(
        "the same adaptation, fed with training shards",
        {
            "train_gpt.py": PrequantTTT.VIOLATION[0]
            .files["train_gpt.py"]
            .replace("adapt(model, val_tokens, 3)", 'adapt(model, load_tokens("fineweb_train_*.bin"), 3)')
        },
        Status.CLEAN,
    ),
    Example(
        "throw-away compile warm-up on validation tokens, weights restored",
        {
            "train_gpt.py": PrequantTTT.VIOLATION[0]
            .files["train_gpt.py"]
            .replace(
                "    adapt(model, val_tokens, 3)",
                "    saved = {k: v.clone() for k, v in model.state_dict().items()}\n"
                "    adapt(model, val_tokens, 1)\n"
                "    model.load_state_dict(saved)",
            )
        },
        Status.CLEAN,
    ),
)
