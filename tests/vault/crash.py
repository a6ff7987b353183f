"""Crashes on purpose: a process is killed, or a system call fails, at any call; or the power goes, and with it what was
not
synced.

A child is forked that has everything loaded, so that a run takes milliseconds. strace attaches to it and kills it at
the k-th
call of a kind. For power cuts strace writes down the calls of one run; then every prefix is replayed onto a copy, with
pages
and names that were not synced kept or dropped in several ways.
"""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

CALLS = "write,pwrite64,fsync,fdatasync,rename,unlink,ftruncate"
STRACE = shutil.which("strace")


def fork(work, options=(), output="/dev/null"):
    """Run ``work()`` in a child under strace; return its exit status (negative: the signal that ended it)."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            signal.alarm(300)
            os.kill(os.getpid(), signal.SIGSTOP)
            work()
            code = 0
        finally:
            os._exit(code)
    os.waitpid(child, os.WUNTRACED)
    tracer = None
    if options:
        command = [STRACE, "-f", "-qq", "-e", f"trace={CALLS},openat", *options, "-o", str(output), "-p", str(child)]
        tracer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        status = Path(f"/proc/{child}/status")
        deadline = time.monotonic() + 60
        while "TracerPid:\t0\n" in status.read_text():
            if tracer.poll() is not None or time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return None  # strace may not attach here
            time.sleep(0.002)
    os.kill(child, signal.SIGCONT)
    _, status = os.waitpid(child, 0)
    if tracer is not None:
        tracer.wait()
    return os.waitstatus_to_exitcode(status)


def fork_and_kill(work, seconds):
    """Run ``work()`` in a child and kill it after a while; return whether it was killed before its end."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            work()
        os._exit(0)
    time.sleep(seconds)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def calls_of(work, output):
    """Return (name of the call, how many of this name so far) for every call of a run; None without strace."""
    if STRACE is None or fork(work, ["-e", "inject=chroot:error=EPERM"], output) is None:
        return None
    counts, out = Counter(), []
    for line in Path(output).read_text(errors="replace").splitlines():
        found = re.search(r"(\w+)\(", line)
        if found and found[1] in CALLS.split(","):
            counts[found[1]] += 1
            out.append((found[1], counts[found[1]]))
    return out


class Disk:
    """What a power cut may leave: replays a trace of calls on the files of a folder."""

    PAGE = 4096

    def __init__(self, trace, base, target):
        self.base, self.target = Path(base), Path(target)
        self.calls = [call for call in map(self._parse, Path(trace).read_text().splitlines()) if call]

    def _parse(self, line):
        found = re.match(r"(?:\d+ +)?(\w+)\((.*)\)\s+= (-?\d+)", line)
        if not found or int(found[3]) < 0:
            return None
        name, given = found[1], found[2]
        texts = [self._bytes(text) for text in re.findall(r'"((?:\\x..)*)"', given)]
        handle = re.match(r"(?:AT_FDCWD<[^>]*>|\d+<([^>]*)>)", given)
        path = os.fsdecode(self._bytes(handle[1])) if handle and handle[1] else None
        ours = str(self.target) + "/"
        if name == "openat":
            file = os.fsdecode(texts[0])
            if not file.startswith(ours):
                return None
            if "O_CREAT" in given:
                return ("create", file, "O_TRUNC" in given)
            return ("truncate", file, 0) if "O_TRUNC" in given else None
        if name in ("rename", "unlink"):
            names = [os.fsdecode(text) for text in texts]
            return (name, *names) if names[0].startswith(ours) else None
        if path is None or not (path + "/").startswith(ours):
            return None
        if name == "write":
            return ("write", path, None, texts[0])
        if name == "pwrite64":
            return ("write", path, int(given.rsplit(",", 1)[1]), texts[0])
        if name == "ftruncate":
            return ("truncate", path, int(given.rsplit(",", 1)[1]))
        return ("sync", path)

    @staticmethod
    def _bytes(text):
        return bytes.fromhex(text.replace("\\x", "")) if "\\x" in text else text.encode()

    def after(self, k, data, names, rng):
        """Write the folder as it may be after the first k calls.

        ``data`` and ``names`` say what becomes of pages and of names that were not synced: "none", "all" or "some"
        stay.
        """
        now, durable, waiting = {}, {}, []
        for path in self.base.rglob("*"):
            if path.is_file():
                here = str(self.target / path.relative_to(self.base))
                now[here] = durable[here] = _File(path.read_bytes())
        for call, *given in self.calls[:k]:
            self._apply(call, given, now, durable, waiting)
        retained = {"none": 0, "all": len(waiting), "some": rng.randint(0, len(waiting))}[names]
        for change in waiting[:retained]:
            _change(durable, change)
        shutil.rmtree(self.target, ignore_errors=True)
        for folder in (self.base, *(path for path in self.base.rglob("*") if path.is_dir())):
            (self.target / folder.relative_to(self.base)).mkdir(parents=True, exist_ok=True)
        for name, file in durable.items():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_bytes(file.left(data, rng))

    def _apply(self, call, given, now, durable, waiting):
        path = given[0]
        if call == "create" and path not in now:
            now[path] = _File(b"")
            waiting.append(("link", path, now[path]))
        elif call == "create":
            if given[1]:
                now[path].change(("truncate", 0))
        elif call == "truncate":
            now[path].change(("truncate", given[1]))
        elif call == "write":
            file = now[path]
            place = file.size if given[1] is None else given[1]  # our own files are written from start to end
            file.change(("write", place, given[2]))
        elif call == "sync" and path in now:
            now[path].sync()
        elif call == "sync":  # a folder: its names
            for change in [c for c in waiting if os.path.dirname(c[1]) == path]:
                _change(durable, change)
                waiting.remove(change)
        elif call == "rename":
            waiting.append(("rename", *given))
            now[given[1]] = now.pop(path)
        elif call == "unlink":
            waiting.append(("unlink", path))
            now.pop(path)


def _change(names, change):
    kind, path, *more = change
    if kind == "link":
        names[path] = more[0]
    elif kind == "rename":
        if path in names:
            names[more[0]] = names.pop(path)
    else:
        names.pop(path, None)


class _File:
    def __init__(self, data):
        self.durable, self.waiting, self.size = bytearray(data), [], len(data)

    def change(self, change):
        self.waiting.append(change)
        self.size = change[1] if change[0] == "truncate" else max(self.size, change[1] + len(change[2]))

    def sync(self):
        for change in self.waiting:
            self._do(self.durable, change)
        self.waiting = []

    @staticmethod
    def _do(data, change):
        if change[0] == "truncate":
            del data[change[1] :]
            data.extend(bytes(change[1] - len(data)))
            return
        _, place, piece = change
        data.extend(bytes(max(0, place + len(piece) - len(data))))
        data[place : place + len(piece)] = piece

    def left(self, how, rng):
        data = bytearray(self.durable)
        for change in self.waiting:
            if how == "all" or (how == "some" and rng.random() < 0.5):
                self._do(data, change)
        return bytes(data)


def places(calls, every):
    """A sample of calls: every n-th, and always the first and the last."""
    chosen = calls[::every]
    return chosen if calls[-1] in chosen else [*chosen, calls[-1]]


def rng_of(seed):
    return random.Random(seed)
