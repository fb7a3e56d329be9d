"""Small git repositories built object by object, so that tests can also make the ones git itself refuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pygit2
from pygit2.enums import FileMode, ObjectType

Content = bytes | tuple[int, bytes | pygit2.Oid]
"""A file's bytes, or a mode with a symlink's target or an object id."""

RECORD = "records/track_10min_16mb/2026-01-01_Example"


class Repository:
    """A bare repository whose commits are given in full, as {path: content}."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.git = pygit2.init_repository(str(path), bare=True, initial_head="main")
        self._clock = 1_700_000_000

    def blob(self, data: bytes) -> pygit2.Oid:
        return self.git.create_blob(data)

    def raw_tree(self, entries: Sequence[tuple[int, bytes, pygit2.Oid]]) -> pygit2.Oid:
        """A tree as given, unsorted and unchecked."""
        raw = b"".join(b"%o %s\0" % (mode, name) + oid.raw for mode, name, oid in entries)
        return self.git.odb.write(ObjectType.TREE, raw)

    def tree(self, files: Mapping[str, Content]) -> pygit2.Oid:
        folders: dict[str, dict[str, Content]] = {}
        entries: list[tuple[int, bytes, pygit2.Oid]] = []
        for path, content in files.items():
            head, slash, rest = path.partition("/")
            if slash:
                folders.setdefault(head, {})[rest] = content
            elif isinstance(content, bytes):
                entries.append((FileMode.BLOB, head.encode(), self.blob(content)))
            else:
                mode, target = content
                oid = self.blob(target) if isinstance(target, bytes) else target
                entries.append((mode, head.encode(), oid))
        entries += [(FileMode.TREE, name.encode(), self.tree(inner)) for name, inner in folders.items()]
        return self.raw_tree(sorted(entries, key=lambda e: e[1] + (b"/" if e[0] == FileMode.TREE else b"")))

    def commit(
        self,
        files: Mapping[str, Content] | pygit2.Oid,
        *parents: pygit2.Oid,
        message: str = "work",
        author: str = "someone",
    ) -> pygit2.Oid:
        self._clock += 60
        who = pygit2.Signature(author, f"{author}@example.org", self._clock)
        tree = files if isinstance(files, pygit2.Oid) else self.tree(files)
        return self.git.create_commit(None, who, who, message, tree, list(parents))

    def set_main(self, commit: pygit2.Oid) -> None:
        self.git.references.create("refs/heads/main", commit, force=True)

    def set_pull(self, number: int, commit: pygit2.Oid) -> None:
        self.git.references.create(f"refs/pull/{number}/head", commit, force=True)
