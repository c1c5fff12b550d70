"""Documents from JSON lines, and batches of them."""

import pytest
import torch

from gatewise.exceptions import InputError
from gatewise.lora.data import Document, batches_of, load_base, read_documents
from tests.lora.texts import tokenizer


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"text": "a"}\n{"text": ', "line 2 of .* is no JSON.*it begins with"),
        ("[1]", "must be"),
        ('{"prompt": "a"}', "must be"),
        ('{"text": "a", "prompt": "b", "completion": "c"}', "must be"),
        ('{"text": 3}', "a text that is no text: 3"),
        ('{"text": ""}', "nothing to predict"),
        ('{"text": "a", "label": "b"}', "has 'label', and only text, prompt, completion, domain"),
        ("\n\n", "there are no documents"),
        ('{"text": "a"}\n{"text": "b", "domain": "x"}', "some documents .* have a domain and others none"),
        ("[" * 100_000, "is no JSON"),
    ],
)
def test_lines_that_are_no_documents(tmp_path, text, message):
    (tmp_path / "data.jsonl").write_text(text)
    with pytest.raises(InputError, match=message):
        read_documents(tmp_path / "data.jsonl")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_documents(tmp_path / "nothing")
    (tmp_path / "data.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot be read"):
        read_documents(tmp_path / "data.jsonl")


def test_documents_and_their_batches(tmp_path):
    (tmp_path / "data.jsonl").write_text(
        '{"text": "w0 w1 w2", "domain": "x"}\n\n{"prompt": "w3 w4", "completion": "w5", "domain": "y"}\n'
    )
    documents = read_documents(tmp_path / "data.jsonl")
    assert documents == [Document("", "w0 w1 w2", "x"), Document("w3 w4", "w5", "y")]
    (batch,) = batches_of(documents, tokenizer(), length=8, size=2, encoder_decoder=False)
    assert batch["input_ids"].tolist() == [[4, 5, 6], [7, 8, 9]]
    assert batch["labels"].tolist() == [[4, 5, 6], [-100, -100, 9]]
    first, second = batches_of(documents, tokenizer(), length=2, size=1, encoder_decoder=False)
    assert first["input_ids"].shape == second["input_ids"].shape == (1, 2)
    padded = batches_of([*documents, Document("", "w1")], tokenizer(), length=8, size=3, encoder_decoder=False)[0]
    assert padded["attention_mask"].sum(1).tolist() == [3, 3, 1]
    assert padded["labels"][2].tolist() == [5, -100, -100]
    coded = batches_of(documents[1:], tokenizer(), length=8, size=1, encoder_decoder=True)[0]
    assert coded["input_ids"].tolist() == [[7, 8]]
    assert torch.equal(coded["labels"], torch.tensor([[9]]))
    with pytest.raises(InputError, match="documents with a prompt"):
        batches_of(documents[:1], tokenizer(), length=8, size=1, encoder_decoder=True)
    with pytest.raises(InputError, match="length must be a whole number from 2 on"):
        batches_of(documents, tokenizer(), length=1, size=1, encoder_decoder=False)


def test_models_that_are_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot be loaded"):
        load_base(str(tmp_path))
