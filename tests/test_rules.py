"""The rule catalogue: examples as tests, documentation, and what rules must not depend on."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

import rules
from auditor import engine
from auditor.errors import UsageError
from auditor.reading import Reading
from auditor.sources import open_submission
from auditor.sources.base import track_of
from auditor.submission import Change, RecordFolder, Submission, SubmissionFile, SubmissionKind
from auditor.verdict import Effect, Policy, Status
from rules.base import Example, Finding, Rule

ROOT = Path(__file__).parent.parent
SUBMISSIONS = Path(__file__).parent / "fixtures" / "submissions"
RULES = rules.discover()
EXAMPLES = [
    pytest.param(rule, example, id=f"{rule.slug}: {kind}: {example.title}")
    for rule in RULES
    for kind, examples in (("violation", rule.VIOLATION), ("legal", rule.LEGAL))
    for example in examples
]
SECTIONS = ("What it catches", "Why", "Legal look-alikes", "How it is read", "Remedy", "Ruling")
BY_SLUG = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.slug)


def submission_of(files: Mapping[str, str]) -> Submission:
    """A local submission of one folder, in the track that its submission.json names."""
    made = tuple(
        SubmissionFile(path, len(text.encode()), Change.ADDED, text.encode) for path, text in sorted(files.items())
    )
    folder = RecordFolder(".", track_of(".", made), made)
    return Submission("example", None, None, None, None, SubmissionKind.RECORD, (folder,), made)


def read(files: Mapping[str, str]) -> Reading:
    submission = submission_of(files)
    return Reading(submission, submission.folders[0])


# -- examples -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rule", "example"), EXAMPLES)
def test_example(rule: Rule, example: Example) -> None:
    finding = rule.check(read(example.files))
    assert finding.status is example.status, finding.reason


@pytest.mark.parametrize(("rule", "example"), EXAMPLES)
def test_example_reads_as_promised(rule: Rule, example: Example) -> None:
    for path, text in example.files.items():
        if path.endswith(".py") and rule.slug != "broken-script":
            ast.parse(text)
    finding = rule.check(read(example.files))
    assert re.fullmatch(r"[A-Z_a-z][^\n]*\.", finding.reason)
    for evidence in finding.evidence:
        assert evidence.line <= len(example.files[evidence.file].split("\n"))
        assert evidence.role
    if finding.status in (Status.ACTIVE, Status.LATENT, Status.SUSPECT):
        assert finding.evidence


@BY_SLUG
def test_examples_cover_both_sides(rule: Rule) -> None:
    assert rule.VIOLATION and all(e.status is Status.ACTIVE for e in rule.VIOLATION)
    assert rule.LEGAL and all(e.status is not Status.ACTIVE for e in rule.LEGAL)
    titles = [e.title for e in (*rule.VIOLATION, *rule.LEGAL)]
    assert len(titles) == len(set(titles))


@BY_SLUG
def test_example_under_each_policy(rule: Rule) -> None:
    example = rule.VIOLATION[0]
    for policy in Policy:
        verdict = engine.audit(submission_of(example.files), policy=policy, slugs=[rule.slug])
        (outcome,) = verdict.outcomes
        assert outcome.rule == rule.slug
        assert outcome.effect is (rule.official if policy is Policy.OFFICIAL else rule.strict)


@BY_SLUG
@pytest.mark.parametrize(
    "files",
    [
        {},
        {"README.md": "# Words only\n"},
        {"train_gpt.py": ""},
        {"train_gpt.py": "def broken(:\n"},
        {"train_gpt.py": "import helper\nhelper.main()\n"},
        {"other.py": "x = 1\n"},
    ],
    ids=["nothing", "no code", "empty", "broken", "missing module", "other script"],
)
def test_check_never_raises_on_little(rule: Rule, files: Mapping[str, str]) -> None:
    # Scripts that can't be run are what one rule is about; for all others they are too little to go by.
    assert rule.slug == "broken-script" or rule.check(read(files)).status is not Status.ACTIVE


# -- the catalogue ------------------------------------------------------------------------------------------


def test_the_four_rules_are_found() -> None:
    slugs = [rule.slug for rule in RULES]
    assert slugs == sorted(set(slugs))
    assert {"prequant-ttt", "eval-subset", "smeargate-bos-leak", "external-binary"} <= set(slugs)


def test_every_module_with_a_rule_is_found_once() -> None:
    found = {type(rule).__module__ for rule in RULES}
    defining = set()
    for path in (ROOT / "rules").glob("*/*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        bases = [b for node in tree.body if isinstance(node, ast.ClassDef) for b in node.bases]
        if any(isinstance(b, ast.Name) and b.id == "Rule" for b in bases):
            defining.add(".".join(path.relative_to(ROOT).with_suffix("").parts))
    assert found == defining
    assert len(found) == len(RULES)


@BY_SLUG
def test_slug_and_group_are_the_modules_place(rule: Rule) -> None:
    package, group, name = type(rule).__module__.split(".")
    assert (package, group, name) == ("rules", rule.group, rule.slug.replace("-", "_"))
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", rule.slug)


@BY_SLUG
def test_documentation_has_every_section(rule: Rule) -> None:
    text = rule.documentation()
    headings = re.findall(r"^\*\*([^*\n]+?)\.\*\*", text, re.MULTILINE)
    positions = []
    for section in SECTIONS:
        matching = [i for i, heading in enumerate(headings) if heading.startswith(section)]
        assert len(matching) == 1, f"{section} among {headings}"
        positions += matching
    assert positions == sorted(positions)
    for _, body in _sections(text):
        assert len(body.split()) >= 5
    assert text.split("\n")[0].endswith(".")


def _sections(text: str) -> Iterator[tuple[str, str]]:
    parts = re.split(r"^\*\*([^*\n]+?)\.\*\*", text, flags=re.MULTILINE)
    yield from zip(parts[1::2], parts[2::2], strict=True)


@BY_SLUG
def test_rule_is_fit_for_the_catalogue(rule: Rule) -> None:
    assert rule.title and "\n" not in rule.title and not rule.title.endswith(".")
    assert isinstance(rule.official, Effect) and isinstance(rule.strict, Effect)
    assert all(p.strip() for p in rule.precedents)


@BY_SLUG
@pytest.mark.parametrize("policy", Policy)
@pytest.mark.parametrize("status", [s for s in Status if s is not Status.ACTIVE])
def test_only_active_has_an_effect(rule: Rule, policy: Policy, status: Status) -> None:
    assert rule.effect(Finding(status, "Made up.", official=Effect.ACCEPTED), policy) is Effect.NONE


def test_declared_external_programs_are_accepted_officially() -> None:
    (rule,) = engine.select(["external-binary"])
    declared, bare = (Finding(Status.ACTIVE, "Made up.", official=e) for e in (Effect.ACCEPTED, None))
    assert rule.effect(declared, Policy.OFFICIAL) is Effect.ACCEPTED
    assert rule.effect(bare, Policy.OFFICIAL) is Effect.VIOLATION
    assert rule.effect(declared, Policy.STRICT) is Effect.VIOLATION


def test_unknown_rule_is_a_one_line_error() -> None:
    with pytest.raises(UsageError) as caught:
        engine.select(["prequant-tt"])
    assert "prequant-ttt" in str(caught.value) and "\n" not in str(caught.value)


def test_order_and_repetition_of_slugs() -> None:
    chosen = engine.select(["smeargate-bos-leak", "eval-subset", "eval-subset"])
    assert [rule.slug for rule in chosen] == ["smeargate-bos-leak", "eval-subset"]


# -- what nothing may depend on -----------------------------------------------------------------------------

IDENTITY = re.compile(r"(?i)(?:^|_)(?:number|num|pr|prs|pull|pulls|issue)(?:_|$)|^(?:pr|pull)number$")
PLAIN = re.compile(r"(?i)(?:^|_)(?:pr|prs|pull|pulls|submission)(?:_|$)|^(?:pr|pull)number$")
ORDER = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
WHO = frozenset({"number", "author", "title", "body", "state", "head", "base", "source", "repository"})
HASH = re.compile(r"(?<![0-9a-fA-F])(?:[0-9a-f]{40}|[0-9a-f]{64})(?![0-9a-fA-F])", re.IGNORECASE)


def sources(*packages: str) -> Iterator[tuple[Path, ast.Module]]:
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT), ast.parse(path.read_text(encoding="utf-8"))


def names_in(node: ast.AST) -> Iterator[str]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            yield inner.id
        elif isinstance(inner, ast.Attribute):
            yield inner.attr
        elif isinstance(inner, ast.Subscript) and isinstance(inner.slice, ast.Constant):
            yield str(inner.slice.value)


def numbers_in(node: ast.AST) -> Iterator[int]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Constant):
            if type(inner.value) is int:
                yield inner.value
            elif isinstance(inner.value, str) and inner.value.isdigit():
                yield int(inner.value)


def identity_tests(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Comparisons of something named like a pull request's number with a number such requests have."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            parts: list[ast.AST] = [node.left, *node.comparators]
        elif isinstance(node, ast.Match):
            parts = [node.subject, *(case.pattern for case in node.cases)]
        else:
            continue
        # "number" also counts lines and the like: an order says something only where the word is plain.
        ordered = isinstance(node, ast.Compare) and any(isinstance(op, ORDER) for op in node.ops)
        words = PLAIN if ordered else IDENTITY
        named = any(words.search(name) for part in parts for name in names_in(part))
        if named and any(10 <= n <= 2300 for part in parts for n in numbers_in(part)):
            yield node.lineno, ast.unparse(node)


def hashes(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            text = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
            if HASH.search(text):
                yield node.lineno, text[:60]


def test_no_rule_knows_a_pull_request() -> None:
    found = [
        f"{path}:{line}: {code}"
        for path, tree in sources("rules", "auditor", "reports")
        for line, code in identity_tests(tree)
    ]
    assert found == []


def test_no_code_names_a_commit_or_file_hash() -> None:
    found = [
        f"{path}:{line}: {text}" for path, tree in sources("rules", "auditor", "reports") for line, text in hashes(tree)
    ]
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        "if submission.number == 1858: pass",
        "x = number in {543, 1123}",
        "x = 2135 == pr_number",
        "x = info['number'] in ('1934',)",
        "match submission.number:\n    case 1852: pass",
        "if submission.number < 1500: pass",
    ],
)
def test_the_test_above_sees_what_it_should(code: str) -> None:
    assert list(identity_tests(ast.parse(code)))


@pytest.mark.parametrize("code", ["number > 3", "len(files) > 100", "number - last > 1500", "seed == 42"])
def test_the_test_above_lets_other_numbers_be(code: str) -> None:
    assert not list(identity_tests(ast.parse(code)))


def test_rules_do_not_ask_who_sent_what_as_which() -> None:
    found = [
        f"{path}:{node.lineno}"
        for path, tree in sources("rules")
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in WHO and "submission" in set(names_in(node.value))
    ]
    assert found == []


@pytest.mark.parametrize("name", ["prequant-ttt-active", "smeargate-masked", "external-lrzip-declared"])
def test_outcomes_do_not_depend_on_who_and_which(name: str) -> None:
    submission = open_submission(str(SUBMISSIONS / name))
    renamed = replace(
        submission,
        source="https://github.com/openai/parameter-golf/pull/1858",
        repository="openai/parameter-golf",
        number=1858,
        head="0" * 40,
        author="someone-else",
        title="Masked SmearGate, score-first TTT, full validation set, no lrzip",
        body="Nothing here breaks a rule.",
        state="merged",
    )
    assert engine.audit(renamed).outcomes == engine.audit(submission).outcomes


@pytest.mark.parametrize("name", ["prequant-ttt-active", "clean-score-first-ttt", "packed"])
def test_outcomes_do_not_depend_on_the_folders_name(name: str, tmp_path: Path) -> None:
    other = tmp_path / "2026-04-01_SmearGate_TTT_Subset_lrzip"
    other.mkdir()
    for file in (SUBMISSIONS / name).iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    first, second = (engine.audit(open_submission(str(p))) for p in (SUBMISSIONS / name, other))
    assert first.outcomes == second.outcomes
