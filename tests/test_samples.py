"""Data of every kind become the same numbered samples, whatever the batch size."""

from __future__ import annotations

import pickle
import re
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as npst
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import sparse
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from collapsekit.errors import InputError, Unavailable
from collapsekit.samples import (
    Batch,
    Inputs,
    Samples,
    as_samples,
    concatenate,
    map_tensors,
    rows_of,
    take_rows,
)

N = 11
X = np.arange(N * 6, dtype=np.float32).reshape(N, 6)
Y = np.arange(N) % 3
IMAGES = (np.arange(N * 4 * 5).reshape(N, 4, 5) % 256).astype(np.uint8)


class Pairs(Dataset[Any]):
    """Map-style: (x, y)."""

    def __len__(self) -> int:
        return N

    def __getitem__(self, i: int) -> Any:
        if not 0 <= i < N:
            raise IndexError(i)
        return X[i], int(Y[i])


class Mappings(Pairs):
    def __getitem__(self, i: int) -> Any:
        return {"image": torch.from_numpy(IMAGES[i]), "label": f"c{Y[i]}", "path": f"{i}.png"}


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter((torch.from_numpy(X[i]), torch.tensor(Y[i])) for i in range(N))


class Batches:
    """An iterable of batches of lengths 4, 0, 5, 2 that is no torch class."""

    def __iter__(self) -> Iterator[Any]:
        for rows in (slice(0, 4), slice(4, 4), slice(4, 9), slice(9, N)):
            yield [X[rows], Y[rows]]


def all_of(samples: Samples, size: int, *stretch: int) -> Batch:
    parts = list(samples.batches(size, *stretch))
    assert all(len(part.index) == size for part in parts[:-1])
    assert all(rows_of(part.x) == len(part.index) for part in parts)
    labels = [part.labels for part in parts]
    return Batch(
        index=np.concatenate([part.index for part in parts]),
        x=concatenate([part.x for part in parts]),
        labels=None if labels[0] is None else np.concatenate(labels),  # type: ignore[arg-type]
    )


def assert_same(x: Inputs, y: Inputs) -> None:
    if isinstance(x, torch.Tensor):
        assert isinstance(y, torch.Tensor)
        assert x.dtype == y.dtype
        torch.testing.assert_close(x, y, rtol=0, atol=0)
    elif isinstance(x, tuple):
        for one, other in zip(x, y, strict=True):
            assert_same(one, other)
    else:
        assert list(x) == list(y)
        for key in x:
            assert_same(x[key], y[key])  # type: ignore[call-overload]


def fails(*words: str) -> Any:
    """The message has all its four lines, and these words in order."""
    shape = r"got:[\s\S]*expected:[\s\S]*do:"
    pattern = r"[\s\S]*".join(map(re.escape, words))
    return pytest.raises(InputError, match=rf"(?=[\s\S]*{shape})[\s\S]*{pattern}")


# --- the same samples, however they are cut -------------------------------------------------------

SOURCES: dict[str, Callable[[], Any]] = {
    "array": lambda: X,
    "tensor": lambda: torch.from_numpy(X),
    "list": lambda: X.tolist(),
    "list of arrays": lambda: list(X),
    "list of tensors": lambda: list(torch.from_numpy(X)),
    "list of pairs": lambda: list(zip(X, Y, strict=True)),
    "pair": lambda: (X, Y),
    "mapping": lambda: {"x": X, "labels": Y},
    "conditional": lambda: {"x": X, "condition": np.eye(3)[Y]},
    "TensorDataset": lambda: TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)),
    "Dataset": Pairs,
    "Dataset of mappings": Mappings,
    "Subset": lambda: Subset(Pairs(), list(range(N))),
    "IterableDataset": Stream,
    "iterable of batches": Batches,
    "DataLoader": lambda: DataLoader(Pairs(), batch_size=4),
    "DataLoader of mappings": lambda: DataLoader(Mappings(), batch_size=3),
    "DataLoader of samples": lambda: DataLoader(TensorDataset(torch.from_numpy(X)), batch_size=5),
    "shuffling DataLoader": lambda: DataLoader(Pairs(), batch_size=4, shuffle=True),
    "DataLoader of a stream": lambda: DataLoader(Stream(), batch_size=4),
}


@pytest.mark.parametrize("name", SOURCES)
def test_samples_do_not_depend_on_the_cut(name: str) -> None:
    samples = as_samples(SOURCES[name]())
    assert isinstance(samples, Samples)
    whole = all_of(samples, N + 5)
    assert samples.size == N
    np.testing.assert_array_equal(whole.index, np.arange(N))
    assert whole.index.dtype == np.int64
    for size in (1, 2, 4, N):
        again = all_of(samples, size)
        assert_same(again.x, whole.x)
        np.testing.assert_array_equal(again.index, whole.index)
        np.testing.assert_array_equal(again.labels, whole.labels)
    middle = all_of(samples, 2, 3, 8)
    np.testing.assert_array_equal(middle.index, np.arange(3, 8))
    assert_same(middle.x, take_rows(whole.x, slice(3, 8)))
    if whole.labels is not None:
        np.testing.assert_array_equal(middle.labels, whole.labels[3:8])
    assert list(samples.batches(2, N, 99)) == []
    assert list(samples.batches(2, 4, 4)) == []


@pytest.mark.parametrize("name", SOURCES)
def test_take_reads_by_number(name: str) -> None:
    samples = as_samples(SOURCES[name]())
    index = np.array([7, 0, 7, 10])
    if not samples.random_access:
        with pytest.raises(Unavailable, match=r"in their order only[\s\S]*expected:[\s\S]*do:"):
            samples.take(index)
        return
    whole = all_of(samples, N).x
    assert_same(samples.take(index), take_rows(whole, index))
    assert rows_of(samples.take(np.array([], dtype=int))) == 0
    with fails("no such sample", "got:      sample number 11", "0 to 10"):
        samples.take(np.array([0, 11]))
    with fails("no such sample", "sample number -1"):
        samples.take(np.array([-1]))
    with fails("not a list of integers", "bool", "flatnonzero"):
        samples.take(np.ones(N, dtype=bool))


@given(
    data=npst.arrays(
        npst.integer_dtypes(endianness="?") | npst.floating_dtypes(endianness="?", sizes=(32, 64)),
        npst.array_shapes(min_dims=1, max_dims=4, max_side=5),
        elements={"min_value": 0, "max_value": 100},
    ),
    size=st.integers(1, 7),
    flip=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_array_keeps_its_values(data: np.ndarray, size: int, flip: bool) -> None:
    data = data[::-1] if flip else np.asfortranarray(data)
    data.flags.writeable = False
    samples = as_samples(data)
    got = concatenate([batch.x for batch in samples.batches(size)])
    assert isinstance(got, torch.Tensor)
    divisor = 255 if data.dtype == np.uint8 and data.ndim >= 3 else 1
    expected = data / np.float32(255) if divisor == 255 else data
    np.testing.assert_array_equal(got.numpy(), expected)
    assert got.is_contiguous()


@given(
    lengths=st.lists(st.integers(0, 6), min_size=1, max_size=8),
    size=st.integers(1, 9),
    start=st.integers(0, 20),
    length=st.integers(0, 40),
)
@settings(max_examples=80, deadline=None)
def test_a_stream_of_any_batches_is_cut_right(
    lengths: list[int], size: int, start: int, length: int
) -> None:
    total = sum(lengths)
    ends = np.cumsum(lengths)

    class Source:
        def __iter__(self) -> Iterator[Any]:
            for n, end in zip(lengths, ends, strict=True):
                rows = torch.arange(end - n, end, dtype=torch.float64)
                yield {"x": rows[:, None], "c": rows[:, None, None] * 2}

    samples = as_samples(Source())
    if total == 0:
        with fails("holds no samples", "N = 0"):
            list(samples.batches(size))
        return
    wanted = range(start, min(start + length, total))
    batches = list(samples.batches(size, start, start + length))
    assert [len(b.index) for b in batches[:-1]] == [size] * (len(batches) - 1)
    assert [i for b in batches for i in b.index] == list(wanted)
    for batch in batches:
        assert isinstance(batch.x, dict)
        np.testing.assert_array_equal(batch.x["x"][:, 0], batch.index)
        np.testing.assert_array_equal(batch.x["c"][:, 0, 0], 2 * batch.index)


def test_a_size_and_a_stretch_are_checked_before_reading() -> None:
    samples = as_samples(X)
    with fails("at least one sample", "batch size 0"):
        samples.batches(0)
    with fails("ends before it begins", "start 3, stop 2"):
        samples.batches(1, 3, 2)
    with fails("ends before it begins", "start -1"):
        as_samples(Batches()).batches(1, -1)


def test_a_short_stretch_of_a_stream_reads_no_further() -> None:
    read = []

    class Source:
        def __iter__(self) -> Iterator[Any]:
            for i in range(100):
                read.append(i)
                yield torch.zeros(2, 1)

    assert len(list(as_samples(Source()).batches(2, 0, 4))) == 2
    assert read == [0, 1]


# --- labels and what the model is fed -------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["list of pairs", "pair", "mapping", "TensorDataset", "Dataset", "DataLoader", "Subset",
             "IterableDataset", "iterable of batches", "DataLoader of a stream"],
)  # fmt: skip
def test_labels_are_found(name: str) -> None:
    whole = all_of(as_samples(SOURCES[name]()), 4)
    np.testing.assert_array_equal(whole.labels, Y)
    assert_same(whole.x, torch.from_numpy(X))


@pytest.mark.parametrize("name", ["Dataset of mappings", "DataLoader of mappings"])
def test_words_are_labels_and_other_text_is_left_out(name: str) -> None:
    samples = as_samples(SOURCES[name]())
    whole = all_of(samples, 4)
    assert whole.labels.tolist() == [f"c{y}" for y in Y]
    assert_same(whole.x, torch.from_numpy(IMAGES) / 255)
    assert "the part 'path' is text and was left out" in samples.notes
    assert "uint8 images were divided by 255" in samples.notes


def test_a_label_argument_wins() -> None:
    words = pd.Series([f"w{i}" for i in range(N)])
    for name in set(SOURCES) - {"shuffling DataLoader"}:
        samples = as_samples(SOURCES[name](), words)
        assert all_of(samples, 3).labels.tolist() == words.tolist(), name
        assert all_of(samples, 3, 2, 7).labels.tolist() == words.tolist()[2:7], name


@pytest.mark.parametrize("key", ["x", "data", "image", "images", "input", "pixel_values", "X"])
def test_one_tensor_of_a_known_name_is_fed_alone(key: str) -> None:
    assert_same(all_of(as_samples({key: X, "target": Y}), N).x, torch.from_numpy(X))


def test_other_mappings_and_tuples_are_fed_whole() -> None:
    conditional = all_of(as_samples({"x": X, "condition": X[:, :2], "y": Y}), N)
    assert list(conditional.x) == ["x", "condition", "y"]
    np.testing.assert_array_equal(conditional.labels, Y)
    unknown = all_of(as_samples({"counts": X}), N)
    assert list(unknown.x) == ["counts"]
    one_hot = all_of(as_samples((X, np.eye(3)[Y])), N)
    assert isinstance(one_hot.x, tuple)
    assert one_hot.labels is None
    several_steps = all_of(as_samples({"x": X, "labels": X}), N)  # a sequence model's targets
    assert list(several_steps.x) == ["x", "labels"]
    assert several_steps.labels is None


@pytest.mark.parametrize(
    "labels, got",
    [
        (Y[:-1], "10 labels for 11 samples"),
        (np.eye(3)[Y], "shape [11, 3]"),
        (5, "int"),
        ([1, None] * 5 + [1], "dtype object"),
        ([[1], [2, 3]], "list"),
    ],
)
def test_bad_labels(labels: Any, got: str) -> None:
    with fails("labels", got):
        as_samples(X, labels)
    with fails("labels", got):
        as_samples(Pairs(), labels)
    with fails("labels", got):
        list(as_samples(Stream(), labels).batches(3))


def test_labels_beside_a_shuffling_loader_are_refused() -> None:
    with fails("order of its own", "RandomSampler", "shuffle=False"):
        as_samples(DataLoader(Pairs(), shuffle=True), Y)
    with fails("made before", "as_samples(data, labels)"):
        as_samples(as_samples(X), Y)


def test_samples_pass_through() -> None:
    samples = as_samples(X)
    assert as_samples(samples) is samples


# --- dtypes, and what is told about them ----------------------------------------------------------


@pytest.mark.parametrize(
    "data, dtype, note",
    [
        (IMAGES, torch.float32, "uint8 images were divided by 255"),
        (IMAGES > 9, torch.float32, "bool images were read as 0 and 1"),
        (IMAGES[:, 0], torch.uint8, "uint8 values stay integers, as token ids"),
        (IMAGES[:, 0] > 9, torch.bool, "bool values stay bool"),
        (Y.astype(np.int32), torch.int32, "int32 values stay integers"),
        (IMAGES.astype(np.uint16), torch.int64, "uint16 values stay integers"),
        (X.astype(np.float16), torch.float32, "float16 was read as float32"),
        (torch.from_numpy(X).bfloat16(), torch.float32, "bfloat16 was read as float32"),
        (X.astype(np.longdouble), torch.float64, "was read as float64"),
        (X.astype(np.float64), torch.float64, None),
        (X.astype(">f4"), torch.float32, None),
        (X, torch.float32, None),
    ],
)
def test_the_dtype_rule(data: Any, dtype: torch.dtype, note: str | None) -> None:
    forms = [data] if isinstance(data, torch.Tensor) else [data, list(data)]
    if isinstance(data, np.ndarray) and data.dtype.isnative and data.dtype.itemsize <= 8:
        forms.append(torch.from_numpy(data))
    values = [all_of(as_samples(form), 4) for form in forms]
    for form, value in zip(forms, values, strict=True):
        assert value.x.dtype == dtype
        assert_same(value.x, values[0].x)
        notes = as_samples(form).notes
        assert len(notes) == (note is not None)
        assert note is None or note in notes[0]
    assert_same(as_samples(data).take(np.arange(N)), values[0].x)


def test_images_are_divided_alike_by_every_library() -> None:
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    for data in (every, torch.from_numpy(every), [every[0]], [Image.fromarray(every[0])]):
        x = all_of(as_samples(data), 1).x
        np.testing.assert_array_equal(x.numpy(), every.astype(np.float32) / np.float32(255))


@pytest.mark.parametrize(
    "data, description",
    [
        (X, "array float32 [11, 6]"),
        (torch.from_numpy(IMAGES), "tensor uint8 [11, 4, 5]"),
        ({"x": X, "c": Y[:, None]}, "array x float32 [11, 6], c int64 [11, 1]"),
        (X.tolist(), "list float64 [11, 6]"),
        (Pairs(), "Pairs float32 [11, 6]"),
        (TensorDataset(torch.from_numpy(X)), "TensorDataset float32 [11, 6]"),
    ],
)
def test_descriptions(data: Any, description: str) -> None:
    assert as_samples(data).description == description


def test_a_stream_learns_its_size_by_a_pass() -> None:
    samples = as_samples(Stream())
    assert samples.size is None
    assert samples.description == "Stream"
    list(samples.batches(3, 0, 2))
    assert samples.size is None
    assert samples.description == "Stream float32 [N, 6]"
    list(samples.batches(3))
    assert samples.size == N


# --- nothing that was handed over is written to; nothing is shared --------------------------------


@pytest.mark.parametrize("name", SOURCES)
def test_a_model_that_writes_to_its_input_changes_nothing(name: str) -> None:
    before = X.copy(), IMAGES.copy()
    samples = as_samples(SOURCES[name]())
    first = all_of(samples, 4).x
    for batch in samples.batches(4):
        map_tensors(lambda tensor: tensor.fill_(1), batch.x)
    if samples.random_access:
        map_tensors(lambda tensor: tensor.fill_(1), samples.take(np.arange(3)))
    np.testing.assert_array_equal(X, before[0])
    np.testing.assert_array_equal(IMAGES, before[1])
    assert_same(all_of(samples, 4).x, first)


def test_the_whole_array_is_not_copied(tmp_path: Path) -> None:
    path = tmp_path / "zeros.npy"
    rows, columns = 20_000, 5_000  # 400 MB of holes
    np.lib.format.open_memmap(path, "w+", dtype=np.float32, shape=(rows, columns)).flush()
    samples = as_samples(path)
    tracemalloc.start()  # NumPy reports its allocations to it
    try:
        assert float(next(samples.batches(64)).x.sum()) == 0
        assert samples.take(np.array([19_999, 5])).shape == (2, 5_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 64 * columns * 4 <= peak < 3 * 64 * columns * 4


def test_odd_strides_come_out_plain() -> None:
    # ascontiguousarray of this counts as contiguous and channels_last at once; .view() then fails.
    grey = np.ascontiguousarray(np.ones((N, 1, 4, 4), np.float32).transpose(0, 2, 3, 1))
    grey = grey.transpose(0, 3, 1, 2)
    colour = torch.zeros(N, 3, 4, 4).to(memory_format=torch.channels_last)
    alone = torch.zeros(N, 1, 4, 4).to(memory_format=torch.channels_last)
    bits = (grey > 0).astype(np.uint8)
    for data in (grey, colour, alone, bits, torch.from_numpy(bits)):
        samples = as_samples(data)
        x = next(samples.batches(4)).x
        assert x.stride() == torch.empty(x.shape).stride()
        taken = samples.take(np.arange(4))
        assert taken.stride() == x.stride()


def test_a_gradient_is_left_behind() -> None:
    x = torch.ones(3, 2, requires_grad=True) * 2
    assert not next(as_samples(x).batches(2)).x.requires_grad


def test_global_randomness_is_not_touched() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    for name in SOURCES:
        all_of(as_samples(SOURCES[name]()), 4)
    assert torch.equal(torch.rand(2), expected)


def test_a_shuffling_loader_has_one_order() -> None:
    samples = as_samples(SOURCES["shuffling DataLoader"]())
    first = all_of(samples, 4)
    torch.manual_seed(8)
    assert_same(all_of(samples, 3).x, first.x)
    assert sorted(first.x[:, 0].tolist()) == X[:, 0].tolist()
    assert first.x[:, 0].tolist() != X[:, 0].tolist()
    np.testing.assert_array_equal(first.labels, (first.x[:, 0].numpy() / 6) % 3)
    assert samples.notes == (
        "the DataLoader shuffles: samples are numbered in the order in which they came",
    )


def test_augmentation_is_told() -> None:
    class Augmented(Pairs):
        def __getitem__(self, i: int) -> Any:
            return torch.from_numpy(X[i]) + torch.rand(6)

    assert as_samples(Augmented()).notes == (
        "sample 0 differed between two readings: switch augmentation off",
    )
    nan = np.full((3, 2), np.nan)
    assert as_samples(Subset(TensorDataset(torch.from_numpy(nan)), [0, 1, 2])).notes == ()


def test_dropped_samples_are_told() -> None:
    samples = as_samples(DataLoader(Pairs(), batch_size=4, drop_last=True))
    assert samples.size == 8
    assert samples.notes == ("drop_last=True left out the last 3 of 11 samples",)
    assert len(all_of(samples, 3).index) == 8
    with fails("no such sample", "0 to 7"):
        samples.take(np.array([8]))


def test_a_loader_that_filters_is_refused() -> None:
    def keep_even(items: list[Any]) -> Any:
        return torch.utils.data.default_collate([item for item in items if item[0][0] % 2 == 0][:3])

    samples = as_samples(DataLoader(Pairs(), batch_size=4, collate_fn=keep_even))
    with fails("other samples than its Dataset holds", "9 samples", "11", "Subset"):
        list(samples.batches(4))


# --- arrays of other frameworks -------------------------------------------------------------------


class OnlyDLPack:
    """An array of a library that speaks DLPack and nothing else."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


class OnlyArray:
    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return X[::-1]


def test_dlpack_and_array_interfaces() -> None:
    # In torch.from_dlpack a negative stride would abort this process.
    for array in (X, X[::-1], X[:, ::-2]):
        got = all_of(as_samples(OnlyDLPack(array)), 4).x
        np.testing.assert_array_equal(got.numpy(), array)
    np.testing.assert_array_equal(all_of(as_samples(OnlyArray()), 4).x.numpy(), X[::-1])


def test_data_frames() -> None:
    frame = pd.DataFrame(X.astype(np.float64))
    assert_same(all_of(as_samples(frame), 4).x, torch.from_numpy(X).double())
    with fails("holds Python objects", "dtype object", "to numbers"):
        as_samples(frame.assign(name="a"))


def test_jax_arrays() -> None:
    jnp = pytest.importorskip("jax.numpy")
    assert_same(all_of(as_samples(jnp.asarray(X)), 4).x, torch.from_numpy(X))
    half = as_samples(jnp.asarray(X, dtype=jnp.bfloat16))
    assert all_of(half, 4).x.dtype == torch.float32
    assert half.notes == ("bfloat16 was read as float32",)


# --- bad data -------------------------------------------------------------------------------------


class NoLength(Dataset[Any]):
    def __getitem__(self, i: int) -> Any:
        return X[i]


@pytest.mark.parametrize(
    "data, words",
    [
        (X[:0], ["holds no samples", "N = 0"]),
        ([], ["holds no samples", "N = 0"]),
        (Subset(Pairs(), []), ["holds no samples", "N = 0"]),
        (X[:, :0], ["hold no values", "float32 [11, 0]"]),
        (np.float32(3), ["single number", "0-d", "array[None]"]),
        (torch.tensor(3.0), ["single number", "0-d"]),
        ([[1, 2], [3, 4], [5]], ["ragged", "sample 0 [2], sample 2 [1]", "pad or crop"]),
        ([np.zeros(2), np.zeros(3)], ["ragged", "sample 0 [2], sample 1 [3]"]),
        ([torch.zeros(2, 3), torch.zeros(2, 4)], ["ragged", "sample 0 [2, 3], sample 1 [2, 4]"]),
        (np.array([{}, 1]), ["holds Python objects", "dtype object"]),
        (["a", "b"], ["holds text", "dtype <U1", "token ids"]),
        (np.zeros(3, "M8[s]"), ["holds dates"]),
        (np.zeros(3, [("a", "f4")]), ["holds records", "mapping of arrays"]),
        (X.astype(complex), ["complex", "complex128 [11, 6]", "real numbers"]),
        (torch.zeros(2, 2, dtype=torch.complex64), ["complex", "complex64 [2, 2]"]),
        (np.ma.masked_less(X, 3), ["masked", "3 masked of 66", "filled"]),
        (sparse.csr_matrix(X), ["sparse", "csr_matrix", "toarray()"]),
        (torch.eye(3).to_sparse(), ["sparse", "torch.sparse_coo", "to_dense()"]),
        ({"x": X, "c": X[:-1]}, ["same number of samples", "x 11, c 10", "align"]),
        ({"x": X, "scale": 0.5}, ["the part 'scale' of data is a single number", "0-d"]),
        ({"x": X, "c": [[1], [2, 3]]}, ["the part 'c' of data is ragged"]),
        ({"name": ["a", "b"]}, ["no tensor in the data"]),
        ({}, ["no tensor in the data"]),
        ((X, Y[:-1]), ["same number of samples", "0 11, 1 10"]),
        (NoLength(), ["does not say how many", "NoLength without __len__"]),
        ((row for row in X), ["read only once", "generator", "__iter__ starts anew"]),
        (7, ["of a kind that is not read", "int", "numpy.asarray"]),
        (None, ["of a kind that is not read", "NoneType"]),
    ],
)  # fmt: skip
def test_bad_data(data: Any, words: list[str]) -> None:
    with fails(*words):
        as_samples(data)


def test_samples_that_do_not_look_alike_are_named() -> None:
    ragged = [(X[0], 0), (X[1], 1), (X[2, :4], 2)]
    with fails("do not look alike", "sample 0: shape [6]; sample 2: shape [4]", "pad or crop"):
        list(as_samples(ragged).batches(3))
    with fails("do not look alike", "sample 0: mapping of x; sample 1: mapping of y"):
        list(as_samples([{"x": X[0]}, {"y": X[0]}]).batches(2))


def test_batches_of_different_shape_are_refused() -> None:
    class Padded:
        def __iter__(self) -> Iterator[Any]:
            yield torch.zeros(2, 5)
            yield torch.zeros(2, 7)

    with fails("do not fit together", "float32 [2, 5], then float32 [1, 7]", "pad or crop"):
        list(as_samples(Padded()).batches(3))


def test_data_that_reading_uses_up() -> None:
    class Once:
        left = 2

        def __iter__(self) -> Iterator[Any]:
            while self.left:
                self.left -= 1
                yield torch.zeros(3, 2)

    samples = as_samples(Once())
    assert len(list(samples.batches(2))) == 3
    with fails("changed between two passes", "0 samples, after 6", "__iter__ starts anew"):
        list(samples.batches(2))


# --- files ----------------------------------------------------------------------------------------


def test_npy(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, X)
    samples = as_samples(path, Y)
    assert samples.description == "x.npy float32 [11, 6]"
    whole = all_of(samples, 4)
    assert_same(whole.x, torch.from_numpy(X))
    np.testing.assert_array_equal(whole.labels, Y)
    assert_same(all_of(as_samples(str(path)), 4).x, whole.x)


def test_files_travel_as_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big = np.zeros((1000, 1000), np.float32)
    np.save(tmp_path / "big.npy", big)
    monkeypatch.chdir(tmp_path)
    sent = pickle.dumps(as_samples("big.npy", np.arange(1000) % 7))
    assert len(sent) < 10_000  # the labels; the data would be 4 MB
    monkeypatch.chdir("/")
    back = pickle.loads(sent)
    assert back.size == 1000
    assert next(back.batches(3)).labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "names, chosen",
    [
        ({"images": X, "x": -X, "labels": Y}, X),
        ({"data": -X, "X": X, "other": Y}, X),
        ({"counts": X, "y": Y}, X),
        ({"arr_0": X}, X),
        ({"arr_0": X, "label": Y}, X),
    ],
)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path: Path, names: dict[str, Any], chosen: np.ndarray, save: Any) -> None:
    save(tmp_path / "d.npz", **names)
    whole = all_of(as_samples(tmp_path / "d.npz"), 4)
    assert_same(whole.x, torch.from_numpy(chosen))
    has_labels = {"labels", "label", "y"} & set(names)
    assert (whole.labels is not None) == bool(has_labels)


def test_an_array_of_an_npz_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, train=X, test=X[:4] + 1, labels=Y)
    test = as_samples(f"{path}:test")
    assert_same(all_of(test, 3).x, torch.from_numpy(X[:4] + 1))
    assert test.notes == ("labels [11] is no label per sample of test and was left out",)
    assert test.description == "d.npz:test float32 [4, 6]"
    np.testing.assert_array_equal(all_of(as_samples(f"{path}:train"), 3).labels, Y)
    assert_same(all_of(pickle.loads(pickle.dumps(test)), 3).x, torch.from_numpy(X[:4] + 1))
    with fails("not clear which array of d.npz", "train, test, labels", "d.npz:train"):
        as_samples(path)
    with fails("no array called 'val'", "train, test, labels", "d.npz:train"):
        as_samples(f"{path}:val")


def test_pt(tmp_path: Path) -> None:
    x, y = torch.from_numpy(X), torch.from_numpy(Y)
    for i, data in enumerate([x, {"x": x, "y": y}, (x, y), [x, y], list(x)]):
        torch.save(data, tmp_path / f"{i}.pt")
        whole = all_of(as_samples(tmp_path / f"{i}.pt"), 4)
        assert_same(whole.x, x)
        assert (whole.labels is not None) == (i in (1, 2, 3))


class Stranger:
    def __reduce__(self) -> Any:
        return print, ("this must not run",)


def test_pickles_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objects = np.array([Stranger()], dtype=object)
    np.save(tmp_path / "a.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "b.npz", x=objects)
    torch.save(Stranger(), tmp_path / "c.pt")
    (tmp_path / "d.npy").write_bytes(pickle.dumps(Stranger()))
    for name in ("a.npy", "b.npz", "c.pt", "d.npy"):
        with fails(f"{name} holds pickled", "does not unpickle", "numpy.savez"):
            as_samples(tmp_path / name)
    assert "this must not run" not in capsys.readouterr().out


def test_bad_files(tmp_path: Path) -> None:
    with fails("no such file or folder", "gone.npy", ".npy, .npz, .parquet or .pt"):
        as_samples(tmp_path / "gone.npy")
    (tmp_path / "table.csv").write_text("1,2")
    with fails("table.csv is of a kind that is not read", "suffix '.csv'", "pass the array"):
        as_samples(tmp_path / "table.csv")
    for suffix in ("npy", "npz", "pt"):
        for content in (b"", b"\x93NUMPY junk", b"PK\x03\x04 junk"):
            path = tmp_path / f"broken.{suffix}"
            path.write_bytes(content)
            with fails(f"broken.{suffix} ", "got:", "expected:", "do:"):
                as_samples(path)
    np.save(tmp_path / "none.npy", X[:0])
    with fails("holds no samples", "N = 0"):
        as_samples(tmp_path / "none.npy")
    np.save(tmp_path / "whole.npy", X)
    cut = (tmp_path / "whole.npy").read_bytes()[:-20]
    (tmp_path / "cut.npy").write_bytes(cut)
    with fails("cut.npy cannot be read as a .npy file", "write or copy it again"):
        as_samples(tmp_path / "cut.npy")
    torch.save({"weights": torch.zeros(3, 2), "bias": torch.zeros(3), "n": 4}, tmp_path / "m.pt")
    with fails("the part 'n' of data is a single number"):
        as_samples(tmp_path / "m.pt")
    torch.save("text", tmp_path / "s.pt")
    with fails("s.pt holds no tensor", "str"):
        as_samples(tmp_path / "s.pt")


# --- folders of images ----------------------------------------------------------------------------


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_a_folder_of_grey_images_with_classes(tmp_path: Path) -> None:
    for i in range(N):
        write(tmp_path / "d" / f"c{Y[i]}" / f"{i:02}.png", IMAGES[i])
    (tmp_path / "d" / "notes.txt").write_text("no image")
    (tmp_path / "d" / ".hidden.png").write_text("no image")
    order = np.lexsort((np.arange(N), Y))
    samples = as_samples(tmp_path / "d")
    assert samples.description == "folder d L images [11, 1, 4, 5]"
    assert samples.notes == ("uint8 images were divided by 255",)
    whole = all_of(samples, N)
    assert_same(whole.x, torch.from_numpy(IMAGES[order][:, None]) / 255)
    assert whole.labels.tolist() == [f"c{y}" for y in Y[order]]
    assert_same(all_of(samples, 3).x, whole.x)
    assert_same(samples.take(np.array([4, 1])), whole.x[[4, 1]])
    assert samples.take(np.array([], dtype=int)).shape == (0, 1, 4, 5)
    sent = pickle.dumps(samples)
    assert len(sent) < 500
    assert_same(all_of(pickle.loads(sent), 4).x, whole.x)
    assert all_of(as_samples(tmp_path / "d", Y), 4).labels.tolist() == Y.tolist()


@pytest.mark.parametrize(
    "mode, channels, top",
    [("RGB", 3, 255), ("RGBA", 4, 255), ("LA", 2, 255), ("I;16", 1, 65535), ("1", 1, 1)],
)
def test_modes_of_images(tmp_path: Path, mode: str, channels: int, top: int) -> None:
    rng = np.random.default_rng(0)
    shape = (2, 4, 5) if channels == 1 else (2, 4, 5, channels)
    pixels = rng.integers(0, top + 1, shape).astype(np.uint16 if top > 255 else np.uint8)
    for i in range(2):
        write(tmp_path / f"{i}.png", pixels[i] > 0 if mode == "1" else pixels[i])
        with Image.open(tmp_path / f"{i}.png") as image:
            assert image.mode == mode or (mode == "I;16" and image.mode == "I")
    whole = all_of(as_samples(tmp_path), 2)
    expected = pixels[:, None] if channels == 1 else pixels.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(whole.x.numpy(), expected.astype(np.float32) / np.float32(top))
    assert whole.labels is None


def test_palette_images_become_colour(tmp_path: Path) -> None:
    colour = Image.fromarray(np.full((4, 5, 3), 200, np.uint8))
    colour.convert("P").save(tmp_path / "a.png")
    samples = as_samples(tmp_path)
    assert samples.notes == (
        "P images were converted to RGB",
        "uint8 images were divided by 255",
    )
    assert next(samples.batches(1)).x.shape == (1, 3, 4, 5)


def test_bad_folders(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with fails("folder 'empty'", "holds no samples", "N = 0"):
        as_samples(tmp_path / "empty")
    write(tmp_path / "sizes" / "a.png", IMAGES[0])
    write(tmp_path / "sizes" / "b.png", IMAGES[0].T)
    with fails("b.png is not like the other images in 'sizes'", "L 4 x 5", "L 5 x 4, as in a.png"):
        as_samples(tmp_path / "sizes")
    write(tmp_path / "kinds" / "a.png", IMAGES[0])
    write(tmp_path / "kinds" / "sub" / "b.png", np.zeros((4, 5, 3), np.uint8))
    with fails("sub/b.png is not like", "RGB 5 x 4", "L 5 x 4"):
        as_samples(tmp_path / "kinds")
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "a.png").write_bytes(b"junk")
    with fails("a.png in 'junk' cannot be read as an image", "cannot identify"):
        as_samples(tmp_path / "junk")
    big = np.random.default_rng(0).integers(0, 255, (60, 60)).astype(np.uint8)
    write(tmp_path / "cut" / "a.png", big)
    path = tmp_path / "cut" / "a.png"
    path.write_bytes(path.read_bytes()[:600])
    with fails("a.png in 'cut' cannot be read as an image", "write or copy it again"):
        as_samples(tmp_path / "cut").take(np.arange(1))


# --- the helpers ----------------------------------------------------------------------------------


def test_tree_helpers() -> None:
    t = torch.arange(6).reshape(3, 2)
    tree: Inputs = {"a": t, "b": (t + 1, None)}
    assert rows_of(tree) == 3
    assert_same(take_rows(tree, [2, 0])["a"], t[[2, 0]])  # type: ignore[call-overload]
    assert_same(take_rows(t, np.array([True, False, True])), t[[0, 2]])
    assert_same(take_rows(t, torch.tensor([1, 1])), t[[1, 1]])
    assert rows_of(take_rows(tree, [])) == 0
    assert concatenate([tree]) is tree
    both = concatenate([tree, take_rows(tree, slice(1))])
    assert_same(both["a"], torch.cat([t, t[:1]]))  # type: ignore[call-overload]
    assert both["b"][1] is None  # type: ignore[call-overload]
    assert map_tensors(lambda x: x.double(), tree)["b"][0].dtype == torch.float64  # type: ignore
    with fails("same number of samples", "a 3, b 2"):
        rows_of({"a": t, "b": t[:2]})
    with fails("the part 'n' of the data has no rows", "0-d"):
        rows_of({"a": t, "n": torch.tensor(3)})
    with fails("no tensor in the data"):
        rows_of({"a": None})
    with pytest.raises(InputError, match="no batches to put together"):
        concatenate([])
    with fails("do not fit together", "a int64 [3, 2]"):
        concatenate([{"a": t}, {"a": t.double()}])
