"""The bytes that a log's figures imply."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from auditor.contest import VAL_BYTES, VAL_TOKENS
from auditor.implied_bytes import BytesEvidence, Denominator, classify, implied_bytes
from auditor.reading import Reading
from auditor.submission import Change, RecordFolder, Submission, SubmissionFile, SubmissionKind

PLAIN = VAL_TOKENS["sp1024"]
CASED = VAL_TOKENS["sp8192 CaseOps"]


def read(files: Mapping[str, str]) -> Reading:
    made = tuple(SubmissionFile(p, len(t.encode()), Change.ADDED, t.encode) for p, t in sorted(files.items()))
    folder = RecordFolder(".", "record", made)
    return Reading(Submission("x", None, None, None, None, SubmissionKind.RECORD, (folder,), made), folder)


def line(label: str, loss: float, total: float, tokens: int) -> str:
    return f"{label} val_loss:{loss:.8f} val_bpb:{loss / math.log(2) * tokens / total:.8f}"


def evidence(*lines: str, script: str = "") -> BytesEvidence | None:
    figure = lines[-1].rpartition("val_bpb:")[2]
    files = {
        "train.log": "\n".join(lines) + "\n",
        "submission.json": f'{{"val_bpb": {figure}}}',
        "train_gpt.py": script,
    }
    return implied_bytes(read(files))


def test_canonical_count() -> None:
    found = evidence(
        f"val_loader:shards pattern=fineweb_val_*.bin tokens:{PLAIN}",
        line("step:100/200", 3.0, VAL_BYTES, PLAIN),
        line("final_int8_roundtrip_exact", 2.1, VAL_BYTES, PLAIN),
    )
    assert found is not None and found.reported is not None
    assert found.reported.denominator is Denominator.CANONICAL
    assert not found.reported.denominator.flatters
    assert found.reported.total == pytest.approx(VAL_BYTES, rel=1e-6)
    assert found.same_throughout
    assert [e.line for e in found.reported.evidence] == [3, 1]
    assert found.training == pytest.approx(VAL_BYTES / PLAIN, rel=1e-6)


def test_wrong_count_is_named_and_put_in_words() -> None:
    found = evidence(f"val_tokens: {CASED}", line("final", 2.4, 164_594_398, CASED))
    assert found is not None and found.reported is not None
    assert found.reported.denominator is Denominator.CASEOPS_SENTINELS
    assert found.reported.denominator.flatters
    assert found.reported.told == "164.59 million bytes, 8.9 % more than the split's 151.07 million"


def test_a_mixture_beside_the_networks_loss_differs_from_the_rest() -> None:
    found = evidence(
        f"val_tokens: {PLAIN}",
        line("step:100/200", 3.0, VAL_BYTES, PLAIN),
        line("final_mix", 2.1, 170_000_000, PLAIN),
    )
    assert found is not None and found.reported is not None
    assert not found.same_throughout
    assert found.reported.denominator is Denominator.MORE


def test_without_a_count_of_tokens_the_vocabulary_decides() -> None:
    script = 'import os\nvocab = int(os.environ.get("VOCAB_SIZE", "8192"))\n'
    found = evidence(line("final", 2.4, VAL_BYTES, CASED), script=script)
    assert found is not None and found.reported is not None
    assert not found.reported.tokens_logged
    assert found.reported.tokens == CASED
    assert "as published for this vocabulary" in found.reported.told


def test_nothing_to_go_by() -> None:
    assert evidence(line("final", 2.1, VAL_BYTES, PLAIN)) is None
    assert evidence(f"val_tokens: {PLAIN}", "final val_bpb:1.2345") is None
    assert implied_bytes(read({"train_gpt.py": ""})) is None


def test_rounded_figures_say_how_exact_they_are() -> None:
    found = evidence(f"val_tokens: {PLAIN}", "final val_loss:2.0727 val_bpb:1.2276")
    assert found is not None and found.reported is not None
    assert found.reported.uncertainty == pytest.approx(0.00005 / 2.0727 + 0.00005 / 1.2276)


@pytest.mark.parametrize(
    ("total", "tokens", "expected"),
    [
        (150_850_000, PLAIN, Denominator.CANONICAL),
        (151_080_891, VAL_TOKENS["sp8192"], Denominator.CANONICAL),
        (155_770_000, 63_779_840, Denominator.FIRST_SPLIT),
        (155_770_000, PLAIN, Denominator.MORE),
        (164_594_398, CASED, Denominator.CASEOPS_SENTINELS),
        (164_594_398, PLAIN, Denominator.MORE),
        (176_332_748, VAL_TOKENS["sp8192"], Denominator.DOUBLE_SPACE),
        (177_830_000, VAL_TOKENS["sp8192"], Denominator.DOUBLE_SPACE),
        (157_310_000, 61_020_000, Denominator.BYTE_FALLBACK),
        (192_580_000, VAL_TOKENS["sp4096"], Denominator.MORE),
        (149_180_000, PLAIN, Denominator.FEWER),
        (32_760_000, 9_662_464, Denominator.PART),
    ],
)
def test_denominators(total: int, tokens: int, expected: Denominator) -> None:
    assert classify(total / tokens, tokens) is expected
