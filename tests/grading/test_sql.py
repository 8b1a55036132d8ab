"""The grader ``sql``: results on databases whose right answers are known, and what cannot be decided."""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sdft_cli.grading.named_rules import grader
from sdft_cli.grading.result_sets import same_multiset
from sdft_cli.types import Example

SHOP = """
CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT, city TEXT);
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer_id INTEGER, total REAL, day TEXT);
INSERT INTO customer VALUES (1, 'Ada', 'Bern'), (2, 'Bo', 'Oslo'), (3, 'Cy', NULL), (4, 'Di', 'Bern');
INSERT INTO orders VALUES (1, 1, 0.1, '2024-01-02'), (2, 1, 0.2, '2024-01-03'), (3, 2, 5, '2024-01-03'),
 (4, 2, 5, '2024-02-01'), (5, 4, NULL, '2024-02-02');
"""
SCHEMA = "CREATE TABLE head (age INTEGER, name VARCHAR); CREATE TABLE dept (head_id INTEGER, budget REAL)"


def grade(completion: str, gold: Any, folder: Path | None = None, **meta: Any):
    return grader("sql").score(completion, Example("x", [], answer=gold, meta=meta), folder)


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    (folder / "databases").mkdir()
    with sqlite3.connect(folder / "databases" / "the shop?#%.sqlite") as connection:
        connection.executescript(SHOP)
    connection.close()
    return folder


BERN = "SELECT name FROM customer WHERE city = 'Bern'"
BY_TOTAL = "SELECT customer_id, total FROM orders ORDER BY total DESC"
GRADED = [  # (completion, gold, value)
    ("SELECT name FROM customer WHERE city='Bern' ORDER BY name DESC", BERN, 1),
    ("```sql\nSELECT name FROM customer WHERE city = 'Bern';\n```\nThis lists both.", BERN, 1),
    ("The query is: SELECT c.name FROM customer c WHERE c.city = 'Bern'; it joins nothing.", BERN, 1),
    ("I select the names with this query:\n\nselect name from customer where city like 'bern'\n\nDone.", BERN, 1),
    ("<think>SELECT 1</think>" + BERN, BERN, 1),
    ("<answer>" + BERN + "</answer>", BERN, 1),
    ("First SELECT id FROM customer; then better: " + BERN + ";", BERN, 1),
    ("SELECT name, city FROM customer WHERE city = 'Bern'", BERN, 0),
    ("SELECT name FROM customer", BERN, 0),
    ("SELECT city FROM customer WHERE city = 'Bern'", BERN, 0),
    ("SELECT nam FROM customer", BERN, 0),
    ("SELECT name FROM customer WHERE", BERN, 0),
    ("no idea", BERN, 0),
    ("", BERN, 0),
    (BERN + "; SELECT 1", BERN, 0),
    ("SELECT city FROM customer", "SELECT DISTINCT city FROM customer", 0),  # a multiset, not a set
    ("SELECT city, name FROM customer", "SELECT name, city FROM customer", 0),  # columns in order
    ("SELECT name AS n FROM customer", "SELECT name FROM customer", 1),  # their names do not matter
    ("SELECT sum(total) FROM orders WHERE customer_id = 1", "SELECT 0.3", 1),
    ("SELECT 0.30001", "SELECT 0.3", 0),
    ("SELECT 5", "SELECT 5.0", 1),
    ("SELECT '5'", "SELECT 5", 0),
    ("SELECT NULL", "SELECT NULL", 1),
    ("SELECT NULL", "SELECT 0", 0),
    ("SELECT ''", "SELECT NULL", 0),
    ("SELECT x'41'", "SELECT 'A'", 0),
    ("SELECT customer_id, total FROM orders ORDER BY total DESC, id", BY_TOTAL, 1),
    ("SELECT customer_id, total FROM orders ORDER BY total DESC, id DESC", BY_TOTAL, 1),  # ties in any order
    ("SELECT customer_id, total FROM orders ORDER BY total", BY_TOTAL, 0),
    ("SELECT name FROM customer ORDER BY id DESC", "SELECT name FROM customer ORDER BY name", 0),
    ("SELECT name FROM customer ORDER BY id", "SELECT name FROM customer ORDER BY 1", 1),
    (
        "SELECT day, count(*) FROM orders GROUP BY day ORDER BY count(*) DESC, day DESC",
        "SELECT day, count(*) AS n FROM orders GROUP BY day ORDER BY n DESC",
        1,
    ),
    ("SELECT id FROM customer UNION SELECT 9 ORDER BY 1", "SELECT id FROM customer UNION SELECT 9 ORDER BY id", 1),
    ("WITH r AS (SELECT * FROM customer) SELECT name FROM r WHERE city = 'Bern'", BERN, 1),
    ("VALUES (1)", "SELECT 1", 1),
    (f"{BERN}\nThis lists both of them.", BERN, 1),
    ("SELECT name\nFROM customer\nWHERE city = 'Bern'\n\nIt lists both; done.", BERN, 1),
    ("SELECT name FROM customer WHERE city = 'Bern' -- a; b", BERN, 1),
    ("SELECT 1", ["SELECT 2", "SELECT 1"], 1),
    ("SELECT name, id FROM customer WHERE id < 3", [["Ada", 1], ["Bo", 2.0]], 1),
    ("SELECT name FROM customer WHERE id < 3", [{"name": "Bo"}, {"name": "Ada"}], 1),
    ("SELECT id FROM customer WHERE id < 3", [2, 1], 1),
    ("SELECT id FROM customer", [[2], [1]], 0),
]


@pytest.mark.parametrize(("completion", "gold", "value"), GRADED)
def test_on_a_file_and_on_the_text_that_makes_it(shop, completion, gold, value):
    for where in ({"database": "databases/the shop?#%.sqlite"}, {"database": SHOP}):
        score = grade(completion, gold, shop, **where)
        assert score.value == value, score
        assert score.why and (score.extracted or value == 0)


UNSCORED = [  # (completion, gold, meta, why)
    (BERN, BERN, {"database": "databases/none.sqlite"}, "the database none.sqlite cannot be read"),
    (BERN, "SELECT nam FROM customer", {"database": SHOP}, "the gold query does not run: no such column"),
    (BERN, "DELETE FROM customer", {"database": SHOP}, "the gold query does not run: not authorized"),
    (BERN, "SELECT random()", {"database": SHOP}, "the gold query returns something else each time"),
    (BERN, "SELECT id FROM customer WHERE city = 'Bern'", {}, "without rows in a database nobody knows"),
    (BERN, [["Ada"]], {}, "gold rows need a database"),
    (BERN, [["Ada"], ["Bo", 1]], {"database": SHOP}, "the gold rows are not rows of one length"),
    (BERN, "SELECT FROM WHERE", {}, "the gold query cannot be parsed"),
    (BERN, None, {}, "the row has neither a gold query nor gold rows"),
    (BERN, BERN, {"database": "CREATE TABLE customer (;"}, "the database's SQL cannot be run"),
    (
        "SELECT regexp_matches(name, 'a') FROM customer",
        BERN,
        {"database": SHOP, "dialect": "postgres"},
        "SQLite cannot run",
    ),
]


@pytest.mark.parametrize(("completion", "gold", "meta", "why"), UNSCORED)
def test_what_cannot_be_decided_is_unscored(shop, completion, gold, meta, why):
    score = grade(completion, gold, shop, **meta)
    assert score.value is None and score.why.startswith(f"unscored: {why}"), score


SAME = [
    ("select NAME from Customer  where CITY='Bern';", BERN),
    ("SELECT \"name\" FROM customer WHERE (city = 'Bern')", BERN),
    ("SELECT c.name FROM customer AS c WHERE c.city = 'Bern'", BERN),
    ("SELECT name AS n FROM customer WHERE city = 'Bern' -- both", BERN),
    ("SELECT a.x FROM t AS a INNER JOIN u AS b ON a.i = b.i", "SELECT T1.x FROM t AS T1 JOIN u AS T2 ON T1.i = T2.i"),
    ("SELECT x FROM t WHERE a = 1 AND b = 2", "SELECT x FROM t WHERE b = 2 AND a = 1"),
]


@pytest.mark.parametrize(("completion", "gold"), SAME)
def test_without_a_database_the_same_query_is_right(completion, gold):
    assert grade(completion, gold).value == 1


@pytest.mark.parametrize(
    "completion",
    [
        'SELECT name FROM customer WHERE city = "bern"',
        "SELECT name FROM customer WHERE city = 'bern'",
        "SELECT city AS name FROM customer WHERE city = 'Bern'",
        "SELECT name FROM customer WHERE city <> 'Bern'",
        "SELECT DISTINCT name FROM customer WHERE city = 'Bern'",
    ],
)
def test_without_a_database_another_query_is_never_right(completion):
    assert grade(completion, BERN).value is None


def test_columns_that_exchange_their_names_are_not_the_same():
    assert grade("SELECT a AS b, b AS a FROM t ORDER BY a", "SELECT a, b FROM t ORDER BY a").value is None


def test_without_a_database_what_is_no_query_is_wrong():
    assert [grade(text, BERN).value for text in ("no idea", "SELECT FROM WHERE", "DELETE FROM customer")] == [0, 0, 0]


OLD = "SELECT count(*) FROM head WHERE age > 56"
MADE_UP = [
    ("SELECT COUNT(*) FROM head WHERE 56 < age", OLD, 1),
    ("SELECT COUNT(name) FROM head WHERE age > 56", OLD, 1),
    ("SELECT COUNT(*) FROM head WHERE age >= 56", OLD, 0),
    ("SELECT COUNT(*) FROM head WHERE age < 56", OLD, 0),
    ("SELECT COUNT(*) FROM heads WHERE age > 56", OLD, 0),
    ("SELECT name FROM head WHERE age > 56", OLD, 0),
    ("SELECT name FROM head WHERE name LIKE 'Jo%'", "SELECT name FROM head WHERE name LIKE '%Jo'", 0),
    ("SELECT age FROM head ORDER BY age DESC LIMIT 1", "SELECT max(age) FROM head", 1),
    ("SELECT name FROM head ORDER BY age", "SELECT name FROM head ORDER BY age DESC", 0),
    (
        "SELECT h.name FROM head h, dept d WHERE d.head_id = h.age",
        "SELECT name FROM head JOIN dept ON head_id = age",
        1,
    ),
]


@pytest.mark.parametrize(("completion", "gold", "value"), MADE_UP)
def test_a_schema_without_rows_is_filled(completion, gold, value):
    score = grade(completion, gold, database=SCHEMA)
    assert score.value == value, score


def test_a_schema_without_rows_does_not_make_every_query_right():
    never = "SELECT name FROM head WHERE age > 5 AND age < 2"
    assert grade("SELECT name FROM head WHERE age > 7 AND age < 3", never, database=SCHEMA).value is None
    assert grade(never, never, database=SCHEMA).value == 1


def test_other_dialects_are_translated():
    mysql = (
        "CREATE TABLE `t` (`a` int(11) NOT NULL AUTO_INCREMENT, `b` varchar(9), PRIMARY KEY (`a`)) ENGINE=InnoDB;"
        "INSERT INTO `t` VALUES (1, 'it\\'s'), (2, 'x');"
    )
    assert grade("SELECT `b` FROM `t` LIMIT 1, 1", "SELECT 'x'", database=mysql, dialect="mysql").value == 1
    postgres = "CREATE TABLE t (a serial PRIMARY KEY, at timestamptz); INSERT INTO t (a) VALUES (1)"
    assert grade("SELECT a::text FROM t", "SELECT '1'", database=postgres, dialect="postgres").value == 1


def test_multisets_against_counting():
    draw = random.Random(0)
    for _ in range(300):
        rows = [(draw.choice([1, 2, None]), draw.choice("ab")) for _ in range(draw.randrange(6))]
        other = [draw.choice(rows) if rows else (1, "a") for _ in rows] if draw.random() < 0.5 else rows[::-1]
        assert same_multiset(rows, other) == (Counter(rows) == Counter(other))
        floats = [(row[0] if row[0] is None else row[0] + 1e-12 * draw.random(), row[1]) for row in rows]
        assert same_multiset(floats, rows)
