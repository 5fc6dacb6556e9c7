"""The review page's server: who is let in, what is refused, what the addresses answer; how it listens."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import shutil
import tomllib

import numpy as np
import pytest
from click.testing import CliRunner
from review_projects import NAMES, small_project

from nephila.cli import main
from nephila.errors import InputError
from nephila.io.mrc import write_volume
from nephila.review import security
from nephila.review.app import STATIC, create_app
from nephila.review.pages.runs import read_log
from nephila.review.reruns import parse_plan
from nephila.review.security import Access
from nephila.review.server import is_loopback, listen, names_of

HOST = "127.0.0.1:4711"
ACCESS_TOKEN = "a-token"
OWN = {"host": HOST, "cookie": f"nephila_review={ACCESS_TOKEN}"}
SAVE = {**OWN, "origin": f"http://{HOST}", "x-nephila": "review", "content-type": "application/json"}
DROP = {"base": "", "changes": [[NAMES[1], None, 0]], "what": "drop"}


class Client:
    """Calls the application as a web server does."""

    def __init__(self, app):
        self.app = app

    def __call__(self, path, method="GET", headers=None, body=b"", query=""):
        given = OWN if headers is None else headers
        lines = [(k.encode(), v.encode("latin-1")) for k, v in given.items()]
        scope = {"type": "http", "http_version": "1.1", "method": method, "path": path, "raw_path": path.encode(),
                 "root_path": "", "query_string": query.encode("latin-1"), "headers": lines, "scheme": "http",
                 "client": ("127.0.0.1", 5), "server": ("127.0.0.1", 4711)}  # fmt: skip
        pieces = [body[i : i + 1_000_000] for i in range(0, len(body), 1_000_000)] or [b""]
        found = {}

        async def receive():
            if not pieces:
                return {"type": "http.disconnect"}
            piece = pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

        async def send(message):
            if message["type"] == "http.response.start":
                found["status"] = message["status"]
                found["headers"] = {k.decode(): v.decode() for k, v in message["headers"]}
            else:
                found["body"] = found.get("body", b"") + message.get("body", b"")

        asyncio.run(self.app(scope, receive, send))
        return found["status"], found["headers"], found["body"]

    def post(self, content, name="sel_micrograph", headers=None):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return self(f"/api/edits/{name}", "POST", SAVE if headers is None else headers, body)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return small_project(tmp_path_factory.mktemp("template"))


@pytest.fixture
def project(template, tmp_path):
    return shutil.copytree(template, tmp_path / "project")


@pytest.fixture
def access():
    return Access(token=ACCESS_TOKEN, hosts=frozenset({HOST}))


@pytest.fixture
def client(project, access):
    return Client(create_app(project, access))


def without(headers, *names):
    return {name: value for name, value in headers.items() if name not in names}


def test_the_token_of_the_address_becomes_a_cookie(client, access):
    status, headers, body = client("/", headers={"host": HOST}, query=f"token={ACCESS_TOKEN}")
    assert status == 200 and b"url=/" in body
    assert headers["set-cookie"] == f"nephila_review={ACCESS_TOKEN}; Path=/; HttpOnly; SameSite=Strict"
    assert client("/")[0] == 200 and b"<script" in client("/")[2]
    code = access.opening_code()
    assert client("/", headers={"host": HOST}, query=f"token={code}")[0] == 200
    assert client("/", headers={"host": HOST}, query=f"token={code}")[0] == 401  # once
    assert len(Access().token) >= 40 and Access().token != Access().token


@pytest.mark.parametrize(
    ("headers", "query", "status"),
    [
        ({"host": HOST}, "", 401),
        ({"host": HOST}, "token=", 401),
        ({"host": HOST}, "token=a-toke", 401),
        ({"host": HOST}, "token=%ff%00", 401),
        ({"host": HOST, "cookie": "nephila_review=wrong"}, "", 401),
        ({"host": HOST, "cookie": "other=a-token"}, "", 401),
        ({"host": HOST, "cookie": "\x01;=;nephila_review"}, "", 401),
        ({**OWN, "host": "evil.example:4711"}, "", 421),
        ({**OWN, "host": "127.0.0.1"}, "", 421),
        (without(OWN, "host"), "", 421),
        ({**OWN, "origin": "http://evil.example"}, "", 403),
        ({**OWN, "origin": "null"}, "", 403),
        ({**OWN, "origin": "http://127.0.0.1:4712"}, "", 403),
        ({**OWN, "sec-fetch-site": "cross-site"}, "", 403),
        ({**OWN, "sec-fetch-site": "same-site"}, "", 403),
        ({"host": HOST, "sec-fetch-site": "cross-site"}, "token=wrong", 401),
        ({**OWN, "sec-fetch-site": "same-origin"}, "", 200),
    ],
)
@pytest.mark.parametrize("path", ["/", "/api/micrographs", "/static/app.js"])
def test_who_is_let_in(client, path, headers, query, status):
    if query and path != "/":
        status = 401 if "sec-fetch-site" not in headers else 403
    assert client(path, headers=headers, query=query)[0] == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (SAVE, 200),
        (without(SAVE, "cookie"), 401),
        (without(SAVE, "origin"), 403),
        (without(SAVE, "x-nephila"), 403),
        ({**SAVE, "origin": f"https://{HOST}"}, 403),
        ({**SAVE, "content-type": "text/plain"}, 415),
        (without(SAVE, "content-type"), 415),
        ({**SAVE, "content-length": str(security.MAX_BODY + 1)}, 413),
        ({**SAVE, "content-length": "many"}, 413),
        ({**SAVE, "content-length": "\u00b2"}, 413),
        ({**SAVE, "content-length": "9" * 5000}, 413),
    ],
)
def test_who_may_decide(client, project, headers, status):
    assert client.post(DROP, headers=headers)[0] == status
    assert (project / "edits" / "sel_micrograph.star").exists() == (status == 200)


def test_a_body_that_grows_over_the_limit_is_cut_off(client, project):
    status, _, body = client.post(b'{"what": "' + b"x" * security.MAX_BODY + b'"}')
    assert status == 413 and b"too large" in body
    assert not (project / "edits").exists()


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"[" * 100_000, 400),
        (b"\xff\xfe", 400),
        ([], 400),
        ({}, 422),
        ({**DROP, "changes": [["a"]]}, 422),
        ({**DROP, "changes": [[1, None, 0]]}, 422),
        ({**DROP, "changes": [[NAMES[1], None, [0]]]}, 422),
        ({**DROP, "changes": [[NAMES[1], None, True]]}, 422),
        ({**DROP, "changes": [["../../etc/passwd", None, 0]]}, 422),
        ({**DROP, "action": "delete"}, 422),
        (b'{"base": "", "what": "", "changes": [["micrographs/mic_1.mrc", null, 1e400]]}', 422),
        (b'{"base": "", "what": "", "changes": [["micrographs/mic_1.mrc", null, NaN]]}', 422),
    ],
)
def test_nonsense_is_refused(client, project, content, status):
    found, _, body = client.post(content)
    assert found == status and b"error" in body
    assert not list(project.glob("edits/*.star"))


@pytest.mark.parametrize("name", ["config", "..%2fconfig", "../config", "sel_micrograph.star", "history"])
def test_only_edits_are_written(client, name):
    assert client.post(DROP, name=name)[0] in (404, 422)


@pytest.mark.parametrize("path", ["/api/micrographs", "/static/../app.py", "/static/%2e%2e/app.py", "/static//etc/passwd",
    "/../../etc/passwd", "/static/pages/../../decisions.py", "/sheet/../0/0", "/sheet/micrographs/0/9999", "/sheet/none/0/0",
    "/sheet/micrographs/-1/0", "/picture/fit/99",
    "/average/kept/1", "/average/other/1", "/picture/config/0", "/data/volume/7"])  # fmt: skip
def test_no_address_leads_elsewhere(client, path):
    status, headers, body = client(path)
    assert status == 200 if path == "/api/micrographs" else status in (404, 422)
    assert b"root:" not in body and b"import" not in body


@pytest.mark.parametrize(
    "name", ["../config.yaml", "/etc/passwd", "logs/../config.yaml", "logs/a.log\0", "results/x.log", ""]
)
def test_only_logs_are_shown_as_logs(client, name):
    assert client("/api/log", query=f"name={name}")[0] == 422


def test_links_out_of_the_project_are_not_followed(client, project, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret.log").write_text("secret")
    write_volume(outside / "map.mrc", np.zeros((8, 8, 8), dtype=np.float32), 1.0)
    (project / "logs").mkdir()
    (project / "logs" / "a.log").symlink_to(outside / "secret.log")
    (project / "results" / "refinement").mkdir()
    (project / "results" / "refinement" / "map.mrc").symlink_to(outside / "map.mrc")
    status, _, body = client("/api/log", query="name=logs/a.log")
    assert status == 403 and b"secret" not in body.replace(b"secret.log", b"")
    assert json.loads(client("/api/volumes")[2])["volumes"] == []
    (project / "results" / "ctf" / "micrographs.star").unlink()
    (project / "results" / "ctf" / "micrographs.star").symlink_to(outside / "secret.log")
    assert client("/api/micrographs")[0] == 403


def test_headers_cannot_be_forged_from_the_request(client):
    for path, query in (
        ("/", "token=%0d%0aSet-Cookie:%20x=y"),
        ("/api/log", "name=logs/%0d%0aX:y.log"),
        ("/a\r\nX: y", ""),
    ):
        _, headers, _ = client(path, query=query)
        assert all("\r" not in value and "\n" not in value for value in headers.values())
        assert "set-cookie" not in headers and "x" not in headers


def test_every_answer_carries_the_policy(client):
    for path in ("/", "/api/micrographs", "/nothing", "/static/style.css"):
        for headers in (OWN, {"host": HOST}):
            given = client(path, headers=headers)[1]
            policy = given["content-security-policy"]
            assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
            assert given["x-content-type-options"] == "nosniff" and given["referrer-policy"] == "no-referrer"
            assert given["cache-control"] == "no-store"
    assert client("/", method="DELETE")[0] == 405 and client("/", method="OPTIONS")[0] == 405


def test_the_page_holds_nothing_from_elsewhere():
    for path in STATIC.rglob("*"):
        if path.suffix in (".js", ".css", ".html"):
            text = re.sub(r"http://www\.w3\.org/(2000/svg|1999/xhtml)", "", path.read_text())
            assert not re.search(r"https?:|@import|eval\(|innerHTML|style=\"", text), path.name


def test_three_js_is_the_published_one_with_its_licence():
    """The files of three 0.180.0 from npm, unchanged."""
    published = {
        "three.core.min.js": "61ba0df005b05991361d040d8ff670e1aadfd0ce7aeebd1fdb0725957a8957de",
        "three.module.min.js": "e2b5ee6bccd38fd6d8a2428546b83c5f2426d84b152ef82be8055556e3b40eb6",
    }
    for name, digest in published.items():
        assert hashlib.sha256((STATIC / "vendor" / name).read_bytes()).hexdigest() == digest
    assert "MIT License" in (STATIC / "vendor" / "three.LICENSE.txt").read_text()


def test_an_installation_has_every_file_of_the_page(repository):
    patterns = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    packed = {path for pattern in patterns["nephila.review"] for path in STATIC.parent.glob(pattern)}
    assert {path for path in STATIC.rglob("*") if path.is_file()} <= packed


def test_a_conflict_comes_with_both_versions(client):
    assert client.post(DROP)[0] == 200
    other = {**DROP, "changes": [[NAMES[1], None, 1], [NAMES[0], None, 0]]}
    status, _, body = client.post(other)
    answer = json.loads(body)
    assert status == 409
    assert answer["conflicts"] == [{"key": NAMES[1], "was": None, "yours": 1, "theirs": 0}]
    assert answer["theirs"]["rows"] == {NAMES[1]: 0} and len(answer["theirs"]["hash"]) == 64
    assert client.post({"action": "undo"})[0] == 200
    assert json.loads(client("/api/edits/sel_micrograph")[2])["rows"] == {}


def test_addresses_answer_before_there_are_results(tmp_path, access):
    (tmp_path / "config.yaml").write_text("project:\n  name: empty\n")
    client = Client(create_app(tmp_path, access))
    overview = json.loads(client("/api/project")[2])
    assert overview["name"] == "empty" and not any(overview["pages"].values())
    for path in ("micrographs", "groups", "particles", "thresholds", "views", "run", "edits/good"):
        status, _, body = client(f"/api/{path}")
        assert status == 404 and b"error" in body


def test_the_plan_of_a_dry_run():
    text = (
        "Job stats:\njob      count\n-----  -------\nall          1\ngood         1\nrecon        2\ntotal        4\n\n"
        "[Fri Nov 20 09:57:01 2026]\nJob 3: Good particles\nReason: Updated input files: edits/good.star\n"
        "The run involves checkpoint jobs, which will result in alteration"
    )
    plan = parse_plan(text)
    assert plan["rules"] == {"good": 1, "recon": 2} and plan["total"] == 3 and plan["more"] and not plan["nothing"]
    assert plan["stages"] == [{"name": "particles", "jobs": 1}, {"name": "reconstruction", "jobs": 2}]
    assert plan["jobs"] == [{"what": "Good particles", "why": "Updated input files: edits/good.star"}]
    assert parse_plan("Nothing to be done (all requested files are present and up to date).")["nothing"]


def test_the_log_of_a_run():
    text = (
        "Job stats:\njob      count\n-----  -------\nall          1\nctffind      2\ntotal        3\n\n"
        "[Fri Nov 20 09:50:46 2026]\nJob 4: 2D defocus of batch 0001\nReason: Missing\n"
        "[Fri Nov 20 09:50:47 2026]\nJob 5: 2D defocus of batch 0002\nReason: Missing\n"
        "[Fri Nov 20 09:50:56 2026]\nFinished jobid: 4 (Rule: ctffind)\n1 of 3 steps (33%) done\n"
    )
    log = read_log(text)
    assert (
        log.planned == {"all": 1, "ctffind": 2} and log.finished == {"ctffind": 1} and (log.done, log.total) == (1, 3)
    )
    assert list(log.running) == ["5"] and log.last - log.started == 10 and not log.ended
    failed = read_log(text + "[Fri Nov 20 09:51:00 2026]\nError in rule ctffind:\n    message: None\n    jobid: 5\n"
                      "    log: logs/ctffind/0002.log (check log file(s) for error details)\n")  # fmt: skip
    assert (
        failed.failed == [{"rule": "ctffind", "message": "None", "jobid": "5", "log": "logs/ctffind/0002.log"}]
        and not failed.running
    )


def test_listening():
    assert is_loopback("127.0.0.1") and is_loopback("::1") and is_loopback("localhost")
    assert not is_loopback("0.0.0.0") and not is_loopback("192.168.1.5") and not is_loopback("example.org")
    with listen("127.0.0.1", 0) as found:
        port = found.getsockname()[1]
        assert names_of("127.0.0.1", port) == {f"127.0.0.1:{port}", f"localhost:{port}"}
        with pytest.raises(InputError, match="choose another --port"):
            listen("127.0.0.1", port)


def test_the_network_needs_a_flag_and_warns(project, monkeypatch):
    served = []
    monkeypatch.setattr("nephila.review.server.serve", lambda folder, host, port, **rest: served.append(host))
    call = lambda *words: CliRunner().invoke(main, ["review", str(project), "--no-browser", *words])  # noqa: E731
    assert call().exit_code == 0 and "warning" not in call().output
    refused = call("--host", "0.0.0.0")
    assert refused.exit_code == 2 and "--allow-network" in refused.output
    allowed = call("--host", "0.0.0.0", "--allow-network")
    assert allowed.exit_code == 0 and "warning" in allowed.output and "unencrypted" in allowed.output
    assert served == ["127.0.0.1", "127.0.0.1", "0.0.0.0"]
    assert CliRunner().invoke(main, ["review", str(project / "results")]).exit_code == 2
