"""Pull requests over the network: code through ``git fetch``, title and author through the REST API.

The cache is one bare repository per project. It is filled without file contents above FETCH_LIMIT_MIB
(trained models, mostly), never checked out, and then read like any other mirror.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from platformdirs import user_cache_dir

from auditor.errors import SourceError
from auditor.sources.git_mirror import GitMirror
from auditor.submission import Submission

GIT_BASE_URL = "https://github.com"
API_BASE_URL = "https://api.github.com"

FETCH_LIMIT_MIB = 8
"""Files larger than this are listed but not fetched. A whole submission may not exceed 16 MB, nearly all of
it the model, which no rule reads."""

_CONNECT_TIMEOUT = 60.0
_FETCH_TIMEOUT = 900.0
_API_TIMEOUT = 10.0

# Nothing of a fetched repository may run or be followed, and git may ask nobody anything.
_GIT_OPTIONS = (
    "core.hooksPath=" + os.devnull,
    "core.fsmonitor=false",
    "credential.helper=",
    "fetch.recurseSubmodules=false",
    "fetch.fsckObjects=false",
    "fetch.writeCommitGraph=false",
    "gc.auto=0",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=30",
    "maintenance.auto=false",
    "transfer.bundleURI=false",
)

_UNREACHABLE = re.compile(
    r"could not resolve|failed to connect|connection (refused|reset)|timed out|network is unreachable"
    r"|no route to host|operation too slow|could(n't| not) connect|SSL|certificate|proxy|tunnel failed"
    r"|returned error: (429|5\d\d)",
    re.IGNORECASE,
)
_DAY = re.compile(r"\d{4}-\d\d-\d\dT")
_REFUSED = re.compile(
    r"not found|could not read (username|password)|authentication failed|terminal prompts disabled"
    r"|does not appear to be a git repository|returned error: 40[134]|permission denied",
    re.IGNORECASE,
)


class _Unreachable(SourceError):
    """The host doesn't answer; a filled cache may do."""


@dataclass(frozen=True)
class _Metadata:
    """What the REST API says about a pull request; ``problem`` is set when it says nothing."""

    author: str | None = None
    title: str | None = None
    body: str | None = None
    state: str | None = None
    opened: str | None = None
    problem: str | None = None


def cache_directory() -> Path:
    """Where fetched code is kept: AUDITOR_CACHE, or the user's cache folder."""
    given = os.environ.get("AUDITOR_CACHE")
    return Path(given) if given else Path(user_cache_dir("parameter-golf-auditor", appauthor=False))


class GitHubSource:
    """One pull request on GitHub (or on a server that looks like it).

    ``cache`` defaults to :func:`cache_directory`, ``token`` to the environment's GITHUB_TOKEN; without a
    token everything works at the API's lower rate. ``load`` raises SourceError if the host can't be reached
    and the cache doesn't hold the pull request, or if the project or the pull request doesn't exist or is
    private.
    """

    def __init__(
        self,
        owner: str,
        name: str,
        number: int,
        *,
        source: str | None = None,
        cache: Path | None = None,
        token: str | None = None,
        git_base_url: str = GIT_BASE_URL,
        api_base_url: str = API_BASE_URL,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        self._owner = owner
        self._name = name
        self._number = number
        self._source = source or f"{git_base_url}/{owner}/{name}/pull/{number}"
        self._cache = cache or cache_directory()
        self._token = token or os.environ.get("GITHUB_TOKEN") or None
        self._url = f"{git_base_url}/{owner}/{name}.git"
        self._api_base_url = api_base_url
        self._progress = progress or (lambda _: None)

    def load(self) -> Submission:
        # GitHub ignores case in these names; the cache must not hold a project twice.
        git_dir = self._cache / self._owner.lower() / f"{self._name.lower()}.git"
        offline = self._fill(git_dir)
        mirror = GitMirror(
            git_dir,
            repository=f"{self._owner}/{self._name}",
            missing=f"larger than {FETCH_LIMIT_MIB} MiB: not fetched",
        )
        if offline:
            note = f"metadata unavailable: offline ({offline}), read from the cache, which may be out of date"
            return mirror.submission(self._number, self._source, metadata_note=note)
        self._progress(f"asking for the title and author of pull request {self._number}")
        metadata = self._metadata()
        note_or_none = f"metadata unavailable: {metadata.problem}" if metadata.problem else None
        submission = mirror.submission(self._number, self._source, metadata_note=note_or_none)
        return replace(
            submission,
            opened=metadata.opened or submission.opened,
            author=metadata.author,
            title=metadata.title,
            body=metadata.body,
            state=metadata.state,
        )

    # -- code

    def _fill(self, git_dir: Path) -> str | None:
        """Bring the cache up to date. Returns None, or why the host can't be asked and the cache must do."""
        head, main = f"refs/pull/{self._number}/head", "refs/heads/main"
        try:
            git_dir.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(git_dir.with_suffix(".lock"), timeout=_FETCH_TIMEOUT):
                if not (git_dir / "HEAD").exists():
                    self._git("init", "--quiet", "--bare", "--initial-branch=main", str(git_dir))
                inside = ("--git-dir", str(git_dir))
                held = self._refs(*inside, "for-each-ref", "--format=%(objectname) %(refname)")
                try:
                    self._progress(f"looking for pull request {self._number} of {self._owner}/{self._name}")
                    offered = self._refs("ls-remote", "--quiet", self._url, "HEAD", head, timeout=_CONNECT_TIMEOUT)
                    if head not in offered:
                        raise SourceError(f"{self._owner}/{self._name} has no pull request {self._number}")
                    if "HEAD" not in offered:
                        raise SourceError(f"{self._owner}/{self._name} has no default branch")
                    if (held.get(head), held.get(main)) == (offered[head], offered["HEAD"]):
                        return None
                    self._progress(f"fetching pull request {self._number} of {self._owner}/{self._name}")
                    self._git(
                        *(*inside, "fetch", "--quiet", "--no-tags", "--no-write-fetch-head"),
                        *("--no-recurse-submodules", f"--filter=blob:limit={FETCH_LIMIT_MIB}m"),
                        *(self._url, f"+{head}:{head}", f"+HEAD:{main}"),
                        timeout=_FETCH_TIMEOUT,
                    )
                except _Unreachable as error:
                    if head in held and main in held:
                        return str(error)
                    raise SourceError(f"{error}, and the pull request is not in the cache") from error
        except Timeout as error:
            raise SourceError(f"another process has been using the cache {git_dir} for too long") from error
        except OSError as error:
            raise SourceError(f"the cache {git_dir} can't be used: {error.strerror or error}") from error
        return None

    def _refs(self, *arguments: str, timeout: float = _CONNECT_TIMEOUT) -> dict[str, str]:
        """The references that a git command prints, as {name: commit}."""
        lines = (line.split(maxsplit=1) for line in self._git(*arguments, timeout=timeout).splitlines())
        return {line[1]: line[0] for line in lines if len(line) == 2}

    def _git(self, *arguments: str, timeout: float = _CONNECT_TIMEOUT) -> str:
        """Run git and return what it prints. Raises SourceError, in one line, when it fails."""
        options = [part for option in _GIT_OPTIONS for part in ("-c", option)]
        command = ["git", *options, *arguments]
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self._environment(os.environ),
            )
        except FileNotFoundError as error:
            raise SourceError("git is not installed; a pull request can't be fetched without it") from error
        with process:
            try:
                output, errors = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired as error:
                # Asked politely, git removes its lock files.
                process.terminate()
                try:
                    process.communicate(timeout=5)
                except subprocess.TimeoutExpired:
                    process.kill()
                raise _Unreachable(f"{self._url} did not answer within {timeout:.0f} s") from error
            except BaseException:
                process.terminate()
                raise
        if process.returncode != 0:
            raise self._failure(errors.decode("utf-8", "replace"))
        return output.decode("utf-8", "replace")

    def _environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        # A caller may itself run inside a git hook, whose GIT_DIR would otherwise win over ours.
        kept = {name: value for name, value in inherited.items() if not name.startswith("GIT_")}
        kept |= {name: inherited[name] for name in ("GIT_SSL_CAINFO", "GIT_SSL_CAPATH") if name in inherited}
        scheme = self._url.partition("://")[0]
        return kept | {
            "GIT_ALLOW_PROTOCOL": f"https:ssh:{scheme}",
            "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "",
            "SSH_ASKPASS": "",
            "LC_ALL": "C",
        }

    def _failure(self, errors: str) -> SourceError:
        lines = [line.strip() for line in errors.splitlines() if line.strip()]
        kinds = ("fatal: ", "error: ", "remote: fatal: ", "remote: ")
        fatal = next((line for kind in kinds for line in lines if line.startswith(kind)), "")
        reason = fatal.partition(": ")[2] or (lines[-1] if lines else "git failed without a message")
        reason = re.sub(r"^unable to access '[^']*': ", "", reason)
        if _REFUSED.search(errors):
            return SourceError(f"{self._owner}/{self._name} doesn't exist or is private ({self._url})")
        if _UNREACHABLE.search(errors):
            return _Unreachable(f"{self._url} can't be reached: {reason}")
        return SourceError(f"git could not fetch {self._url}: {reason}")

    # -- metadata

    def _metadata(self) -> _Metadata:
        try:
            # Imported late: an audit of a folder or a mirror needs no HTTP client.
            from githubkit import GitHub
            from githubkit.exception import GitHubException, RequestFailed, RequestTimeout
        except ImportError as error:
            return _Metadata(problem=f"the API client can't be loaded ({error})")
        try:
            client = GitHub(
                self._token,
                base_url=self._api_base_url,
                timeout=_API_TIMEOUT,
                auto_retry=False,
                http_cache=False,
            )
            response = client.rest.pulls.get(self._owner, self._name, self._number)
            # Read as plain JSON: a few fields are needed, and a change in any other must not lose them.
            content = response.json()
        except RequestFailed as error:
            return _Metadata(problem=_refusal(error.response.status_code, bool(self._token)))
        except RequestTimeout:
            return _Metadata(problem="the API did not answer in time")
        except GitHubException as error:
            return _Metadata(problem=f"the API can't be reached ({_one_line(error)})")
        except ValueError as error:
            return _Metadata(problem=f"the API's answer can't be read ({_one_line(error)})")
        return _metadata_from(content)


def _metadata_from(content: Any) -> _Metadata:
    if not isinstance(content, dict):
        return _Metadata(problem="the API's answer is not a pull request")
    user = content.get("user")

    def text(holder: Mapping[str, Any], key: str) -> str | None:
        value = holder.get(key)
        return value if isinstance(value, str) else None

    return _Metadata(
        author=text(user, "login") if isinstance(user, dict) else None,
        title=text(content, "title"),
        body=text(content, "body"),
        opened=created[:10] if (created := text(content, "created_at")) and _DAY.match(created) else None,
        state="merged" if content.get("merged_at") else text(content, "state"),
    )


def _refusal(status: int, with_token: bool) -> str:
    if status == 401:
        return "the API refuses the token in GITHUB_TOKEN"
    if status in (403, 429):
        return "the API's rate limit is used up" + ("" if with_token else " (GITHUB_TOKEN raises it)")
    return f"the API answers with status {status}"


def _one_line(error: BaseException) -> str:
    lines: Sequence[str] = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
