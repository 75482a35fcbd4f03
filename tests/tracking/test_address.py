"""Tracking URIs: what is one, what is shown of it, which one a study uses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sweep.errors import StudyError
from sweep.tracking.address import checked, local_uri, redacted
from sweep.tracking.home import uri_of
from sweep.tracking.mirror import STATE


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://ada:pass@host:5000/x", "https://***@host:5000/x"),
        ("at http://a:b@h/1 and http://c:d@h/2, ok", "at http://***@h/1 and http://***@h/2, ok"),
        ("postgresql+psycopg2://ada:p%40ss@host/db", "postgresql+psycopg2://***@host/db"),
        ("postgresql://host/db?user=ada&password=s3cret&x=1", "postgresql://host/db?user=ada&password=***&x=1"),
        ("http://host/?api_token=s3cret", "http://host/?api_token=***"),
        ("https://host:5000", "https://host:5000"),
        ("sqlite:////a/b/mlflow.db", "sqlite:////a/b/mlflow.db"),
        ("write to me@home", "write to me@home"),
    ],
)
def test_credentials_are_taken_out_and_nothing_else(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_mlflows_own_variables_are_taken_out_wherever_they_turn_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken-word")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "pw")  # too short to be told from other text
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ada:p%40ssword@host")
    assert redacted("header 'Bearer t0ken-word', p@ssword, p%40ssword, pwd") == "header 'Bearer ***', ***, ***, pwd"


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("htp://host:5000", "unknown scheme 'htp'; did you mean 'http'?"),
        ("localhost:5000", "such as http://localhost:5000"),
        ("http:/host", "such as http://host"),
        ("mlflow.example.org", "such as http://mlflow.example.org"),
        ("./mlruns", "no longer writes to plain folders"),
        ("file:///data/mlruns", "sqlite:////data/mlruns/mlflow.db"),
        ("sqlite://mlflow.db", "sqlite:///path/to/mlflow.db"),
        ("sqlite:///:memory:", "sqlite:///path/to/mlflow.db"),
        ("databricks", "no scheme"),
        ("foo://ada:s3cret@host", "unknown scheme 'foo'"),
    ],
)
def test_what_is_no_tracking_uri_is_a_sentence(uri: str, said: str) -> None:
    with pytest.raises(StudyError) as caught:
        checked(uri)
    assert said in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_database_file_is_found_from_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert checked("sqlite:///here.db") == f"sqlite:///{tmp_path}/here.db"
    for uri in ("http://host:5000", "postgresql+psycopg2://ada@host/db", f"sqlite:///{tmp_path}/x.db"):
        assert checked(uri) == uri


def test_a_study_stays_with_the_mlflow_that_it_was_sent_to(tmp_path: Path) -> None:
    def sent_to(address: str) -> None:
        (tmp_path / STATE).write_text(json.dumps({"address": address, "cursors": {}}))

    assert uri_of(tmp_path, None) == local_uri(tmp_path)
    assert uri_of(tmp_path, "http://host") == "http://host"
    sent_to("http://host:5000")
    assert uri_of(tmp_path, None) == "http://host:5000"
    sent_to("mlflow.db")
    assert uri_of(tmp_path, None) == local_uri(tmp_path)
    sent_to("http://***@host")
    with pytest.raises(StudyError, match="credentials are kept nowhere: give --tracking-uri again"):
        uri_of(tmp_path, None)
