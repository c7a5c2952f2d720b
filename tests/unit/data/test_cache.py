"""The cache of remote shards: whole checked files, fetched once, within a bound, whatever is killed or damaged."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from attrtrain.data import cache as cache_module
from attrtrain.data.cache import RemoteFile, ShardCache
from attrtrain.errors import ConfigError, ShardError
from attrtrain.urls import chunks_of
from tests.disk_events import events_of_the_disk, on_disk

SIZE = 1000


@pytest.fixture
def remote(tmp_path: Path) -> list[RemoteFile]:
    """Six files of 1000 bytes in a folder that stands for remote storage."""
    folder = tmp_path / "remote"
    folder.mkdir()
    files = []
    for number in range(6):
        content = random.Random(number).randbytes(SIZE)
        (folder / f"{number}.tar").write_bytes(content)
        files.append(RemoteFile(f"file://{folder}/{number}.tar", hashlib.sha256(content).hexdigest(), SIZE))
    return files


def content(cache: ShardCache, file: RemoteFile) -> bytes:
    with cache.reading(file) as descriptor:
        return os.pread(descriptor, 2 * SIZE, 0)


def original(file: RemoteFile) -> bytes:
    return Path(file.url.removeprefix("file://")).read_bytes()


def held(cache: ShardCache) -> set[str]:
    """Names of what the cache holds, partial files too."""
    return {path.name for path in cache.folder.iterdir() if path.is_file()}


def names(*files: RemoteFile) -> set[str]:
    return {file.name for file in files}


def count_fetches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    fetched: list[str] = []

    def counted(url: str):  # type: ignore[no-untyped-def]
        fetched.append(url)
        return chunks_of(url)

    monkeypatch.setattr(cache_module, "chunks_of", counted)
    return fetched


def test_a_file_is_fetched_once(tmp_path: Path, remote: list[RemoteFile], monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = count_fetches(monkeypatch)
    for _ in range(3):
        cache = ShardCache(tmp_path / "cache", 10 * SIZE)
        assert [content(cache, file) for file in remote] == [original(file) for file in remote]
    assert fetched == [file.url for file in remote]
    assert held(cache) == names(*remote)


def test_what_was_not_used_for_longest_makes_room(tmp_path: Path, remote: list[RemoteFile], monkeypatch) -> None:
    monkeypatch.setattr(cache_module, "_TOUCH_SECONDS", 0)
    cache = ShardCache(tmp_path / "cache", 3 * SIZE + 10)
    for number in (0, 1, 2, 0, 3):
        content(cache, remote[number])
        time.sleep(0.01)
    assert held(cache) == names(remote[0], remote[2], remote[3])
    fetched = count_fetches(monkeypatch)
    assert content(cache, remote[1]) == original(remote[1])
    assert fetched == [remote[1].url] and held(cache) == names(remote[0], remote[1], remote[3])


def test_what_others_have_in_the_folder_is_neither_counted_nor_removed(
    tmp_path: Path, remote: list[RemoteFile]
) -> None:
    folder = tmp_path / "scratch"
    folder.mkdir()
    others = {"results.tar": bytes(9 * SIZE), ".notes.partial": b"mine", "0123456789abcdef.lock": b""}
    for name, kept in others.items():
        (folder / name).write_bytes(kept)
        os.utime(folder / name, (0, 0))  # not used for longest
    cache = ShardCache(folder, 2 * SIZE)
    for file in remote[:4]:  # whatever comes first where the folder is listed
        others[f"{len(others)}.tar"] = b"theirs"
        (folder / f"{len(others) - 1}.tar").write_bytes(b"theirs")
        assert content(cache, file) == original(file)
    assert held(cache) == {*others, *names(*remote[2:4])}
    assert {name: (folder / name).read_bytes() for name in others} == others


@pytest.mark.parametrize("was_there", [True, False])
def test_what_is_in_use_is_read_but_not_removed_by_any_process(
    tmp_path: Path, remote: list[RemoteFile], was_there: bool
) -> None:
    cache = ShardCache(tmp_path / "cache", 2 * SIZE)
    if was_there:
        content(cache, remote[0])
    descriptor = cache.open(remote[0])
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from attrtrain.data.cache import RemoteFile, ShardCache\n"
        "cache = ShardCache(Path(sys.argv[1]), int(sys.argv[2]))\n"
        "for url, sha256 in zip(sys.argv[3::2], sys.argv[4::2]):\n"
        "    with cache.reading(RemoteFile(url, sha256, 1000)): pass\n"
    )
    words = [word for file in remote[:4] for word in (file.url, file.sha256)]
    subprocess.run([sys.executable, "-c", script, cache.folder, str(cache.limit), *words], check=True, timeout=60)
    assert held(cache) == names(remote[0], remote[3])
    os.close(descriptor)
    content(cache, remote[4])
    assert held(cache) == names(remote[3], remote[4])


def test_where_more_is_in_use_than_fits_it_goes_on(tmp_path: Path, remote: list[RemoteFile]) -> None:
    cache = ShardCache(tmp_path / "cache", 2 * SIZE)
    descriptors = [cache.open(file) for file in remote[:4]]
    assert [os.pread(descriptor, SIZE, 0) for descriptor in descriptors] == [original(file) for file in remote[:4]]
    for descriptor in descriptors:
        os.close(descriptor)
    content(cache, remote[4])
    assert len(held(cache)) == 2


def test_a_file_removed_between_finding_and_locking_it_is_fetched_again(
    tmp_path: Path, remote: list[RemoteFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ShardCache(tmp_path / "cache", 2 * SIZE)
    content(cache, remote[0])
    flock, pending = cache_module.fcntl.flock, [True]

    def remove_first(descriptor: int, operation: int) -> None:
        if pending:
            pending.clear()
            (cache.folder / remote[0].name).unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(cache_module.fcntl, "flock", remove_first)
    assert content(cache, remote[0]) == original(remote[0])
    assert held(cache) == names(remote[0])


@pytest.mark.parametrize("damage", ["flipped", "cut", "longer", "cut off by an error"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_damaged_download_is_fetched_again_and_then_reported(
    tmp_path: Path, remote: list[RemoteFile], monkeypatch: pytest.MonkeyPatch, damage: str, times: int
) -> None:
    tries: list[str] = []

    def damaged(url: str):  # type: ignore[no-untyped-def]
        tries.append(url)
        whole = b"".join(chunks_of(url))
        if len(tries) > times:
            yield whole
        elif damage == "flipped":
            yield bytes([whole[0] ^ 1]) + whole[1:]
        elif damage == "cut":
            yield whole[:-1]
        elif damage == "longer":
            yield whole + b"x"
        else:
            yield whole[:500]
            raise ShardError(f"{url}: cannot be read (IncompleteRead)")

    monkeypatch.setattr(cache_module, "chunks_of", damaged)
    cache = ShardCache(tmp_path / "cache", 3 * SIZE)
    if times == 1:
        assert content(cache, remote[0]) == original(remote[0])
    else:
        told = (
            "IncompleteRead" if damage == "cut off by an error" else "fetched 2 times, and never what its manifest says"
        )
        with pytest.raises(ShardError, match=rf"remote/0\.tar: .*{told}"):
            content(cache, remote[0])
        assert held(cache) == set()
    assert len(tries) == 2


def test_a_file_that_is_gone_says_so(tmp_path: Path, remote: list[RemoteFile]) -> None:
    Path(remote[2].url.removeprefix("file://")).unlink()
    cache = ShardCache(tmp_path / "cache", 3 * SIZE)
    with pytest.raises(ShardError, match=r"remote/2\.tar: not there, though the manifest beside it lists it"):
        content(cache, remote[2])
    with pytest.raises(ShardError, match="not there"):
        content(cache, RemoteFile(remote[2].url, remote[2].sha256))  # of unknown size, as index and labels are
    assert held(cache) == set()


def test_a_checksum_that_is_a_path_leads_nowhere(tmp_path: Path, remote: list[RemoteFile]) -> None:
    (tmp_path / "notes.tar.partial").write_bytes(b"mine")
    cache = ShardCache(tmp_path / "cache", 3 * SIZE)
    with pytest.raises(ShardError, match=r"0\.tar: the manifest beside it gives '/\.\..*notes' for its SHA-256"):
        content(cache, RemoteFile(remote[0].url, f"{'/..' * 20}{tmp_path}/notes", SIZE))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.tar.partial", "remote"]


def test_a_download_that_does_not_end_is_broken_off(
    tmp_path: Path, remote: list[RemoteFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = 0

    def endless(url: str):  # type: ignore[no-untyped-def]
        nonlocal given
        for _ in range(10_000):
            given += 100
            yield b"x" * 100

    monkeypatch.setattr(cache_module, "chunks_of", endless)
    cache = ShardCache(tmp_path / "cache", 3 * SIZE)
    with pytest.raises(ShardError, match="fetched 2 times, and never what its manifest says"):
        content(cache, remote[0])
    assert given <= 2 * (SIZE + 100) and held(cache) == set()


@pytest.mark.parametrize("size", [SIZE - 1, SIZE + 1])
def test_a_file_of_another_size_than_its_manifest_says_is_refused(
    tmp_path: Path, remote: list[RemoteFile], size: int
) -> None:
    cache = ShardCache(tmp_path / "cache", 3 * SIZE)
    with pytest.raises(ShardError, match="never what its manifest says"):
        content(cache, RemoteFile(remote[0].url, remote[0].sha256, size))
    assert held(cache) == set()


def test_a_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, remote: list[RemoteFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ShardCache(tmp_path / "cache", 3 * SIZE)
    events = events_of_the_disk(monkeypatch)
    content(cache, remote[0])
    assert on_disk(cache.folder / remote[0].name) in events[: events.index(("move", remote[0].name))]


def test_a_cache_that_is_deleted_meanwhile_is_one_line(
    tmp_path: Path, remote: list[RemoteFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ShardCache(tmp_path / "cache", 3 * SIZE)

    def deleting(url: str):  # type: ignore[no-untyped-def]
        shutil.rmtree(cache.folder)
        return chunks_of(url)

    monkeypatch.setattr(cache_module, "chunks_of", deleting)
    with pytest.raises(ShardError, match=r"^\S+/cache/\S+: No such file or directory$"):
        content(cache, remote[0])


def test_a_full_disk_says_so(tmp_path: Path, remote: list[RemoteFile]) -> None:
    folder = tmp_path / "mount"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "attrtrain-test", folder]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("may not mount a small file system")
    try:
        cache = ShardCache(folder, 100 * SIZE)
        with pytest.raises(
            ShardError, match=r"No space left on device for file://.*lower data\.cache_gb, or give another"
        ):
            for file in remote:
                content(cache, file)
        assert not [name for name in held(cache) if name.startswith(".")]
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_bound_below_one_file_is_refused(tmp_path: Path, remote: list[RemoteFile]) -> None:
    with pytest.raises(ConfigError, match=r"data\.cache_gb: 9e-07 GB is less than one file of 1e-06 GB"):
        content(ShardCache(tmp_path / "cache", 900), remote[0])
    assert content(ShardCache(tmp_path / "cache", SIZE), remote[0]) == original(remote[0])


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, remote: list[RemoteFile]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ShardError, match="file"):
        content(ShardCache(tmp_path / "file" / "cache", 5000), remote[0])


READ_ALL = """
import os, sys, time, random
from pathlib import Path
import attrtrain.data.cache as module
from attrtrain.urls import chunks_of
log, folder, limit, seed, slowness = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])
def logged(url):
    with log.open("a") as file: file.write(url + "\\n")
    for chunk in chunks_of(url):
        for begin in range(0, len(chunk), 100):
            time.sleep(slowness)
            yield chunk[begin : begin + 100]
module.chunks_of = logged
cache = module.ShardCache(folder, limit)
files = [module.RemoteFile(url, sha256, 1000) for url, sha256 in zip(sys.argv[6::2], sys.argv[7::2])]
for turn in range(4):
    random.Random(seed + turn).shuffle(files)
    for file in files:
        with cache.reading(file) as descriptor:
            assert module.hashlib.sha256(os.pread(descriptor, 2000, 0)).hexdigest() == file.sha256
"""


def start_reading(tmp_path: Path, files: list[RemoteFile], limit: int, seed: int, slowness: float) -> subprocess.Popen:
    words = [word for file in files for word in (file.url, file.sha256)]
    settings = [tmp_path / "log", tmp_path / "cache", str(limit), str(seed), str(slowness)]
    return subprocess.Popen([sys.executable, "-c", READ_ALL, *settings, *words], stderr=subprocess.PIPE, text=True)


def test_processes_at_once_fetch_each_file_once(tmp_path: Path, remote: list[RemoteFile]) -> None:
    readers = [start_reading(tmp_path, remote, 10 * SIZE, seed, 0.002) for seed in range(4)]
    for reader in readers:
        assert reader.communicate(timeout=60)[1] == "" and reader.returncode == 0
    assert sorted((tmp_path / "log").read_text().split()) == sorted(file.url for file in remote)


def test_processes_at_once_stay_within_the_bound(tmp_path: Path, remote: list[RemoteFile]) -> None:
    """With room for half of the files each is fetched again and again, and every reader still gets the right bytes."""
    limit = 3 * SIZE
    readers = [start_reading(tmp_path, remote, limit, seed, 0.0) for seed in range(3)]
    most = 0
    while any(reader.poll() is None for reader in readers):
        sizes = []
        for path in (tmp_path / "cache").glob("*"):
            try:
                sizes.append(path.stat().st_size if path.is_file() else 0)
            except FileNotFoundError:
                continue
        most = max(most, sum(sizes))
        time.sleep(0.002)
    assert [reader.communicate()[1] for reader in readers] == [""] * 3
    assert len(held(ShardCache(tmp_path / "cache", limit))) == 3
    # A reader counts files of before and after a removal; what is in use by three processes may come on top.
    assert limit <= most <= limit + 3 * SIZE


def test_a_process_killed_while_it_fetches_holds_nobody_up(tmp_path: Path, remote: list[RemoteFile]) -> None:
    killed = start_reading(tmp_path, remote[:1], 10 * SIZE, 0, 5.0)
    deadline = time.monotonic() + 30
    while not list((tmp_path / "cache").glob(".*.partial")):
        assert time.monotonic() < deadline and killed.poll() is None
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    cache = ShardCache(tmp_path / "cache", 2 * SIZE)
    assert len(held(cache)) == 1
    content(cache, remote[1])
    content(cache, remote[2])  # the dead one's unfinished file makes room like any other
    assert held(cache) == names(remote[1], remote[2])
    assert content(cache, remote[0]) == original(remote[0])


def test_the_default_folder_is_the_users_own_and_made_when_it_is_needed(
    tmp_path: Path, remote: list[RemoteFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module.tempfile, "gettempdir", lambda: str(tmp_path))
    cache = ShardCache.of("", 2)
    assert cache.folder.parent == tmp_path and cache.limit == 2_000_000_000
    assert not cache.folder.exists()
    content(cache, remote[0])
    assert cache.folder.stat().st_mode & 0o777 == 0o700
    mine = ShardCache.of(str(tmp_path / "mine" / "cache"), 0.5)
    assert mine == ShardCache(tmp_path / "mine" / "cache", 500_000_000)
    assert content(mine, remote[0]) == original(remote[0])


def test_a_folder_of_another_user_is_not_trusted(
    tmp_path: Path, remote: list[RemoteFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    (tmp_path / "cache").mkdir()
    with pytest.raises(ShardError, match="cache belongs to another user"):
        content(ShardCache(tmp_path / "cache", 5000), remote[0])
