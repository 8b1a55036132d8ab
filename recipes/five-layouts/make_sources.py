"""Write five small sources as teams have them: a CSV of intents, SQL questions with their database, function calls, a
Parquet file of medical questions, and a folder of Markdown articles.

    python recipes/five-layouts/make_sources.py FOLDER

Everything in them is made up, and the same on every machine.
"""

from __future__ import annotations

import csv
import json
import random
import sqlite3
import sys
from itertools import product
from pathlib import Path

ROWS = 60


def intents(folder: Path) -> None:
    """What customers of a bank write, each with one of eight labels; some labels begin as others do."""
    asked = {
        "card_lost": ["I cannot find my card", "My card is gone", "I left my card on the train"],
        "card_lost_abroad": ["My card is gone and I am in {}", "I lost my card on holiday in {}"],
        "card_arrival": ["When will my new card come to {}?", "How long does a card take to {}?"],
        "transfer_failed": ["My transfer to {} did not go through", "The payment to {} was returned"],
        "transfer_fee": ["What does a transfer to {} cost?", "Is there a fee for sending money to {}?"],
        "exchange_rate": ["Which rate do you use in {}?", "What is my money worth in {}?"],
        "change_address": ["I have moved to {}", "Please send my letters to {} from now on"],
        "close_account": ["I want to close my account", "Please end my contract", "I am leaving for another bank"],
    }
    places = ["Lisbon", "Oslo", "Lima", "Kyoto", "Accra", "Quito", "Hanoi", "Turin", "Malmö", "Perth"]
    openings = ["", "Hello, ", "Hi there. ", "Please help: "]
    rows = [
        (opening + text.format(place), label)
        for label, texts in asked.items()
        for text, place, opening in product(texts, places, openings)
    ]
    chosen = random.Random(0).sample(sorted(set(rows)), 2 * ROWS)
    with (folder / "intents.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, delimiter=";").writerows([("Utterance", "Intent"), *chosen])


_SCHEMA = """\
CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT, city TEXT);
CREATE TABLE purchase (id INTEGER PRIMARY KEY, customer_id INTEGER, item TEXT, price REAL);"""


def sql(folder: Path) -> None:
    """Questions to a shop's database, the queries that answer them, and the database itself."""
    place = folder / "sql"
    place.mkdir()
    draw = random.Random(1)
    cities, items = ["Bergen", "Cusco", "Galway", "Hue", "Kazan"], ["lamp", "chair", "kettle", "rug", "clock", "vase"]
    names = ["Ada", "Bo", "Chen", "Dara", "Eli", "Fay", "Gus", "Hana", "Ivo", "June"]
    (place / "shop.sqlite").unlink(missing_ok=True)
    with sqlite3.connect(place / "shop.sqlite") as database:
        database.executescript(_SCHEMA)
        database.executemany(
            "INSERT INTO customer VALUES (?, ?, ?)", [(i, n, draw.choice(cities)) for i, n in enumerate(names)]
        )
        database.executemany(
            "INSERT INTO purchase VALUES (?, ?, ?, ?)",
            [(i, draw.randrange(len(names)), draw.choice(items), draw.randrange(5, 90)) for i in range(80)],
        )
    database.close()
    joined = "FROM purchase JOIN customer ON customer.id = purchase.customer_id"
    pairs = [
        *((f"How many customers live in {c}?", f"SELECT COUNT(*) FROM customer WHERE city = '{c}'") for c in cities),
        *(
            (f"What is the highest price of a {i}?", f"SELECT MAX(price) FROM purchase WHERE item = '{i}'")
            for i in items
        ),
        *(
            (f"Who has bought a {i}, in order of name?",
             f"SELECT DISTINCT name {joined} WHERE item = '{i}' ORDER BY name")
            for i in items
        ),
        *(
            (f"How much have customers from {c} paid for a {i}?",
             f"SELECT SUM(price) {joined} WHERE city = '{c}' AND item = '{i}'")
            for c, i in product(cities, items)
        ),
        *(
            (f"Which items did {n} buy for more than {limit}?",
             f"SELECT item {joined} WHERE name = '{n}' AND price > {limit}")
            for n, limit in product(names, (20, 50))
        ),
    ]  # fmt: skip
    draw.shuffle(pairs)
    _write_jsonl(
        place / "questions.jsonl",
        [{"question": question, "query": query, "database": "shop.sqlite"} for question, query in pairs[:ROWS]],
    )


def functions(folder: Path) -> None:
    """Requests to an assistant that calls functions, as chat messages in the OpenAI form."""
    text = {"type": "string"}
    tools = [
        _tool("get_weather", "The weather of a day in a city", {"city": text, "day": text}),
        _tool("set_alarm", "Set an alarm", {"hour": {"type": "integer"}, "minute": {"type": "integer"}}),
        _tool("send_message", "Send a message to a person", {"to": text, "body": text}),
    ]
    cities, days = ["Oslo", "Lima", "Accra", "Turin", "Perth"], ["today", "tomorrow", "on Friday", "on Sunday"]
    people, bodies = ["Ada", "Bo", "Chen", "Dara"], ["I am late", "call me", "lunch at one?", "well done", "see you"]
    asked = [
        *(
            (f"What will the weather be {d} in {c}?", "get_weather", {"city": c, "day": d})
            for c, d in product(cities, days)
        ),
        *(
            (f"Wake me at {h}:{m:02d}.", "set_alarm", {"hour": h, "minute": m})
            for h, m in product((5, 6, 7, 8), (0, 15, 30, 45, 50))
        ),
        *((f"Tell {p}: {b}", "send_message", {"to": p, "body": b}) for p, b in product(people, bodies)),
    ]
    random.Random(2).shuffle(asked)
    rows = [
        {
            "messages": [
                {"role": "user", "content": request},
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [
                        {"type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
                    ],
                },
            ],
            "tools": tools,
        }
        for request, name, arguments in asked[:ROWS]
    ]
    _write_jsonl(folder / "functions.jsonl", rows)


def _tool(name: str, description: str, properties: dict[str, object]) -> dict[str, object]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def clinic(folder: Path) -> None:
    """Questions of patients with answers in whole sentences, in the two splits of the source."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    remedies = {
        "headache": "rest and water",
        "cough": "warm tea",
        "sprain": "ice and a bandage",
        "rash": "a mild cream",
    }
    since = ["yesterday", "two days", "a week", "this morning", "a month"]
    who = ["I have", "My son has", "My mother has"]
    rows = [
        {
            "question": f"{person} had a {complaint} since {time}. What helps?",
            "answer": f"For a {complaint}, {remedy} usually help. See a doctor if it lasts"
            + (" any longer, as a month is long." if time == "a month" else "."),
        }
        for (complaint, remedy), time, person in product(remedies.items(), since, who)
    ]
    random.Random(3).shuffle(rows)
    (folder / "clinic").mkdir(exist_ok=True)
    for split, part in (("train", rows[:44]), ("test", rows[44:])):
        pq.write_table(pa.Table.from_pylist(part), folder / "clinic" / f"{split}-00000-of-00001.parquet")


#: Articles by title, with questions that a teacher could write about each.
ARTICLES = {
    "Leave": "Every employee of Orbit has 27 days of leave. Unused days end on 31 March of the next year. Requests go "
    "to the team lead two weeks ahead.",
    "Travel": "Trips are booked through the desk on floor 4. Orbit pays trains in second class and hotels up to 120 "
    "euros a night. Receipts are due within ten days.",
    "On call": "The on-call week begins on Wednesday at noon. Whoever is on call answers within 15 minutes and earns "
    "one day of leave for every week.",
}


def handbook(folder: Path) -> None:
    """Articles in Markdown, with front matter."""
    place = folder / "handbook"
    place.mkdir(exist_ok=True)
    for title, text in ARTICLES.items():
        name = title.lower().replace(" ", "-")
        (place / f"{name}.md").write_text(
            f"---\ntitle: {title}\ntags: [people, rules]\n---\n\n# {title}\n\n{text}\n", encoding="utf-8"
        )


def _write_jsonl(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def main(folder: Path) -> None:
    folder.mkdir(parents=True)
    for make in (intents, sql, functions, clinic, handbook):
        make(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
