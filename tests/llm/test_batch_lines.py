"""Lines of a batch's files: broken ones, foreign ones and repeats are counted, and all others are read."""

from __future__ import annotations

import json

from openai.types import Batch

from sdft_cli.llm.batch_lines import BatchLine, read, reasons

NAMES = ("a", "b", "c", "d")
BODY = {"choices": []}


def line(name: str, **more) -> str:
    return json.dumps({"custom_id": name, "response": {"status_code": 200, "body": BODY}, "error": None, **more})


def test_good_lines_are_read_whatever_is_around_them():
    text = "\n".join(
        [
            "\ufeff" + line("a"),
            "",
            '["an", "array"]',
            line("b")[:-20],
            "\r",
            line("b") + "\r",
            line("b"),
            line("stranger"),
            '{"response": {}}',
            "null",
            "\ufeff" + line("c"),
            '{"custom_id": 7}',
        ]
    )
    lines = read(text.encode(), NAMES)
    assert [good.name for good in lines.good] == ["a", "b", "c"]
    assert all(good == BatchLine(good.name, 200, json.dumps(BODY)) for good in lines.good)
    assert lines.problems() == ["5 lines cannot be read", "1 line is there twice", "1 line is none of this batch"]


def test_bytes_that_are_no_text_stop_nothing():
    lines = read(b"\xff\xfe\x00\n" + line("a").encode() + b"\n\xc3", NAMES)
    assert [good.name for good in lines.good] == ["a"]
    assert lines.problems() == ["2 lines cannot be read"]


def test_a_line_may_hold_its_response_in_other_forms():
    text = "\n".join(
        [
            line("a", response={"status_code": "400", "body": '{"error": "no"}'}),
            line("b", response=None, error={"code": "batch_expired", "message": "This request expired"}),
            line("c", response={"body": BODY}),
            line("d", response={"status_code": 429, "body": None}),
        ]
    )
    assert read(text.encode(), NAMES).good == [
        BatchLine("a", 400, '{"error": "no"}'),
        BatchLine("b", 503, '{"error": {"code": "batch_expired", "message": "This request expired"}}'),
        BatchLine("c", 200, json.dumps(BODY)),
        BatchLine("d", 429, '{"error": null}'),
    ]


def test_the_reasons_of_a_failed_batch_are_told():
    errors = {"data": [{"code": "invalid", "message": f"bad line {i}", "line": i} for i in range(1, 6)]}
    info = Batch.construct(id="b", status="failed", errors=None)
    assert reasons(info) == ""
    told = Batch.model_validate(
        {"id": "b", "completion_window": "24h", "created_at": 1, "endpoint": "/v1", "input_file_id": "f",
         "object": "batch", "status": "failed", "errors": errors}
    )  # fmt: skip
    assert reasons(told) == ": bad line 1 (line 1); bad line 2 (line 2); bad line 3 (line 3); and 2 more"
