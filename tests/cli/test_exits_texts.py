"""`gatewise exits` on texts: an encoder in a folder, trained heads, evaluation, and what is refused."""

import json

import pytest

transformers = pytest.importorskip("transformers")

DESIGN = """
lam = [0.1]

[data]
kind = "jsonl"
folder = "FOLDER"

[backbone]
model = "MODEL"
length = 16

[training]
joint = false
warmup_epochs = 2

[policy]
name = "max_prob"
setting = 0.6
"""
WORDS = ("good", "bad", "day", "film", "food", "very")


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("encoder")
    vocabulary = {word: place for place, word in enumerate(("<pad>", "<unk>", *WORDS))}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", unk_token="<unk>", padding_side="left"
    ).save_pretrained(folder)
    transformers.set_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary), hidden_size=8, num_hidden_layers=3, num_attention_heads=2, intermediate_size=16
    )
    transformers.BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def data(tmp_path, encoder):
    rows = [
        {"text": f"{first} {' '.join(WORDS[2 : 3 + i % 4])}", "label": label}
        for i in range(60)
        for first, label in (("good", "yes"), ("bad", "no"))
    ]
    written(tmp_path / "train.jsonl", rows)
    written(tmp_path / "test.jsonl", rows[:20])
    config = tmp_path / "exits.toml"
    config.write_text(DESIGN.replace("FOLDER", str(tmp_path)).replace("MODEL", str(encoder)))
    return config


def test_an_encoder_answers_early(run, data, tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.chdir(tmp_path)
    data.write_text(data.read_text().replace(str(tmp_path), "."))
    trained = run("exits", "train", data, "--out", out)
    assert (trained.code, trained.err) == (0, "")
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert files == {"design.json", "exits/config.json", "exits/exits.safetensors", "gatewise-manifest.json"}
    # From another folder: the paths of the data and of the encoder are kept whole.
    monkeypatch.chdir("/")
    evaluated = run("exits", "evaluate", out, "--json")
    assert (evaluated.code, evaluated.err) == (0, "")
    found = json.loads(evaluated.out)
    assert (found["n"], found["exits"]) == (20, [f"encoder.layer.{i}" for i in range(3)])
    # The first word says the class.
    assert max(row["accuracy"] for row in found["rows"] if row["policy"] == "fixed") == 1.0


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('model = "', 'model = "none', "there is no model folder"),
        ('model = "MODEL"\n', "", "texts need an encoder: give its folder as backbone.model"),
        ('kind = "jsonl"', 'kind = "idx"', "backbone.model is an encoder of texts"),
        (
            "length = 16",
            'exits = "layers.*"',
            "no module's name matches 'layers.*': its lists of blocks are 'encoder.layer.*'",
        ),
        ("length = 16", "length = 1", "backbone.length"),
        ('folder = "', 'folder = "none', "train.jsonl cannot be read: no such file"),
    ],
)
def test_designs_of_texts_that_cannot_be_run(refused, data, encoder, tmp_path, old, new, said):
    old, new = (part.replace("MODEL", str(encoder)) for part in (old, new))
    text = data.read_text()
    assert old in text
    data.write_text(text.replace(old, new))
    assert said in refused("exits", "train", data, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("train", "", "train.jsonl has no rows"),
        ("train", '{"text": "a", "label": 0}\n', "has texts of one class only, '0'"),
        ("train", '\n{"text": "a", "label"\n', "line 2 of"),
        ("train", '{"text": "a"}\n', 'must have a "text" that is not empty and a "label"'),
        ("train", '{"text": " ", "label": 0}\n', 'must have a "text" that is not empty'),
        ("train", '["a", 0]\n', 'must have a "text" that is not empty'),
        ("train", '{"text": "good", "label": "yes"}\n{"text": "bad", "label": "no"}\n', "none are left for the"),
        ("test", '{"text": "a", "label": "perhaps"}\n', "has the class 'perhaps', which no row of the training data"),
        ("test", b"\xff\xfe", "test.jsonl is not UTF-8 text"),
    ],
)
def test_texts_that_cannot_be_read(refused, data, tmp_path, name, content, said):
    path = tmp_path / f"{name}.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert said in refused("exits", "train", data, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_tokenizer(refused, data, encoder, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((encoder / name).read_bytes())
    data.write_text(data.read_text().replace(str(encoder), str(bare)))
    assert "has no tokenizer" in refused("exits", "train", data, "--out", tmp_path / "out")
