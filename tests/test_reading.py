"""Which evaluation made the number."""

from __future__ import annotations

import json

import pytest

from auditor.reading import Reading
from auditor.submission import Change, RecordFolder, Submission, SubmissionFile, SubmissionKind
from rules.examples import script

TWO_UNDER_ONE_LABEL = script(
    """
    def eval_plain(model, tokens):
        total = torch.zeros(())
        with torch.no_grad():
            for i in range(0, tokens.numel() - 1, 1024):
                total += model(tokens[i : i + 1024], tokens[i + 1 : i + 1025])
        return total


    def eval_sliding(model, tokens):
        total = torch.zeros(())
        with torch.no_grad():
            for i in range(0, tokens.numel() - 1, 64):
                total += model(tokens[i : i + 1024], tokens[i + 1 : i + 1025])
        return total


    model = GPT()
    tokens = load_tokens("fineweb_val_*.bin")
    plain = eval_plain(model, tokens)
    print(f"final_plain val_loss:{plain:.4f} val_bpb:{plain:.4f}")
    print(f"final_roundtrip_exact val_loss:{plain:.8f} val_bpb:{plain:.8f}")
    sliding = eval_sliding(model, tokens)
    print(f"final_sliding val_loss:{sliding:.4f} val_bpb:{sliding:.4f}")
    print(f"final_roundtrip_exact val_loss:{sliding:.8f} val_bpb:{sliding:.8f}")
    """
)
PLAIN = "final_plain val_loss:1.9299 val_bpb:1.1430\nfinal_roundtrip_exact val_loss:1.92987577 val_bpb:1.14298416\n"
SLIDING = "final_sliding val_loss:1.9112 val_bpb:1.1320\nfinal_roundtrip_exact val_loss:1.91120000 val_bpb:1.13196000\n"


def read(files: dict[str, str]) -> Reading:
    made = tuple(SubmissionFile(p, len(t.encode()), Change.ADDED, t.encode) for p, t in sorted(files.items()))
    folder = RecordFolder(".", "unknown", made)
    return Reading(Submission("test", None, None, None, None, SubmissionKind.RECORD, (folder,), made), folder)


@pytest.mark.parametrize(
    ("log", "claim", "function"),
    [(PLAIN, 1.14298416, "eval_plain"), (PLAIN + SLIDING, 1.13196, "eval_sliding")],
)
def test_of_two_evaluations_under_one_label_the_log_tells_which(log: str, claim: float, function: str) -> None:
    claimed = json.dumps({"val_bpb": claim})
    reading = read({"train_gpt.py": TWO_UNDER_ONE_LABEL, "train.log": log, "submission.json": claimed})
    assert reading.reported.in_log
    assert reading.reported.function is not None and reading.reported.function.function == function
