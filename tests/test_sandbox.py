"""The sandbox is attacked: everything is contained, everything is reported, nothing hangs."""

from __future__ import annotations

import os
import socket
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

from auditor.sandbox import (
    Attempt,
    End,
    Limits,
    Sandbox,
    SandboxError,
    SandboxResult,
    bubblewrap,
    output_files,
    require,
)

try:
    require()
    NO_SANDBOX = ""
except SandboxError as why:
    NO_SANDBOX = str(why)

needs_sandbox = pytest.mark.skipif(bool(NO_SANDBOX), reason=NO_SANDBOX)
MIB = 1 << 20
SMALL = Limits(wall=20, memory=512 * MIB, processes=40, file_size=16 * MIB, output=32 * MIB, scratch=32 * MIB)


def run(
    folder: Path, code: str, *, limits: Limits = SMALL, mounts: dict[str, Path] | None = None, **environment: str
) -> SandboxResult:
    """Run Python code in the sandbox with ``folder``/out as its output folder."""
    sandbox = Sandbox(folder / "out", mounts or {}, environment, limits)
    return sandbox.run([sys.executable, "-c", textwrap.dedent(code)])


def kinds(result: SandboxResult) -> set[str]:
    return {a.kind for a in result.attempts}


@needs_sandbox
def test_code_runs_and_writes_its_output(tmp_path: Path) -> None:
    result = run(tmp_path, "import os\nprint(os.environ['GIVEN'])\nopen('/out/made', 'w').write('x')", GIVEN="yes")
    assert result.ok and result.sandboxed and result.stdout == "yes\n" and result.attempts == ()
    assert [p.name for p in output_files(tmp_path / "out")] == ["made"]


@needs_sandbox
def test_nothing_of_the_environment_gets_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "secret-token")
    result = run(tmp_path, "import os\nprint(sorted(os.environ))\nprint(open('/proc/1/environ').read())")
    assert "GITHUB_TOKEN" not in result.stdout and "secret-token" not in result.stdout + result.stderr


@needs_sandbox
def test_host_files_are_not_there(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the secret")
    code = f"""
        import os
        for path in ({str(secret)!r}, "/out/../..{secret}", "/proc/1/root{secret}", "/proc/self/cwd/../..{secret}"):
            try:
                print("read", open(path).read())
            except OSError as error:
                print(type(error).__name__)
        print(os.path.exists("/root/.ssh"), os.path.exists("/home"), os.path.exists("/etc/shadow"))
    """
    result = run(tmp_path, code)
    assert result.ok and "the secret" not in result.stdout
    assert result.stdout.endswith("False False False\n")


@needs_sandbox
def test_a_link_to_the_outside_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the secret")
    result = run(
        tmp_path,
        f"""
        import os
        os.symlink({str(secret)!r}, "/out/link")
        os.symlink("/", "/out/root")
        os.mkfifo("/out/pipe")
        open("/out/real", "w").write("x")
        """,
    )
    assert result.ok
    assert [p.name for p in output_files(tmp_path / "out")] == ["real"]


@needs_sandbox
def test_the_network_is_out_of_reach_and_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"""
            import socket
            for address in (("127.0.0.1", {port}), ("192.0.2.1", 80)):
                try:
                    socket.create_connection(address, timeout=2)
                    print("connected")
                except OSError as error:
                    print(type(error).__name__)
            """
        result = run(tmp_path, code)
    assert result.ok and "connected" not in result.stdout
    assert Attempt(kind="network", what=f"('127.0.0.1', {port})", seen_by="audit-hook") in result.attempts


@needs_sandbox
@pytest.mark.parametrize("way", ["subprocess.run(['lrzip', '-z', 'x'])", "os.system('lrzip -z x')"])
def test_an_external_program_is_not_there_and_told(tmp_path: Path, way: str) -> None:
    result = run(tmp_path, f"import os, subprocess\n{way}")
    assert Attempt(kind="program", what="lrzip -z x", seen_by="shim") in result.attempts
    assert any(a.seen_by == "audit-hook" and "lrzip" in a.what for a in result.attempts)


@needs_sandbox
def test_the_submission_and_the_system_are_read_only(tmp_path: Path) -> None:
    submission = tmp_path / "submission"
    submission.mkdir()
    (submission / "train_gpt.py").write_text("print('as shipped')")
    code = """
        import os
        for path in ("/submission/train_gpt.py", "/submission/new", "/usr/bin/new", "/guard/told2", "/new"):
            try:
                open(path, "w").write("changed")
                print("wrote", path)
            except OSError as error:
                print(error.errno)
    """
    result = run(tmp_path, code, mounts={"/submission": submission})
    assert (submission / "train_gpt.py").read_text() == "print('as shipped')"
    assert [p.name for p in submission.iterdir()] == ["train_gpt.py"]
    assert "wrote /submission" not in result.stdout and "wrote /usr" not in result.stdout
    assert any(a.kind == "write-outside" and "/submission/train_gpt.py" in a.what for a in result.attempts)


@needs_sandbox
def test_a_run_that_does_not_end_is_ended(tmp_path: Path) -> None:
    code = """
        import signal, time
        for n in range(1, 60):
            try:
                signal.signal(n, signal.SIG_IGN)
            except OSError:
                pass
        print("ready", flush=True)
        while True:
            time.sleep(1)
    """
    result = run(tmp_path, code, limits=Limits(wall=2))
    assert result.end is End.TIMEOUT and result.returncode is None and result.stdout == "ready\n"
    assert kinds(result) == {"time"}


@needs_sandbox
def test_a_fork_bomb_is_ended(tmp_path: Path) -> None:
    code = "import os, time\nwhile True:\n    try: os.fork()\n    except OSError: time.sleep(0.01)"
    result = run(tmp_path, code)
    assert result.end in (End.PROCESSES, End.MEMORY, End.TIMEOUT) and kinds(result) & {"processes", "memory", "time"}
    assert not _left("while True:\n    try: os.fork()")


@needs_sandbox
def test_a_daemon_does_not_outlive_the_run(tmp_path: Path) -> None:
    mark = f"daemon-{os.getpid()}-{time.monotonic_ns()}"
    code = f"""
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                for n in (0, 1, 2):
                    os.close(n)
                mark = {mark!r}
                time.sleep(600)
            os._exit(0)
        print("left")
    """
    result = run(tmp_path, code)
    assert result.end is End.FINISHED and result.stdout == "left\n"
    assert not _left(mark)


def _left(mark: str) -> list[int]:
    """Processes, whoever's, whose command line holds ``mark``."""
    for _ in range(20):
        found = []
        for process in psutil.process_iter():
            try:
                if mark in " ".join(process.cmdline()):
                    found.append(process.pid)
            except psutil.Error:
                continue
        if not found:
            return []
        time.sleep(0.1)
    return found


@needs_sandbox
def test_its_parents_can_not_be_killed(tmp_path: Path) -> None:
    code = f"""
        import os, signal
        for pid in (os.getppid(), 1, {os.getpid()}, -1):
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError as error:
                print(type(error).__name__, flush=True)
        print("still here", flush=True)
    """
    result = run(tmp_path, code)
    assert result.end in (End.FINISHED, End.KILLED)
    assert "ProcessLookupError" in result.stdout or result.end is End.KILLED


@needs_sandbox
def test_memory_is_bounded(tmp_path: Path) -> None:
    result = run(tmp_path, "x = bytearray(10 << 30)\nprint('got it')")
    assert not result.ok and "MemoryError" in result.stderr and "got it" not in result.stdout


@needs_sandbox
def test_memory_of_all_processes_together_is_bounded(tmp_path: Path) -> None:
    code = """
        import os, time
        for _ in range(8):
            if os.fork() == 0:
                x = bytearray(os.urandom(1 << 20) * 150)
                time.sleep(30)
        time.sleep(30)
    """
    result = run(tmp_path, code)
    assert result.end is End.MEMORY and kinds(result) == {"memory"}


@needs_sandbox
def test_a_large_file_is_refused(tmp_path: Path) -> None:
    code = "f = open('/out/large', 'wb')\nwhile True: f.write(bytes(1 << 20)); f.flush()"
    result = run(tmp_path, code)
    assert not result.ok and sum(p.stat().st_size for p in output_files(tmp_path / "out")) <= SMALL.file_size


@needs_sandbox
def test_many_files_are_bounded(tmp_path: Path) -> None:
    code = "i = 0\nwhile True:\n    open(f'/out/{i}', 'wb').write(bytes(4 << 20)); i += 1"
    result = run(tmp_path, code)
    assert result.end is End.OUTPUT and kinds(result) == {"output"}


@needs_sandbox
def test_the_private_tmp_is_bounded(tmp_path: Path) -> None:
    code = "i = 0\nwhile True:\n    open(f'/tmp/{i}', 'wb').write(bytes(4 << 20)); i += 1"
    result = run(tmp_path, code)
    assert not result.ok and "No space left" in result.stderr


@needs_sandbox
def test_a_flood_of_text_is_cut(tmp_path: Path) -> None:
    result = run(tmp_path, "for i in range(400000): print('x' * 50)\nprint('the end')")
    assert result.ok and len(result.stdout) <= SMALL.kept_text and result.stdout.endswith("the end\n")


@needs_sandbox
def test_a_flooded_pipe_blocks_nobody(tmp_path: Path) -> None:
    code = """
        import os
        pipe = os.open("/guard/told", os.O_WRONLY)
        for i in range(20000):
            os.write(pipe, b"program\\tmade up %d\\n" % i)
        print("done")
    """
    result = run(tmp_path, code)
    assert result.ok and result.stdout == "done\n" and 0 < len(result.attempts) <= 200


@needs_sandbox
def test_several_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    results: dict[int, SandboxResult] = {}

    def one(i: int) -> None:
        results[i] = run(tmp_path / str(i), f"import subprocess\nsubprocess.run(['xz', '{i}'])\nprint({i})")

    threads = [threading.Thread(target=one, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, result in results.items():
        assert result.stdout == f"{i}\n"
        assert [a.what for a in result.attempts if a.seen_by == "shim"] == [f"xz {i}"]


def test_no_sandbox_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    bubblewrap._problem.cache_clear()
    try:
        with pytest.raises(SandboxError) as caught:
            run(tmp_path, "open('/out/made', 'w')")
    finally:
        bubblewrap._problem.cache_clear()
    assert "bubblewrap" in str(caught.value) and "--no-sandbox" in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_without_protection_the_result_says_so(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path / "out", limits=SMALL, protected=False)
    result = sandbox.run([sys.executable, "-c", "print('hello')"])
    assert result.stdout == "hello\n" and result.sandboxed is False
