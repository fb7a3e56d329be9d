"""Pull requests read from a bare git repository that holds ``refs/pull/*/head`` and the main branch.

Nothing is checked out and nothing is fetched. Trees are compared here rather than by libgit2's diff because
a pull request's trees are untrusted: they may nest without end, name the same subtree a billion times, climb
with ``..`` or lack objects, and each of these must end in a bounded, readable answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, lru_cache, partial
from itertools import islice
from pathlib import Path

import pygit2
from pygit2.enums import FileMode, ObjectType, RepositoryOpenFlag, SortMode

from auditor.errors import SourceError
from auditor.sources import base
from auditor.submission import MAX_FILE_BYTES, Change, Submission, SubmissionFile

_MAIN_REFS = (
    "refs/heads/main",
    "HEAD",
    "refs/heads/master",
    "refs/remotes/origin/HEAD",
    "refs/remotes/origin/main",
)
_PULL_HEAD = re.compile(r"refs/pull/(\d+)/head")
_PULL_NUMBER = re.compile(r"#(\d+)\b")

MAX_COMMITS = 2_000
"""How far back a branch is searched for the commit that began the submission."""

MAX_DATED_FOLDERS = 8
"""Stacked branches carry dozens of folders along; the newest is dated among so many."""

NO_METADATA = "metadata unavailable: read from a local mirror"


@dataclass(frozen=True)
class _Entry:
    """One entry of a tree."""

    mode: int
    oid: pygit2.Oid

    @property
    def is_tree(self) -> bool:
        return self.mode == FileMode.TREE


@dataclass(frozen=True)
class _Difference:
    """A file that differs between two trees; ``old`` or ``new`` is None where it doesn't exist."""

    path: str
    old: _Entry | None
    new: _Entry | None


@dataclass(frozen=True)
class _Base:
    """What a pull request is compared with: a commit, or None, and a remark where that needs one."""

    commit: pygit2.Oid | None
    note: str | None = None


class GitMirror:
    """A bare repository, opened once and asked for many pull requests.

    ``repository`` is the "owner/name" shown for its submissions; ``missing`` is the problem given to files
    whose content the repository lacks. Raises SourceError if ``path`` is no git repository or has no main
    branch. Not safe to share between threads.
    """

    def __init__(
        self,
        path: Path,
        *,
        repository: str | None = None,
        missing: str = "content missing from the mirror",
    ) -> None:
        # libgit2 refuses repositories of another user because git would run their hooks and filters. Nothing
        # here runs either, and mirrors are commonly shared or mounted.
        pygit2.settings.owner_validation = False
        try:
            self._repo = pygit2.Repository(str(path), RepositoryOpenFlag.NO_SEARCH)
        except (pygit2.GitError, KeyError, ValueError) as error:
            raise SourceError(f"{path} is not a git repository that can be read ({error})") from error
        self._path = path
        self._repository = repository
        self._missing = missing
        self._main = self._find_main()
        # Trees of the main branch come up for every pull request; the bound is some 40 MB.
        self._entries = lru_cache(maxsize=4096)(self._read_tree)

    def numbers(self) -> tuple[int, ...]:
        """The pull requests held, in ascending order."""
        matches = (_PULL_HEAD.fullmatch(name) for name in self._repo.listall_references())
        return tuple(sorted(int(match[1]) for match in matches if match))

    def head(self, number: int) -> str | None:
        """The head commit of a pull request in hexadecimal, or None if it isn't held."""
        reference = self._repo.references.get(f"refs/pull/{number}/head")
        return None if reference is None else str(reference.resolve().target)

    def submission(
        self, number: int, source: str | None = None, *, metadata_note: str | None = NO_METADATA
    ) -> Submission:
        """The pull request ``number``. ``source`` is the address to show for it.

        How the diff was found, where that isn't plain, is added to ``metadata_note``. Raises SourceError if
        the pull request isn't held, its commit is missing, or it lists more than MAX_FILES files.
        """
        reference = self._repo.references.get(f"refs/pull/{number}/head")
        if reference is None:
            raise SourceError(f"pull request {number} is not in {self._path}")
        try:
            head = reference.peel(pygit2.Commit)
            start = self._base(number, head)
            differences, start = self._changes(number, head, start)
            shown = source or f"{self._repository or self._path}#{number}"
            submission = self._build(number, head, start, differences, shown)
            submission = replace(submission, opened=self._first_day(head, start, submission))
        except (pygit2.GitError, KeyError, ValueError) as error:
            reason = str(error).strip("'\"")
            raise SourceError(f"pull request {number} can't be read from {self._path}: {reason}") from error
        notes = "; ".join(note for note in (metadata_note, start.note) if note)
        return replace(submission, metadata_note=notes or None)

    # -- what the pull request is compared with

    def _find_main(self) -> pygit2.Commit:
        for name in _MAIN_REFS:
            try:
                return self._repo.lookup_reference(name).peel(pygit2.Commit)
            except (KeyError, pygit2.GitError, ValueError):
                continue
        raise SourceError(f"{self._path} has no main branch (looked for {', '.join(_MAIN_REFS)})")

    def _base(self, number: int, head: pygit2.Commit) -> _Base:
        """The commit whose difference to ``head`` is what the pull request changes."""
        common = self._repo.merge_base(self._main.id, head.id)
        if common is None:
            note = "no common history with the main branch: files that never stood there count as changed"
            return _Base(None, note)
        if common != head.id:
            return _Base(common)
        if head.id in self._first_parents:
            return self._base_on_main(number, head)
        # Merged by a merge commit: as it stood just before, main did not have the branch yet.
        merge = self._brought_in[head.id]
        before = self._repo.merge_base(merge.parent_ids[0], head.id)
        return _Base(before, f"merged into the main branch by commit {str(merge.id)[:12]}")

    def _base_on_main(self, number: int, head: pygit2.Commit) -> _Base:
        """For a head that stands on the main line itself: fast-forwarded, or a branch reset to main."""
        if not head.parent_ids:
            return _Base(head.id, "the head is the first commit of the main branch")
        mentioned = _PULL_NUMBER.findall(_subject(head))
        if mentioned and str(number) not in mentioned:
            return _Base(head.id, "the head is a commit of the main branch that another pull request made")
        commit = head
        # A fast-forward leaves no trace of where it began. Without numbers in between, the commits of one
        # author in a row are taken for the pull request's.
        while not mentioned and len(commit.parent_ids) == 1:
            parent = self._first_parents.get(commit.parent_ids[0])
            if parent is None or not parent.parent_ids or parent.author.email != head.author.email:
                break
            if len(parent.parent_ids) > 1 or _PULL_NUMBER.search(_subject(parent)):
                break
            commit = parent
        return _Base(commit.parent_ids[0], "fast-forwarded into the main branch: where it began is inferred")

    @cached_property
    def _first_parents(self) -> dict[pygit2.Oid, pygit2.Commit]:
        """The commits of the main line, newest first."""
        walker = self._repo.walk(self._main.id, SortMode.TOPOLOGICAL)
        walker.simplify_first_parent()
        return {commit.id: commit for commit in walker}

    @cached_property
    def _brought_in(self) -> dict[pygit2.Oid, pygit2.Commit]:
        """For each ancestor of main that is not on the main line: the main-line merge that brought it in."""
        brought: dict[pygit2.Oid, pygit2.Commit] = {}
        for merge in reversed(self._first_parents.values()):
            if len(merge.parent_ids) < 2:
                continue
            walker = self._repo.walk(merge.id, SortMode.NONE)
            walker.hide(merge.parent_ids[0])
            for commit in walker:
                brought.setdefault(commit.id, merge)
        return brought

    @cached_property
    def _ever_on_main(self) -> set[tuple[str, pygit2.Oid]]:
        """Every (path, content) that stood on the main line at any time."""
        seen: set[tuple[str, pygit2.Oid]] = set()
        older: pygit2.Oid | None = None
        for commit in reversed(self._first_parents.values()):
            seen.update((d.path, d.new.oid) for d in self._differences(older, commit.tree_id) if d.new)
            older = commit.tree_id
        return seen

    def _first_day(self, head: pygit2.Commit, start: _Base, submission: Submission) -> str | None:
        """The day of the first commit that holds a file the submission adds, for its newest record folder."""
        places: list[tuple[str, str]] = []
        for home in [f.path for f in submission.folders][:MAX_DATED_FOLDERS] or [""]:
            added = [f.path for f in submission.files if f.change is Change.ADDED and f.path.startswith(home)]
            if added:
                path = min(added, key=lambda p: (p.count("/"), "train_gpt" not in p, p))
                places.append((path.rpartition("/")[0], path.rpartition("/")[2]))
        if not places:
            return _day(head)
        first: dict[tuple[str, str], pygit2.Commit] = {}
        walker = self._repo.walk(head.id, SortMode.TOPOLOGICAL)
        walker.hide(start.commit if start.commit is not None else self._main.id)
        for commit in islice(walker, MAX_COMMITS):
            for place in places:
                folder, name = place
                tree = self._tree_at(commit.tree_id, folder) if folder else commit.tree_id
                if tree is not None and any(base.shown_path(n) == name for n in self._entries(tree)):
                    first[place] = min(first.get(place, commit), commit, key=lambda c: c.author.time)
        return _day(max(first.values(), key=lambda c: c.author.time, default=head))

    # -- what it changes

    def _changes(self, number: int, head: pygit2.Commit, start: _Base) -> tuple[list[_Difference], _Base]:
        """What the pull request changes, and the base that shows it."""
        if start.commit is None:
            # Deletions say nothing here: the branch never had those files.
            added = (d for d in self._differences(self._main.tree_id, head.tree_id) if d.new)
            return [d for d in added if d.new and (d.path, d.new.oid) not in self._ever_on_main], start
        found = list(self._differences(self._tree_id(start.commit), head.tree_id))
        landing = None if found else self._landing(number)
        if landing is None:
            return found, start
        # Squashed into main, and main merged back into the branch: only the squash shows what it changed.
        before = landing.parent_ids[0]
        landed = {d.path for d in self._differences(self._tree_id(before), landing.tree_id)}
        found = [d for d in self._differences(self._tree_id(before), head.tree_id) if d.path in landed]
        return found, _Base(before, f"squashed into the main branch by commit {str(landing.id)[:12]}")

    def _landing(self, number: int) -> pygit2.Commit | None:
        """The newest main-line commit that says it is this pull request, in the words GitHub uses."""
        says_so = re.compile(rf"\(#{number}\)\s*$|^Merge (?:pull request|PR) #{number}\b")
        commits = (c for c in self._first_parents.values() if c.parent_ids and says_so.search(_subject(c)))
        return next(commits, None)

    def _tree_id(self, commit: pygit2.Oid) -> pygit2.Oid:
        return self._repo[commit].peel(pygit2.Commit).tree_id

    def _build(
        self,
        number: int,
        head: pygit2.Commit,
        start: _Base,
        differences: Iterable[_Difference],
        source: str,
    ) -> Submission:
        changed = {d.path: self._changed_file(d) for d in differences}

        def below(folder: str) -> list[SubmissionFile]:
            tree = self._tree_at(head.tree_id, folder)
            listed = self._differences(None, tree, folder) if tree is not None else ()
            return [changed.get(d.path) or self._file(d.path, d.new, Change.UNCHANGED) for d in listed if d.new]

        def holds_files(folder: str) -> bool:
            tree = self._tree_at(head.tree_id, folder)
            return tree is not None and any(not entry.is_tree for entry in self._entries(tree).values())

        files = tuple(changed[path] for path in sorted(changed))
        kind, folders = base.arrange(files, below, holds_files)
        return Submission(
            source=source,
            repository=self._repository,
            number=number,
            head=str(head.id),
            base=None if start.commit is None else str(start.commit),
            kind=kind,
            folders=folders,
            files=files,
        )

    def _changed_file(self, difference: _Difference) -> SubmissionFile:
        if difference.new is None:
            return SubmissionFile(difference.path, 0, Change.DELETED, base.nothing, base.DELETED)
        change = Change.ADDED if difference.old is None else Change.MODIFIED
        return self._file(difference.path, difference.new, change)

    def _file(self, path: str, entry: _Entry, change: Change) -> SubmissionFile:
        size, problem = 0, None
        if base.is_unsafe(path):
            problem = base.UNSAFE_PATH
        elif entry.mode == FileMode.LINK:
            problem = base.SYMLINK
        elif entry.mode == FileMode.COMMIT:
            problem = "submodule: not part of this repository"
        elif entry.is_tree:
            problem = base.TOO_DEEP if entry.oid in self._repo else self._missing
        else:
            try:
                kind, size = self._repo.odb.read_header(entry.oid)
                if kind != ObjectType.BLOB:
                    problem = "not a file"
                elif size > MAX_FILE_BYTES:
                    problem = base.TOO_LARGE
            except (KeyError, pygit2.GitError):
                problem = self._missing
        load: Callable[[], bytes] = base.nothing if problem else partial(self._read_blob, entry.oid, path)
        return SubmissionFile(path, size, change, load, problem)

    def _read_blob(self, oid: pygit2.Oid, path: str) -> bytes:
        try:
            _, data = self._repo.odb.read(oid)
        except (KeyError, pygit2.GitError) as error:
            raise SourceError(f"{path} can't be read from {self._path} ({error})") from error
        return bytes(data)

    # -- trees

    def _read_tree(self, oid: pygit2.Oid) -> dict[bytes, _Entry]:
        tree = self._repo[oid]
        if not isinstance(tree, pygit2.Tree):
            raise KeyError(f"{oid} is not a tree")
        return {entry.raw_name or b"": _Entry(int(entry.filemode), entry.id) for entry in tree}

    def _tree_at(self, tree: pygit2.Oid, folder: str) -> pygit2.Oid | None:
        """The tree of a folder given by its shown path, or None."""
        for part in folder.split("/"):
            try:
                entries = self._entries(tree)
            except (KeyError, pygit2.GitError):
                return None
            found = entries.get(part.encode("utf-8", "surrogateescape"))
            if found is None:
                found = next((e for name, e in entries.items() if base.shown_path(name) == part), None)
            if found is None or not found.is_tree:
                return None
            tree = found.oid
        return tree

    def _differences(self, old: pygit2.Oid | None, new: pygit2.Oid | None, folder: str = "") -> Iterator[_Difference]:
        """The files that differ between two trees (None is the empty tree), in no particular order.

        A subtree that is missing or too deep comes out as one entry under its own path.
        """
        found = 0
        pending: list[tuple[str, int, _Entry | None, _Entry | None]] = [
            (
                folder,
                0,
                None if old is None else _Entry(FileMode.TREE, old),
                None if new is None else _Entry(FileMode.TREE, new),
            )
        ]
        while pending:
            path, depth, before, after = pending.pop()
            try:
                left, right = self._entries_of(before), self._entries_of(after)
            except (KeyError, pygit2.GitError):
                if depth == 0:
                    raise
                yield _Difference(path, before, after)
                continue
            for raw in left.keys() | right.keys():
                was, now = left.get(raw), right.get(raw)
                if was == now:
                    continue
                found += 1
                if found > base.MAX_FILES:
                    raise SourceError(f"more than {base.MAX_FILES:,} files differ: too many to audit")
                name = base.shown_path(raw)
                inner = f"{path}/{name}" if path else name
                trees = (was if was and was.is_tree else None, now if now and now.is_tree else None)
                if any(trees):
                    if depth >= base.MAX_DEPTH:
                        yield _Difference(inner, was, now)
                        continue
                    pending.append((inner, depth + 1, *trees))
                was, now = (None if e is None or e.is_tree else e for e in (was, now))
                if was or now:
                    yield _Difference(inner, was, now)

    def _entries_of(self, entry: _Entry | None) -> dict[bytes, _Entry]:
        return {} if entry is None else self._entries(entry.oid)


@dataclass(frozen=True)
class MirrorSource:
    """One pull request of a local mirror."""

    mirror: Path
    repository: str
    number: int
    source: str

    def load(self) -> Submission:
        return GitMirror(self.mirror, repository=self.repository).submission(self.number, self.source)


def _day(commit: pygit2.Commit) -> str | None:
    """The day (UTC) on which a commit was written; None if its clock was absurd."""
    try:
        return datetime.fromtimestamp(commit.author.time, UTC).date().isoformat()
    except (OverflowError, OSError, ValueError):
        return None


def _subject(commit: pygit2.Commit) -> str:
    return commit.message.partition("\n")[0]
