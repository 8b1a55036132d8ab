"""Rows of Parquet and Arrow files, a thousand at a time; labels by the names in the schema's metadata."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sdft_cli.data import hub_features
from sdft_cli.data.raw_rows import Items, row_of_cells
from sdft_cli.errors import UsageError
from sdft_cli.types import Json

_BATCH = 1000


def rows(name: str, file: Path, kind: str) -> Items:
    """The rows of a Parquet file, or (``kind`` "arrow") of an Arrow file or stream."""
    import pyarrow as pa

    number = 0
    try:
        with (_parquet if kind == "parquet" else _arrow)(file) as (schema, batches):
            if repeated := [column for column in schema.names if schema.names.count(column) > 1]:
                raise UsageError(f"{file}: two columns are called {repeated[0]!r}", "give each column its own name")
            features = _features(schema)
            for batch in batches:
                batch.validate(full=True)  # a broken offset would be followed to anywhere in memory
                for data in batch.to_pylist():
                    row = hub_features.with_label_names(data, features) if features else data
                    yield row_of_cells(row, f"{name}[{number}]", number)
                    number += 1
    except (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(
            f"{file} is not a readable {kind.capitalize()} file (after row {number}): {reason}", "download it again"
        ) from error


@contextmanager
def _parquet(file: Path) -> Iterator[tuple[Any, Iterator[Any]]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as table:
        yield table.schema_arrow, table.iter_batches(_BATCH)


@contextmanager
def _arrow(file: Path) -> Iterator[tuple[Any, Iterator[Any]]]:
    """Files of `datasets` are streams, those of other tools (Feather) have an index."""
    import pyarrow as pa

    with pa.memory_map(str(file)) as source:
        if source.read(6) == b"ARROW1":
            reader = pa.ipc.open_file(source)
            batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
        else:
            source.seek(0)
            reader = pa.ipc.open_stream(source)
            batches = iter(reader)
        yield reader.schema, (part for batch in batches for part in _parts(batch))


def _parts(batch: Any) -> Iterator[Any]:
    return (batch.slice(start, _BATCH) for start in range(0, batch.num_rows, _BATCH))


def _features(schema: Any) -> dict[str, Json]:
    """The columns with labels that `datasets` describes in the metadata of a schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return {key: feature for key, feature in features.items() if hub_features.have_labels(feature)}
