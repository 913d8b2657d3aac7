"""A Parquet file with a changed byte is read or refused by name, also where the code that reads it panics."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from hermes_flow.errors import TraceError
from hermes_flow.workload.traces.files import open_trace


def test_a_file_with_a_changed_byte_is_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.parquet"
    pl.DataFrame({"arrival_s": [0.0, 1.0], "input_tokens": [5, 6], "output_tokens": [3, 4]}).write_parquet(
        path
    )
    whole = path.read_bytes()
    refused = []
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
        try:
            trace = open_trace(str(path))
            trace.table(trace.names, None)
        except TraceError as error:
            refused.append(str(error))
    assert len(refused) > 30
    assert all(text.startswith(str(path)) for text in refused)


def test_a_panic_is_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "trace.parquet"
    pl.DataFrame({"arrival_s": [0.0]}).write_parquet(path)

    def panics(_: object) -> None:
        raise pl.exceptions.PanicException("called `Option::unwrap()` on a `None` value")

    monkeypatch.setattr(pl, "read_parquet_schema", panics)
    with pytest.raises(TraceError, match=r"trace\.parquet: is not a Parquet file: called"):
        open_trace(str(path))
