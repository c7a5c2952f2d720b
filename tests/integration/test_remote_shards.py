"""Shard folders at URLs: a real S3 server on this machine, and file://, read through a bounded cache."""

import base64
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import numpy as np
import pytest
import s3fs
import torch
from moto.server import ThreadedMotoServer

from attrtrain.cli import main
from attrtrain.data import cache as cache_module
from attrtrain.data.cache import ShardCache
from attrtrain.data.loader import CropDataset, load_batches
from attrtrain.data.order import TrainOrder
from attrtrain.data.reader import ShardSet
from attrtrain.errors import ConfigError, ShardError
from attrtrain.urls import as_place, chunks_of, is_url, read_url, size_of

BUCKET = "photographs"


@pytest.fixture(scope="module")
def s3():
    """The endpoint of an empty S3, which everything in this process and its children finds."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        yield client
        client.close()
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture
def url(s3, toy_shards, request):
    """The toy shards in S3, for one test."""
    prefix = request.node.name.split("[")[0]
    for path in toy_shards.rglob("*"):
        if path.is_file():
            s3.upload_file(str(path), BUCKET, f"{prefix}/{path.relative_to(toy_shards)}")
    s3fs.S3FileSystem.clear_instance_cache()  # which remembers listings
    return f"s3://{BUCKET}/{prefix}"


@pytest.fixture
def fetched(monkeypatch):
    """Names of the files that were fetched, in order."""
    names = []

    def counted(url):
        names.append(url.rsplit("/", 1)[1])
        return chunks_of(url)

    monkeypatch.setattr(cache_module, "chunks_of", counted)
    return names


def cache_of(tmp_path, limit=10**9):
    return ShardCache(tmp_path / "cache", limit)


def file_url(folder):
    return f"file://{folder}"


def held_bytes(cache):
    return sum(path.stat().st_size for path in cache.folder.iterdir() if path.is_file())


@pytest.mark.parametrize("where", ["s3", "file"])
def test_a_url_reads_like_the_folder(toy_shards, tmp_path, url, fetched, where):
    local = ShardSet([toy_shards], "train")
    remote = ShardSet([url if where == "s3" else file_url(toy_shards)], "train", cache_of(tmp_path))
    assert len(remote) == len(local) and remote.fingerprint == local.fingerprint
    assert remote.shard_samples == local.shard_samples
    everything = np.arange(len(local))
    assert np.array_equal(remote.labels(everything), local.labels(everything), equal_nan=True)
    for _ in range(2):
        assert [remote.jpeg(position) for position in everything] == [local.jpeg(position) for position in everything]
    tars = sorted(path.name for path in toy_shards.glob("train-*.tar"))
    assert fetched == ["index.npy", "labels.npy", *tars]  # once each, and none of the other split


def test_urls_and_folders_are_read_together(toy_shards, tmp_path):
    both = ShardSet([toy_shards, file_url(toy_shards)], "val", cache_of(tmp_path))
    assert both.jpeg(0) == both.jpeg(len(both) // 2)


def test_another_process_gets_the_manifest_with_it_and_shares_the_cache(toy_shards, tmp_path, url, fetched):
    shards = ShardSet([url], "val", cache_of(tmp_path))
    first = shards.jpeg(0)
    s3 = boto3.client("s3")
    s3.delete_object(Bucket=BUCKET, Key=f"{url.rsplit('/', 1)[1]}/manifest.json")
    s3.close()
    copy = pickle.loads(pickle.dumps(shards))
    assert copy.jpeg(0) == first
    assert len(fetched) == 3


def test_an_epoch_in_blocks_fetches_each_shard_once_into_a_cache_smaller_than_the_data(
    toy_shards, tmp_path, url, fetched
):
    sizes = sorted((path.stat().st_size for path in toy_shards.glob("train-*.tar")), reverse=True)
    arrays = sum((toy_shards / name).stat().st_size for name in ("index.npy", "labels.npy"))
    limit = sum(sizes[:4]) + arrays
    assert limit < 0.8 * (sum(sizes) + arrays)
    cache = cache_of(tmp_path, limit)
    local, remote = ShardSet([toy_shards], "train"), ShardSet([url], "train", cache)
    remote.require_cache(2)
    order = TrainOrder(len(remote), 3, 5, 5, 0, 1, remote.shard_samples, window_shards=2)
    for epoch in range(2):
        fetched.clear()
        for step in order.steps(epoch):
            for position in step.index:
                assert remote.jpeg(int(position)) == local.jpeg(int(position))
            assert held_bytes(cache) <= limit
        assert len(fetched) == len(set(fetched)) >= len(sizes) - 4  # some were left by the epoch before
    with pytest.raises(ConfigError, match=r"data\.cache_gb: .*raise it or set data\.order block"):
        remote.require_cache(0)
    with pytest.raises(ConfigError, match=r"raise it or lower data\.window_shards"):
        remote.require_cache(len(sizes))


@pytest.mark.parametrize("window", [0, 1, 2])
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_cache_must_hold_a_window_of_the_split_and_two_shards_more(toy_shards, tmp_path, split, window):
    """One at a seam and one that is fetched meanwhile; of the largest, for these may come together. Folders on a disk
    take no room in it.
    """
    sizes = sorted((path.stat().st_size for path in toy_shards.glob(f"{split}-*.tar")), reverse=True)
    needed = sum(sizes[: window + 2]) if window else sum(sizes)
    assert len(sizes) > 2 and sum(sizes) < sum(path.stat().st_size for path in toy_shards.glob("*.tar"))
    shards = ShardSet([toy_shards, file_url(toy_shards)], split, cache_of(tmp_path))
    shards.cache = cache_of(tmp_path, needed)
    shards.require_cache(window)
    shards.cache = cache_of(tmp_path, needed - 1)
    with pytest.raises(ConfigError, match=r"data\.cache_gb"):
        shards.require_cache(window)


@pytest.mark.parametrize("needed", [1, 547_000, 547_456, 999_999, 185_430_000_000, 185_600_000_000])
def test_a_cache_of_the_size_that_a_refusal_names_is_accepted(toy_shards, tmp_path, monkeypatch, needed):
    shards = ShardSet([file_url(toy_shards)], "train", cache_of(tmp_path))
    monkeypatch.setattr(shards._parts[0], "remote_bytes", [needed])
    shards.cache = cache_of(tmp_path, 0)
    with pytest.raises(ConfigError) as refusal:
        shards.require_cache(0)
    named = float(re.search(r"does not hold the (\S+) GB", str(refusal.value)).group(1))
    assert needed <= named * 1e9 * (1 + 1e-12) <= 1.01 * needed * (1 + 1e-12)
    shards.cache = ShardCache.of(str(tmp_path), named)
    shards.require_cache(0)


@pytest.mark.slow
def test_loader_processes_share_a_small_cache_and_give_the_same_batches(toy_shards, tmp_path):
    sizes = sorted((path.stat().st_size for path in toy_shards.glob("train-*.tar")), reverse=True)
    arrays = sum((toy_shards / name).stat().st_size for name in ("index.npy", "labels.npy"))
    cache = cache_of(tmp_path, sum(sizes[:4]) + arrays)
    local, remote = ShardSet([toy_shards], "train"), ShardSet([file_url(toy_shards)], "train", cache)
    requests = list(TrainOrder(len(local), 3, 10, 10, 0, 1, local.shard_samples, window_shards=2).requests(1, 0, 0))
    cpu = torch.device("cpu")
    expected = load_batches(CropDataset(local, 32), requests, cpu, workers=0)
    for batch, other in zip(load_batches(CropDataset(remote, 32), requests, cpu, workers=2), expected, strict=True):
        assert torch.equal(batch.image, other.image) and torch.equal(batch.index, other.index)
        assert torch.equal(batch.target, other.target) and torch.equal(batch.known, other.known)
    assert held_bytes(cache) <= cache.limit


def test_a_data_set_made_anew_under_the_same_url_is_not_mixed_with_the_old(toy_shards, tmp_path):
    folder = tmp_path / "remote"
    shutil.copytree(toy_shards, folder)
    cache = cache_of(tmp_path)
    old = ShardSet([file_url(folder)], "train", cache)
    old.jpeg(0)
    last = len(old) - 1
    for path in folder.glob("*.tar"):
        path.write_bytes(path.read_bytes()[:-1] + b"x")  # as if it had been made anew
    assert old.jpeg(0)
    with pytest.raises(
        ShardError,
        match=r"train-\d+\.tar: fetched 2 times, and never what its manifest says; check it with `attrtrain verify file://",
    ):
        old.jpeg(last)


# --- what goes wrong, in one line each


def test_what_is_not_there(s3, toy_shards, tmp_path, url):
    cache = cache_of(tmp_path)
    for missing in (f"s3://{BUCKET}/nowhere", "s3://no-such-bucket/x", file_url(tmp_path / "nowhere")):
        with pytest.raises(ShardError, match=f"{missing}: has no manifest.json, so it is no finished shard folder"):
            ShardSet([missing], "train", cache)
    s3.delete_object(Bucket=BUCKET, Key=f"{url.rsplit('/', 1)[1]}/train-000000.tar")
    shards = ShardSet([url], "train", cache)
    with pytest.raises(ShardError, match=rf"{url}/train-000000\.tar: not there, though the manifest"):
        shards.jpeg(0)


def test_a_damaged_manifest_is_one_line(toy_shards, tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ShardError, match=rf"{file_url(tmp_path)}/manifest\.json: damaged"):
        ShardSet([file_url(tmp_path)], "train", cache_of(tmp_path))


@pytest.mark.parametrize(
    ("place", "told"),
    [("nonsense://x/y", "Protocol not known"), ("abfs://x/y", "Install adlfs")],
)
def test_a_protocol_that_is_not_there_says_what_to_install(tmp_path, place, told):
    with pytest.raises(ShardError, match=told):
        ShardSet([place], "train", cache_of(tmp_path))


def test_a_server_that_does_not_answer_is_one_line(s3, tmp_path, monkeypatch, url):
    shards = ShardSet([url], "train", cache_of(tmp_path))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        with pytest.raises(ShardError, match=r"train-000000\.tar: cannot be read \(\w+: .*127\.0\.0\.1:9") as failure:
            shards.jpeg(0)
        assert "\n" not in str(failure.value)
    finally:
        s3fs.S3FileSystem.clear_instance_cache()


def test_a_refused_key_is_one_line(s3, url, tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        with pytest.raises(ShardError, match=r"[Cc]redentials"):
            ShardSet([url], "train", cache_of(tmp_path))
    finally:
        s3fs.S3FileSystem.clear_instance_cache()


# --- the commands


def test_verify_reads_urls(s3, toy_shards, url, capsys):
    assert main(["verify", url, file_url(toy_shards)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split(": ", 1)[0] for line in out] == [url, file_url(toy_shards)]
    assert all("every byte as written" in line for line in out)
    prefix = url.rsplit("/", 1)[1]
    index = np.load(toy_shards / "index.npy")
    damaged = bytearray((toy_shards / "train-000001.tar").read_bytes())
    sample = index[index["shard"] == 1][3]
    damaged[sample["jpeg_offset"] + 9] ^= 1
    s3.put_object(Bucket=BUCKET, Key=f"{prefix}/train-000001.tar", Body=bytes(damaged))
    s3.put_object(Bucket=BUCKET, Key=f"{prefix}/extra.tar", Body=b"")
    s3.delete_object(Bucket=BUCKET, Key=f"{prefix}/val-000000.tar")
    s3fs.S3FileSystem.clear_instance_cache()
    assert main(["verify", url]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert f"{url}/val-000000.tar: missing" in lines
    assert f"{url}/train-000001.tar: damaged, its checksum differs" in lines
    assert any(f"{url}/train-000001.tar: sample {sample['object_id']:012d} is damaged" in line for line in lines)
    assert any(line.startswith(f"{url}/extra.tar: not in the manifest") for line in lines)
    assert main(["verify", f"s3://{BUCKET}/nowhere"]) == 1
    assert "has no manifest.json" in capsys.readouterr().err


# --- web servers


class Web(SimpleHTTPRequestHandler):
    """A server that lists no folder, and answers with an error where the path says so."""

    def do_GET(self):
        status = next((code for code in (403, 404, 503) if f"/{code}/" in self.path), None)
        self.send_error(status) if status else super().do_GET()

    do_HEAD = do_GET

    def list_directory(self, path):
        self.send_error(403)

    def log_message(self, *_):
        pass


@pytest.fixture
def web(toy_shards):
    """The toy shards' folder at a web server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Web, directory=str(toy_shards))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_verify_needs_no_listing_of_a_web_server(web, capsys):
    assert main(["verify", web]) == 0
    assert "every byte as written" in capsys.readouterr().out


@pytest.mark.parametrize("read", [read_url, size_of, lambda url: list(chunks_of(url))])
def test_what_a_web_server_refuses_is_not_told_as_missing(web, read):
    with pytest.raises(FileNotFoundError):
        read(f"{web}/404/a.csv")
    for status, told in ((403, "Forbidden"), (503, "Service Unavailable")):
        with pytest.raises(ShardError, match=rf"{status}/a\.csv: cannot be read \(.*{told}"):
            read(f"{web}/{status}/a.csv")
    with pytest.raises(ShardError, match=r"a\.csv: cannot be read \(ClientConnectorError"):
        read("http://127.0.0.1:9/a.csv")


def test_a_password_in_a_url_is_refused_and_told_nowhere(tmp_path, capsys):
    place = "https://me:s3cret@web.example/photos"
    for command in (
        ["shard", "--labels", "boxes.csv", "--images", place, "--out", str(tmp_path / "out")],
        ["verify", place],
        ["train", "demo", "--data.shards", place, "--run.dir", str(tmp_path / "run"), "--track.wandb", "disabled"],
    ):
        assert main(command) == 2
        told = capsys.readouterr().err
        assert "https://web.example/photos: was given with a password" in told and "s3cret" not in told
    assert not list(tmp_path.iterdir())
    for harmless in ("https://web.example:8443/a@b/c:d@e", "sftp://me@web.example/photos", "s3://bucket/a:b@c"):
        assert as_place(harmless) == harmless


def test_the_password_of_a_web_server_is_found_where_the_guide_says(tmp_path, monkeypatch):
    class Guarded(SimpleHTTPRequestHandler):
        def do_GET(self):
            known = self.headers["Authorization"] == "Basic " + base64.b64encode(b"me:s3cret").decode()
            self.send_response(200 if known else 401)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_):
            pass

    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password s3cret\n")
    with ThreadingHTTPServer(("127.0.0.1", 0), Guarded) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/a.csv"
        with pytest.raises(ShardError, match="Unauthorized"):
            read_url(url)
        program = f"from attrtrain.urls import read_url; print(read_url({url!r}))"
        environment = {**os.environ, "FSSPEC_HTTP": '{"client_kwargs": {"trust_env": true}}'}
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
        assert done.stdout == "b'ok'\n", done.stderr
        server.shutdown()


def test_a_query_is_no_part_of_a_file_name(web, toy_shards, tmp_path, capsys):
    (toy_shards / "odd name.csv").write_text("file_name\na.jpg\n")
    try:
        url = f"{web}/odd%20name.csv?signature=a/b.pkl"
        for command in (["audit", url], ["shard", "--labels", url, "--images", str(tmp_path)]):
            assert main([*command, "--out", str(tmp_path / "out")]) == 1
            assert f"{url}: has no box columns" in capsys.readouterr().err
    finally:
        (toy_shards / "odd name.csv").unlink()


# --- photographs at URLs


def shard_command(toy_coco, out, *images):
    annotations = sorted((toy_coco / "annotations").glob("*.json"))
    given = ["--labels", toy_coco / "cocottributes.pkl", "--instances", *annotations, "--images", *images]
    return ["shard", *map(str, [*given, "--out", out, "--workers", "1", "--shard-objects", "25"])]


@pytest.fixture(scope="module")
def photographs(s3, toy_coco):
    """The toy photographs in S3."""
    for folder in ("train2017", "val2017"):
        for path in (toy_coco / folder).iterdir():
            s3.upload_file(str(path), BUCKET, f"coco/{folder}/{path.name}")
    s3fs.S3FileSystem.clear_instance_cache()
    return f"s3://{BUCKET}/coco"


def content_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("where", ["s3", "file", "both"])
def test_photographs_at_urls_give_the_same_shards(toy_coco, toy_shards, photographs, tmp_path, where):
    folders = {
        "s3": [f"{photographs}/train2017", f"{photographs}/val2017/"],
        "file": [f"file://{toy_coco}/train2017", f"file://{toy_coco}/val2017"],
        "both": [toy_coco / "train2017", f"{photographs}/val2017"],
    }
    assert main(shard_command(toy_coco, tmp_path / "out", *folders[where])) == 0
    assert content_of(tmp_path / "out") == content_of(toy_shards)


@pytest.mark.parametrize("where", ["s3", "file"])
def test_label_files_at_urls_give_the_same_shards(s3, toy_coco, toy_shards, tmp_path, monkeypatch, where):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    files = [toy_coco / "cocottributes.pkl", *sorted((toy_coco / "annotations").glob("*.json"))]
    for path in files:
        s3.upload_file(str(path), BUCKET, f"labels/{path.name}")
    s3fs.S3FileSystem.clear_instance_cache()
    urls = [f"s3://{BUCKET}/labels/{path.name}" if where == "s3" else f"file://{path}" for path in files]
    local = [toy_coco / "train2017", toy_coco / "val2017", "--out", tmp_path / "out", "--shard-objects", "25"]
    given = ["--labels", urls[0], "--instances", *urls[1:], "--images", *local]
    assert main(["shard", *map(str, given), "--workers", "1"]) == 0
    assert content_of(tmp_path / "out") == content_of(toy_shards)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # the copies are gone


def test_label_files_at_urls_are_audited_as_local_ones_are(s3, toy_coco, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    files = [toy_coco / "cocottributes.pkl", *sorted((toy_coco / "annotations").glob("*.json"))]
    for path in files:
        s3.upload_file(str(path), BUCKET, f"labels/{path.name}")
    s3fs.S3FileSystem.clear_instance_cache()
    found = []
    for out, places in (("local", files), ("remote", [f"s3://{BUCKET}/labels/{path.name}" for path in files])):
        assert main(["audit", *map(str, [places[0], "--instances", *places[1:], "--out", tmp_path / out])]) == 0
        found.append({**json.loads((tmp_path / out / "audit.json").read_text()), "audited": None})
    assert found[0] == found[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["local", "remote"]  # the copies are gone
    capsys.readouterr()
    url = f"s3://{BUCKET}/labels/nowhere.json"
    assert main(["audit", str(files[0]), "--instances", url, "--out", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err == f"error: {url}: no such file\n"


def test_wrong_label_urls_are_one_line(s3, toy_coco, tmp_path, capsys):
    s3.put_object(Bucket=BUCKET, Key="labels/broken.csv", Body=b"file_name\na.jpg\n")
    s3fs.S3FileSystem.clear_instance_cache()
    for name, told in (("nowhere.csv", "no such file"), ("broken.csv", "has no box columns")):
        url = f"s3://{BUCKET}/labels/{name}"
        given = ["--labels", url, "--images", toy_coco / "train2017", "--out", tmp_path / "out"]
        assert main(["shard", *map(str, given)]) == 1
        line = capsys.readouterr().err
        assert line.startswith(f"error: {url}: ") and told in line and line.count("\n") == 1


def test_a_photograph_that_is_not_at_the_url_is_left_out_and_gets_in_later(
    s3, toy_coco, toy_shards, photographs, tmp_path, capsys
):
    name = min(path.name for path in (toy_coco / "train2017").iterdir())
    s3.delete_object(Bucket=BUCKET, Key=f"coco/train2017/{name}")
    arguments = shard_command(toy_coco, tmp_path / "out", f"{photographs}/train2017", f"{photographs}/val2017")
    assert main([*arguments, "--max-failure-rate", "0.5"]) == 0
    assert "left out: image missing" in capsys.readouterr().out
    s3.upload_file(str(toy_coco / "train2017" / name), BUCKET, f"coco/train2017/{name}")
    assert main(arguments) == 0
    assert content_of(tmp_path / "out") == content_of(toy_shards)


def test_a_server_that_goes_away_stops_it_and_counts_no_photograph_as_missing(
    s3, toy_coco, toy_shards, photographs, tmp_path, capsys, monkeypatch
):
    arguments = shard_command(toy_coco, tmp_path / "out", f"{photographs}/train2017", f"{photographs}/val2017")
    with monkeypatch.context() as patched:
        patched.setattr("attrtrain.urls.is_there", lambda url: True)
        patched.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        patched.setenv("AWS_MAX_ATTEMPTS", "1")
        s3fs.S3FileSystem.clear_instance_cache()
        assert main(arguments) == 1
    s3fs.S3FileSystem.clear_instance_cache()
    line = capsys.readouterr().err.splitlines()[-1]
    assert "cannot be read" in line and "finished shards are kept: run the same command again" in line
    assert not (tmp_path / "out").exists()  # for there is no finished shard to go on from
    assert main(arguments) == 0
    assert content_of(tmp_path / "out") == content_of(toy_shards)


def test_wrong_urls_for_sharding_are_one_line(toy_coco, photographs, tmp_path, capsys):
    assert main(shard_command(toy_coco, tmp_path / "out", f"{photographs}/nowhere")) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"error: --images {photographs}/nowhere: no such folder"
    with pytest.raises(SystemExit):
        main(shard_command(toy_coco, "s3://bucket/out", f"{photographs}/train2017"))
    assert "s3://bucket/out: shards are written to a folder" in capsys.readouterr().err


def test_plain_paths_import_no_fsspec(toy_shards):
    code = (
        "import sys\n"
        "from attrtrain.data.reader import ShardSet\n"
        "ShardSet([sys.argv[1]], 'train').jpeg(0)\n"
        "assert not {'fsspec', 's3fs', 'torch'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code, toy_shards], check=True)


def test_a_windows_path_or_a_name_with_a_colon_is_no_url():
    assert not is_url("C:/shards") and not is_url(Path("a:b")) and is_url("s3://bucket/x")
