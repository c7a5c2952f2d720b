"""`attrtrain export`: the file computes what PyTorch computes, says what it is, and is not there when it does not."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import simplejpeg
import torch
from PIL import Image

from attrtrain.bundle import Architecture, ModelCard, read_bundle, save_bundle
from attrtrain.cli import main
from attrtrain.config.schema import Head
from attrtrain.data.loader import CropDataset
from attrtrain.data.order import BatchRequest
from attrtrain.data.reader import ShardSet
from attrtrain.exporting import quantise
from attrtrain.framing import Framing
from attrtrain.models.network import build_network
from attrtrain.shards.manifest import VocabularyRecord
from attrtrain.vocabulary import AttributeVocabulary
from tests.bundles import draw_bundle as drawn_bundle

# Of torch 2.11 about memory of its own, where a test reads a file as its users do.
pytestmark = pytest.mark.filterwarnings("ignore:The given buffer is not writable")

SIDE = 32


@pytest.fixture(scope="session")
def bundle(toy_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_bundle(tmp_path_factory.mktemp("bundles") / "toy", toy_shards, "mlp")


def draw_bundle(folder: Path, toy_shards: Path, head: Head) -> Path:
    """A ResNet18 of random weights whose batch statistics are those of some toy crops, so that its logits depend on
    what it sees.
    """
    torch.manual_seed(0)
    shards = ShardSet([toy_shards], "train")
    card = ModelCard(
        architecture=Architecture(
            backbone="resnet18", head=head, hidden=16, dropout=0.5, mean=(0.5, 0.4, 0.45), std=(0.2, 0.25, 0.3)
        ),
        vocabulary=VocabularyRecord.of(shards.vocabulary),
        image_px=SIDE,
        crop=shards.crop,
        positive_at=0.5,
        precision="no",
        channels_last=False,
        data_fingerprint=shards.fingerprint,
        selected_on="val",
        metrics={"map": 0.25, "prior_map": 0.2},
        untrained=[shards.vocabulary.names[2]],
    )
    model = build_network(**card.architecture.model_dump(), attributes=len(card.vocabulary.names)).train()
    with torch.no_grad():
        for _ in range(20):
            model(torch.stack([torch.from_numpy(pixels(shards, position, SIDE)) for position in range(16)]))
        if head == "mlp":
            model.head[-1].weight.mul_(20)
    save_bundle(folder, model.state_dict(), card)
    return folder


def pixels(shards: ShardSet, position: int, side: int | None) -> np.ndarray:
    """A stored crop (3, H, W), squashed by Pillow, whose arithmetic torch's uint8 resize has."""
    image = Image.fromarray(simplejpeg.decode_jpeg(shards.jpeg(position), "RGB"))
    if side is not None:
        image = image.resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1).copy()


def export(*words: object) -> int:
    return main([str(word) for word in ("export", *words)])


@pytest.fixture(scope="session")
def files(bundle: Path, toy_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One export of each kind."""
    folder = tmp_path_factory.mktemp("exported")
    made = {}
    for name, flag, more in (
        ("fixed.onnx", "--onnx", ()),
        ("any_size.onnx", "--onnx", ("--preprocess",)),
        ("fixed.pt2", "--torch-export", ()),
        ("any_size.pt2", "--torch-export", ("--preprocess",)),
    ):
        made[name] = folder / name
        assert export("--model", bundle, flag, made[name], "--check", toy_shards, *more) == 0
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in made.values())
    return made


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="session")
def crops(toy_shards: Path) -> np.ndarray:
    """(17, 3, SIDE, SIDE) uint8."""
    shards = ShardSet([toy_shards], "val")
    return np.stack([pixels(shards, position, SIDE) for position in range(17)])


def expected_logits(bundle: Path, images: np.ndarray) -> np.ndarray:
    model, _ = read_bundle(bundle)
    with torch.inference_mode():
        return model(torch.from_numpy(images)).numpy()


@pytest.mark.parametrize("batch", [1, 3, 17])
def test_onnxruntime_gives_pytorchs_logits_in_any_batch(bundle, files, crops, batch):
    logits, scores = session(files["fixed.onnx"]).run(None, {"images": crops[:batch]})
    expected = expected_logits(bundle, crops[:batch])
    assert expected.std() > 0.5  # else nothing would be compared
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-expected)), atol=1e-5)


@pytest.mark.parametrize("batch", [1, 3, 17])
def test_a_loaded_program_gives_equal_logits_in_any_batch(bundle, files, crops, batch):
    logits, scores = torch.export.load(files["fixed.pt2"]).module()(torch.from_numpy(crops[:batch]))
    np.testing.assert_allclose(logits.detach(), expected_logits(bundle, crops[:batch]), atol=1e-6)
    assert torch.equal(scores, logits.sigmoid())


@pytest.mark.parametrize("size", [(90, 70), (20, 75), (32, 32), (7, 9), (1, 1), (401, 33)])
def test_preprocessing_inside_squashes_as_pillow_does(bundle, files, size):
    rng = np.random.default_rng(sum(size))
    images = rng.integers(0, 256, (3, 3, *size), dtype=np.uint8)
    squashed = [
        np.asarray(Image.fromarray(image.transpose(1, 2, 0)).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
        for image in images
    ]
    expected = expected_logits(bundle, np.stack(squashed).transpose(0, 3, 1, 2))
    by_onnx, _ = session(files["any_size.onnx"]).run(None, {"images": images})
    with torch.inference_mode():
        by_torch, _ = torch.export.load(files["any_size.pt2"]).module()(torch.from_numpy(images))
    # A level of one in 255 may be rounded the other way in a few pixels; tests/unit/exporting counts them.
    for logits in (by_onnx, by_torch.numpy()):
        assert np.abs(logits - expected).max() < 0.05 * np.abs(expected).max()


def test_the_model_is_valid_and_in_one_file_of_the_stated_opset(files):
    for name in ("fixed.onnx", "any_size.onnx"):
        model = onnx.load(files[name], load_external_data=False)
        onnx.checker.check_model(model, full_check=True)
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
        assert not any(tensor.data_location for tensor in model.graph.initializer)
        sizes = [part.dim_param or part.dim_value for part in model.graph.input[0].type.tensor_type.shape.dim]
        assert sizes == (["batch", 3, "height", "width"] if "any" in name else ["batch", 3, SIDE, SIDE])


def test_no_path_of_this_machine_is_in_a_file(files):
    here = str(Path(__file__).parents[2]).encode()
    for path in files.values():
        assert here not in path.read_bytes()


def test_a_file_says_what_it_is(bundle, files):
    card = json.loads((bundle / "model.json").read_text())
    extra = {"attrtrain.json": ""}
    torch.export.load(files["any_size.pt2"], extra_files=extra)
    records = {
        "fixed.onnx": session(files["fixed.onnx"]).get_modelmeta().custom_metadata_map["attrtrain"],
        "any_size.pt2": extra["attrtrain.json"],
    }
    for name, text in records.items():
        record = json.loads(text)
        assert record["attributes"] == card["vocabulary"]["names"] and record["card"] == card
        assert record["image_px"] == SIDE and record["resizes"] is ("any" in name)
        assert (record["mean"], record["std"]) == ([0.5, 0.4, 0.45], [0.2, 0.25, 0.3]) and record[
            "arithmetic"
        ] == "float32"
        assert set(record["outputs"]) == {"logits", "scores"} and "uint8 RGB" in record["input"]
        assert "categor" not in "".join(record)  # this model reads none


def test_a_model_that_looks_at_crops_alone_takes_nothing_else(files):
    for name in ("fixed.onnx", "any_size.onnx"):
        assert [one.name for one in session(files[name]).get_inputs()] == ["images"]
    for name in ("fixed.pt2", "any_size.pt2"):
        assert torch.export.load(files[name]).graph_signature.user_inputs == ("images",)


def test_the_documented_example_runs(files, tmp_path, toy_shards):
    text = (Path(__file__).parents[2] / "docs" / "export.md").read_text()
    code = re.search(r"```python\n(.*?any_size\.onnx.*?)```", text, re.DOTALL).group(1)
    (tmp_path / "any_size.onnx").symlink_to(files["any_size.onnx"])
    Image.fromarray(pixels(ShardSet([toy_shards], "val"), 0, None).transpose(1, 2, 0)).save(tmp_path / "crop.jpg")
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = ShardSet([toy_shards], "val").vocabulary.names
    told = eval(done.stdout)
    assert len(told) == 5 and told == sorted(told, reverse=True) and {name for _, name in told} < {*names} - {names[2]}


def test_what_is_printed(bundle, toy_shards, tmp_path, capsys):
    Image.fromarray(np.zeros((50, 40, 3), np.uint8)).save(tmp_path / "photo.png")
    words = ("--model", bundle, "--torch-export", tmp_path / "m.pt2")
    assert export(*words, "--preprocess", "--check", toy_shards, tmp_path / "photo.png") == 0
    printed = capsys.readouterr().out
    assert re.search(
        r"checked on \d+ crops of split 'val' and 1 photograph: .* differ .* by at most \S+ \(tolerance 0.01\)", printed
    )
    assert "resizing inside the file instead of as training does changes logits by at most" in printed
    assert export(*words) == 0
    assert "checked on drawn noise alone" in capsys.readouterr().out


def test_one_picture_to_check_on_is_checked_in_batches_too(bundle, tmp_path, capsys, monkeypatch):
    Image.fromarray(np.zeros((50, 40, 3), np.uint8)).save(tmp_path / "photo.png")
    truly, batches = torch.export.load, set()

    def watched(file):
        module = truly(file).module()

        def counted(images):
            batches.add(len(images))
            return module(images)

        return type("Loaded", (), {"module": lambda self: counted})()

    monkeypatch.setattr(torch.export, "load", watched)
    assert export("--model", bundle, "--torch-export", tmp_path / "m.pt2", "--check", tmp_path / "photo.png") == 0
    assert batches == {1, 3, 17}
    assert "checked on 1 photograph: " in capsys.readouterr().out


def refuse(capsys, out: Path, *words: object) -> str:
    """Runs the command, which must fail with one line, which it returns, and leave nothing."""
    before = sorted(out.parent.iterdir()) if out.parent.is_dir() else None
    assert export(*words) in (1, 2)
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("error: ") and printed.err.count("\n") == 1
    assert before is None or sorted(out.parent.iterdir()) == before
    return printed.err


def test_a_wrong_export_is_refused(bundle, toy_shards, tmp_path, capsys, monkeypatch):
    out = tmp_path / "model.onnx"
    truly = torch.onnx.export

    def wrongly(program, **options):
        exported = truly(program, **options)
        weight = next(
            tensor for tensor in exported.model.graph.initializers.values() if tensor.name.endswith("head.3.bias")
        )
        weight.const_value = onnx_ir_tensor(weight.const_value.numpy() + np.float32(0.01))
        return exported

    def onnx_ir_tensor(values):
        import onnx_ir

        return onnx_ir.tensor(values)

    monkeypatch.setattr(torch.onnx, "export", wrongly)
    line = refuse(capsys, out, "--model", bundle, "--onnx", out, "--check", toy_shards)
    assert "differ from PyTorch's by 0.01 on" in line and "more than 0.001" in line


def test_an_existing_file_survives_a_refusal(bundle, toy_shards, tmp_path, capsys, monkeypatch):
    out = tmp_path / "model.pt2"
    out.write_bytes(b"before")
    truly = torch.export.load

    def shifted(file):
        module = truly(file).module()
        return type("Loaded", (), {"module": lambda self: lambda images: (module(images)[0] * float("nan"),)})()

    monkeypatch.setattr(torch.export, "load", shifted)
    assert "by nan" in refuse(capsys, out, "--model", bundle, "--torch-export", out, "--check", toy_shards)
    assert out.read_bytes() == b"before"


def test_int8_tells_what_it_costs(bundle, toy_shards, tmp_path, capsys):
    out = tmp_path / "int8.onnx"
    assert export("--model", bundle, "--onnx", out, "--int8", "--calibrate", toy_shards) == 0
    printed = capsys.readouterr().out
    assert main(["evaluate", "--model", str(bundle), "--shards", str(toy_shards)]) == 0
    evaluated = re.search(r"mAP (\S+) (\[\S+ \S+\])", capsys.readouterr().out)
    plain, quantised = (
        re.search(rf"{name} +split 'val': mAP (\S+) (\[\S+ \S+\]) beside a prior of", printed)
        for name in ("float32", "int8")
    )
    assert plain.groups() == evaluated.groups()
    change = re.search(r"int8 changes mAP by (\S+) \[(\S+), (\S+)\]", printed)
    assert float(change[1]) == pytest.approx(float(quantised[1]) - float(plain[1]), abs=2e-4)
    assert float(change[2]) <= float(change[1]) <= float(change[3])
    assert re.search(r"on this machine, \d+ cores, batches of 32, it is \S+ times as fast", printed)
    filters = [tensor for tensor in onnx.load(out).graph.initializer if len(tensor.dims) == 4 and tensor.dims[0] > 1]
    kinds = {tensor.data_type for tensor in filters}
    assert kinds == {onnx.TensorProto.INT8}
    assert json.loads(session(out).get_modelmeta().custom_metadata_map["attrtrain"])["arithmetic"] == "int8"


def test_int8_keeps_logits_fine_and_the_resize_exact(bundle, toy_shards, tmp_path, crops):
    out = tmp_path / "int8.onnx"
    words = ("--model", bundle, "--onnx", out, "--int8", "--calibrate", toy_shards, "--preprocess")
    assert export(*words) == 0
    many = np.concatenate([crops, 255 - crops, crops[:, :, ::-1], crops[:, :, :, ::-1], crops.transpose(0, 1, 3, 2)])
    logits, scores = session(out).run(None, {"images": many})
    expected = expected_logits(bundle, many)
    assert np.corrcoef(logits.ravel(), expected.ravel())[0, 1] > 0.98
    assert len(np.unique(scores[:, 0])) > 0.9 * len(np.unique(expected[:, 0]))
    before = [node.op_type for node in onnx.load(out).graph.node]
    assert "QuantizeLinear" not in before[: before.index("Resize") + 1]


def test_int8_keeps_the_logits_of_attribute_queries_fine(toy_shards, tmp_path, crops):
    """Their last layer is a product that no 256 levels may come out of either."""
    folder, out = draw_bundle(tmp_path / "decoder", toy_shards, "ml_decoder"), tmp_path / "int8.onnx"
    assert export("--model", folder, "--onnx", out, "--int8", "--calibrate", toy_shards) == 0
    _, scores = session(out).run(None, {"images": crops})
    assert np.allclose(scores, 1 / (1 + np.exp(-expected_logits(folder, crops))), atol=0.05)
    assert min(len(np.unique(column)) for column in scores.T) == len(crops)
    # Weights of attention as they come: each is few of 256 levels, and some runtimes take that of an only place for 0.
    nodes = onnx.load(out).graph.node
    weights = {output for node in nodes if node.op_type == "Softmax" for output in node.output}
    assert [node.op_type for node in nodes if weights & set(node.input)] == ["MatMul"]


def test_a_model_that_sees_padded_parts_of_crops_is_judged_and_described_as_such(
    wide_shards, tmp_path, capsys, monkeypatch
):
    """Stored with a context of 0.5, seen with 0.1, padded, enlarged or shrunk bicubically."""
    shards = ShardSet([wide_shards], "val")
    framing = Framing(context=0.1, fit="pad", interpolation="bicubic")
    record = VocabularyRecord.of(shards.vocabulary)
    folder = drawn_bundle(
        tmp_path / "b", shards.vocabulary.names, crop=shards.crop, framing=framing, vocabulary=record, positive_at=0.8
    )
    seen = []
    truly = quantise._CalibrationCrops.get_next

    def watched(self):
        seen.append(truly(self))
        return seen[-1]

    monkeypatch.setattr(quantise._CalibrationCrops, "get_next", watched)
    out = tmp_path / "int8.onnx"
    assert export("--model", folder, "--onnx", out, "--int8", "--calibrate", wide_shards, "--preprocess") == 0
    printed = capsys.readouterr().out
    judged = {
        name: re.search(rf"{name} +split 'val': mAP (\S+) (\[\S+ \S+\])", printed).groups()
        for name in ("float32", "int8")
    }
    assert main(["evaluate", "--model", str(folder), "--shards", str(wide_shards)]) == 0
    assert judged["float32"] == re.search(r"mAP (\S+) (\[\S+ \S+\])", capsys.readouterr().out).groups()
    change = float(re.search(r"int8 changes mAP by (\S+) ", printed)[1])
    assert change == pytest.approx(float(judged["int8"][0]) - float(judged["float32"][0]), abs=2e-4)
    # Ranges are those of crops of the training split as the network sees them.
    training = ShardSet([wide_shards], "train")
    images = np.concatenate([batch["images"] for batch in seen if batch is not None])
    chosen = np.linspace(0, len(training) - 1, min(len(training), 256)).astype(int)
    expected = CropDataset(training, SIDE, framing=framing)[BatchRequest(0, chosen, chosen)].image.numpy()
    np.testing.assert_array_equal(images, expected)
    told = json.loads(session(out).get_modelmeta().custom_metadata_map["attrtrain"])["input"]
    assert (
        "of any size, which is padded with RGB (124, 116, 104) to a square and resized to 32 x 32 inside, bicubic with "
        "antialiasing, with a context of 0.1 of the box's sides; one object's crop each" in told
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--onnx", "OUT", "--int8"), "--int8 and --calibrate SHARDS are given together"),
        (("--onnx", "OUT", "--calibrate", "SHARDS"), "--int8 and --calibrate SHARDS are given together"),
        (("--torch-export", "OUT", "--int8", "--calibrate", "SHARDS"), "--int8 quantises an ONNX model"),
        (("--onnx", "OUT/absent/m.onnx"), "there is no folder"),
        (("--onnx", "SHARDS"), "is a folder"),
        (("--torch-export", "/proc/m.pt2"), "/proc/m.pt2: "),
        (("--torch-export", "OUT"), "end in .pt2"),
        (("--onnx", "OUT", "--model", "SHARDS"), "no bundle here"),
        (("--onnx", "OUT", "--check", "absent.jpg"), "absent.jpg: neither shards nor a photograph"),
        (("--onnx", "OUT", "--check", __file__), "no picture of a known format"),
        (("--onnx", "OUT", "--check", "SHARDS", "--split", "dev"), "no sample in split 'dev'"),
    ],
)
def test_what_cannot_be_done_is_one_line(bundle, toy_shards, tmp_path, capsys, words, message):
    places = {"OUT": tmp_path / "m.onnx", "SHARDS": toy_shards}
    given = [str(places.get(word) or word.replace("OUT/", f"{tmp_path}/")) for word in words]
    line = refuse(capsys, tmp_path / "m.onnx", "--model", bundle, *given)
    assert message in line


def test_shards_of_other_attributes_are_refused(bundle, toy_shards, tmp_path, capsys):
    model, card = read_bundle(bundle)
    record = VocabularyRecord.of(
        AttributeVocabulary.from_names([f"other {n}" for n in range(len(card.vocabulary.names))])
    )
    other = tmp_path / "other"
    save_bundle(other, model.state_dict(), card.model_copy(update={"vocabulary": record}))
    out = tmp_path / "m.onnx"
    assert "has other attributes than the model" in refuse(
        capsys, out, "--model", other, "--onnx", out, "--check", toy_shards
    )


def test_a_missing_extra_is_one_line_before_anything_slow(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    line = refuse(capsys, tmp_path / "m.onnx", "--model", "absent", "--onnx", tmp_path / "m.onnx")
    assert "pip install 'attrtrain[export]'" in line


def test_shards_without_a_split_to_calibrate_on_are_told_before_anything_slow(tmp_path, capsys, monkeypatch):
    (tmp_path / "photos").mkdir()
    rows = ["file_name,x,y,w,h,split,red"]
    for number in range(3):
        Image.new("RGB", (40, 40), (80 * number, 0, 0)).save(tmp_path / "photos" / f"{number}.png")
        rows.append(f"{number}.png,4,4,30,30,val,{number % 2}")
    (tmp_path / "boxes.csv").write_text("\n".join(rows))
    shards = tmp_path / "shards"
    given = ["--labels", tmp_path / "boxes.csv", "--images", tmp_path / "photos", "--out", shards, "--workers", "1"]
    assert main(["shard", *map(str, given)]) == 0
    capsys.readouterr()
    monkeypatch.setattr("attrtrain.exporting.graph.export_program", lambda *_: pytest.fail("work for nothing"))
    drawn_bundle(tmp_path / "b", ["red"])
    out = tmp_path / "m.onnx"
    line = refuse(capsys, out, "--model", tmp_path / "b", "--onnx", out, "--int8", "--calibrate", shards)
    assert "no sample in split 'train'" in line


def test_a_folder_that_may_not_be_written_to_is_told_before_anything_slow(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("attrtrain.bundle.read_bundle", lambda *_: pytest.fail("work for nothing"))
    monkeypatch.setattr("attrtrain.urls.os.access", lambda *_: False)  # root may write to whatever mode forbids
    out = tmp_path / "m.pt2"
    line = refuse(capsys, out, "--model", "absent", "--torch-export", out)
    assert line == f"error: {out}: cannot be written into {tmp_path}: Permission denied\n"


def test_help_imports_nothing_heavy():
    script = (
        "import sys\nfrom attrtrain.cli import main\ntry: main(['export', '--help'])\nexcept SystemExit: pass\n"
        "print([name for name in ('torch', 'numpy', 'onnx', 'onnxruntime', 'pydantic') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr == "[]\n" and "--calibrate SHARDS" in done.stdout
