"""Liveness, asked of real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace

from overt.journal import owner
from overt.journal.owner import is_alive, this_process
from overt.records import Owner

SAY = "from overt.journal.owner import this_process as t; o = t(); print(o.pid, o.started, flush=True); input()"


def start() -> tuple[subprocess.Popen[str], Owner]:
    process = subprocess.Popen([sys.executable, "-c", SAY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid, started = process.stdout.readline().split()
    return process, replace(this_process(), pid=int(pid), started=started)


def test_this_process_lives() -> None:
    assert is_alive(this_process()) is True


def test_a_process_lives_until_it_ends_and_its_zombie_does_not() -> None:
    process, written = start()
    with process:
        assert is_alive(written) is True
        process.kill()
        deadline = time.monotonic() + 20
        while is_alive(written) and time.monotonic() < deadline:
            pass
        os.kill(process.pid, 0)  # nobody has waited for it: the zombie answers
        assert is_alive(written) is False
    assert is_alive(written) is False


def test_a_reused_process_id_is_told_by_its_start() -> None:
    process, written = start()
    with process:
        assert is_alive(replace(written, started=str(int(written.started) - 1))) is False
        process.communicate("\n")


def test_a_process_of_another_boot_is_gone() -> None:
    assert is_alive(replace(this_process(), boot="another")) is False


def test_of_another_host_nobody_here_can_tell() -> None:
    assert is_alive(replace(this_process(), host="another.example")) is None


def test_a_forked_child_is_an_owner_of_its_own() -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, repr(this_process()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 4096) != repr(this_process()).encode()
    os.close(reader)
    os.close(writer)


def test_a_command_name_with_brackets_and_spaces_is_no_trouble(tmp_path: object) -> None:
    name = ") Z 1 2 3 ("
    script = f"open('/proc/self/comm', 'w').write({name!r}); {SAY}"
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        pid, started = process.stdout.readline().split()
        assert is_alive(replace(this_process(), pid=int(pid), started=started)) is True
        assert owner._started(int(pid)) == started
        process.communicate("\n")
