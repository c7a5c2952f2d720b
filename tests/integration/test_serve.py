"""`attrtrain serve` as a process: right answers, clear refusals, and an end that is asked for."""

import argparse
import errno
import io
import json
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from attrtrain import serve
from attrtrain.bundle import model_name
from attrtrain.cli import main
from attrtrain.errors import ConfigError
from attrtrain.inference.predictor import Predictor
from attrtrain.predict import predict
from attrtrain.shards.manifest import VocabularyRecord
from attrtrain.vocabulary import AttributeVocabulary
from tests.bundles import IMAGE_PX, NAMES, draw_bundle

BOXES = [(1.0, 2.0, 30.0, 40.0), (5.5, 5.0, 20.0, 20.0)]
MOST_MB = 2
MOST_RAM_GROWTH_KB = 400_000  # beyond what one valid request needs; decoding the bomb below alone would take 1,200,000


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    thresholds = [0.3, None, 0.9, None, 1.0, 0.0, None]
    return draw_bundle(tmp_path_factory.mktemp("serve") / "bundle", thresholds=thresholds)


class Server:
    def __init__(self, bundle: Path, *flags: str) -> None:
        words = [sys.executable, "-m", "attrtrain", "serve", "--model", str(bundle), "--port", "0", *flags]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        assert found, line + self.process.stderr.read()
        self.port = int(found[1])

    def ask(self, path, body=None, content_type=None, **headers):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=body, headers=headers)
        if content_type:
            request.add_header("Content-Type", content_type)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def predict(self, picture: bytes, boxes="[]", **fields):
        return self.ask("/predict", *form(picture, boxes, **fields))

    def peak_kb(self) -> int:
        return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())[1])

    def stop(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(number)
        return (*self.process.communicate(timeout=120), self.process.returncode)


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[Server]:
    started = Server(bundle, "--max-mb", str(MOST_MB), "--max-boxes", "50", "--timeout", "60", "--max-wait-ms", "50")
    yield started
    _, complaints, code = started.stop()
    assert (complaints, code) == (server_note(), 0)  # no request, however wrong, fills a log


CATEGORIES = ("bear", "cat", "dog", "elephant", "giraffe", "horse", "<b>zebra</b>")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose head reads categories."""
    return draw_bundle(tmp_path_factory.mktemp("told") / "bundle", categories=CATEGORIES, thresholds=[0.5] * len(NAMES))


@pytest.fixture(scope="module")
def told_server(told: Path) -> Iterator[Server]:
    started = Server(told, "--max-wait-ms", "50")
    yield started
    assert started.stop()[1:] == ("", 0)


def form(picture: bytes, boxes: str, name: str = "image", **fields: str):
    named = {"boxes": boxes, **fields}.items()
    head = "".join(f'--B\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{text}\r\n' for field, text in named)
    head += f'--B\r\nContent-Disposition: form-data; name="{name}"; filename="p"\r\n\r\n'
    return head.encode() + picture + b"\r\n--B--\r\n", "multipart/form-data; boundary=B"


def photograph(seed=0, kind="JPEG"):
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((160, 120)).save(file, kind)
    return file.getvalue()


def bomb(side=20_000):
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = zlib.compressobj(9)
    pixels = b"".join(rows.compress(bytes(1 + 3 * side)) for _ in range(side)) + rows.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def scanned(times):
    """A progressive JPEG whose last scan comes many times."""
    file = io.BytesIO()
    Image.open(io.BytesIO(photograph())).save(file, "JPEG", progressive=True)
    start = file.getvalue().rindex(b"\xff\xda")
    return file.getvalue()[:start] + file.getvalue()[start:-2] * times + b"\xff\xd9"


def run_length_bmp():
    """Four pixels of a palette: a line, its end, a line, and the end of all."""
    header, colours, pixels = 14 + 40, 4 * 256, b"\2\1\0\0\2\1\0\1"
    head = struct.pack("<2sIHHI", b"BM", header + colours + len(pixels), 0, 0, header + colours)
    return head + struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, 8, 1, len(pixels), 0, 0, 256, 0) + bytes(colours) + pixels


def tiled_tiff(width, length):
    """16 x 16 pixels of grey in one tile, which is as large as its tags say."""
    tile = zlib.compress(bytes(256))
    tags = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: width, 323: length, 324: 8, 325: len(tile)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return struct.pack("<2sHI", b"II", 42, 8 + len(tile)) + tile + struct.pack("<H", len(tags)) + entries + bytes(4)


def reference(bundle, tmp_path, picture, boxes, category=""):
    path = tmp_path / "photo.jpg"
    path.write_bytes(picture)
    return predict(Predictor(bundle), path, list(boxes), len(NAMES), category)


def assert_same(answer, expected):
    status, told = answer
    assert status == 200, told
    assert len(told["objects"]) == len(expected)
    for one, other in zip(told["objects"], expected, strict=True):
        assert one["box"] == other["box"]
        scores = [attribute["score"] for attribute in one["attributes"]]
        assert scores == sorted(scores, reverse=True)
        ours = {attribute["name"]: attribute["score"] for attribute in one["attributes"]}
        assert ours == pytest.approx({a["name"]: a["score"] for a in other["attributes"]}, abs=1e-5)


def test_answers_are_those_of_predict_at_the_cards_thresholds(server, bundle, tmp_path):
    picture = photograph()
    answer = server.predict(picture, json.dumps(BOXES))
    assert_same(answer, reference(bundle, tmp_path, picture, BOXES))
    assert_same(server.predict(picture), reference(bundle, tmp_path, picture, []))
    expected = dict(zip(NAMES, [0.3, 0.5, 0.9, 0.5, 1.0, 0.0, 0.5], strict=True))
    for one in answer[1]["objects"][0]["attributes"]:
        assert one["threshold"] == expected[one["name"]] and one["present"] == (one["score"] >= one["threshold"])


@pytest.mark.parametrize("towards", [0, 1])
def test_a_score_that_is_told_and_its_threshold_say_whether_it_is_present(bundle, tmp_path, towards):
    """However close they are: where all objects are best called present, the least of them is one rounding above."""
    with client(Predictor(bundle, "cpu")) as made:
        (one,) = made.post("/predict", files={"image": photograph()}).json()["objects"]
    scores = {
        entry["name"]: np.nextafter(np.float32(entry["score"]), np.float32(towards)) for entry in one["attributes"]
    }
    close = draw_bundle(tmp_path / "close", thresholds=[float(scores[name]) for name in NAMES])
    with client(Predictor(close, "cpu")) as made:
        (one,) = made.post("/predict", files={"image": photograph()}).json()["objects"]
    for entry in one["attributes"]:
        assert entry["present"] == (entry["score"] >= entry["threshold"]) == (towards == 0), entry


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_other_kinds_of_pictures_are_read(server, bundle, tmp_path, kind):
    picture = photograph(1, kind)
    assert_same(server.predict(picture, json.dumps(BOXES)), reference(bundle, tmp_path, picture, BOXES))


def test_the_commands_of_the_page_run(server, told_server, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "serve.md").read_text()
    commands = [line for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    (tmp_path / "photo.jpg").write_bytes(photograph())
    asked = [command for command in commands if command.startswith("curl")]
    assert len(asked) == 4 and shutil.which("curl")
    for command in asked:
        port = told_server.port if "category=" in command else server.port
        words = shlex.split(command.replace(":8000", f":{port}"))
        told = json.loads(subprocess.run(words, cwd=tmp_path, check=True, capture_output=True, text=True).stdout)
        assert "error" not in told


def test_a_model_that_reads_categories_is_told_one_as_predict_tells_it(told_server, told, tmp_path):
    picture = photograph()
    expected = {name: reference(told, tmp_path, picture, BOXES, name) for name in ("", *CATEGORIES)}
    with ThreadPoolExecutor(8) as pool:  # so that crops of several categories share a pass
        asked = {name: pool.submit(told_server.predict, picture, json.dumps(BOXES), category=name) for name in expected}
    for name, answer in asked.items():
        assert_same(answer.result(), expected[name])
    blind = told_server.predict(picture, json.dumps(BOXES))
    assert_same(blind, expected[""])
    assert all(blind[1] != asked[name].result()[1] for name in CATEGORIES)
    assert told_server.ask("/healthz")[1]["batches"] < 9
    assert told_server.ask("/model")[1]["categories"] == sorted(CATEGORIES)


def test_a_category_that_the_model_does_not_know_is_refused(told_server, server):
    status, told = told_server.predict(photograph(), category="unicorn")
    assert (status, told["error"]["code"]) == (422, "unknown_category")
    message = told["error"]["message"]
    assert "<b>zebra</b>, bear, cat, dog, elephant and 2 more, which GET /model lists" in message
    assert "\n" not in message
    status, told = server.predict(photograph(), category="dog")
    assert (status, told["error"]["code"]) == (422, "no_categories") and "looks at crops alone" in told["error"][
        "message"
    ]
    assert server.predict(photograph(), category="")[0] == 200 and server.ask("/model")[1]["categories"] == []
    body, kind = form(photograph(), "[]")
    part = b'--B\r\nContent-Disposition: form-data; name="boxes"\r\n\r\n[[0, 0, 5, 5]]\r\n'
    assert server.ask("/predict", part + body, kind)[1]["error"]["code"] == "bad_boxes"
    assert server.ask("/predict", part + part + body, kind)[:1] == (400,)
    assert server.ask("/predict", part.replace(b'"boxes"', b'"box"') + body, kind)[1]["error"] == {
        "code": "unknown_field",
        "message": "'box' is no field; send a file 'image' and at most the fields 'boxes' and 'category'",
    }
    file = part.replace(b'"boxes"', b'"category"; filename="c"')
    assert server.ask("/predict", file + body, kind)[1]["error"]["code"] in ("bad_category", "bad_form")


def test_concurrent_requests_share_passes_and_get_their_own_answers(server, bundle, tmp_path):
    pictures = [photograph(seed) for seed in range(24)]
    expected = [reference(bundle, tmp_path, picture, BOXES) for picture in pictures]
    before = server.ask("/healthz")[1]
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda picture: server.predict(picture, json.dumps(BOXES)), pictures))
    for answer, told in zip(answers, expected, strict=True):
        assert_same(answer, told)
    after = server.ask("/healthz")[1]
    assert after["crops"] - before["crops"] == 48 and after["batches"] - before["batches"] < 24
    assert after["ok"] and after["queue"] == 0


@pytest.mark.parametrize(
    ("picture", "boxes", "status", "code"),
    [
        (b"not a picture", "[]", 422, "not_an_image"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "[]", 422, "not_an_image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "[]", 422, "not_an_image"),
        (b"", "[]", 422, "not_an_image"),
        (photograph()[:-900], "[]", 422, "image_broken"),
        (bomb(), "[]", 413, "image_too_large"),
        (scanned(101), "[]", 422, "image_broken"),
        (tiled_tiff(8192, 8192), "[]", 413, "image_too_large"),
        (run_length_bmp(), "[]", 422, "not_an_image"),
        (bytes(5_000_000), "[]", 413, "too_large"),
        (photograph(), json.dumps([[0, 0, 5, 5]] * 51), 422, "too_many_boxes"),
        (photograph(), "[[200, 0, 5, 5]]", 422, "box_outside_image"),
        (photograph(), "[[0, 0, 0, 5]]", 422, "box_empty"),
        (photograph(), "[[NaN, 0, 5, 5]]", 422, "box_not_finite"),
        (photograph(), "[[0, 0, 5]]", 422, "bad_boxes"),
        (photograph(), '[["0", 0, 5, 5]]', 422, "bad_boxes"),
        (photograph(), "[" * 100_000, 422, "bad_boxes"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(server, picture, boxes, status, code):
    told = server.predict(picture, boxes)
    assert told[0] == status and told[1]["error"]["code"] == code
    assert set(told[1]) == {"error"} and set(told[1]["error"]) == {"code", "message"} and told[1]["error"]["message"]


@pytest.mark.parametrize("picture", [scanned(20), tiled_tiff(16, 16), photograph(kind="BMP")])
def test_pictures_of_many_scans_and_tiles_are_read(server, picture):
    assert server.predict(picture)[0] == 200


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", '"utf-8"', "us-ascii", "ISO-8859-1"])
def test_a_form_may_name_its_charset(server, charset):
    body, kind = form(photograph(), "[]")
    assert server.ask("/predict", body, f"{kind}; charset={charset}")[0] == 200


def test_what_is_never_present_is_not_at_a_score_of_one_either(tmp_path):
    folder = draw_bundle(tmp_path / "bundle", thresholds=[1.0] * len(NAMES))
    (weights,) = folder.glob("*.safetensors")
    tensors = load_file(weights)
    tensors["head.bias"] += 40
    save_file(tensors, weights)
    server = Server(folder)
    try:
        (one,) = server.predict(photograph())[1]["objects"]
        assert {(entry["score"], entry["present"]) for entry in one["attributes"]} == {(1.0, False)}
    finally:
        server.stop()


def test_other_requests_are_refused_in_the_same_shape(server):
    def code(answer):
        return answer[0], answer[1]["error"]["code"]

    assert code(server.ask("/nowhere")) == (404, "unknown_path")
    assert code(server.ask("/predict")) == (405, "wrong_method")
    assert code(server.ask("/predict", b"{}", "application/json")) == (415, "wrong_content_type")
    assert code(server.ask("/predict", b"{}", "multipart/form-data")) == (400, "bad_form")
    assert code(server.ask("/predict", b"noise", "multipart/form-data; boundary=B")) == (400, "bad_form")
    assert code(server.ask("/predict", *form(photograph(), "[]", "other"))) == (422, "unknown_field")
    boxes = b'--B\r\nContent-Disposition: form-data; name="boxes"\r\n\r\n[]\r\n--B--\r\n'
    assert code(server.ask("/predict", boxes, "multipart/form-data; boundary=B")) == (422, "no_image")


def test_a_form_that_cannot_be_read_is_answered_when_it_is_there(bundle):
    """And not after a time in which more might have come, which would take a place in the queue."""
    server = Server(bundle, "--timeout", "2")
    try:
        (one, kind), end = form(photograph(), "[]"), len(b"--B--\r\n")
        for body, content_type in (
            (one[:-end] + one, kind),  # two pictures
            (one, f"{kind}; charset=undefined"),  # a codec of Python that decodes nothing
            (one, f"{kind}; charset=punycode"),  # one that takes a minute for a megabyte, beside all other requests
            (b"--B\r\nContent-Disposition: form-data\r\n\r\nx\r\n" + one, kind),  # a part without a name
        ):
            told = server.ask("/predict", body, content_type)
            assert (told[0], told[1]["error"]["code"]) == (400, "bad_form"), told
        assert server.ask("/healthz")[1]["queue"] == 0 and server.predict(photograph())[0] == 200
    finally:
        server.stop()


def test_what_had_no_label_in_training_is_in_no_answer(tmp_path):
    folder = draw_bundle(tmp_path / "bundle", thresholds=[0.5, 1.0, *[0.5] * 5], untrained=[NAMES[1]])
    server = Server(folder)
    try:
        told = {one["name"]: (one["trained"], one["tuned"]) for one in server.ask("/model")[1]["attributes"]}
        assert told == {name: (name != NAMES[1],) * 2 for name in NAMES}
        (one,) = server.predict(photograph())[1]["objects"]
        assert {entry["name"] for entry in one["attributes"]} == {*NAMES} - {NAMES[1]}
    finally:
        server.stop()


def test_it_tells_of_its_model_and_its_schema(server, bundle):
    model = server.ask("/model")[1]
    assert model["name"] == model_name(bundle)
    assert [one["name"] for one in model["attributes"]] == list(NAMES) and model["attributes"][1]["tuned"] is False
    assert model["fingerprint"] == server.ask("/healthz")[1]["fingerprint"]
    schema = server.ask("/openapi.json")[1]
    assert {"Prediction", "AttributeScore", "ErrorBody"} <= set(schema["components"]["schemas"])


@pytest.mark.slow
def test_it_goes_on_after_bad_and_huge_requests(server, bundle, tmp_path):
    picture = photograph(99)
    expected = reference(bundle, tmp_path, picture, BOXES)
    assert_same(server.predict(picture, json.dumps(BOXES)), expected)
    before, large = server.peak_kb(), bomb()

    def leave_early(_):
        with socket.create_connection(("127.0.0.1", server.port)) as raw:
            raw.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=B\r\n")
            raw.sendall(b"Content-Length: 100000000\r\n\r\n" + bytes(500_000))

    def slow(_):
        body, kind = form(picture, "[]")
        with socket.create_connection(("127.0.0.1", server.port)) as raw:
            raw.sendall(f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode())  # fmt: skip
            raw.sendall(body[:100])

    kinds = [
        lambda _: assert_same(server.predict(picture, json.dumps(BOXES)), expected),
        lambda _: server.predict(picture[:-900])[0] == 422,
        leave_early,
        lambda _: server.predict(large)[0] == 413,
        lambda _: server.predict(picture, json.dumps([[0, 0, 9, 9]] * 5000))[0] == 422,
        slow,
    ]
    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(lambda number: kinds[number % len(kinds)](number), range(200)))
    assert False not in outcomes
    assert_same(server.predict(picture, json.dumps(BOXES)), expected)
    assert server.peak_kb() - before < MOST_RAM_GROWTH_KB


def test_a_request_that_does_not_arrive_in_time_is_let_go(bundle):
    server = Server(bundle, "--timeout", "1")
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=B\r\nContent-Length: 99\r\n\r\n--B")  # fmt: skip
        assert b"408" in raw.recv(1000)
    assert server.stop(signal.SIGINT)[1:] == (server_note(), 0)


def server_note():
    from attrtrain.inference.predictor import UNTUNED

    return f"note: 3 of 7 attributes have no threshold tuned on labels; such an attribute counts as present from a score of {UNTUNED:g} on\n"


def test_more_than_the_queue_holds_are_sent_away(bundle):
    server = Server(bundle, "--queue", "1")
    body, kind = form(photograph(), "[]")
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.sendall(f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body[:-5])  # fmt: skip
        while server.ask("/healthz")[1]["queue"] == 0:
            pass
        assert server.predict(photograph())[0] == 503
        server.process.send_signal(signal.SIGTERM)
        raw.sendall(body[-5:])  # what is under way is finished
        assert raw.recv(1000).startswith(b"HTTP/1.1 200")
    assert server.stop()[2] == 0


def test_what_keeps_it_from_starting_is_one_line(bundle, tmp_path, capsys, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "--model", str(bundle), "--port", port]) == 2
    assert main(["serve", "--model", str(tmp_path / "none"), "--port", "0"]) == 1
    assert main(["serve", "--model", str(bundle), "--max-boxes", "0"]) == 2
    assert main(["serve", "--model", str(bundle), "--port", "99999"]) == 2
    assert main(["serve", "--model", str(bundle), "--max-megapixels", "300"]) == 2
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve", "--model", str(bundle), "--port", "0"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 6 and all(line.startswith("error: ") for line in lines)
    assert "--port 99999" in lines[3] and "attrtrain[serve]" in lines[5] and port in lines[0]
    assert lines[4] == "error: --max-megapixels 300: must be at most 178"


def test_of_two_started_at_once_on_one_port_one_says_that_it_cannot_listen():
    """Both may be bound to it, until one of them listens."""
    arguments = argparse.Namespace(host="127.0.0.1", port=0)
    with serve._listening(arguments.host, 0) as first:
        arguments.port = first.getsockname()[1]
        with serve._listening(arguments.host, arguments.port) as second:
            serve._listen(first, arguments)
            with pytest.raises(
                ConfigError, match=rf"--port {arguments.port}: cannot listen there \(Address already in use\)"
            ):
                serve._listen(second, arguments)


def client(predictor, **changed):
    """A server in this process, with other limits than it would have."""
    from starlette.testclient import TestClient

    from attrtrain.serving.app import make_app
    from attrtrain.serving.contracts import Limits

    limits = Limits(**{"queue": 2, "bytes": 10**6, "pixels": 10**6, "boxes": 4, "seconds": 10, **changed})
    return TestClient(make_app(predictor, "toy", limits, 4, 0), raise_server_exceptions=False)


def test_what_is_as_large_as_a_limit_is_answered_and_what_is_larger_is_not(bundle):
    picture, boxes = photograph(), json.dumps([[0, 0, 5, 5]] * 3)  # of 160 x 120 pixels
    body, kind = form(picture, boxes)

    def asked(as_a_stream=False, **limits):
        with client(predictor, **limits) as made:
            content = iter([body[:100], body[100:]]) if as_a_stream else body  # a stream does not say how long it is
            answer = made.post("/predict", content=content, headers={"Content-Type": kind})
        return answer.status_code, answer.json().get("error", {}).get("code")

    predictor = Predictor(bundle, "cpu")
    assert asked(bytes=len(body), pixels=160 * 120, boxes=3) == (200, None)
    assert asked(bytes=len(body), as_a_stream=True) == (200, None)
    assert asked(bytes=len(body) - 1) == (413, "too_large")
    assert asked(bytes=len(body) - 1, as_a_stream=True) == (413, "too_large")
    assert asked(pixels=160 * 120 - 1) == (413, "image_too_large")
    assert asked(boxes=2) == (422, "too_many_boxes")


def test_what_takes_longer_than_it_may_is_answered_all_the_same(bundle, monkeypatch):
    computes = Predictor.__call__
    monkeypatch.setattr(Predictor, "__call__", lambda *given: time.sleep(1) or computes(*given))
    with client(Predictor(bundle, "cpu"), seconds=0.3) as made:
        answer = made.post("/predict", files={"image": photograph()})
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timed_out")
        assert made.get("/healthz").json()["queue"] == 0


def test_who_comes_too_many_is_told_when_to_come_again(bundle):
    with client(Predictor(bundle, "cpu"), queue=0) as made:
        answer = made.post("/predict", files={"image": photograph()})
    assert (answer.status_code, answer.json()["error"]["code"], answer.headers["Retry-After"]) == (503, "busy", "1")


def test_the_size_and_the_box_of_a_whole_picture_are_those_of_the_upright_one(bundle):
    turned = Image.Exif()
    turned[0x0112] = 6
    file = io.BytesIO()
    Image.new("RGB", (160, 120)).save(file, "JPEG", exif=turned)
    with client(Predictor(bundle, "cpu")) as made:
        told = made.post("/predict", files={"image": file.getvalue()}, data={"boxes": " "}).json()
    assert (told["width"], told["height"]) == (120, 160) and [one["box"] for one in told["objects"]] == [
        [0, 0, 120, 160]
    ]


def test_the_model_is_told_of_as_its_card_has_it(tmp_path):
    groups = ["fur", "pose", "made of", "words", "words", "fur", "shape"]
    vocabulary = VocabularyRecord.of(AttributeVocabulary.from_names(NAMES)).model_copy(update={"groups": groups})
    scores = {"val.map": 0.25, "val.prior_map": None}
    folder = draw_bundle(tmp_path / "bundle", vocabulary=vocabulary, metrics=scores, thresholds=[0.3, *[0.5] * 6])
    with client(Predictor(folder, "cpu"), bytes=9, pixels=8, boxes=7, seconds=6) as made:
        told = made.get("/model").json()
    assert [one["group"] for one in told["attributes"]] == groups and told["attributes"][0]["threshold"] == 0.3
    assert (told["name"], told["backbone"], told["image_px"], told["metrics"]) == ("toy", "resnet18", IMAGE_PX, scores)
    assert told["limits"] == {"bytes": 9, "pixels": 8, "boxes": 7, "seconds": 6}


def test_a_picture_for_which_there_is_no_room_is_one_answer(server, monkeypatch, bundle):
    """The form's parser keeps a large one in a temporary file."""
    monkeypatch.setattr("starlette.formparsers.SpooledTemporaryFile", NoRoom)
    with client(Predictor(bundle, "cpu"), bytes=8_000_000) as made:
        answer = made.post("/predict", files={"image": b"x" * 3_000_000})
    assert answer.status_code == 507 and answer.json()["error"]["code"] == "no_room", answer.text


def test_the_health_of_a_network_that_fails_is_503_until_it_works_again(monkeypatch, bundle):
    predictor = Predictor(bundle, "cpu")
    works = type(predictor).__call__
    with client(predictor) as made:
        assert made.get("/healthz").json()["ok"]
        monkeypatch.setattr(Predictor, "__call__", lambda *_: 1 / 0)
        assert made.get("/healthz").json()["ok"]  # which asks the network nothing while nothing failed
        assert made.post("/predict", files={"image": photograph()}).status_code == 500
        answer = made.get("/healthz")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_fails")
        monkeypatch.setattr(Predictor, "__call__", works)
        assert made.get("/healthz").json()["ok"]


@pytest.mark.parametrize("path", ["/", "/page.js", "/model", "/healthz"])
def test_the_head_alone_may_be_asked_for(server, path):
    asked = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", method="HEAD")
    with urllib.request.urlopen(asked, timeout=120) as answer:
        assert (answer.status, answer.read()) == (200, b"")


class NoRoom(tempfile.SpooledTemporaryFile):
    def write(self, *_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
