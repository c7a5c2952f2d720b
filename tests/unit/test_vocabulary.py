import pytest

from attrtrain.errors import LabelError
from attrtrain.vocabulary import AttributeVocabulary

RECORDS = [
    {"id": 418, "name": "on ", "supercategory": "verb"},
    {"id": 408, "name": "tiny/ small", "supercategory": " size "},
    {"id": 416, "name": "furry"},
]


def test_records_in_any_order_come_out_by_id_with_names_stripped():
    for records in (RECORDS, RECORDS[::-1]):
        vocabulary = AttributeVocabulary.from_records(records)
        assert vocabulary.names == ("tiny/ small", "furry", "on")
        assert vocabulary.source_ids == (408, 416, 418)
        assert vocabulary.groups == ("size", "", "verb")
        assert len(vocabulary) == 3


def test_ids_are_sorted_as_numbers():
    records = [{"id": "10", "name": "b"}, {"id": "9", "name": "a"}]
    assert AttributeVocabulary.from_records(records).names == ("a", "b")


def test_names_keep_their_order():
    vocabulary = AttributeVocabulary.from_names(["b", " a "])
    assert vocabulary == AttributeVocabulary(("b", "a"), (0, 1), ("", ""))


@pytest.mark.parametrize(
    ("names", "ids", "groups", "message"),
    [
        (("a", "b"), (0,), ("", ""), "differ in number"),
        (("a", "b"), (0, 1), ("",), "differ in number"),
        ((), (), (), "no attributes"),
        (("a", "b", "a"), (0, 1, 2), ("",) * 3, "given twice: a;"),
        (("a", ""), (0, 1), ("", ""), "has no name"),
        (("a", "b"), (1, 1), ("", ""), "distinct and rising"),
        (("a", "b"), (2, 1), ("", ""), "distinct and rising"),
    ],
)
def test_what_is_no_vocabulary(names, ids, groups, message):
    with pytest.raises(LabelError, match=message):
        AttributeVocabulary(names, ids, groups)


def test_names_that_become_equal_when_stripped_are_refused():
    with pytest.raises(LabelError, match="given twice: on;"):
        AttributeVocabulary.from_names(["on", "on "])


def test_fingerprint():
    """SHA-256 of [[0,"furry"],[1,"stra\\u00dfe"]], by sha256sum. Groups are left out: they do not change what a column
    means.
    """
    vocabulary = AttributeVocabulary(("furry", "straße"), (0, 1), ("", ""))
    assert vocabulary.fingerprint == "769681c620fa11130b10379cc0107dba1e967f0d52257b4e8c8dc9a2910cfc16"
    assert AttributeVocabulary(("furry", "straße"), (0, 1), ("x", "")).fingerprint == vocabulary.fingerprint
    others = [(("straße", "furry"), (0, 1)), (("furry", "straße"), (0, 2)), (("furry", "strasse"), (0, 1))]
    assert len({AttributeVocabulary(*other, ("", "")).fingerprint for other in others} | {vocabulary.fingerprint}) == 4
