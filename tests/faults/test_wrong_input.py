"""Five wrong inputs, or more, for every command: exit code 2 and a sentence within seconds, never a traceback."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from test_commands import GOOD, TINY
from tiny_study import complete, searching, tiny

from sweep.checkpoint import write_json
from sweep.cli import COMMANDS, main
from sweep.errors import StudyError
from sweep.orchestration import address
from sweep.orchestration.folder import StudyFolder
from sweep.tracking.journal import Journal

NOWHERE = "127.0.0.1:1"  # nobody listens on port 1
WRONG: dict[str, list[tuple[str, str]]] = {  # what is given, and what is said
    "check": [
        ("", "Missing argument"),
        ("absent.py", "there is no search-space file absent.py"),
        (".", "there is no search-space file ."),
        ("broken.py", "broken.py, line 1"),
        ("good.json", "defines no STUDY"),
        ("tiny.py --jsn", "No such option"),
    ],
    "run": [
        ("absent.py", "there is no search-space file"),
        ("tiny.py", "`sweep resume tiny` goes on with it"),
        (f"other.py --address {NOWHERE}", "no Ray cluster answers at 127.0.0.1:1 (Connection refused)"),
        ("other.py --address ray://10.0.0.1:10001", "Ray Client is not used"),
        ("other.py --address cluster", "is no address: write host:port"),
        (f"other.py --address {NOWHERE} --in-process", "choose one of --address"),
        ("other.py --in-process --studies good.json", "good.json"),
        ("other.py --warm-start nowhere --in-process", "unknown study 'nowhere'"),
    ],
    "resume": [
        ("tinny", "unknown study 'tinny'; did you mean 'tiny'?"),
        ("changed", "was changed: its content's fingerprint is"),
        ("garbled", "study.json cannot be read"),
        ("damaged", "journal.log, line 1: does not match its checksum"),
        (f"tiny --address {NOWHERE}", "no Ray cluster answers"),
        ("tiny --studies nowhere", "unknown study 'tiny'"),
    ],
    "extend": [
        ("nowhere --trials 3", "unknown study"),
        ("tiny", "nothing to add"),
        ("tiny --trials 0", "error: --trials 0: must be a whole number, 1 or more"),
        ("tiny --trials many", "error: --trials many: must be a whole number, 1 or more"),
        ("tiny --hours nan", "error: --hours nan: must be a number, 0 or more"),
        ("tiny --trials 100000000", "trials"),
        ("garbled --trials 1", "study.json cannot be read"),
    ],
    "status": [
        ("nowhere", "unknown study"),
        ("", "Missing argument"),
        ("changed", "was changed"),
        ("garbled", "study.json cannot be read"),
        ("damaged", "journal.log, line 1"),
    ],
    "confirm": [
        ("nowhere", "unknown study"),
        ("tiny --top 0", "error: --top 0: must be a whole number, from 1 to 100"),
        ("tiny --seeds 1001", "error: --seeds 1001: must be a whole number, from 1 to 1000"),
        ("tiny --race -1", "error: --race -1: must be a whole number, 0 or more"),
        ("tiny", "has nothing to confirm"),
        ("damaged", "journal.log, line 1"),
        (f"tiny --address {NOWHERE}", "no Ray cluster answers"),  # before anything is asked of the study
        ("searched --attack {fgsm}", "--attack '{fgsm}': not JSON that can be read (Expecting property name"),
        ('searched --attack {"name":"pgd"', "(Expecting ',' delimiter at character 14)"),
        ('searched --attack {"name":"pgd","num_step":3}', "did you mean 'num_steps'?"),
        ('searched --attack {"nam":"pgd"}', "did you mean 'name' by 'nam'?"),
        (f"searched --attack fgsm --address {NOWHERE}", "no Ray cluster answers"),
        (f"searched --attack fgsm --address {NOWHERE} --in-process", "choose one of --address"),
        ("searched --attack fgsm --in-process --tracking-uri sqlite:///tiny.py", "cannot be used as a database"),
    ],
    "trial": [
        ("absent.json", "there is no configuration"),
        ("broken.py", "is not JSON that can be read"),
        ("list.json", "holds a list; a configuration is a JSON object"),
        ("good.json --set epochs", "write key=value"),
        ('good.json --set defense={"name":', "--set defense '{\"name\":': not JSON that can be read"),
        ("good.json --set epochs=0", "epochs: must be greater than or equal to 1"),
        ("good.json --set dataset.folder.x=3", "dataset"),
        ("good.json --to busy", "busy holds a trial of another configuration"),
        ("good.json --to tiny.py", "tiny.py"),
    ],
    "export": [
        ("nowhere --best", "unknown study"),
        ("tiny", "choose one of --best, --confirmed, --pareto and --trial N"),
        ("tiny --best --trial 1", "choose one of --best, --confirmed, --pareto and --trial N"),
        ("tiny --trial 7", "there is no trial 7; the study has no trials yet"),
        ("tiny --best", "has no completed trial to export"),
        ("damaged --best", "journal.log, line 1"),
    ],
    "transfer": [
        ("absent busy", "there is no configuration at absent"),
        ("broken.py busy", "is not JSON that can be read"),
        ("list.json busy", "holds a list; a configuration is a JSON object"),
        ("busy", "Missing argument"),
        ("busy busy --attack [pgd", "--attack '[pgd': not JSON that can be read (Expecting value at character 2)"),
        ("busy busy --atack pgd", "No such option"),
    ],
    "ui": [
        ("nowhere", "unknown study"),
        ("tiny --port x", "error: --port x: must be a whole number, from 1 to 65535"),
        ("--studies nowhere", "no study in nowhere/"),
        ("garbled", "study.json cannot be read"),
        ("tiny --prot 5000", "No such option"),
    ],
    "sync": [
        ("nowhere", "unknown study"),
        ("", "Missing argument"),
        ("tiny", "has no journal yet"),
        ("tiny --tracking-uri ftp://x", "ftp"),
        ("garbled", "study.json cannot be read"),
    ],
    "components": [
        ("atack", "did you mean 'attack'"),
        ("PGD", "unknown kind of component 'PGD'"),
        ("attack defense", "unexpected extra argument"),
        ("--yaml", "No such option"),
        ("[/red]", "unknown kind of component '[/red]'"),
    ],
}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files and studies, right ones and broken ones. Nothing here changes them."""
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "tiny.py").write_text(TINY)
    (folder / "other.py").write_text(TINY.replace('name="tiny"', 'name="other"'))
    (folder / "broken.py").write_text("STUDY = Study(")
    (folder / "good.json").write_text(json.dumps(GOOD))
    (folder / "list.json").write_text("[1]")
    (folder / "busy").mkdir()
    write_json(folder / "busy" / "config.json", GOOD | {"epochs": 7})
    for name in ("tiny", "changed", "garbled", "damaged"):
        StudyFolder.create(folder / "studies", tiny(name=name))
    with searching(folder / "studies", tiny(name="searched")) as search:
        complete(search, 0.5)
    changed = folder / "studies" / "changed" / "study.json"
    changed.write_text(changed.read_text().replace('"epochs": 3', '"epochs": 4'))
    (folder / "studies" / "garbled" / "study.json").write_text("{")
    journal = Journal(folder / "studies" / "damaged" / "journal.log")
    for session in (1, 2, 3):
        journal.append("session", session=session)
    journal.close()
    journal.path.write_bytes(journal.path.read_bytes().replace(b'"session":1', b'"session":7'))
    return folder


def refused(folder: Path, *arguments: str) -> str:
    """What a command says on stderr where it ends with code 2 and prints nothing else."""
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as done,
    ):
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["sweep", *arguments])
        main()
    assert done.value.code == 2, out.getvalue() + err.getvalue()
    assert out.getvalue() == ""
    return err.getvalue()


@pytest.mark.parametrize("command", WRONG)
def test_wrong_input_is_a_sentence_and_exit_code_2(command: str, workplace: Path) -> None:
    before = sorted(workplace.rglob("*"))
    for given, said in WRONG[command]:
        began = time.monotonic()
        text = refused(workplace, command, *given.split())
        plain = " ".join(text.split())
        assert said in plain, (given, text)
        assert "Traceback" not in text
        assert plain.startswith(("error: ", "Usage: ")) and len(plain) < 700, (given, text)
        assert time.monotonic() - began < 60
    after = [path for path in sorted(workplace.rglob("*")) if path.name != "lock"]
    assert after == [path for path in before if path.name != "lock"], "nothing was written"


def test_every_command_refuses_options_that_it_has_not(workplace: Path) -> None:
    assert set(COMMANDS) >= set(WRONG)
    assert all(len(cases) >= 5 for cases in WRONG.values())
    for name in COMMANDS:
        assert "No such option" in refused(workplace, name, "--nonsense", "x")


# --- addresses


@pytest.fixture
def listeners() -> Iterator[dict[str, int]]:
    """Ports where something else than Ray answers: a web server, and something that says nothing."""
    web = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    thread = threading.Thread(target=web.serve_forever)
    thread.start()
    with socket.create_server(("127.0.0.1", 0)) as mute:
        yield {"web": web.server_port, "mute": mute.getsockname()[1]}
    web.shutdown()
    thread.join()
    web.server_close()


@pytest.mark.parametrize("what", ["web", "mute"])
def test_what_answers_and_is_not_ray_is_refused(
    what: str, listeners: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(address, "PATIENCE", 0.5)
    with pytest.raises(StudyError, match="is not Ray's main port"):
        address.check(f"127.0.0.1:{listeners[what]}")


@pytest.mark.parametrize("given", ["", "a:b", "host", "host:", ":6379", "http://host:6379", "host:6379/x", "ho st:1"])
def test_what_is_no_address_is_told_the_form(given: str) -> None:
    with pytest.raises(StudyError, match=r"is no address: write host:port, as 10\.0\.0\.1:6379, or auto"):
        address.check(given)
