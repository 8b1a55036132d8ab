"""The store of replies: nothing that was added is lost, nothing is there by halves, one process at a time has it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sdft_cli.errors import SdftError, UsageError
from sdft_cli.llm.reply_store import Store
from sdft_cli.llm.types import LENGTH, Reply, Request

ONE, TWO = Reply("one", "stop", 3, 4), Reply("zwei ü\0\n", LENGTH)


def test_replies_are_found_by_question_and_sample(tmp_path):
    with Store(tmp_path / "deep" / "s.sqlite") as store:
        store.keep("a", "{}", "200", "body", {0: ONE, 3: TWO})
        store.keep("b", "{}", "500", "oh", {})
        assert (store.find("a", 0), store.find("a", 3), store.find("a", 1)) == (ONE, TWO, None)
        assert store.missing("a", (0, 1, 2, 3)) == [1, 2]
        assert store.replies("a", (3, 0)) == [TWO, ONE]
        assert store.replies("a", (0, 1)) is None
        assert store.find("b", 0) is None
    base = sqlite3.connect(tmp_path / "deep" / "s.sqlite")  # a look at it afterwards
    assert base.execute("SELECT digest, status, body FROM response").fetchall() == [
        ("a", "200", "body"),
        ("b", "500", "oh"),
    ]


def test_the_first_reply_stays(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        store.keep("a", "{}", "200", "", {0: ONE})
        store.keep("a", "{}", "200", "", {0: TWO, 1: TWO})
        assert store.replies("a", (0, 1)) == [ONE, TWO]


def test_several_answers_are_added_whole_or_not_at_all(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        broken = ("b", "{}", "200", "", {0: Reply(None)})  # type: ignore[arg-type]
        with pytest.raises(SdftError, match="cannot write"):
            store.keep_all([("a", "{}", "200", "", {0: ONE}), broken])
        assert store.find("a", 0) is None
        store.keep("a", "{}", "200", "", {0: ONE})
    with Store(tmp_path / "s.sqlite") as store:
        assert store.find("a", 0) == ONE


def test_a_full_disk_is_an_error_and_costs_nothing_that_is_there(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        store.keep("a", "{}", "200", "", {0: ONE})
        store.base.execute("PRAGMA max_page_count = 20")
        with pytest.raises(SdftError, match=r"cannot write .*disk is full") as error:
            store.keep("b", "{}", "200", "x" * 1_000_000, {0: ONE})
        assert "what was stored is kept" in error.value.hint
        assert (store.find("a", 0), store.find("b", 0)) == (ONE, None)


def test_what_is_asked_of_whom_makes_the_question():
    teacher = {"model": "m", "base_url": "u"}
    asked = Request([{"role": "user", "content": "a"}], 1.0, 9, {"top_p": 0.5}, (0,))
    others = [
        Request([{"role": "user", "content": "b"}], 1.0, 9, {"top_p": 0.5}),
        Request([{"role": "system", "content": "a"}], 1.0, 9, {"top_p": 0.5}),
        Request(asked.messages, 0.9, 9, {"top_p": 0.5}),
        Request(asked.messages, 1.0, 8, {"top_p": 0.5}),
        Request(asked.messages, 1.0, 9, {}),
    ]
    digests = {r.digest(teacher) for r in (asked, *others)} | {asked.digest({**teacher, "model": "n"})}
    assert len(digests) == 7
    assert Request(asked.messages, 1.0, 9, {"top_p": 0.5}, (4, 5)).digest(teacher) == asked.digest(teacher)


ADD = """
import sys
from pathlib import Path
from sdft_cli.asking.requests import Reply
from sdft_cli.asking.store import Store
with Store(Path(sys.argv[1])) as store:
    for i in range(10**6):
        store.keep(str(i), "{}", "200", "x" * 500, {0: Reply(str(i))})
        print(i, flush=True)
"""


def adding(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", ADD, str(path)], stdout=subprocess.PIPE, text=True)


def test_a_killed_process_loses_nothing_and_frees_the_store(tmp_path):
    path, last = tmp_path / "s.sqlite", -1
    for lines in (1, 50, 400):
        with adding(path) as process:
            for _ in range(lines):
                last = max(last, int(process.stdout.readline()))
            with pytest.raises(UsageError, match=r"s\.sqlite is in use by another process") as error:
                Store(path)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        assert error.value.hint
        with Store(path) as store:
            assert store.missing("0", (0,)) == []
            assert [i for i in range(last + 1) if store.find(str(i), 0) != Reply(str(i))] == []
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_files_that_are_no_store_of_ours_are_refused(tmp_path):
    (tmp_path / "text").write_text("hello " * 1000)
    with pytest.raises(UsageError, match="is damaged or is no store") as error:
        Store(tmp_path / "text")
    assert "move it away" in error.value.hint
    later = sqlite3.connect(tmp_path / "later")
    later.execute("PRAGMA user_version = 9")
    later.close()
    with pytest.raises(UsageError, match="another version of sdft"):
        Store(tmp_path / "later")
    (tmp_path / "file").touch()
    with pytest.raises(SdftError, match="cannot open"):
        Store(tmp_path / "file" / "s.sqlite")


def test_it_keeps_up_with_a_fast_endpoint(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        began = time.perf_counter()
        for i in range(1000):
            store.keep(str(i), "{}" * 500, "200", "x" * 2000, {0: ONE})
        assert time.perf_counter() - began < 5  # a tenth of that on an idle machine
