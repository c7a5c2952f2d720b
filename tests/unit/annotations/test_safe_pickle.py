import bz2
import collections
import copyreg
import gc
import gzip
import lzma
import os
import pickle
import pickletools
import struct
import zlib
from pathlib import Path

import joblib
import numpy as np
import pytest

from attrtrain.annotations.safe_pickle import load_pickle
from attrtrain.errors import LabelError, UnsafeFileError

VECTOR = np.array([0.0, -1.0, 1 / 3, 1.0])
EMPTY_ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
FLOAT64 = b"cnumpy\ndtype\n(S'f8'\nI00\nI01\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"


def python2_string(data: bytes) -> bytes:
    """The opcode with which Python 2 wrote a byte string."""
    return b"S" + repr(data)[1:].encode() + b"\n"


def array_text(data: bytes, shape: bytes = b"(I4\nt", dtype: bytes = FLOAT64) -> bytes:
    return EMPTY_ARRAY + b"(I1\n" + shape + dtype + b"I00\n" + python2_string(data) + b"tb"


@pytest.fixture
def load(tmp_path):
    def write_and_load(data: bytes):
        path = tmp_path / "labels.pkl"
        path.write_bytes(data)
        return load_pickle(path)

    return write_and_load


@pytest.fixture
def refused(load):
    """Loads bytes that must be refused with one line, which is returned."""

    def refuse(data: bytes, kind: type[LabelError] = UnsafeFileError) -> str:
        with pytest.raises(LabelError) as caught:
            load(data)
        message = str(caught.value)
        assert type(caught.value) is kind
        assert "labels.pkl: " in message
        assert "\n" not in message and len(message) < 400
        return message

    return refuse


# --- what label files are made of ---


def test_python2_protocol_0(load):
    data = (
        b"(dp0\nS'ann_vecs'\np1\n(dp2\nI7\n" + array_text(VECTOR.tobytes()) + b"p3\nsL8L\n" + array_text(VECTOR[::-1].tobytes())
        + b"ssS'patch_id_to_ann_id'\np4\nccollections\ndefaultdict\np5\n(c__builtin__\nint\np6\ntp7\nRp8\nI7\nI70\nssS'name'\n"
        + b"Vcaf\\u00e9\np9\ns."
    )  # fmt: skip
    assert b"S'\\x00" in data
    content = load(data)
    np.testing.assert_array_equal(content["ann_vecs"][7], VECTOR)
    np.testing.assert_array_equal(content["ann_vecs"][8], VECTOR[::-1])
    assert content["ann_vecs"][7].dtype == np.float64
    assert content["patch_id_to_ann_id"] == {7: 70} and content["patch_id_to_ann_id"].default_factory is int
    assert content["name"] == "café"


def test_python2_protocol_2_as_numpy_of_that_time_wrote_it(load):
    data = VECTOR.astype(">f4").tobytes()
    stream = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b\x87Rq\x03(K\x01K\x04\x85cnumpy\ndtype\n"
        b"U\x02f4K\x00K\x01\x87R(K\x03U\x01>NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U" + bytes([len(data)]) + data + b"tb."
    )  # fmt: skip
    np.testing.assert_array_equal(load(stream), VECTOR.astype(np.float32))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "value",
    [
        VECTOR,
        VECTOR.astype(">f8"),
        np.arange(24.0).reshape(2, 3, 4),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
        np.arange(12)[::2],
        np.zeros((3, 0), dtype=np.float16),
        np.array(2.5),
        np.array([True, False]),
        np.array(["on", "smiling"]),
        np.array([b"on", b"smiling"]),
        np.arange(4000, dtype=np.uint8),
    ],
    ids=lambda value: f"{value.dtype.str}{value.shape}",
)
def test_arrays_of_todays_numpy(load, value, protocol):
    read = load(pickle.dumps(value, protocol))
    np.testing.assert_array_equal(read, value)
    assert isinstance(read, np.ndarray)
    assert read.dtype.kind == value.dtype.kind and read.dtype.itemsize == value.dtype.itemsize


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_scalars_and_containers(load, protocol):
    value = {
        "scalars": [np.float64(0.25), np.int32(-7), np.bool_(True), np.str_("é"), np.str_(""), np.bytes_(b"x")],
        "default": collections.defaultdict(int, {1: 2}),
        "ordered": collections.OrderedDict([("b", 1), ("a", 2)]),
        "plain": [(1, 2), {3}, frozenset({4}), b"\x00\xff", bytearray(b"5"), 1 + 2j, 2**70, None, True, "ü"],
    }
    read = load(pickle.dumps(value, protocol))
    assert read == value
    assert [type(scalar) for scalar in read["scalars"]] == [type(scalar) for scalar in value["scalars"]]
    assert read["default"].default_factory is int and list(read["ordered"]) == ["b", "a"]


CONTENT = {
    "ann_vecs": {1: VECTOR, 2: np.asfortranarray(np.arange(6.0).reshape(2, 3)), 3: np.arange(5, dtype=np.int8)},
    "ids": collections.defaultdict(int, {1: 10}),
    "share": np.float64(0.5),
    "empty": np.zeros((0, 4)),
    "large": np.arange(70_000, dtype=np.float32),
}


def assert_is_content(read):
    assert read.keys() == CONTENT.keys()
    for key in (1, 2, 3):
        np.testing.assert_array_equal(read["ann_vecs"][key], CONTENT["ann_vecs"][key])
        assert read["ann_vecs"][key].dtype == CONTENT["ann_vecs"][key].dtype
    np.testing.assert_array_equal(read["large"], CONTENT["large"])
    assert read["empty"].shape == (0, 4)
    assert read["ids"] == {1: 10} and read["share"] == 0.5


@pytest.mark.parametrize("compress", [0, ("zlib", 3), ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)], ids=str)
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_joblib(tmp_path, compress, protocol):
    path = tmp_path / "labels.jbl"
    joblib.dump(CONTENT, path, compress=compress, protocol=protocol)
    assert_is_content(load_pickle(path))


def joblib_stream(tmp_path: Path, value, protocol: int = 3) -> bytes:
    joblib.dump(value, tmp_path / "plain.jbl", protocol=protocol)
    return (tmp_path / "plain.jbl").read_bytes()


def as_scikit_learn_wrote_it(stream: bytes) -> bytes:
    """Renames the module of joblib's wrapper, which protocol 3 names in a line of its own, and drops what joblib < 1.2
    did not write.
    """
    renamed = stream.replace(b"cjoblib.numpy_pickle\n", b"csklearn.externals.joblib.numpy_pickle\n")
    assert renamed != stream
    return renamed


def test_joblib_under_scikit_learn(load, tmp_path):
    assert_is_content(load(zlib.compress(as_scikit_learn_wrote_it(joblib_stream(tmp_path, CONTENT)))))


def test_joblib_before_alignment_padding(load):
    """Bytes by hand, as joblib 0.11 wrote them under Python 2: no padding, and the array right behind the wrapper."""
    data = VECTOR.tobytes()
    dtype = b"cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    wrapper = (
        b"csklearn.externals.joblib.numpy_pickle\nNumpyArrayWrapper\n)\x81}(U\x05dtype" + dtype + b"U\x05shapeK\x04\x85U\x05orderU\x01C"
        b"U\nallow_mmap\x89U\x08subclasscnumpy\nndarray\nub"
    )  # fmt: skip
    stream = b"\x80\x02}(K\x01" + wrapper + data + b"K\x02" + wrapper + data[::-1] + b"u."
    read = load(zlib.compress(stream))
    np.testing.assert_array_equal(read[1], VECTOR)
    np.testing.assert_array_equal(read[2], np.frombuffer(data[::-1]))


def test_collector_is_left_as_it_was(load):
    load(pickle.dumps([1]))
    assert gc.isenabled()
    with pytest.raises(LabelError):
        load(b"garbage")
    assert gc.isenabled()


# --- what a file may not do ---


class Runs:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("make", ["system", "exec", "eval", "mkdir"])
def test_code_is_refused_before_it_runs(refused, tmp_path, make, protocol):
    marker = tmp_path / "ran"
    payload = {
        "system": Runs(os.system, f"touch '{marker}'"),
        "exec": Runs(exec, f"__import__('os').mkdir({str(marker)!r})"),
        "eval": Runs(eval, f"__import__('os').mkdir({str(marker)!r})"),
        "mkdir": Runs(os.mkdir, str(marker)),
    }[make]
    data = pickle.dumps({"ann_vecs": [1, payload]}, protocol)
    message = refused(data)
    assert f"refused {payload.call[0].__module__}.{make}" in message or f"refused __builtin__.{make}" in message
    assert not marker.exists()
    pickle.loads(data)  # the payload works: it was the reader that stopped it
    assert marker.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "getattr"), ("__builtin__", "eval"), ("builtins", "object"), ("builtins", "type"), ("copyreg", "_reconstructor"),
        ("copy_reg", "_reconstructor"), ("copyreg", "add_extension"), ("numpy", "load"), ("numpy", "fromfile"), ("numpy", "memmap"),
        ("numpy", "frombuffer"), ("numpy", "void"), ("numpy", "object_"), ("numpy.f2py", "compile"), ("numpy.testing._private.utils", "runstring"),
        ("numpy.core.multiarray", "fromstring"), ("numpy.matrixlib.defmatrix", "matrix"), ("joblib", "load"), ("joblib.numpy_pickle", "load"),
        ("sklearn.externals.joblib", "load"), ("functools", "partial"), ("operator", "attrgetter"), ("_codecs", "decode"), ("codecs", "encode"),
        ("pickle", "loads"), ("_pickle", "loads"), ("attrtrain.annotations.safe_pickle", "load_pickle"), ("__main__", "x"),
    ],
)  # fmt: skip
def test_other_names_are_refused_by_name(refused, module, name):
    message = refused(b"c" + module.encode() + b"\n" + name.encode() + b"\n.")
    assert f"refused {module}.{name}:" in message


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("collections", "OrderedDict.__init__"),
        ("collections", "OrderedDict.fromkeys"),
        ("builtins", "str.format"),
        ("numpy", "ndarray.tofile"),
        ("joblib.numpy_pickle", "NumpyArrayWrapper.__init__.__globals__"),
    ],
)
def test_no_attribute_is_reached_through_a_dotted_name(refused, module, name):
    data = b"\x80\x04" + b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name)) + b"\x93."
    assert f"refused {module}.{name}:" in refused(data)


@pytest.mark.parametrize("opcode", [b"(ios\nsystem\n.", b"(cos\nsystem\no.", b"\x80\x02cos\nsystem\n)\x81."])
def test_every_opcode_that_names_a_class_is_watched(refused, opcode):
    assert "refused os.system:" in refused(opcode)


def test_extension_codes_are_refused(refused):
    copyreg.add_extension("os", "system", 0x7001)
    try:
        assert "refused os.system:" in refused(b"\x80\x02\x83" + struct.pack("<H", 0x7001) + b".")
    finally:
        copyreg.remove_extension("os", "system", 0x7001)
    assert "unregistered extension code" in refused(b"\x80\x02\x82\x77.", LabelError)


@pytest.mark.parametrize("opcode", [b"Psomewhere else\n.", b"Vsomewhere else\nQ."])
def test_persistent_ids_are_refused(refused, opcode):
    assert "refused persistent id somewhere else" in refused(opcode)


def test_out_of_band_buffers_are_refused(refused):
    assert "buffer" in refused(b"\x80\x05\x97.", LabelError)


def test_a_name_from_the_file_cannot_break_the_line_or_the_terminal(refused):
    name = "x\n\x1b[2Jall is well" + "y" * 500
    data = b"\x80\x04\x8c\x02os\x8c" + b"\xff" + name.encode()[:255] + b"\x93."
    message = refused(data)
    assert r"refused os.x\n\x1b[2Jall is well" in message and message.isprintable()


@pytest.mark.parametrize("compress", [0, ("zlib", 3)])
def test_joblib_array_of_objects(tmp_path, compress):
    """joblib would read such an array with another pickle, which nobody watches."""
    marker, path = tmp_path / "ran", tmp_path / "labels.jbl"
    joblib.dump({"ann_vecs": np.array([Runs(os.mkdir, str(marker))], dtype=object)}, path, compress=compress)
    with pytest.raises(UnsafeFileError, match=r"refused NumPy type O8"):
        load_pickle(path)
    assert not marker.exists()


def test_joblib_compressed_payload(tmp_path):
    marker, path = tmp_path / "ran", tmp_path / "labels.jbl"
    joblib.dump({"a": VECTOR, "b": Runs(os.mkdir, str(marker))}, path, compress=3)
    with pytest.raises(UnsafeFileError, match=r"refused posix.mkdir|refused nt.mkdir"):
        load_pickle(path)
    assert not marker.exists()


def dtype_text(name: bytes, state: bytes) -> bytes:
    return b"cnumpy\ndtype\n(S'" + name + b"'\nI00\nI01\ntR" + state + b"b"


@pytest.mark.parametrize("name", [b"O8", b"O", b"V8", b"f8,O", b"(2,)f8", b"M8[s]", b"object", b"c16", b"T", b"f8\\n"])
def test_only_numbers_and_strings_by_type_name(refused, name):
    assert "refused NumPy type" in refused(
        array_text(bytes(8), b"(I1\nt", dtype_text(name, b"(I3\nS'|'\nNNNI-1\nI-1\nI0\nt"))
    )


def test_dtype_state_cannot_turn_bytes_into_pointers(load, refused):
    """NumPy itself takes a dtype's flags, fields and size from the file; with them, plain bytes become objects at any
    address.
    """
    objects_without_the_flag = dtype_text(b"O8", b"(I3\nS'|'\nNNNI-1\nI-1\nI0\nt")
    refused(array_text(struct.pack("<Q", 0xDEAD), b"(I1\nt", objects_without_the_flag))
    fields = b"(dS'a'\n(" + dtype_text(b"f8", b"(I3\nS'<'\nNNNI-1\nI-1\nI0\nt") + b"I1048576\nts"
    numbers_with_far_fields = dtype_text(b"S8", b"(I3\nS'|'\nN(S'a'\nt" + fields + b"I8\nI1\nI63\nt")
    read = load(array_text(b"8 bytes.", b"(I1\nt", numbers_with_far_fields) + b".")
    assert read.dtype == np.dtype("S8") and read.tolist() == [b"8 bytes."]


def test_an_array_is_filled_once(refused):
    """A second state would free memory that views of the first, such as list(array), still point to."""
    state = b"(I1\n(I2\nI2\nt" + FLOAT64 + b"I00\n" + python2_string(bytes(32)) + b"tb"
    views = b"0c__builtin__\nlist\n(g9\ntRp10\n0g9\n"
    assert "second time" in refused(EMPTY_ARRAY + b"p9\n" + state + views + state + b".")


@pytest.mark.parametrize("shape", [b"(I-1\nI-4\nt", b"(I-4\nt", b"(I3\nt", b"(I4611686018427387905\nI4\nt", b"(I5\nt"])
def test_shape_must_fit_the_bytes(refused, shape):
    assert "bytes do not fill an array" in refused(array_text(VECTOR.tobytes(), shape) + b".", LabelError)


def test_joblib_shape_must_fit(refused, tmp_path):
    stream = joblib_stream(tmp_path, VECTOR)
    assert stream.count(b"K\x04\x85") == 1
    refused(stream.replace(b"K\x04\x85", b"J\xff\xff\xff\xff\x85"), LabelError)
    assert "ends inside an array" in refused(stream.replace(b"K\x04\x85", b"K\x05\x85"), LabelError)


@pytest.mark.parametrize(
    "target",
    [
        b"c_codecs\nencode\n", b"cnumpy.core.multiarray\nscalar\n", b"cnumpy._core.numeric\n_frombuffer\n", b"cnumpy.core.multiarray\n_reconstruct\n",
        b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"cnumpy\nfloat64\n", b"ccollections\ndefaultdict\n", b"ccollections\nOrderedDict\n",
        b"c__builtin__\nlist\n", b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n",
    ],
)  # fmt: skip
@pytest.mark.parametrize("slots", [True, False])
def test_nothing_a_file_can_name_can_be_altered(load, refused, target, slots):
    """The BUILD opcode sets attributes of whatever lies on the stack, unless that has a __setstate__."""
    attributes = (
        b"(dS'__setstate__'\nc__builtin__\nlist\nsS'__code__'\nI1\nsS'__new__'\nc__builtin__\nlist\nsS'mark'\nI1\ns"
    )
    refused(target + (b"(N" + attributes + b"t" if slots else attributes) + b"b.", type_of_refusal(target))
    np.testing.assert_array_equal(load(array_text(VECTOR.tobytes()) + b"."), VECTOR)  # and all works as before
    np.testing.assert_array_equal(load(pickle.dumps(VECTOR, 5)), VECTOR)
    assert load(pickle.dumps([b"\xff", np.float64(2)], 2)) == [b"\xff", 2.0]


def type_of_refusal(target: bytes) -> type[LabelError]:
    return UnsafeFileError if target.split(b"\n")[1] in (b"encode", b"scalar", b"_frombuffer") else LabelError


def test_a_memory_view_of_another_array_cannot_be_had(refused):
    """ndarray(shape, dtype, buffer, …) and _frombuffer(array, …) would look into memory that somebody else may free."""
    other = array_text(VECTOR.tobytes()) + b"p9\n0"
    view = b"cnumpy\nndarray\n((I4\nt" + FLOAT64 + b"g9\ntR."
    path_free = other + view
    refused(b"(l" + path_free[:-1] + b"I1\nI1\ns.", LabelError)
    stand_in = (
        other
        + b"cnumpy.core.numeric\n_frombuffer\n(g9\n"
        + FLOAT64
        + b"(I4\ntS'C'\ntR(I1\n(I4\nt"
        + FLOAT64
        + b"I00\nS''\ntb."
    )
    refused(stand_in)


@pytest.mark.parametrize("codec", [b"zlib_codec", b"idna", b"no_such_codec", b"utf-8"])
def test_other_codecs_are_refused(refused, codec):
    assert "refused _codecs.encode to" in refused(b"c_codecs\nencode\n(Vx\nV" + codec + b"\ntR.")


# --- files that are not what they should be ---


def test_truncated_anywhere(load, tmp_path):
    streams = {
        "text": b"(dS'a'\n" + array_text(VECTOR.tobytes()) + b"s.",
        "pickle": pickle.dumps({"a": VECTOR, "b": [np.float64(1)]}, 4),
        "joblib": joblib_stream(tmp_path, {"a": VECTOR}),
        **{
            name: compress(joblib_stream(tmp_path, {"a": VECTOR}))
            for name, compress in {"zlib": zlib.compress, "gzip": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}.items()
        },
    }  # fmt: skip
    for name, stream in streams.items():
        assert load(stream).keys() >= {"a"}, name
        for length in range(len(stream)):
            with pytest.raises(LabelError, match=r"^[^\n]*labels\.pkl: [^\n]+$") as caught:
                load(stream[:length])
            assert type(caught.value) is LabelError, (name, length)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 100,
        b"PK\x03\x04 zip",
        b"<html>\n<p>404</p>",
        b"version https://git-lfs.github.com/spec/v1\n",
        b"x\x9cnot zlib",
        b".",
    ],
)
def test_no_pickle(refused, data):
    assert "not a readable pickle or joblib file" in refused(data, LabelError)


def test_flipped_bytes_end_in_one_line_or_in_data(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "labels.pkl"
    stream = pickle.dumps({"a": VECTOR, "b": collections.defaultdict(int, {1: 2})}, 2)
    assert not any(opcode.name in ("LONG_BINPUT", "LONG4") for opcode, _, _ in pickletools.genops(stream))
    for _ in range(500):
        damaged = bytearray(stream)
        damaged[rng.integers(len(stream))] = rng.choice(list(b"abcdhiqstuRNKM(}].\x00\xff"))
        path.write_bytes(damaged)
        try:
            load_pickle(path)
        except LabelError as error:
            assert "\n" not in str(error)


def test_old_and_unsupported_formats_say_what_to_do(refused):
    assert "lz4" in refused(b"\x04\x22\x4d\x18 rest of it", LabelError)
    assert "before 0.10" in refused(b"ZF0x1f", LabelError)
    assert "before 0.10" in refused(b"csklearn.externals.joblib.numpy_pickle\nNDArrayWrapper\n.", LabelError)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(LabelError, match=r"gone\.pkl: No such file"):
        load_pickle(tmp_path / "gone.pkl")
    with pytest.raises(LabelError, match="directory"):
        load_pickle(tmp_path)
