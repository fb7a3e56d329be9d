"""Sources without a network: addresses, the mirror and local folders."""

from __future__ import annotations

import os
from pathlib import Path

import pygit2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pygit2.enums import FileMode
from sources_helpers import RECORD, Content, Repository

from auditor.errors import SourceError
from auditor.sources import base, git_mirror, open_submission, source_for
from auditor.sources.git_mirror import GitMirror, MirrorSource
from auditor.sources.github import GitHubSource
from auditor.sources.local import LocalSource
from auditor.submission import Change, Submission, SubmissionFile, SubmissionKind

START: dict[str, Content] = {
    "README.md": b"the contest\n",
    "train_gpt.py": b"print('baseline')\n",
    "records/track_10min_16mb/2025-12-01_Baseline/train_gpt.py": b"print('old record')\n",
    "records/track_10min_16mb/2025-12-01_Baseline/README.md": b"old\n",
}
SCRIPT = f"{RECORD}/train_gpt.py"
PULL: dict[str, Content] = {SCRIPT: b"print('new')\n", f"{RECORD}/README.md": b"new\n"}


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "mirror.git")


def load(repository: Repository, head: pygit2.Oid, number: int = 5) -> Submission:
    repository.set_pull(number, head)
    return GitMirror(repository.path, repository="owner/name").submission(number)


def changes(submission: Submission) -> dict[str, Change]:
    return {f.path: f.change for f in submission.files}


def pull(repository: Repository, changed: dict[str, Content], start: dict[str, Content] = START) -> Submission:
    """A pull request that adds ``changed`` to a main branch of one commit."""
    main = repository.commit(start)
    repository.set_main(main)
    return load(repository, repository.commit({**start, **changed}, main))


# -- addresses


@pytest.mark.parametrize(
    "address",
    [
        "https://github.com/owner/some.name/pull/17",
        "https://github.com/owner/some.name/pull/17/",
        "https://github.com/owner/some.name/pull/17/files",
        "https://github.com/owner/some.name/pull/17/commits/0123abc",
        "https://github.com/owner/some.name/pull/17?diff=split",
        "https://github.com/owner/some.name/pull/17#issuecomment-1",
        "http://www.github.com/owner/some.name/pull/17",
        "owner/some.name#17",
        " owner/some.name#17\n",
    ],
)
def test_every_form_of_a_pull_request_address_names_the_same_source(address: str, tmp_path: Path) -> None:
    source = source_for(address, mirror=tmp_path)
    url = "https://github.com/owner/some.name/pull/17"
    assert source == MirrorSource(tmp_path, "owner/some.name", 17, url)
    assert isinstance(source_for(address), GitHubSource)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "nonsense",
        "https://github.com/owner/name",
        "https://github.com/owner/name/issues/3",
        "https://github.com/owner/../pull/3",
        "https://example.org/owner/name/pull/3",
        "ext::sh -c true#1",
        "--upload-pack=x/name#1",
        "owner/..#1",
        "owner/name#",
        "owner/name#99999999999999999999",
        "no/such/folder",
        "a\nb",
        "nul\0byte",
        "x" * 5000,
    ],
)
def test_other_addresses_are_refused_in_one_line(address: str) -> None:
    with pytest.raises(SourceError, match="accepted are https://github") as caught:
        open_submission(address)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@given(st.text(max_size=60))
def test_no_address_makes_anything_but_a_source_or_a_source_error(address: str) -> None:
    try:
        source_for(address)
    except SourceError as error:
        assert "\n" not in str(error)


# -- what a pull request changes


def test_open_pull_request(repository: Repository) -> None:
    main = repository.commit(START)
    later = repository.commit({**START, "README.md": b"changed on main\n"}, main)
    repository.set_main(later)
    changed: dict[str, Content] = {**START, **PULL, "train_gpt.py": b"print('tuned')\n"}
    del changed["records/track_10min_16mb/2025-12-01_Baseline/README.md"]
    submission = load(repository, repository.commit(changed, main))

    assert submission.kind is SubmissionKind.RECORD
    assert submission.base == str(main)
    assert submission.repository == "owner/name"
    assert submission.number == 5
    assert changes(submission) == {
        SCRIPT: Change.ADDED,
        f"{RECORD}/README.md": Change.ADDED,
        "train_gpt.py": Change.MODIFIED,
        "records/track_10min_16mb/2025-12-01_Baseline/README.md": Change.DELETED,
    }
    (folder,) = submission.folders
    assert folder.path == RECORD
    assert folder.track == "record"
    script = folder.file("train_gpt.py")
    assert script is not None
    assert (script.text, script.size, script.problem) == ("print('new')\n", 13, None)
    deleted = next(f for f in submission.files if f.change is Change.DELETED)
    assert deleted.problem == base.DELETED
    assert deleted.data == b""


def test_nothing_is_guessed_about_title_and_author(repository: Repository) -> None:
    submission = pull(repository, PULL)
    assert (submission.author, submission.title, submission.body, submission.state) == (None,) * 4
    assert submission.metadata_note == "metadata unavailable: read from a local mirror"


def test_folder_lists_unchanged_files_and_shares_the_changed_ones(repository: Repository) -> None:
    submission = pull(repository, {SCRIPT: b"print('v2')\n"}, {**START, **PULL})
    (folder,) = submission.folders
    assert {f.path: f.change for f in folder.files} == {
        SCRIPT: Change.MODIFIED,
        f"{RECORD}/README.md": Change.UNCHANGED,
    }
    assert folder.file("train_gpt.py") is submission.files[0]


def test_merged_by_merge_commit(repository: Repository) -> None:
    first = repository.commit(START)
    head = repository.commit({**START, **PULL}, first)
    other = repository.commit({**START, "LICENSE": b"x"}, first)
    merge = repository.commit({**START, **PULL, "LICENSE": b"x"}, other, head, message="Merge")
    repository.set_main(repository.commit({**START, **PULL, "LICENSE": b"y"}, merge))
    submission = load(repository, head)
    assert submission.base == str(first)
    assert set(changes(submission)) == set(PULL)
    assert f"merged into the main branch by commit {str(merge)[:12]}" in (submission.metadata_note or "")


def test_merged_by_merge_commit_after_main_was_merged_into_the_branch(repository: Repository) -> None:
    first = repository.commit(START)
    other = repository.commit({**START, "LICENSE": b"x"}, first)
    begun = repository.commit({**START, SCRIPT: b"print('draft')\n"}, first)
    head = repository.commit({**START, **PULL, "LICENSE": b"x"}, begun, other)
    merge = repository.commit({**START, **PULL, "LICENSE": b"x"}, other, head)
    repository.set_main(merge)
    submission = load(repository, head)
    assert submission.base == str(other)
    assert set(changes(submission)) == set(PULL)


def test_squashed(repository: Repository) -> None:
    first = repository.commit(START)
    head = repository.commit({**START, **PULL}, first)
    repository.set_main(repository.commit({**START, **PULL}, first, message="Add it (#5)"))
    submission = load(repository, head)
    assert submission.base == str(first)
    assert set(changes(submission)) == set(PULL)


def test_squashed_and_main_merged_back(repository: Repository) -> None:
    first = repository.commit(START)
    work = repository.commit({**START, **PULL}, first)
    other = repository.commit({**START, "LICENSE": b"x"}, first, message="License (#15)")
    squash = repository.commit({**START, **PULL, "LICENSE": b"x"}, other, message="Add it (#5)\n\n* work")
    repository.set_main(squash)
    submission = load(repository, repository.commit({**START, **PULL, "LICENSE": b"x"}, work, squash))
    assert submission.base == str(other)
    assert set(changes(submission)) == set(PULL)
    assert "squashed into the main branch" in (submission.metadata_note or "")


def test_fast_forwarded(repository: Repository) -> None:
    first = repository.commit(START, author="organiser")
    before = repository.commit({**START, "LICENSE": b"x"}, first, author="organiser")
    draft = repository.commit({**START, "LICENSE": b"x", SCRIPT: b"draft"}, before, author="entrant")
    head = repository.commit({**START, "LICENSE": b"x", **PULL}, draft, author="entrant")
    repository.set_main(repository.commit({**START, **PULL}, head, author="organiser"))
    submission = load(repository, head)
    assert submission.base == str(before)
    assert set(changes(submission)) == set(PULL)
    assert "inferred" in (submission.metadata_note or "")


def test_branch_reset_to_somebody_elses_commit_is_empty(repository: Repository) -> None:
    first = repository.commit(START)
    head = repository.commit({**START, **PULL}, first, message="Another record (#4)")
    repository.set_main(repository.commit(START, head))
    submission = load(repository, head)
    assert submission.kind is SubmissionKind.EMPTY
    assert submission.files == submission.folders == ()
    assert "another pull request" in (submission.metadata_note or "")


def test_no_common_history(repository: Repository) -> None:
    old_readme: dict[str, Content] = {**START, "README.md": b"an older text\n"}
    repository.set_main(repository.commit(START, repository.commit(old_readme)))
    stranger: dict[str, Content] = {**old_readme, **PULL, "train_gpt.py": b"print('own')\n"}
    del stranger["records/track_10min_16mb/2025-12-01_Baseline/README.md"]
    submission = load(repository, repository.commit(stranger))
    assert submission.base is None
    assert changes(submission) == {
        SCRIPT: Change.ADDED,
        f"{RECORD}/README.md": Change.ADDED,
        "train_gpt.py": Change.MODIFIED,
    }
    assert "no common history" in (submission.metadata_note or "")


# -- bad trees and bad repositories


def problems(submission: Submission) -> dict[str, str | None]:
    assert all(f.data == b"" for f in submission.files if f.problem)
    return {f.path: f.problem for f in submission.files}


def test_what_is_not_read_says_why(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git_mirror, "MAX_FILE_BYTES", 100)
    absent = pygit2.Oid(hex="12" * 20)
    found = problems(
        pull(
            repository,
            {
                **PULL,
                f"{RECORD}/link.py": (FileMode.LINK, b"/etc/passwd"),
                f"{RECORD}/vendored": (FileMode.COMMIT, absent),
                f"{RECORD}/lost.py": (FileMode.BLOB, absent),
                f"{RECORD}/lost_folder": (FileMode.TREE, absent),
                f"{RECORD}/large.bin": b"x" * 101,
                f"{RECORD}/fits.bin": b"x" * 100,
            },
        )
    )
    assert found == {
        SCRIPT: None,
        f"{RECORD}/README.md": None,
        f"{RECORD}/fits.bin": None,
        f"{RECORD}/link.py": base.SYMLINK,
        f"{RECORD}/vendored": "submodule: not part of this repository",
        f"{RECORD}/lost.py": "content missing from the mirror",
        f"{RECORD}/lost_folder": "content missing from the mirror",
        f"{RECORD}/large.bin": base.TOO_LARGE,
    }


def test_paths_that_climb_are_listed_and_never_read(repository: Repository) -> None:
    script = repository.blob(b"print('outside')\n")
    climbing = repository.raw_tree([(FileMode.BLOB, b"train_gpt.py", script)])
    record = repository.raw_tree(
        [
            (FileMode.TREE, b"..", climbing),
            (FileMode.BLOB, b"../../x/train_gpt.py", script),
            (FileMode.BLOB, b"/etc/train_gpt.py", script),
            (FileMode.BLOB, b"train_gpt.py", script),
        ]
    )
    submission = pull(repository, {RECORD: (FileMode.TREE, record)})
    assert problems(submission) == {
        f"{RECORD}/../train_gpt.py": base.UNSAFE_PATH,
        f"{RECORD}/../../x/train_gpt.py": base.UNSAFE_PATH,
        f"{RECORD}//etc/train_gpt.py": base.UNSAFE_PATH,
        SCRIPT: None,
    }
    assert [folder.path for folder in submission.folders] == [RECORD]


def test_names_are_safe_to_print(repository: Repository) -> None:
    blob = repository.blob(b"x")
    record = repository.raw_tree([(FileMode.BLOB, b"a\x1b[2J\n.py", blob), (FileMode.BLOB, b"b\xff.py", blob)])
    submission = pull(repository, {RECORD: (FileMode.TREE, record)})
    assert {f.path for f in submission.files} == {f"{RECORD}/a\\x1b[2J\\n.py", f"{RECORD}/b\\xff.py"}
    assert {f.path for f in submission.folders[0].files} == {f.path for f in submission.files}


def test_endless_nesting_is_cut_off(repository: Repository) -> None:
    tree = repository.tree({"train_gpt.py": b"x"})
    for _ in range(3000):
        tree = repository.raw_tree([(FileMode.TREE, b"d", tree)])
    submission = pull(repository, {**PULL, f"{RECORD}/deep": (FileMode.TREE, tree)})
    (deep,) = [f for f in submission.files if f.path.endswith("/d")]
    assert deep.problem == base.TOO_DEEP
    assert set(PULL) <= set(changes(submission))


def test_a_tree_of_a_billion_files_is_refused(repository: Repository) -> None:
    tree = repository.tree({f"{n}.py": b"x" for n in range(10)})
    for _ in range(8):
        tree = repository.raw_tree([(FileMode.TREE, b"%d" % n, tree) for n in range(10)])
    with pytest.raises(SourceError, match=r"more than 100,000 files"):
        pull(repository, {RECORD: (FileMode.TREE, tree)})


def test_unknown_pull_request(repository: Repository) -> None:
    repository.set_main(repository.commit(START))
    with pytest.raises(SourceError, match="pull request 6 is not in"):
        GitMirror(repository.path).submission(6)
    with pytest.raises(SourceError, match="pull request 6 is not in"):
        open_submission("owner/name#6", mirror=repository.path)


def test_head_commit_missing(repository: Repository) -> None:
    repository.set_main(repository.commit(START))
    reference = repository.path / "refs" / "pull" / "7" / "head"
    reference.parent.mkdir(parents=True)
    reference.write_text("12" * 20 + "\n")
    with pytest.raises(SourceError, match="pull request 7 can't be read"):
        GitMirror(repository.path).submission(7)


def test_head_that_is_no_commit(repository: Repository) -> None:
    repository.set_main(repository.commit(START))
    repository.set_pull(7, repository.blob(b"not a commit"))
    with pytest.raises(SourceError, match="pull request 7 can't be read"):
        GitMirror(repository.path).submission(7)


def test_mirror_that_is_no_mirror(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(SourceError, match="is not a git repository"):
            GitMirror(path)
    with pytest.raises(SourceError, match="has no main branch"):
        GitMirror(Repository(tmp_path / "empty.git").path)


def test_mirror_whose_main_branch_has_another_name(repository: Repository) -> None:
    main = repository.commit(START)
    repository.git.references.create("refs/heads/master", main)
    assert set(changes(load(repository, repository.commit({**START, **PULL}, main)))) == set(PULL)


def test_one_mirror_answers_for_many(repository: Repository) -> None:
    main = repository.commit(START)
    repository.set_main(main)
    for number in (3, 20, 100):
        repository.set_pull(number, repository.commit({**START, SCRIPT: b"%d" % number}, main))
    mirror = GitMirror(repository.path, repository="owner/name")
    assert mirror.numbers() == (3, 20, 100)
    assert [mirror.submission(n).files[0].data for n in mirror.numbers()] == [b"3", b"20", b"100"]
    assert mirror.head(20) == mirror.submission(20).head
    assert mirror.head(21) is None


def test_contents_are_read_on_first_use_only(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = GitMirror._read_blob
    monkeypatch.setattr(GitMirror, "_read_blob", lambda self, oid, path: read.append(path) or real(self, oid, path))
    submission = pull(repository, {**PULL, **{f"{RECORD}/target/{n}.o": b"%d" % n for n in range(50)}})
    assert read == []
    script = submission.folders[0].file("train_gpt.py")
    assert script is not None
    assert script.data == script.data == b"print('new')\n"
    assert read == [SCRIPT]


# -- kinds and folders


def kind_and_folders(submission: Submission) -> tuple[SubmissionKind, dict[str, list[str]]]:
    return submission.kind, {folder.path: [f.path for f in folder.files] for folder in submission.folders}


def test_several_record_folders(repository: Repository) -> None:
    other = "records/track_non_record_16mb/2026-01-02_Study"
    nested = f"{other}/code/variant/train_gpt.py"
    submission = pull(repository, {**PULL, nested: b"x", f"{other}/logs/seed1.log": b"x"})
    assert kind_and_folders(submission) == (
        SubmissionKind.RECORD,
        {RECORD: [f"{RECORD}/README.md", SCRIPT], other: [nested, f"{other}/logs/seed1.log"]},
    )
    assert [folder.track for folder in submission.folders] == ["record", "non-record"]


def test_record_folders_without_changed_code_are_left_out(repository: Repository) -> None:
    old = "records/track_10min_16mb/2025-12-01_Baseline/README.md"
    submission = pull(repository, {**PULL, old: b"typo fixed\n", "records/track_10min_16mb/notes/x.md": b"x"})
    assert [folder.path for folder in submission.folders] == [RECORD]


@pytest.mark.parametrize(
    ("changed", "folders"),
    [
        (["records/mine/train_gpt.py"], ["records/mine"]),
        (["records/mine/README.md", "records/mine/src/model.py"], ["records/mine"]),
        (
            ["records/group/a/train_gpt.py", "records/group/b/train_gpt.py"],
            ["records/group/a", "records/group/b"],
        ),
        (["records/records/track_10min_16mb/a/train_gpt.py"], ["records/records/track_10min_16mb/a"]),
        (["copy/records/track_10min_16mb/a/train_gpt.py"], ["copy/records/track_10min_16mb/a"]),
        (["copy/records/track_10min_16mb/a/train_gpt.py", SCRIPT], [RECORD]),
        (["records/track_10min_16mb/train.py"], ["records/track_10min_16mb"]),
        (["records/train_gpt.py"], ["records"]),
        ([f"{RECORD}/train_gpt.lzma"], [RECORD]),
        ([f"{RECORD}/run.sh"], [RECORD]),
    ],
)
def test_where_records_are_found(repository: Repository, changed: list[str], folders: list[str]) -> None:
    submission = pull(repository, {path: b"x" for path in changed})
    kind, found = kind_and_folders(submission)
    assert kind is SubmissionKind.RECORD
    assert list(found) == folders
    # What lies loose in a track doesn't make everybody's records part of it.
    assert {path for paths in found.values() for path in paths} <= set(changed)


@pytest.mark.parametrize(
    ("changed", "kind", "folders"),
    [
        ({"README.md": b"x"}, SubmissionKind.DOCUMENTS, {}),
        ({f"{RECORD}/README.md": b"x", f"{RECORD}/submission.json": b"{}"}, SubmissionKind.DOCUMENTS, {}),
        (
            {f"{RECORD}/run.log": b"x", f"{RECORD}/submission.json": b'{"val_bpb": 1.2}'},
            SubmissionKind.DOCUMENTS,
            {RECORD: [f"{RECORD}/run.log", f"{RECORD}/submission.json"]},
        ),
        ({"train_gpt.py": b"x"}, SubmissionKind.ROOT_SCRIPT, {"": ["train_gpt.py"]}),
        (
            {"prepare.py": b"x", "README.md": b"x"},
            SubmissionKind.ROOT_SCRIPT,
            {"": ["README.md", "prepare.py"]},
        ),
        (
            {"train_gpt.py": b"x", f"{RECORD}/run.log": b"x"},
            SubmissionKind.ROOT_SCRIPT,
            {"": [f"{RECORD}/run.log", "train_gpt.py"]},
        ),
        (
            {
                "train_gpt.py": b"x",
                "try/train_gpt.py": b"x",
                "try/deep/train_gpt_2.py": b"x",
                "tools/a.py": b"x",
            },
            SubmissionKind.ROOT_SCRIPT,
            {"": ["tools/a.py", "train_gpt.py"], "try": ["try/deep/train_gpt_2.py", "try/train_gpt.py"]},
        ),
        (
            {"a/train_gpt.py": b"x", "b/train_gpt_mlx.py": b"x", "c/tool.py": b"x"},
            SubmissionKind.CODE_ELSEWHERE,
            {"a": ["a/train_gpt.py"], "b": ["b/train_gpt_mlx.py"]},
        ),
        (
            {"c/tool.py": b"x", "d/README.md": b"x"},
            SubmissionKind.CODE_ELSEWHERE,
            {"": ["c/tool.py", "d/README.md"]},
        ),
    ],
)
def test_what_is_no_record(
    repository: Repository, changed: dict[str, Content], kind: SubmissionKind, folders: dict[str, list[str]]
) -> None:
    assert kind_and_folders(pull(repository, changed)) == (kind, folders)


def test_documents_in_a_record_that_already_held_code(repository: Repository) -> None:
    submission = pull(repository, {f"{RECORD}/seed2.log": b"x"}, {**START, **PULL})
    assert submission.kind is SubmissionKind.DOCUMENTS
    assert [folder.path for folder in submission.folders] == [RECORD]


def test_deleted_code_leaves_nothing_to_audit(repository: Repository) -> None:
    main = repository.commit(START)
    repository.set_main(main)
    submission = load(repository, repository.commit({"README.md": START["README.md"]}, main))
    assert submission.kind is SubmissionKind.ROOT_SCRIPT
    assert submission.folders == ()


@pytest.mark.parametrize(
    ("folder", "json", "track"),
    [
        ("records/track_10min_16mb/a", b'{"track": "non-record"}', "record"),
        ("records/track_non_record_16mb/a", b"", "non-record"),
        ("records/non-record/a", b"", "non-record"),
        ("records/a", b'{"track": "10min_16mb"}', "record"),
        ("records/a", b'{"track": "track_10min_16mb"}', "record"),
        ("records/a", b'{"track": "non_record_10min_16mb"}', "non-record"),
        ("records/a", b'{"track": "Non-Record (unlimited compute)"}', "non-record"),
        ("records/a", b'{"track": "elsewhere"}', "unknown"),
        ("records/a", b'{"track": 3}', "unknown"),
        ("records/a", b"[" * 100_000, "unknown"),
        ("records/a", b"\xff\xfe\x00not json", "unknown"),
        ("records/track_1_short/a", b"", "unknown"),
    ],
)
def test_track(repository: Repository, folder: str, json: bytes, track: str) -> None:
    submission = pull(repository, {f"{folder}/train_gpt.py": b"x", f"{folder}/submission.json": json})
    assert [f.track for f in submission.folders] == [track]


names = st.sampled_from(["records", "track_10min_16mb", "track_x", "a", "..", "", "non_record", "train_gpt.py"])


@given(st.lists(st.lists(names, min_size=1, max_size=6).map("/".join), max_size=8, unique=True))
def test_no_set_of_paths_breaks_the_arrangement(paths: list[str]) -> None:
    files = [
        SubmissionFile(p, 0, Change.ADDED, base.nothing, base.UNSAFE_PATH if base.is_unsafe(p) else None) for p in paths
    ]
    kind, folders = base.arrange(
        files,
        lambda folder: [f for f in files if f.path.startswith(f"{folder}/")],
        lambda folder: any(p.rpartition("/")[0] == folder for p in paths),
    )
    assert (kind is SubmissionKind.EMPTY) == (not paths)
    readable_code = [f for f in files if base.is_code(f.path) and not f.problem]
    assert bool(folders) == bool(readable_code)
    assert all(folder.files for folder in folders)


# -- local folders


def write(root: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def test_local_folder(tmp_path: Path) -> None:
    root = write(
        tmp_path / "mine",
        {
            "train_gpt.py": "x = 1\n",
            "logs/seed1.log": "log",
            "submission.json": '{"track": "non-record-16mb"}',
            ".gitignore": "*",
            ".git/config": "x",
            ".venv/lib/a.py": "x",
            "__pycache__/a.pyc": "x",
        },
    )
    submission = open_submission(str(root))
    expected = [".gitignore", "logs/seed1.log", "submission.json", "train_gpt.py"]
    assert kind_and_folders(submission) == (SubmissionKind.RECORD, {".": expected})
    assert set(changes(submission).values()) == {Change.ADDED}
    assert submission.folders[0].track == "non-record"
    script = submission.folders[0].file("train_gpt.py")
    assert script is not None
    assert script.text == "x = 1\n"
    assert (submission.repository, submission.number, submission.head, submission.base) == (None,) * 4
    assert submission.metadata_note == "metadata unavailable: read from a local folder"


def test_local_file(tmp_path: Path) -> None:
    write(tmp_path, {"train_gpt.py": "x = 1\n", "other.py": "y"})
    submission = open_submission(str(tmp_path / "train_gpt.py"))
    assert kind_and_folders(submission) == (SubmissionKind.RECORD, {".": ["train_gpt.py"]})
    with pytest.raises(SourceError, match="accepted are"):
        open_submission(str(write(tmp_path, {"notes.txt": "x"}) / "notes.txt"))


def test_local_checkout(tmp_path: Path) -> None:
    files = {SCRIPT: "x", "records/track_non_record_16mb/b/train_gpt.py": "x", "train_gpt.py": "x"}
    root = write(tmp_path / "checkout", files)
    submission = open_submission(str(root))
    assert [(f.path, f.track) for f in submission.folders] == [
        (RECORD, "record"),
        ("records/track_non_record_16mb/b", "non-record"),
    ]
    inside = open_submission(str(root / RECORD))
    assert [(f.path, f.track) for f in inside.folders] == [(".", "record")]
    track = open_submission(str(root / "records" / "track_10min_16mb"))
    assert [(f.path, f.track) for f in track.folders] == [(RECORD.rpartition("/")[2], "record")]


def test_local_folder_without_code(tmp_path: Path) -> None:
    assert open_submission(str(tmp_path)).kind is SubmissionKind.EMPTY
    write(tmp_path, {"README.md": "x"})
    assert kind_and_folders(open_submission(str(tmp_path))) == (SubmissionKind.DOCUMENTS, {})


def test_local_links_and_pipes_are_not_followed(tmp_path: Path) -> None:
    secret = write(tmp_path / "outside", {"secret.py": "secret"})
    root = write(tmp_path / "mine", {"train_gpt.py": "x"})
    (root / "link.py").symlink_to(secret / "secret.py")
    (root / "folder").symlink_to(secret)
    (root / "loop").symlink_to(root)
    os.mkfifo(root / "pipe.py")
    assert problems(open_submission(str(root))) == {
        "train_gpt.py": None,
        "link.py": base.SYMLINK,
        "folder": base.SYMLINK,
        "loop": base.SYMLINK,
        "pipe.py": "not a regular file: not read",
    }


def test_local_file_swapped_for_a_link_after_listing(tmp_path: Path) -> None:
    secret = write(tmp_path / "outside", {"secret.py": "secret"}) / "secret.py"
    root = write(tmp_path / "mine", {"train_gpt.py": "x"})
    submission = open_submission(str(root))
    (root / "train_gpt.py").unlink()
    (root / "train_gpt.py").symlink_to(secret)
    with pytest.raises(SourceError, match=r"train_gpt\.py can't be read any more"):
        _ = submission.files[0].data


def test_local_folder_that_disappears(tmp_path: Path) -> None:
    root = write(tmp_path / "mine", {"train_gpt.py": "x"})
    source = source_for(str(root))
    submission = source.load()
    (root / "train_gpt.py").unlink()
    root.rmdir()
    with pytest.raises(SourceError, match=r"train_gpt\.py can't be read any more: No such file"):
        _ = submission.files[0].data
    with pytest.raises(SourceError, match="can't be read: No such file"):
        source.load()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_local_files_without_permission(tmp_path: Path) -> None:
    root = write(tmp_path / "mine", {"train_gpt.py": "x", "locked/a.py": "x"})
    (root / "train_gpt.py").chmod(0)
    (root / "locked").chmod(0)
    found = problems(open_submission(str(root)))
    (root / "locked").chmod(0o700)
    assert found == {
        "train_gpt.py": "can't be read: Permission denied",
        "locked": "folder can't be listed: Permission denied",
    }


def test_local_large_file_is_listed_and_not_read(tmp_path: Path) -> None:
    root = write(tmp_path / "mine", {"train_gpt.py": "x"})
    with (root / "model.bin").open("wb") as stream:
        stream.truncate(64 * 1024 * 1024 + 1)
    assert problems(open_submission(str(root))) == {"train_gpt.py": None, "model.bin": base.TOO_LARGE}


def test_local_folder_of_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MAX_FILES", 3)
    root = write(tmp_path / "mine", {f"{n}.py": "x" for n in range(4)})
    with pytest.raises(SourceError, match="more than 3 files"):
        LocalSource(root, str(root)).load()


def test_two_loads_give_the_same_answer(repository: Repository) -> None:
    first = pull(repository, PULL)
    assert GitMirror(repository.path, repository="owner/name").submission(5) == first
