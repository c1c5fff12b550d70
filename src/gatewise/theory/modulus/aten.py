"""What PyTorch's elementary operations are in NumPy, for arrays of any float type.

A traced function of tensors is a list of such operations. Played back in NumPy it runs in 80-bit floats, which PyTorch
does not have, and several times faster for small arrays. An operation that is not in the table is refused by name.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy import linalg, special

from gatewise.exceptions import InputError
from gatewise.theory.modulus.special import LONG, error_function

__all__ = ["ONLY_DOUBLE", "OPERATIONS"]

_DTYPES = {torch.bool: np.dtype(bool), torch.int64: np.dtype(np.int64), torch.int32: np.dtype(np.int64)}

ONLY_DOUBLE = frozenset({"lgamma", "digamma", "polygamma", "special_ndtri", "erfinv"})
"""Operations without an 80-bit form: they are done in doubles, and limit what they are part of."""


def _float_like(value: Any) -> Any:
    """Integers and truth values as doubles, which hold them exactly; floats stay what they are."""
    array = np.asarray(value)
    return array.astype(np.float64) if array.dtype.kind in "bi" else array


def _unary(function: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda a: function(_float_like(a))


def _double_only(function: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda a: function(np.asarray(a, np.float64))


def _erf(a: Any) -> Any:
    return error_function(a) if a.dtype == LONG else special.erf(a)


def _gelu(a: Any, approximate: str = "none") -> Any:
    if approximate == "none":
        return 0.5 * a * (1 + _erf(a * np.sqrt(a.dtype.type(0.5))))
    inner = a.dtype.type(np.sqrt(2 / np.pi)) * (a + 0.044715 * a**3)
    return 0.5 * a * (1 + np.tanh(inner))


def _sigmoid(a: Any) -> Any:
    decay = np.exp(-np.abs(a))
    return np.where(a >= 0, 1 / (1 + decay), decay / (1 + decay))


def _cast(a: Any, dtype: torch.dtype | None = None, **_: Any) -> Any:
    if dtype is None or dtype.is_floating_point:
        # A float stays what it is: the trace is played in another type than it was recorded in.
        return _float_like(a) if dtype is not None else a
    return np.asarray(a).astype(_DTYPES[dtype])


def _full(size: Sequence[int], value: Any, dtype: torch.dtype | None = None, **_: Any) -> Any:
    chosen = None if dtype is None or dtype.is_floating_point else _DTYPES[dtype]
    return np.full(tuple(size), value, chosen)


def _full_like(a: Any, value: Any, dtype: torch.dtype | None = None, **_: Any) -> Any:
    chosen = a.dtype if dtype is None or dtype.is_floating_point else _DTYPES[dtype]
    return np.full(np.shape(a), value, chosen)


def _axes(dim: Any) -> Any:
    if dim is None or (isinstance(dim, Sequence) and not dim):
        return None
    return tuple(dim) if isinstance(dim, Sequence) else dim


def _sum(a: Any, dim: Any = None, keepdim: bool = False, **_: Any) -> Any:
    return np.sum(a, axis=_axes(dim), keepdims=keepdim)


def _amax(a: Any, dim: Any = (), keepdim: bool = False) -> Any:
    return np.max(a, axis=_axes(dim), keepdims=keepdim)


def _any(a: Any, dim: Any = None, keepdim: bool = False) -> Any:
    return np.any(a, axis=_axes(dim), keepdims=keepdim)


def _slice(a: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Any:
    index: list[Any] = [slice(None)] * np.ndim(a)
    index[dim] = slice(start, None if end is None or end > np.shape(a)[dim] else end, step)
    return a[tuple(index)]


def _select(a: Any, dim: int, place: int) -> Any:
    return a[(slice(None),) * (dim % np.ndim(a)) + (place,)]


def _expand(a: Any, size: Sequence[int], **_: Any) -> Any:
    shape = np.shape(a)
    if tuple(size) == shape:
        return a
    lead = len(size) - len(shape)
    return np.broadcast_to(a, [shape[i - lead] if n == -1 else n for i, n in enumerate(size)])


def _squeeze(a: Any, dim: Any = None) -> Any:
    dims = range(np.ndim(a)) if dim is None else [dim] if isinstance(dim, int) else dim
    single = tuple(i for i in dims if np.shape(a)[i] == 1)
    return np.squeeze(a, axis=single) if single else a


def _index(a: Any, indices: Sequence[Any]) -> Any:
    return a[tuple(slice(None) if i is None else i for i in indices)]


def _index_put(a: Any, indices: Sequence[Any], values: Any, accumulate: bool = False) -> Any:
    found = np.array(a)
    place: Any = tuple(slice(None) if i is None else i for i in indices)
    if accumulate:
        np.add.at(found, place, values)
    else:
        found[place] = values
    return found


def _scatter(a: Any, dim: int, index: Any, value: Any) -> Any:
    found = np.array(a)
    np.put_along_axis(found, index, value, axis=dim)
    return found


def _sort(a: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    order = np.argsort(-a if descending else a, axis=dim, kind="stable")
    return np.take_along_axis(a, order, axis=dim), order


def _split(a: Any, sizes: Sequence[int], dim: int = 0) -> Any:
    return np.split(a, np.cumsum(sizes)[:-1], axis=dim)


def _clamp(a: Any, low: Any = None, high: Any = None) -> Any:
    a = a if low is None else np.maximum(a, low)
    return a if high is None else np.minimum(a, high)


def _add(a: Any, b: Any, alpha: Any = 1) -> Any:
    return a + (b if alpha == 1 else alpha * b)


def _sub(a: Any, b: Any, alpha: Any = 1) -> Any:
    return a - (b if alpha == 1 else alpha * b)


def _triangular(matrix: Any, right: Any, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Any:
    """X of A X = B, or of X A = B, by substitution, in the type of the entries."""
    if not left:
        return np.swapaxes(
            _triangular(np.swapaxes(matrix, -1, -2), np.swapaxes(right, -1, -2), upper=not upper), -1, -2
        )
    n = matrix.shape[-1]
    shape = np.broadcast_shapes(matrix.shape[:-2], right.shape[:-2])
    found = np.zeros((*shape, *right.shape[-2:]), np.result_type(matrix, right))
    for i in range(n - 1, -1, -1) if upper else range(n):
        done = (matrix[..., i, :, None] * found).sum(-2)
        rest = right[..., i, :] - done
        found[..., i, :] = rest if unitriangular else rest / matrix[..., i, i, None]
    return found


def _diagonal(a: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    return np.diagonal(a, offset, dim1, dim2)


def _diagonal_scatter(a: Any, source: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    if offset:
        raise InputError("diagonals beside the main one cannot be written in 80-bit floats")
    found = np.array(a, np.result_type(a, source))
    np.einsum("...ii->...i", np.moveaxis(found, (dim1, dim2), (-2, -1)))[...] = source
    return found


def _select_scatter(a: Any, source: Any, dim: int, place: int) -> Any:
    found = np.array(a, np.result_type(a, source))
    found[(slice(None),) * (dim % found.ndim) + (place,)] = source
    return found


def _slice_scatter(
    a: Any, source: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Any:
    found = np.array(a, np.result_type(a, source))
    _slice(found, dim, start, end, step)[...] = source
    return found


def _norm(a: Any, ord: Any = 2, dim: Any = None, keepdim: bool = False, **_: Any) -> Any:
    return np.sqrt(np.sum(a * a, axis=_axes(dim), keepdims=keepdim)) if ord == 2 else linalg.norm(a, ord)


def _triangle(which: Callable[..., Any]) -> Callable[..., Any]:
    return lambda row, column, offset=0, **_: np.stack(which(row, offset, column)).astype(np.int64)


def _same(a: Any, *_: Any, **__: Any) -> Any:
    return a


def _arange(start: Any, end: Any = None, step: Any = 1, **_: Any) -> Any:
    return np.arange(start) if end is None else np.arange(start, end, step)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "_efficientzerotensor": lambda size, **_: np.zeros(tuple(size)),
    "_new_zeros_with_same_feature_meta": lambda a, b, self_num_batch_dims=0: np.zeros(
        (*np.shape(a)[:self_num_batch_dims], *np.shape(b)), np.asarray(a).dtype
    ),
    "_to_copy": _cast,
    "_unsafe_view": lambda a, size: np.reshape(a, size),
    "abs": np.abs,
    "acos": _unary(np.arccos),
    "add": _add,
    "addmm": lambda c, a, b: c + a @ b,
    "alias": _same,
    "amax": _amax,
    "amin": lambda a, dim=(), keepdim=False: np.min(a, axis=_axes(dim), keepdims=keepdim),
    "any": _any,
    "arange": _arange,
    "asin": _unary(np.arcsin),
    "atan": _unary(np.arctan),
    "atan2": np.arctan2,
    "bitwise_and": np.bitwise_and,
    "bitwise_not": np.bitwise_not,
    "bitwise_or": np.bitwise_or,
    "bmm": np.matmul,
    "cat": lambda parts, dim=0: np.concatenate(parts, axis=dim),
    "clamp": _clamp,
    "clone": _same,
    "copy": lambda a, b, *_: np.broadcast_to(b, np.shape(a)),
    "copy_": lambda a, b, *_: np.broadcast_to(b, np.shape(a)),
    "cos": _unary(np.cos),
    "cosh": _unary(np.cosh),
    "cumsum": lambda a, dim, **_: np.cumsum(a, axis=dim),
    "detach": _same,
    "diagonal": _diagonal,
    "diagonal_scatter": _diagonal_scatter,
    "digamma": _double_only(special.digamma),
    "div": np.true_divide,
    "eq": np.equal,
    "erf": _erf,
    "exp": _unary(np.exp),
    "expand": _expand,
    "expm1": _unary(np.expm1),
    "floor": np.floor,
    "full": _full,
    "full_like": _full_like,
    "gather": lambda a, dim, index, **_: np.take_along_axis(a, index, axis=dim),
    "ge": np.greater_equal,
    "gelu": _gelu,
    "getitem": lambda a, place: a[place],
    "gt": np.greater,
    "index": _index,
    "index_put": _index_put,
    "index_select": lambda a, dim, index: np.take(a, index, axis=dim),
    "isinf": np.isinf,
    "isnan": np.isnan,
    "le": np.less_equal,
    "lgamma": _double_only(special.gammaln),
    "lift_fresh_copy": _same,
    "linalg_solve_triangular": _triangular,
    "linalg_vector_norm": _norm,
    "log": _unary(np.log),
    "log1p": _unary(np.log1p),
    "logical_and": np.logical_and,
    "logical_not": np.logical_not,
    "logical_or": np.logical_or,
    "lt": np.less,
    "maximum": np.maximum,
    "mean": lambda a, dim=None, keepdim=False, **_: np.mean(a, axis=_axes(dim), keepdims=keepdim),
    "minimum": np.minimum,
    "mm": np.matmul,
    "mul": np.multiply,
    "mv": np.matmul,
    "ne": np.not_equal,
    "neg": np.negative,
    "permute": np.transpose,
    "polygamma": lambda n, a: special.polygamma(n, np.asarray(a, np.float64)),
    "pow": np.power,
    "prod": lambda a, dim=None, keepdim=False, **_: np.prod(a, axis=dim, keepdims=keepdim),
    "reciprocal": _unary(np.reciprocal),
    "relu": lambda a: np.maximum(a, 0),
    "repeat": lambda a, sizes: np.tile(a, tuple(sizes)),
    "rsqrt": lambda a: 1 / np.sqrt(_float_like(a)),
    "scalar_tensor": lambda value, **_: np.asarray(value),
    "scatter": _scatter,
    "select": _select,
    "select_scatter": _select_scatter,
    "sgn": np.sign,
    "sigmoid": _sigmoid,
    "sign": np.sign,
    "sin": _unary(np.sin),
    "sinh": _unary(np.sinh),
    "slice": _slice,
    "slice_scatter": _slice_scatter,
    "sort": _sort,
    "split_with_sizes": _split,
    "sqrt": _unary(np.sqrt),
    "square": np.square,
    "squeeze": _squeeze,
    "stack": lambda parts, dim=0: np.stack(parts, axis=dim),
    "sub": _sub,
    "sum": _sum,
    "t": np.transpose,
    "tan": _unary(np.tan),
    "tanh": _unary(np.tanh),
    "transpose": np.swapaxes,
    "tril_indices": _triangle(np.tril_indices),
    "triu_indices": _triangle(np.triu_indices),
    "unsqueeze": np.expand_dims,
    "view": lambda a, size: np.reshape(a, size),
    "where": np.where,
}
"""By the operation's name without overload and without the underscore of its in-place form."""
