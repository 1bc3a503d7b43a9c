"""Records are kept in arrays that processes share."""

import pickle
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest

from lib.dataset.records import Annotation, People, Record, shared_images


def make_records(count: int, image: str = "{}.jpg") -> list[Record]:
    random = np.random.default_rng(0)
    return [
        Record(
            image.format(index),
            random.normal(size=2),
            random.normal(size=2),
            random.normal(size=(16, 2)).astype(np.float32),
            random.integers(0, 2, 16).astype(np.float32),
        )
        for index in range(count)
    ]


def assert_same(one: Record, other: Record) -> None:
    assert one.image == other.image
    for name in ("center", "scale", "joints", "visible"):
        a, b = getattr(one, name), getattr(other, name)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_array_equal(a, b)


def test_people_are_the_records() -> None:
    records = make_records(12)
    people = Annotation(records, Path("train.json")).records
    assert len(people) == 12
    for one, other in zip(people, records, strict=True):
        assert_same(one, other)
    assert_same(people[-1], records[11])
    for one, other in zip(people[8:2:-2], records[8:2:-2], strict=True):
        assert_same(one, other)
    for index in (12, -13):
        with pytest.raises(IndexError):
            people[index]


@pytest.mark.parametrize("name", ["a.jpg", "人/ü.jpg", "not\udcff unicode.jpg", 250 * "x", "a b "])
def test_names_are_kept(name: str) -> None:
    records = make_records(2) + make_records(1, name)
    assert [record.image for record in People(records)] == ["0.jpg", "1.jpg", name]


def test_processes_share_the_records() -> None:
    """A process that is spawned gets handles, however many people there are; all see one array."""
    annotation = Annotation(make_records(2000), Path("train.json"))
    sent = ForkingPickler.dumps(annotation)
    assert len(sent) < 10_000
    received = pickle.loads(sent)  # noqa: S301 - our own
    assert_same(received.records[1234], annotation.records[1234])
    annotation.records[1234].center[0] = 77
    assert received.records[1234].center[0] == 77
    assert len(pickle.dumps(annotation)) > 100_000  # without handles, as for another machine


def test_shared_images_are_found_by_their_path() -> None:
    train = Annotation(make_records(5), Path("annot/train.json"))
    test = Annotation(make_records(1, "sub/../3.jpg") + make_records(2, "x{}.jpg"), Path("t.json"))
    warning = shared_images(train, test)
    assert warning is not None
    assert "share 1 of 3 test images (3.jpg)" in warning
    assert "annot/train.json" in warning
    assert shared_images(train, Annotation(make_records(2, "x{}.jpg"), Path("t.json"))) is None
