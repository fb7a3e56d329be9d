"""The GitHub source against a repository served from disk and an imitation of the REST API."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from sources_helpers import RECORD, Content, Repository

from auditor.errors import SourceError
from auditor.sources import github
from auditor.sources.github import GitHubSource, cache_directory
from auditor.submission import Submission, SubmissionKind

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

START: dict[str, Content] = {"README.md": b"the contest\n", "train_gpt.py": b"print('baseline')\n"}
SCRIPT = f"{RECORD}/train_gpt.py"
ANSWER = {
    "title": "A record",
    "body": "by much",
    "state": "closed",
    "merged_at": None,
    "created_at": "2026-01-02T23:59:59Z",
    "user": {"login": "someone"},
}


@dataclass
class Api:
    """An imitation of the REST API: one answer to everything, and a note of what was asked."""

    url: str = ""
    status: int = 200
    body: bytes = field(default_factory=lambda: json.dumps(ANSWER).encode())
    asked: list[tuple[str, str | None]] = field(default_factory=list)


@pytest.fixture
def api() -> Iterator[Api]:
    state = Api()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append((self.path, self.headers.get("Authorization")))
            self.send_response(state.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(state.body)))
            self.end_headers()
            self.wfile.write(state.body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_TOKEN", raising=False)


@pytest.fixture
def remote(tmp_path: Path) -> Repository:
    """owner/name with pull request 5; its default branch isn't called main."""
    repository = Repository(tmp_path / "remote" / "owner" / "name.git")
    first = repository.commit(START)
    repository.git.references.create("refs/heads/trunk", repository.commit({**START, "LICENSE": b"x"}, first))
    repository.git.set_head("refs/heads/trunk")
    repository.set_pull(5, repository.commit({**START, SCRIPT: b"print('new')\n"}, first))
    repository.git.config["uploadpack.allowFilter"] = True
    return repository


def source(tmp_path: Path, api_url: str, number: int = 5, name: str = "name", **options: Any) -> GitHubSource:
    return GitHubSource(
        "owner",
        name,
        number,
        cache=tmp_path / "cache",
        git_base_url=f"file://{tmp_path}/remote",
        api_base_url=api_url,
        **options,
    )


def script_of(submission: Submission) -> bytes:
    (folder,) = submission.folders
    script = folder.file("train_gpt.py")
    assert script is not None
    return script.data


def test_code_and_metadata(tmp_path: Path, remote: Repository, api: Api) -> None:
    steps: list[str] = []
    submission = source(tmp_path, api.url, progress=steps.append).load()
    assert submission.kind is SubmissionKind.RECORD
    assert [f.path for f in submission.files] == [SCRIPT]
    assert script_of(submission) == b"print('new')\n"
    assert submission.repository == "owner/name"
    assert (submission.author, submission.title, submission.body) == ("someone", "A record", "by much")
    assert submission.state == "closed"
    assert submission.opened == "2026-01-02"
    assert submission.metadata_note is None
    assert api.asked == [("/repos/owner/name/pulls/5", None)]
    assert len(steps) == 3


def test_token_is_sent_to_the_api(
    tmp_path: Path, remote: Repository, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "t0ken")
    source(tmp_path, api.url).load()
    ((_, authorization),) = api.asked
    assert authorization is not None
    assert authorization.endswith(" t0ken")


def test_merged_state(tmp_path: Path, remote: Repository, api: Api) -> None:
    api.body = json.dumps({**ANSWER, "merged_at": "2026-01-01T00:00:00Z", "user": None, "body": None}).encode()
    submission = source(tmp_path, api.url).load()
    assert (submission.state, submission.author, submission.body) == ("merged", None, None)


@pytest.mark.parametrize(
    ("status", "body", "note"),
    [
        (403, b"{}", "the API's rate limit is used up (GITHUB_TOKEN raises it)"),
        (429, b"{}", "the API's rate limit is used up (GITHUB_TOKEN raises it)"),
        (401, b"{}", "the API refuses the token in GITHUB_TOKEN"),
        (404, b"{}", "the API answers with status 404"),
        (500, b"oops", "the API answers with status 500"),
        (200, b"[1]", "the API's answer is not a pull request"),
        (200, b"<html>", "the API's answer can't be read"),
        (200, b"\xff\xfe\x00", "the API's answer can't be read"),
    ],
)
def test_metadata_that_cannot_be_had(
    tmp_path: Path, remote: Repository, api: Api, status: int, body: bytes, note: str
) -> None:
    api.status, api.body = status, body
    submission = source(tmp_path, api.url).load()
    assert script_of(submission) == b"print('new')\n"
    assert (submission.author, submission.title, submission.state) == (None, None, None)
    assert (submission.metadata_note or "").startswith(f"metadata unavailable: {note}")


def test_api_unreachable(tmp_path: Path, remote: Repository) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        submission = source(tmp_path, f"http://127.0.0.1:{unused.getsockname()[1]}").load()
    assert script_of(submission) == b"print('new')\n"
    assert (submission.metadata_note or "").startswith("metadata unavailable: the API can't be reached")


def test_large_files_are_not_fetched(
    tmp_path: Path, remote: Repository, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(github, "FETCH_LIMIT_MIB", 1)
    head = remote.commit(
        {**START, SCRIPT: b"x", f"{RECORD}/model.bin": os.urandom(2 * 1024 * 1024)},
        remote.git.lookup_reference("refs/heads/trunk").peel().parents[0].id,
    )
    remote.set_pull(6, head)
    submission = source(tmp_path, api.url, 6).load()
    assert {f.path: f.problem for f in submission.files} == {
        SCRIPT: None,
        f"{RECORD}/model.bin": "larger than 1 MiB: not fetched",
    }
    held = sum(f.stat().st_size for f in (tmp_path / "cache").rglob("*") if f.is_file())
    assert held < 1024 * 1024


def test_server_without_partial_clone(tmp_path: Path, remote: Repository, api: Api) -> None:
    remote.git.config["uploadpack.allowFilter"] = False
    assert script_of(source(tmp_path, api.url).load()) == b"print('new')\n"


def test_pushed_and_force_pushed(tmp_path: Path, remote: Repository, api: Api) -> None:
    source(tmp_path, api.url).load()
    first = remote.git.lookup_reference("refs/heads/trunk").peel().parents[0].id
    remote.set_pull(5, remote.commit({**START, SCRIPT: b"print('rewritten')\n"}, first))
    submission = source(tmp_path, api.url).load()
    assert script_of(submission) == b"print('rewritten')\n"
    assert submission.base == str(first)


def test_cache_is_used_when_the_host_is_unreachable(
    tmp_path: Path, remote: Repository, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    online = source(tmp_path, api.url).load()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        base_url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        arguments: dict[str, Any] = {
            "cache": tmp_path / "cache",
            "git_base_url": base_url,
            "api_base_url": base_url,
        }
        offline = GitHubSource("owner", "name", 5, **arguments).load()
        with pytest.raises(SourceError, match=r"can't be reached: .*, and the pull request is not in the cache"):
            GitHubSource("owner", "name", 6, **arguments).load()
    assert offline.head == online.head
    assert script_of(offline) == b"print('new')\n"
    assert offline.author is None
    assert "metadata unavailable: offline" in (offline.metadata_note or "")
    assert "may be out of date" in (offline.metadata_note or "")


def test_unknown_pull_request(tmp_path: Path, remote: Repository, api: Api) -> None:
    with pytest.raises(SourceError, match="owner/name has no pull request 6"):
        source(tmp_path, api.url, 6).load()
    assert api.asked == []


def test_unknown_or_private_project(tmp_path: Path, remote: Repository, api: Api) -> None:
    with pytest.raises(SourceError, match="owner/other doesn't exist or is private"):
        source(tmp_path, api.url, name="other").load()


def test_private_project_over_http_asks_nobody(tmp_path: Path, api: Api) -> None:
    api.status = 401
    with pytest.raises(SourceError, match="owner/name doesn't exist or is private"):
        GitHubSource("owner", "name", 5, cache=tmp_path / "cache", git_base_url=api.url).load()


def test_host_that_answers_nonsense(tmp_path: Path, api: Api) -> None:
    with pytest.raises(SourceError) as caught:
        GitHubSource("owner", "name", 5, cache=tmp_path / "cache", git_base_url=api.url).load()
    assert "\n" not in str(caught.value)


def test_host_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(github, "_CONNECT_TIMEOUT", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        base_url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        never = GitHubSource("owner", "name", 5, cache=tmp_path / "cache", git_base_url=base_url)
        with pytest.raises(SourceError, match="did not answer within"):
            never.load()


def test_git_missing(tmp_path: Path, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError, match="git is not installed"):
        source(tmp_path, api.url).load()


def test_cache_that_cannot_be_used(tmp_path: Path, api: Api) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(SourceError, match=r"the cache .* can't be used"):
        source(tmp_path, api.url).load()


def test_surrounding_git_environment_does_not_matter(
    tmp_path: Path, remote: Repository, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    subprocess.run(["git", "init", "--quiet", str(elsewhere)], check=True)
    monkeypatch.setenv("GIT_DIR", str(elsewhere / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(elsewhere / "index"))
    assert script_of(source(tmp_path, api.url).load()) == b"print('new')\n"
    assert not (elsewhere / "index").exists()


def test_no_hook_runs(tmp_path: Path, remote: Repository, api: Api) -> None:
    source(tmp_path, api.url).load()
    hooks = tmp_path / "cache" / "owner" / "name.git" / "hooks"
    hooks.mkdir(exist_ok=True)
    hook = hooks / "reference-transaction"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    first = remote.git.lookup_reference("refs/heads/trunk").peel().parents[0].id
    remote.set_pull(5, remote.commit({**START, SCRIPT: b"print('again')\n"}, first))
    assert script_of(source(tmp_path, api.url).load()) == b"print('again')\n"
    assert not (tmp_path / "ran").exists()


def _load_in_process(folder: str, api_url: str, number: int) -> str:
    return script_of(source(Path(folder), api_url, number).load()).decode()


def test_processes_share_the_cache(tmp_path: Path, remote: Repository, api: Api) -> None:
    first = remote.git.lookup_reference("refs/heads/trunk").peel().parents[0].id
    for number in range(10, 14):
        remote.set_pull(number, remote.commit({**START, SCRIPT: b"print(%d)\n" % number}, first))
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        tasks = [(str(tmp_path), api.url, number) for number in [*range(10, 14)] * 2]
        assert pool.starmap(_load_in_process, tasks) == [f"print({n})\n" for n in [*range(10, 14)] * 2]


def test_cache_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDITOR_CACHE", str(tmp_path))
    assert cache_directory() == tmp_path
    monkeypatch.delenv("AUDITOR_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory().name == "parameter-golf-auditor"
