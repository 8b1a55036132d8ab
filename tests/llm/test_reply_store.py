"""The reply store: nothing added is lost or half there, one process at a time has it, older files are carried over."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sdft_cli.errors import SdftError, UsageError
from sdft_cli.llm import store_file
from sdft_cli.llm.batch_store import BatchStore, SubmittedBatch
from sdft_cli.llm.endpoint import EndpointModel
from sdft_cli.llm.parameters import SupportedParameters
from sdft_cli.llm.progress import Progress
from sdft_cli.llm.reply_store import ReplyStore, StoredResponse
from sdft_cli.llm.types import LENGTH, PromptResult, Reply, Request, TeacherOptions

ONE, TWO = Reply("one", "stop", 3, 4), Reply("zwei ü\0\n", LENGTH)


def response(digest: str, replies: dict[int, Reply], status: str = "200", body: str = "") -> StoredResponse:
    return StoredResponse(digest, "{}", status, body, replies)


def test_replies_are_found_by_request_and_sample(tmp_path):
    with ReplyStore(tmp_path / "deep" / "s.sqlite") as store:
        store.add(response("a", {0: ONE, 3: TWO}, body="body"))
        store.add(response("b", {}, "500", "oh"))
        assert (store.find("a", 0), store.find("a", 3), store.find("a", 1)) == (ONE, TWO, None)
        assert store.missing("a", (0, 1, 2, 3)) == [1, 2]
        assert store.replies("a", (3, 0)) == [TWO, ONE]
        assert store.replies("a", (0, 1)) is None
        assert store.find("b", 0) is None
    base = sqlite3.connect(tmp_path / "deep" / "s.sqlite")  # readable by hand afterwards
    assert base.execute("SELECT digest, status, body FROM response").fetchall() == [
        ("a", "200", "body"),
        ("b", "500", "oh"),
    ]


def test_the_first_reply_is_kept(tmp_path):
    with ReplyStore(tmp_path / "s.sqlite") as store:
        store.add(response("a", {0: ONE}))
        store.add(response("a", {0: TWO, 1: TWO}))
        assert store.replies("a", (0, 1)) == [ONE, TWO]


def test_several_responses_are_added_together_or_not_at_all(tmp_path):
    with ReplyStore(tmp_path / "s.sqlite") as store:
        broken = response("b", {0: Reply(None)})  # type: ignore[arg-type]
        with pytest.raises(SdftError, match="cannot write"):
            store.add(response("a", {0: ONE}), broken)
        assert store.find("a", 0) is None
        store.add(response("a", {0: ONE}))
    with ReplyStore(tmp_path / "s.sqlite") as store:
        assert store.find("a", 0) == ONE


def test_a_full_disk_is_an_error_and_loses_nothing(tmp_path):
    with ReplyStore(tmp_path / "s.sqlite") as store:
        store.add(response("a", {0: ONE}))
        store.file.base.execute("PRAGMA max_page_count = 20")
        with pytest.raises(SdftError, match=r"cannot write .*disk is full") as error:
            store.add(response("b", {0: ONE}, body="x" * 1_000_000))
        assert "what was stored is kept" in error.value.hint
        assert (store.find("a", 0), store.find("b", 0)) == (ONE, None)


def test_the_digest_depends_on_model_and_request():
    teacher = {"model": "m", "base_url": "u"}
    request = Request([{"role": "user", "content": "a"}], 1.0, 9, {"top_p": 0.5}, (0,))
    others = [
        Request([{"role": "user", "content": "b"}], 1.0, 9, {"top_p": 0.5}),
        Request([{"role": "system", "content": "a"}], 1.0, 9, {"top_p": 0.5}),
        Request(request.messages, 0.9, 9, {"top_p": 0.5}),
        Request(request.messages, 1.0, 8, {"top_p": 0.5}),
        Request(request.messages, 1.0, 9, {}),
    ]
    digests = {r.digest(teacher) for r in (request, *others)} | {request.digest({**teacher, "model": "n"})}
    assert len(digests) == 7
    assert Request(request.messages, 1.0, 9, {"top_p": 0.5}, (4, 5)).digest(teacher) == request.digest(teacher)


ADD = """
import sys
from pathlib import Path
from sdft_cli.llm.reply_store import ReplyStore, StoredResponse
from sdft_cli.llm.types import Reply
with ReplyStore(Path(sys.argv[1])) as store:
    for i in range(10**6):
        store.add(StoredResponse(str(i), "{}", "200", "x" * 500, {0: Reply(str(i))}))
        print(i, flush=True)
"""


def adding(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", ADD, str(path)], stdout=subprocess.PIPE, text=True)


def test_a_killed_process_loses_nothing_and_releases_the_store(tmp_path):
    path, last = tmp_path / "s.sqlite", -1
    for lines in (1, 50, 400):
        with adding(path) as process:
            for _ in range(lines):
                last = max(last, int(process.stdout.readline()))
            with pytest.raises(UsageError, match=r"s\.sqlite is in use by another process") as error:
                ReplyStore(path)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        assert error.value.hint
        with ReplyStore(path) as store:
            assert store.missing("0", (0,)) == []
            assert [i for i in range(last + 1) if store.find(str(i), 0) != Reply(str(i))] == []
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_files_that_are_not_reply_stores_are_refused(tmp_path):
    (tmp_path / "text").write_text("hello " * 1000)
    with pytest.raises(UsageError, match="is damaged or not a database") as error:
        ReplyStore(tmp_path / "text")
    assert "move it away" in error.value.hint
    other = sqlite3.connect(tmp_path / "other")
    other.execute("CREATE TABLE songs (title TEXT)")
    other.close()
    with pytest.raises(UsageError, match="is a database but not a reply store"):
        ReplyStore(tmp_path / "other")
    (tmp_path / "file").touch()
    with pytest.raises(SdftError, match="cannot open"):
        ReplyStore(tmp_path / "file" / "s.sqlite")


def test_it_keeps_up_with_a_fast_endpoint(tmp_path):
    with ReplyStore(tmp_path / "s.sqlite") as store:
        began = time.perf_counter()
        for i in range(1000):
            store.add(StoredResponse(str(i), "{}" * 500, "200", "x" * 2000, {0: ONE}))
        assert time.perf_counter() - began < 5  # a tenth of that on an idle machine


# --- format versions --------------------------------------------------------------------------------------------------

#: The tables of version 1, as the code that had it made them.
VERSION_1 = """
CREATE TABLE IF NOT EXISTS request (digest TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS response (
    id INTEGER PRIMARY KEY, digest TEXT NOT NULL, at TEXT NOT NULL, status TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS reply (
    digest TEXT NOT NULL, sample INTEGER NOT NULL, text TEXT NOT NULL, finish TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, response INTEGER NOT NULL,
    PRIMARY KEY (digest, sample)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batch (token TEXT PRIMARY KEY, id TEXT NOT NULL, done INTEGER NOT NULL, jobs TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS lack (teacher TEXT NOT NULL, parameter TEXT NOT NULL, PRIMARY KEY (teacher, parameter));
"""
ENDPOINT = "http://127.0.0.1:9/v1"  # where nobody answers
#: The digest of `ASKED` at this endpoint, by the code that wrote version 1: it must never change.
DIGEST = "c7fd0a9e0c1034edd32223c082f6815fd6b2abca41a0fa84ce8bef9f3474d6a8"
ASKED = Request([{"role": "user", "content": "what is 7 ?"}], 1.0, 32, {"top_p": 0.9}, (0, 1))


def old_store(path: Path, user_version: int) -> None:
    """A store as version 1 wrote it: two replies to `ASKED`, an open batch, and a parameter that is not supported."""
    prompt = '[{"role": "user", "content": "what is 7 ?"}]'
    body = f'{{"messages": {prompt}, "temperature": 1.0, "max_tokens": 32, "top_p": 0.9}}'
    base = sqlite3.connect(path)
    base.executescript(VERSION_1)
    base.execute("INSERT INTO request VALUES (?, ?)", (DIGEST, body))
    base.execute("INSERT INTO response VALUES (1, ?, '2026-05-01T12:00:00.000+00:00', '200', '{}')", (DIGEST,))
    base.execute("INSERT INTO reply VALUES (?, 0, 'it is 7', 'stop', 9, 4, 1)", (DIGEST,))
    base.execute("INSERT INTO reply VALUES (?, 1, 'seven', 'length', 0, 0, 1)", (DIGEST,))
    base.execute("INSERT INTO batch VALUES ('token', 'batch-1', 0, ?)", (json.dumps({"line": [DIGEST, [2]]}),))
    base.execute("INSERT INTO lack VALUES (?, 'seed')", (json.dumps({"model": "m", "base_url": ENDPOINT}),))
    base.execute(f"PRAGMA user_version = {user_version}")
    base.commit()
    base.close()


def version_of(path: Path) -> tuple[int, int]:
    base = sqlite3.connect(path)
    ((version,), (application,)) = (base.execute(f"PRAGMA {p}").fetchone() for p in ("user_version", "application_id"))
    base.close()
    return version, application


@pytest.mark.parametrize("user_version", [0, 1])
def test_an_older_store_is_carried_over_with_all_that_was_paid_for(tmp_path, user_version):
    path = tmp_path / "s.sqlite"
    old_store(path, user_version)
    replies = []

    def exchange():
        replies.extend((yield ASKED))
        return PromptResult()

    for _ in range(2):  # the second time it has the new version already
        replies.clear()
        with ReplyStore(path) as store:
            model = EndpointModel(TeacherOptions("m", ENDPOINT), store, Progress())
            model.run([exchange()], lambda result: None)
            assert replies == [Reply("it is 7", "stop", 9, 4), Reply("seven", "length", 0, 0)]
            assert (model.progress.usage.stored, model.progress.usage.requests) == (2, 0)
            assert not model.parameters.supports("seed")
            batches = BatchStore(store.file)
            assert batches.open() == [SubmittedBatch("token", "batch-1", {"line": [DIGEST, [2]]})]
            assert Request.from_body(batches.request_body(DIGEST), (0, 1)) == ASKED
        assert version_of(path) == (store_file.VERSION, store_file.APPLICATION_ID)


def test_a_new_store_has_the_version_and_remembers_what_an_endpoint_does_not_support(tmp_path):
    path = tmp_path / "s.sqlite"
    for supported in (True, False):
        with ReplyStore(path) as store:
            parameters = SupportedParameters(store.file, {"model": "m", "base_url": ENDPOINT})
            assert parameters.supports("seed") is supported
            parameters.drop("seed")
    assert version_of(path) == (store_file.VERSION, store_file.APPLICATION_ID)


def test_a_store_of_a_newer_version_is_refused_and_not_touched(tmp_path):
    path = tmp_path / "s.sqlite"
    ReplyStore(path).close()
    base = sqlite3.connect(path)
    base.execute(f"PRAGMA user_version = {store_file.VERSION + 1}")
    base.close()
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"s\.sqlite has format version 3, .* reads versions up to 2") as error:
        ReplyStore(path)
    assert "update sdft" in error.value.hint
    assert path.read_bytes() == before
