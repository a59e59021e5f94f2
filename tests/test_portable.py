"""Nothing that Windows or macOS lacks is met outside places that ask first."""

from __future__ import annotations

import ast
import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamlift import app
from streamlift.config import BackendConfig
from streamlift.portable import die_with_parent, on_signal

SOURCE = Path(__file__).parents[1] / "src" / "streamlift"
MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "posix", "syslog", "uvloop"}
NAMES = {
    *("add_signal_handler", "remove_signal_handler", "set_wakeup_fd", "setitimer"),
    *("SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGALRM", "SIGQUIT", "SIGPIPE"),
    *("prctl", "fork", "forkpty", "waitpid", "wait3", "wait4", "killpg", "setsid", "setpgid"),
    *("getpgid", "getuid", "geteuid", "getgid", "getegid", "getpwuid", "chown", "fchown"),
    *("fchmod", "mkfifo", "mknod", "memfd_create", "sched_getaffinity", "sched_setaffinity"),
    *("nice", "getloadavg", "sysconf", "getrusage", "getrlimit", "setrlimit", "pidfd_open"),
    *("AF_UNIX", "SO_REUSEPORT", "recvmsg", "sendmsg", "create_unix_server", "flock", "lockf"),
    *("create_unix_connection", "open_unix_connection", "start_unix_server", "pthread_kill"),
}
KEYWORDS = {"preexec_fn", "start_new_session", "pass_fds", "process_group"}
PATHS = ("/proc", "/sys/", "/dev/", "/tmp", "/etc/", "/bin/", "/usr/", "unix:")
SHELLS = {"bash", "sh", "/bin/sh", "kill", "ps"}
ASKS = ("sys.platform", "os.name", "hasattr(", "find_spec(", "fcntl is None")
CAUGHT = {"ImportError", "NotImplementedError", "AttributeError", "OSError", "FileNotFoundError"}

ALLOWED = {
    "portable.py": "the place for it",
    "cluster/child.py": "workers in processes are refused on Windows (config/checks.py)",
    "cluster/placement.py": "starts Ray's side; Windows passes over start_new_session",
    "cluster/link.py": "only asks whether a worker is of this machine",
    "cluster/process.py": "takes unix:PATH from whoever types it, and from child.py",
    "cluster/trust.py": "reads addresses that others gave",
    "cli/worker.py": "names unix:PATH in its help",
    "engine/devices.py": "only asks whether the files are there",
    "upscalers/weights/lock.py": "fcntl is None where there is none, and asked for first",
    "media/remote/pull_url.py": "Windows passes over start_new_session",
    "service/files.py": "Windows passes over start_new_session",
    "config/checks.py": "names of cameras, which only Linux has (v4l2)",
    "demo.py": "its preexec_fn is None but on Linux",
}


def test_what_only_posix_has_is_met_only_where_it_is_asked_for() -> None:
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        if name not in ALLOWED and (met := list(met_in(path.read_text()))):
            found[name] = met
    assert found == {}
    assert all((SOURCE / name).is_file() for name in ALLOWED)


@pytest.mark.parametrize(
    "source",
    [
        "loop.add_signal_handler(sign, end)",
        "import resource",
        "from fcntl import flock",
        "import importlib\nimportlib.import_module('fcntl')",
        "os.fork()",
        "open('/proc/self/status')",
        "Path(f'/proc/{pid}')",
        "subprocess.run(['bash', '-c', x])",
        "subprocess.run(x, preexec_fn=f)",
        "socket.socket(socket.AF_UNIX)",
        "signal.signal(signal.SIGHUP, f)",
        "try:\n    f()\nexcept ValueError:\n    os.getuid()",
        "try:\n    f()\nexcept OSError:\n    os.getuid()",  # in the handler, not in what it guards
        "if x:\n    os.nice(1)",
        "if sys.platform == 'linux':\n    f()\nos.nice(1)",
    ],
)
def test_a_call_that_does_not_ask_is_found(source: str) -> None:
    assert list(met_in(source))


@pytest.mark.parametrize(
    "source",
    [
        "if sys.platform == 'linux':\n    os.nice(1)",
        "x = os.sched_getaffinity(0) if hasattr(os, 'sched_getaffinity') else 1",
        "try:\n    import resource\nexcept ImportError:\n    pass",
        "try:\n    read('/proc/cpuinfo')\nexcept OSError:\n    pass",
        "with suppress(NotImplementedError):\n    loop.add_signal_handler(sign, f)",
        "def f():\n    if sys.platform != 'linux':\n        return None\n    return os.fork()",
        "def f():\n    try:\n        import resource\n    except ImportError:\n        return 1\n"
        "    return resource.getrlimit(0)",
        "def f():\n    '''Reads /proc, or so.'''",
        "process.kill()",
    ],
)
def test_one_that_asks_is_let_through(source: str) -> None:
    assert list(met_in(source)) == []


def test_backends_stay_in_the_service_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert app.link_of(BackendConfig("flashvsr", "flashvsr", device="cuda:0")) == "inproc"
    assert die_with_parent() is None


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal to itself")
@pytest.mark.parametrize("knows_signals", [True, False])
async def test_a_signal_is_told_whether_the_loop_knows_signals_or_not(
    knows_signals: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    before = signal.getsignal(signal.SIGTERM)
    if not knows_signals:

        def refuse(*_: object) -> None:
            raise NotImplementedError

        monkeypatch.setattr(loop, "add_signal_handler", refuse)
    try:
        on_signal(signal.SIGTERM, told.set)
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(30):
            await told.wait()
    finally:
        if knows_signals:
            loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, before)


def met_in(source: str) -> Iterator[str]:
    """What of POSIX alone a file meets without asking, as `line: what`."""
    tree = ast.parse(source)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        for what in _posix(node):
            if not _is_docstring(node, parents) and not _asks(node, parents):
                yield f"{getattr(node, 'lineno', '?')}: {what}"


def _posix(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield node.attr
    elif isinstance(node, ast.Import):
        yield from (a.name for a in node.names if a.name.split(".")[0] in MODULES)
    elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
        yield str(node.module)
    elif isinstance(node, ast.keyword) and node.arg in KEYWORDS:
        yield str(node.arg)
    elif isinstance(node, ast.Constant) and _names_posix(node.value):
        yield repr(node.value)


def _names_posix(value: object) -> bool:
    """A path or a shell, or a module by its name."""
    by_name = SHELLS | MODULES - {"resource"}
    return isinstance(value, str) and (value.startswith(PATHS) or value in by_name)


def _is_docstring(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> bool:
    return isinstance(parents.get(node), ast.Expr)


def _asks(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> bool:
    child, parent = node, parents.get(node)
    while parent is not None:
        if isinstance(parent, ast.If | ast.IfExp | ast.While) and child is not parent.test:
            if any(ask in ast.unparse(parent.test) for ask in ASKS):
                return True
        elif isinstance(parent, ast.BoolOp):
            if any(ask in ast.unparse(parent) for ask in ASKS):
                return True
        elif isinstance(parent, ast.Try) and child in parent.body:
            if any(_catches(handler.type) for handler in parent.handlers):
                return True
        elif isinstance(parent, ast.With | ast.AsyncWith) and child in parent.body:
            calls = [item.context_expr for item in parent.items]
            if any("suppress(" in ast.unparse(c) and _catches(c) for c in calls):
                return True
        elif isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef) and child in parent.body:
            before = parent.body[: parent.body.index(child)]
            if any(_leaves(statement) for statement in before):
                return True
        child, parent = parent, parents.get(parent)
    return False


def _catches(expression: ast.AST | None) -> bool:
    if expression is None:
        return True
    return any(
        isinstance(n, ast.Name | ast.Attribute) and ast.unparse(n) in CAUGHT
        for n in ast.walk(expression)
    )


def _leaves(statement: ast.stmt) -> bool:
    """`if sys.platform ...: return`, or an import whose failure returns."""
    if isinstance(statement, ast.If):
        asks = any(ask in ast.unparse(statement.test) for ask in ASKS)
        return asks and isinstance(statement.body[-1], ast.Return | ast.Raise)
    if isinstance(statement, ast.Try):
        return any(
            _catches(h.type) and isinstance(h.body[-1], ast.Return | ast.Raise)
            for h in statement.handlers
        )
    return False


ARENAS = """
import ctypes, sys, tempfile, threading
from streamlift.portable import bound_arenas
if not bound_arenas():
    sys.exit("no")
libc, done = ctypes.CDLL(None), threading.Barrier(17)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
def work():
    libc.malloc(4096)
    done.wait()
threads = [threading.Thread(target=work) for _ in range(16)]
[t.start() for t in threads]
done.wait()
[t.join() for t in threads]
libc.fopen.restype, libc.fopen.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_char_p]
libc.malloc_info.argtypes, libc.fclose.argtypes = [ctypes.c_int, ctypes.c_void_p], [ctypes.c_void_p]
with tempfile.NamedTemporaryFile() as file:
    out = libc.fopen(file.name.encode(), b"w")
    libc.malloc_info(0, out)
    libc.fclose(out)
    print(file.read().count(b"<heap nr="))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_sixteen_threads_keep_memory_in_two_places() -> None:
    run = subprocess.run(
        [sys.executable, "-c", ARENAS], capture_output=True, text=True, check=False, timeout=60
    )
    if run.stderr.strip() == "no":
        pytest.skip("this C library has no mallopt")
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) <= 2
