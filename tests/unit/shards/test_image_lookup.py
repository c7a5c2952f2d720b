"""Names of photographs → files, in folders and at URLs."""

import functools
import http.server
import os
import threading
import unicodedata
from pathlib import Path

import pytest

from attrtrain.errors import LeftOutError
from attrtrain.shards.image_lookup import find_image


@pytest.mark.parametrize(
    "stored", ["000000000042.jpg", "COCO_val2014_000000000042.jpg", "COCO_train2014_000000000042.jpg"]
)
@pytest.mark.parametrize(
    "asked", ["000000000042.jpg", "COCO_val2014_000000000042.jpg", "COCO_train2014_000000000042.jpg"]
)
def test_names_of_2014_and_2017_find_each_other(tmp_path, stored, asked):
    (tmp_path / "empty").mkdir()
    (tmp_path / stored).touch()
    assert find_image(asked, [tmp_path / "empty", tmp_path]) == tmp_path / stored


@pytest.mark.parametrize(("asked", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
@pytest.mark.parametrize("year", ["", "COCO_val2014_"])
def test_names_whose_accents_are_written_apart_and_together_find_each_other(tmp_path, asked, stored, year):
    name = "caf\u00e9/gr\u00fcn.jpg"
    file = tmp_path / unicodedata.normalize(stored, name)
    file.parent.mkdir()
    (file.parent / f"{year}{file.name}").touch()
    name = unicodedata.normalize(asked, name)
    assert find_image(name, [tmp_path]) == file.parent / f"{year}{file.name}"
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).touch()
    assert find_image(name, [tmp_path]) == tmp_path / name  # as it is written goes first


def test_a_name_in_other_capitals_is_told_which_one_there_is(tmp_path):
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "IMG_1.JPG").touch()
    with pytest.raises(LeftOutError, match=r"; val/IMG_1\.JPG is: small and capital letters count$"):
        find_image("val/img_1.jpg", [tmp_path / "none", tmp_path])
    with pytest.raises(LeftOutError, match=r"is in none of [^;]*$"):
        find_image("val/img_2.jpg", [tmp_path / "none", tmp_path])


def test_a_name_written_on_windows_is_told_as_such(tmp_path):
    with pytest.raises(LeftOutError, match=r"val.x\.jpg is in none of .*; folders are separated by /, not by \\"):
        find_image("val\\x.jpg", [tmp_path])


def test_the_given_name_goes_before_other_years_and_the_first_folder_before_the_second(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder / "sub").mkdir(parents=True)
        (tmp_path / folder / "sub" / "x.jpg").touch()
    (tmp_path / "a" / "sub" / "COCO_val2014_x.jpg").touch()
    folders = [tmp_path / "a", tmp_path / "b"]
    assert find_image("sub/x.jpg", folders) == tmp_path / "a" / "sub" / "x.jpg"
    assert find_image("sub/x.jpg", folders[::-1]) == tmp_path / "b" / "sub" / "x.jpg"


def test_different_photographs_of_one_name_are_left_out(tmp_path):
    for folder, content in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.jpg").write_bytes(content)
    a, b, c = (tmp_path / folder for folder in "abc")
    assert find_image("x.jpg", [a, b]) == a / "x.jpg"
    for folders in ([a, b, c], [a, c, b], [a, f"file://{tmp_path}/empty", c]):
        with pytest.raises(
            LeftOutError, match=rf"{a}/x\.jpg and {c}/x\.jpg are different photographs of one name"
        ) as caught:
            find_image("x.jpg", folders)
        assert caught.value.reason == "image_ambiguous"


def test_photographs_of_one_name_size_and_time_are_told_apart_by_what_they_hold(tmp_path):
    """Archives that are unpacked, and files that are copied, keep times."""
    for folder, content in (("a", b"one"), ("b", b"two"), ("c", b"one")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.jpg").write_bytes(content)
        os.utime(tmp_path / folder / "x.jpg", ns=(10**18, 10**18))
    a, b, c = (tmp_path / folder for folder in "abc")
    assert find_image("x.jpg", [a, c]) == a / "x.jpg"
    with pytest.raises(LeftOutError) as caught:
        find_image("x.jpg", [a, b])
    assert caught.value.reason == "image_ambiguous"


def test_a_web_server_is_asked_for_names_with_signs_of_its_own(tmp_path):
    names = ["a#b.jpg", "100%.jpg", "what?.jpg", "c d.jpg", "plain.jpg", "sub/é.jpg"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    handler = functools.partial(QuietHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        found = [find_image(name, [url]).content.decode() for name in names]
        server.shutdown()
    assert found == names


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    "name", ["nowhere.jpg", "", ".", "..", "/", "folder.jpg", "x" * 5000, "a\0b.jpg", "file.jpg/x.jpg"]
)
def test_what_names_no_file_is_missing(tmp_path, name):
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "file.jpg").touch()
    with pytest.raises(LeftOutError) as caught:
        find_image(name, [tmp_path])
    assert caught.value.reason == ("image_outside" if name in ("..", "/") else "image_missing")


@pytest.mark.parametrize("name", ["../photos/a.jpg", "x/../../photos/a.jpg", "../secret.jpg", "ABSOLUTE/secret.jpg"])
def test_a_name_that_leads_out_of_the_folders_is_refused(tmp_path, name):
    """Under another spelling, a photograph would have another id, and be trained on and judged at once."""
    (tmp_path / "photos").mkdir()
    for path in (tmp_path / "photos" / "a.jpg", tmp_path / "secret.jpg"):
        path.touch()
    with pytest.raises(LeftOutError, match=r"not below .*photos") as caught:
        find_image(name.replace("ABSOLUTE", str(tmp_path)), [tmp_path / "photos"])
    assert caught.value.reason == "image_outside"
    assert find_image(str(tmp_path / "photos" / "a.jpg"), [tmp_path / "photos"]) == tmp_path / "photos" / "a.jpg"


@pytest.mark.parametrize("start", ["", "/"])
def test_an_absolute_name_is_found_below_a_folder_that_is_named_from_elsewhere(tmp_path, monkeypatch, start):
    for folder in ("photos", "work"):
        (tmp_path / folder).mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    monkeypatch.chdir(tmp_path / "work")
    found = find_image(f"{start}{tmp_path}/photos/a.jpg", [Path("../photos")])
    assert found.samefile(tmp_path / "photos" / "a.jpg")
