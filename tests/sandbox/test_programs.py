"""Generated code does no harm: each test really tries something inside the sandbox, and checks from outside."""

import gzip
import json
import os
import platform
import socket
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sdft_cli.errors import UsageError
from sdft_cli.sandbox import jail, programs
from sdft_cli.sandbox.programs import Limits, run

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in jail.MACHINES, reason="the sandbox is for Linux"
)
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "prior" / "humaneval"
SHORT = Limits(cpu=1, wall=60)


def refused(program: str, how: str = "PermissionError") -> None:
    """The program is stopped by the kernel's refusal."""
    result = run(textwrap.dedent(program))
    assert not result.passed and result.why.startswith(how), result


# --- what passes -----------------------------------------------------------------------------------------------------


def test_a_program_that_reaches_its_end_has_passed() -> None:
    program = (
        "import collections, math, re, typing, hashlib, random, itertools, string, decimal, datetime\nassert 1 < 2"
    )
    assert run(program).passed


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("assert 1 > 2", "AssertionError"),
        ("x = [", "SyntaxError"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("import os\nos._exit(0)", "exited before its end (exit code 0)"),
        ("import sys\nsys.exit()", "SystemExit"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)", "ended by signal SIGTERM"),
        ("def f(): f()\nf()", "RecursionError"),
        ("import ctypes\nctypes.string_at(0)", "ended by signal SIGSEGV"),
    ],
)
def test_any_other_end_is_no_pass(program: str, why: str) -> None:
    result = run(program)
    assert not result.passed and result.why.startswith(why)


def test_a_pass_mark_cannot_be_guessed() -> None:
    """A forged verdict is not believed, and nothing that the program replaces is used."""
    forged = json.dumps({"mark": "0" * 32, "passed": True, "why": "", "token": "0" * 32, "refused": "it"})
    assert not run(f"import os\nos.write(3, {forged!r}.encode() + b'\\n')\nos._exit(0)").passed
    assert not run("import os\nos.write(3, b'[' * 60000)\nraise ValueError").passed
    assert run("import os, json\nos.write(3, b'noise')\njson.dumps = os.write = None").passed
    assert run("print('x' * 10_000_000)").passed  # goes nowhere, and fills nothing up


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data files (../shared/data) are not here")
def test_all_reference_solutions_of_humaneval_pass() -> None:
    with gzip.open(SHARED / "HumanEval.jsonl.gz", "rt") as lines:
        rows = [json.loads(line) for line in lines]
    programs = [f"{r['prompt']}{r['canonical_solution']}\n{r['test']}\ncheck({r['entry_point']})" for r in rows]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(run, programs))
    assert len(rows) == 164
    assert [(r["task_id"], v.why) for r, v in zip(rows, results, strict=True) if not v.passed] == []


# --- what cannot get out --------------------------------------------------------------------------------------------


def test_a_fork_bomb_of_two_hundred() -> None:
    parent = os.getpid()
    refused(
        """
        import os
        count = 0
        for _ in range(200):
            if os.fork() == 0:
                while True: pass
            count += 1
        """
    )
    assert not any(_parent(pid) == parent and pid != parent for pid in _processes() if _is_ours(pid))


def _processes() -> list[int]:
    return [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()]


def _parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def _is_ours(pid: int) -> bool:
    try:
        return b"checker.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


@pytest.mark.parametrize(
    ("program", "how"),
    [
        ("import subprocess\nsubprocess.run(['/bin/true'])", "PermissionError"),
        ("import os\nos.posix_spawn('/bin/true', ['true'], {})", "PermissionError"),
        ("import threading\nthreading.Thread(target=print).start()", "RuntimeError"),
        ("import multiprocessing\nmultiprocessing.Process(target=print).start()", "PermissionError"),
        ("import os\nos.setsid()", "PermissionError"),
    ],
)
def test_no_process_and_no_thread(program: str, how: str) -> None:
    refused(program, how)


def test_an_endless_loop_is_stopped_by_processor_time() -> None:
    result = run("while True: pass", SHORT)
    assert not result.passed and result.why == "stopped after 1 s of processor time"


def test_the_processor_time_limit_cannot_be_caught() -> None:
    result = run("import signal\nsignal.signal(signal.SIGXCPU, lambda *_: None)\nwhile True: pass", SHORT)
    assert not result.passed and result.why == "ended by signal SIGKILL"


def test_sleep_is_stopped_by_real_time() -> None:
    began = time.monotonic()
    result = run("import time\ntime.sleep(600)", Limits(wall=1.0))
    assert not result.passed and result.why == "stopped after 1 s" and time.monotonic() - began < 30


def test_ten_gigabytes() -> None:
    assert run("bytearray(10 * 2**30)").why.startswith("MemoryError")
    assert run("x = []\nwhile True: x.append(bytearray(2**24))").why.startswith("MemoryError")
    refused("import resource\nresource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40))", "ValueError: not allowed")


def test_nothing_is_deleted_written_or_changed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("alive")
    victim.chmod(0o666), tmp_path.chmod(0o777)
    here, other = repr(str(victim)), repr(str(tmp_path / "other"))
    for act in (
        f"os.unlink({here})",
        f"os.remove({here})",
        f"shutil.rmtree({str(tmp_path)!r})",
        f"os.rename({here}, {other})",
        f"os.truncate({here}, 0)",
        f"os.open({here}, os.O_RDONLY | os.O_TRUNC)",
        f"open({here}, 'w')",
        f"open({here}, 'a')",
        f"open({other}, 'x')",
        f"os.mkdir({other})",
        f"os.symlink({here}, {other})",
        f"os.link({here}, {other})",
        f"os.mkfifo({other})",
        f"os.chmod({here}, 0)",
        f"os.utime({here})",
        f"os.setxattr({here}, 'user.x', b'y')",
        "open('here', 'w')",
        "tempfile.mkstemp()",
        "os.memfd_create('x')",
    ):
        refused(f"import os, shutil, tempfile\n{act}", "FileNotFoundError" if "mkstemp" in act else "PermissionError")
    assert victim.read_text() == "alive" and list(tmp_path.iterdir()) == [victim]


def test_only_the_interpreters_own_files_can_be_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("key")
    secret.chmod(0o666), tmp_path.chmod(0o777)
    for path in (secret, "/etc/passwd", "/proc/self/environ", f"/proc/{os.getpid()}/environ", Path.home() / ".bashrc"):
        refused(f"open({str(path)!r}).read()")
    refused("import os\nos.listdir('/')")
    assert run("import os\nassert 'HOME' not in os.environ and 'HF_TOKEN' not in os.environ").passed


def test_no_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.5)
        refused(f"import socket\nsocket.create_connection(('127.0.0.1', {server.getsockname()[1]}))")
        with pytest.raises(TimeoutError):
            server.accept()
    for family in ("AF_INET, socket.SOCK_DGRAM", "AF_UNIX, socket.SOCK_STREAM", "AF_NETLINK, socket.SOCK_RAW"):
        refused(f"import socket\nsocket.socket(socket.{family})")
    refused("import socket\nsocket.socketpair()")


def test_no_signal_to_others() -> None:
    parent = os.getpid()
    for act in (f"os.kill({parent}, 0)", "os.kill(-1, 9)", "os.kill(os.getppid(), 9)", "os.killpg(0, 9)"):
        refused(f"import os\n{act}")
    assert run("import os, signal\nos.kill(os.getpid(), 0)").passed


@pytest.mark.parametrize(
    "number", [101, 165, 272, 298, 310, 321, 425]
)  # ptrace, mount, unshare, perf, readv, bpf, io_uring
@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of system calls on x86-64")
def test_calls_that_no_library_makes_are_refused_too(number: int) -> None:
    refused(
        f"""
        import ctypes, os
        library = ctypes.CDLL(None, use_errno=True)
        if library.syscall({number}, 0, 0, 0, 0, 0, 0) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        """
    )


# --- each layer alone, and one missing -------------------------------------------------------------------------------

ALONE = """
import os, sys
sys.path.insert(0, {folder!r})
from sdft_cli.sandbox import jail
jail.drop_privileges()
{layer}
{act}
"""


def alone(layer: str, act: str) -> str:
    """The last line of stderr of a process that has one layer and nothing else."""
    program = ALONE.format(folder=str(Path(jail.__file__).parents[2]), layer=layer, act=act)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    return (done.stderr.strip() or "nothing").splitlines()[-1]


def test_landlock_alone_guards_files(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("alive")
    victim = repr(str(tmp_path / "victim"))
    layer = "jail.forbid_files([sys.base_prefix])"
    for act in (f"os.unlink({victim})", f"open({victim})", f"open({victim}, 'w')", f"os.listdir({str(tmp_path)!r})"):
        assert "PermissionError" in alone(layer, act)
    assert (tmp_path / "victim").read_text() == "alive"


def test_seccomp_alone_guards_files_processes_and_the_network(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("alive")
    victim = repr(str(tmp_path / "victim"))
    for act in (f"os.unlink({victim})", f"open({victim}, 'w')", "os.fork()", "import socket; socket.socket()"):
        assert "PermissionError" in alone("jail.forbid_calls()", act)
    assert alone("jail.forbid_calls()", f"assert open({victim}).read() == 'alive'") == "nothing"


def test_root_has_no_privilege_left() -> None:
    lines = "[x for x in open('/proc/self/status') if x.startswith(('CapEff', 'CapPrm', 'NoNewPrivs'))]"
    status = alone("", f"print({lines}, file=sys.stderr)")
    assert status.count("0000000000000000") == 2 and "NoNewPrivs:\\t1" in status
    # a program that is started has none either
    status = alone("", "os.execv('/bin/sh', ['sh', '-c', 'grep CapEff /proc/self/status >&2'])")
    assert "0000000000000000" in status


def test_without_a_layer_nothing_is_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = Path(jail.__file__).read_text()
    for old, new in (("444, 445, 446", "9444, 9445, 9446"), ("SECCOMP_MODE_FILTER = 2", "SECCOMP_MODE_FILTER = 77")):
        assert old in broken
        (tmp_path / "jail.py").write_text(broken.replace(old, new))
        monkeypatch.setattr(programs, "JAIL", str(tmp_path / "jail.py"))
        programs.ready.cache_clear()
        with pytest.raises(UsageError, match="cannot be confined") as error:
            run("pass")
        assert error.value.code == 2 and "--allow-code-execution" in error.value.hint
    programs.ready.cache_clear()


def test_a_jail_with_a_hole_is_detected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The trial run tests what the layers let through, not only whether they were set up."""
    whole = Path(jail.__file__).read_text()
    (tmp_path / "jail.py").write_text(
        whole.replace("return [*program, back(REFUSE | EPERM)]", "return [*program, back(ALLOW)]")
    )
    monkeypatch.setattr(programs, "JAIL", str(tmp_path / "jail.py"))
    programs.ready.cache_clear()
    with pytest.raises(UsageError, match="a socket"):
        programs.ready()
    programs.ready.cache_clear()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_it_works_unprivileged() -> None:
    """As the user nobody, with an interpreter that this user may run."""
    python = next((p for p in ("/usr/bin/python3", sys.executable) if _usable(p)), None)
    if python is None:
        pytest.skip("no interpreter here that another user may run")
    program = (
        f"import sys; sys.path.insert(0, {str(Path(programs.__file__).parents[2])!r})\n"
        "from sdft_cli.sandbox import programs\n"
        "assert programs.run('import os\\nassert os.getuid() == 65534').passed\n"
        "assert not programs.run('import os\\nos.fork()').passed\n"
        "assert not programs.run('open(\"/etc/passwd\")').passed"
    )
    done = subprocess.run([python, "-c", program], user=65534, group=65534, extra_groups=[], check=False, cwd="/",
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr


def _usable(python: str) -> bool:
    check = "import sys; sys.exit(sys.version_info < (3, 11))"
    try:
        done = subprocess.run([python, "-c", check], user=65534, group=65534, extra_groups=[], cwd="/", check=False)
        return done.returncode == 0
    except OSError:
        return False
