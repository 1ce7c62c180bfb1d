"""Arrays of every dtype, shape, stride and byte order: rows as they are, or a named error."""

from __future__ import annotations

from typing import Any

import hypothesis.extra.numpy as npst
import numpy as np
import pandas as pd
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

import collapsekit as ck
from collapsekit.samples import as_samples, concatenate, map_tensors
from collapsekit.sources.trees import leaves
from tests.fuzz.harness import FEW, explained, fuzz, lost, named_errors

SHAPES = npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
NUMBERS = st.one_of(
    npst.boolean_dtypes(),
    npst.integer_dtypes(endianness="?"),
    npst.unsigned_integer_dtypes(endianness="?"),
    npst.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
    st.just(np.dtype(np.longdouble)),
)
ODD = st.one_of(
    npst.complex_number_dtypes(endianness="?"),
    npst.byte_string_dtypes(endianness="?"),
    npst.unicode_string_dtypes(endianness="?"),
    npst.datetime64_dtypes(endianness="?"),
    npst.timedelta64_dtypes(endianness="?"),
    npst.array_dtypes(),
    npst.nested_dtypes(),
    st.just(np.dtype(object)),
)
#: What numbers go wrong on.
SPECIAL = (0.0, -0.0, np.nan, np.inf, -np.inf, 5e-324, 1e-45, 1e38, 1e308, 65504.0, -1.0, 0.5)


@st.composite
def arrays(draw: st.DrawFn, dtypes: Any = NUMBERS) -> np.ndarray:
    """An array, laid out in memory in one of many ways."""
    dtype, shape = draw(dtypes), draw(SHAPES)
    if dtype.kind == "O":
        things = st.one_of(st.integers(), st.text(), st.none(), st.floats(), st.lists(st.floats()))
        array = np.empty(shape, object)
        for at in np.ndindex(shape):
            array[at] = draw(things)
    else:
        array = draw(npst.arrays(dtype, shape))
    if dtype.kind == "f" and array.size:
        flat = array.reshape(-1)
        for at in range(draw(st.integers(0, 3))):
            with np.errstate(over="ignore"):
                flat[at % flat.size] = draw(st.sampled_from(SPECIAL))
    match draw(
        st.sampled_from(["plain", "turned", "fortran", "every second", "same", "read-only"])
    ):
        case "turned" if array.ndim:
            array = array[::-1]
        case "fortran":
            array = np.asfortranarray(array)
        case "every second" if array.ndim > 1:
            array = array[:, ::2]
        case "same" if array.ndim and len(array):
            array = np.broadcast_to(array[:1], (5, *array.shape[1:]))
        case "read-only":
            array.flags.writeable = False
    return array


def as_float(values: np.ndarray) -> np.ndarray:
    """What the dtype rule makes of an array."""
    image = values.ndim >= 3 and values.dtype.kind in "bu" and values.dtype.itemsize == 1
    if values.dtype.kind == "f" or image:
        wide = values.dtype.itemsize > 4 and not image
        with np.errstate(over="ignore"):
            array = values.astype(np.float64 if wide else np.float32)
        return array / np.float32(255) if image and values.dtype.kind == "u" else array
    return values


@given(arrays(), st.integers(1, 5))
@fuzz(150)
def test_numbers_come_out_as_they_are(array: np.ndarray, size: int) -> None:
    before = array.copy()
    with named_errors() as errors:
        samples = as_samples(array)
        x = concatenate([batch.x for batch in samples.batches(size)])
        assert isinstance(x, torch.Tensor)
        expected = as_float(array)
        np.testing.assert_array_equal(x.numpy(), expected)
        some = np.arange(len(array))[::-1]
        taken = samples.take(some)
        assert isinstance(taken, torch.Tensor)
        np.testing.assert_array_equal(taken.numpy(), expected[::-1])
        x.zero_()  # whatever a model does to its input
    np.testing.assert_array_equal(array, before)
    large = array.dtype.kind == "u" and bool((array > 2**63 - 1).any())
    assert bool(errors) == (array.ndim == 0 or array.size == 0 or large)


@given(arrays(ODD))
@fuzz(60)
def test_what_is_no_number_is_refused(array: np.ndarray) -> None:
    with named_errors() as errors:
        as_samples(array)
    assert errors or array.dtype.kind in "biuf"  # an array of arrays is a plain array


TORCH = [
    getattr(torch, name)
    for name in (
        "bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64",
        "float16", "bfloat16", "float32", "float64", "complex64", "float8_e4m3fn", "float8_e5m2",
    )
    if hasattr(torch, name)
]  # fmt: skip


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """A tensor of any dtype, layout or state."""
    shape = draw(SHAPES)
    tensor = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 3
    tensor = tensor.to(draw(st.sampled_from(TORCH)))
    match draw(st.sampled_from(["plain", "grad", "expanded", "turned", "sparse", "meta", "conj"])):
        case "grad" if tensor.is_floating_point() and tensor.element_size() > 1:
            tensor = tensor.requires_grad_() * 1
        case "expanded" if tensor.ndim:
            tensor = tensor[:1].expand(4 if len(tensor) else 0, *tensor.shape[1:])
        case "turned" if tensor.ndim > 1:
            tensor = tensor.transpose(0, 1)
        case "sparse" if tensor.ndim and tensor.dtype is torch.float32:
            tensor = tensor.to_sparse()
        case "meta":
            tensor = tensor.to("meta")
        case "conj" if tensor.is_complex():
            tensor = tensor.conj()
    return tensor


@given(tensors(), st.integers(1, 5))
@fuzz(100)
def test_tensors(tensor: torch.Tensor, size: int) -> None:
    with named_errors() as errors:
        samples = as_samples(tensor)
        x = concatenate([batch.x for batch in samples.batches(size)])
        assert isinstance(x, torch.Tensor)
        assert not x.requires_grad
        assert x.shape == tensor.shape
        assert x.layout == torch.strided
        assert len(samples.take(np.zeros(2, int))) == 2  # type: ignore[arg-type]
    odd = tensor.is_complex() or tensor.layout != torch.strided or tensor.device.type == "meta"
    assert bool(errors) == (odd or tensor.ndim == 0 or tensor.numel() == 0)


@st.composite
def structures(draw: st.DrawFn) -> Any:
    """Whatever people hand over that is no single array."""
    leaf = st.one_of(arrays(), arrays(ODD), tensors(), st.none(), st.text(max_size=3), st.floats())
    match draw(st.sampled_from(["list", "tuple", "mapping", "masked", "frame", "series", "rows"])):
        case "list":
            return draw(st.lists(leaf, max_size=3))
        case "tuple":
            return tuple(draw(st.lists(leaf, max_size=3)))
        case "mapping":
            names = st.sampled_from(["x", "y", "label", "mean", "", "\ud800", "__class__", 3])
            return draw(st.dictionaries(names, leaf, max_size=3))
        case "masked":
            array = draw(arrays())
            return np.ma.masked_array(array, mask=draw(npst.arrays(bool, array.shape)))
        case "frame":
            return pd.DataFrame(
                {"a": [1.0, None], "b": draw(st.lists(leaf, min_size=2, max_size=2))}
            )
        case "series":
            return pd.Series(draw(st.lists(st.one_of(st.integers(-9, 9), st.none()), max_size=4)))
        case _:
            return draw(st.lists(st.lists(st.floats(width=32), max_size=3), max_size=3))


@given(structures(), st.one_of(st.none(), arrays(), arrays(ODD), st.lists(st.text(), max_size=3)))
@fuzz(150)
def test_structures(data: Any, labels: Any) -> None:
    with named_errors():
        samples = as_samples(data, labels)
        for batch in samples.batches(2):
            for _, leaf in leaves(batch.x):
                assert isinstance(leaf, torch.Tensor)
                assert len(leaf) == len(batch.index)
            if batch.labels is not None:
                assert len(batch.labels) == len(batch.index)
            map_tensors(lambda tensor: tensor.zero_(), batch.x)


W = torch.tensor([[1.0, 0.5, -0.5, 0.2], [0.0, 1.0, 0.3, -1.0]])


def encode(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Linear, and as robust as models are."""
    flat = x.float().reshape(len(x), -1)
    mean = flat @ torch.nn.functional.pad(W, (0, max(0, flat.shape[1] - 4)))[:, : flat.shape[1]].T
    return mean, torch.full_like(mean, 0.5)


def _encoded(array: np.ndarray) -> np.ndarray:
    """Of each sample whether its code is finite."""
    x = as_samples(array).take(np.arange(len(array)))
    assert isinstance(x, torch.Tensor)
    finite: np.ndarray = encode(x)[0].isfinite().all(dim=1).numpy()
    return finite


@given(arrays())
@fuzz(8)
def test_an_audit_of_any_numbers(array: np.ndarray) -> None:
    assume(array.ndim and array.size)
    shape = array.shape[1:]

    def decode(z: torch.Tensor) -> torch.Tensor:
        out = torch.zeros(len(z), int(np.prod(shape)))
        out[:, 0] = z[:, 0].float()
        return out.reshape(-1, *shape)

    with named_errors() as errors:
        audit = ck.audit((encode, decode), array, probes=FEW)
        explained(audit)
        assert lost(audit) == set(np.flatnonzero(~_encoded(array)))
    if errors and "too large" not in errors[0].what:  # nothing is left to be measured
        assert not _encoded(array).any(), str(errors[0])
