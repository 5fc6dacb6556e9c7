"""Weighted sums over the 4 x 4 x 4 grid points around positions of a half transform.

`locate_samples` finds for many samples at once where their taps begin; `sum_taps` adds up those of one of them. numba
leaves so short a sum scalar, so it is written as LLVM vectors: 8 floats are one row of four complex taps, and one
polynomial gives all 12 weights. `tests/naive_projection.py` holds the plain form:

    (x, y, z) = kx rows[0] + ky rows[1], negated where x < 0 (then the value is the complex conjugate)
    value = sum_abc w_a(z) w_b(y) w_c(x) grid[floor(z) - 1 + a, floor(y) - 1 + b, floor(x) - 1 + c]
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from nephila.kernels.kaiser import weight_polynomials

WIDTH = 4
DEGREE = 5  # error 1e-5 of the window's peak
CHUNK = 256  # samples that are located at a time
AHEAD = 16  # samples whose taps are asked for in advance
_FLOAT = ir.FloatType()
_LANE = ir.IntType(32)
_INDEX = ir.IntType(64)
_ALONG_X = [0, 0, 1, 1, 2, 2, 3, 3]


def weight_table(beta: float) -> npt.NDArray[np.float32]:
    """Coefficients of the window's taps and, from row DEGREE + 1 on, of their derivatives: float32 [2 DEGREE + 1, 16].

    Both are polynomials in `z = 2 t - 1`; the derivative is with respect to the position in grid cells. Lanes 0 to 3
    serve x, 4 to 7 y, 8 to 11 z; the last four are unused.
    """
    window = weight_polynomials(WIDTH, beta, DEGREE)
    slope = 2.0 * window[:-1] * np.arange(DEGREE, 0, -1)[:, None]
    return np.ascontiguousarray(np.tile(np.concatenate([window, slope]), (1, 4)), dtype=np.float32)


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[misc]
def locate_samples(kx, ky, rows, strides, offsets, places):  # type: ignore[no-untyped-def]
    """First tap (offset in floats), `z = 2 t - 1` along x, y, z, and the sign of the half, for samples kx, ky.

    rows : float32 [3, 3], image axes and view in grid cells per Fourier pixel; strides : int64 [3], of `Grid`
    offsets : int64 [>= s] out; places : float32 [4, >= s] out
    """
    ax, ay, az = rows[0, 0], rows[0, 1], rows[0, 2]
    bx, by, bz = rows[1, 0], rows[1, 1], rows[1, 2]
    stride_y, stride_z, origin = strides[0], strides[1], strides[2]
    one, two = np.float32(1.0), np.float32(2.0)
    for j in range(len(kx)):
        x, y, z = kx[j] * ax + ky[j] * bx, kx[j] * ay + ky[j] * by, kx[j] * az + ky[j] * bz
        sign = -one if x < np.float32(0.0) else one
        x, y, z = sign * x, sign * y, sign * z
        fx, fy, fz = np.floor(x), np.floor(y), np.floor(z)
        offsets[j] = origin + 2 * np.int32(fx) + np.int32(fy) * stride_y + np.int32(fz) * stride_z
        places[0, j], places[1, j], places[2, j] = two * (x - fx) - one, two * (y - fy) - one, two * (z - fz) - one
        places[3, j] = sign


class _Vectors:
    """The few vector operations that the sums need."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        """a * b + c, or a * b where c is None."""
        if c is None:
            return self.builder.fmul(a, b)
        form = ir.FunctionType(a.type, [a.type] * 3)
        function = cgutils.get_or_insert_function(self.builder.module, form, f"llvm.fmuladd.v{a.type.count}f32")
        return self.builder.call(function, [a, b, c])

    def lanes(self, vector: Any, indices: list[int]) -> Any:
        """The vector with the given lanes of another."""
        mask = ir.Constant(ir.VectorType(_LANE, len(indices)), [ir.Constant(_LANE, i) for i in indices])
        return self.builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), mask)

    def lane(self, vector: Any, index: int) -> Any:
        return self.builder.extract_element(vector, ir.Constant(_LANE, index))

    def load(self, pointer: Any, offset: Any, size: int) -> Any:
        """`size` floats at an offset, without alignment."""
        address = self.builder.gep(pointer, [offset])
        target = self.builder.bitcast(address, ir.VectorType(_FLOAT, size).as_pointer())
        return self.builder.load(target, align=4)

    def pack(self, scalars: list[Any]) -> Any:
        vector = ir.Constant(ir.VectorType(_FLOAT, len(scalars)), ir.Undefined)
        for i, scalar in enumerate(scalars):
            vector = self.builder.insert_element(vector, scalar, ir.Constant(_LANE, i))
        return vector

    def spread(self, scalar: Any) -> Any:
        """One number on 8 lanes."""
        return self.lanes(self.pack([scalar]), [0] * 8)

    def polynomial(self, table: Any, first_row: int, last_row: int, z: Any) -> Any:
        """Horner's scheme over rows of 16 lanes."""
        value = None
        for row in range(first_row, last_row + 1):
            term = self.load(table, ir.Constant(_INDEX, 16 * row), 16)
            value = term if value is None else self.multiply_add(value, z, term)
        return value

    def sum_complex(self, vector: Any) -> list[Any]:
        """Sum of the even lanes and of the odd lanes of 8 floats."""
        four = self.builder.fadd(self.lanes(vector, [0, 1, 2, 3]), self.lanes(vector, [4, 5, 6, 7]))
        two = self.builder.fadd(self.lanes(four, [0, 1]), self.lanes(four, [2, 3]))
        return [self.lane(two, 0), self.lane(two, 1)]


class _Taps:
    """Pointers to the 16 rows of taps of one sample, and its weights."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any) -> None:
        self.v = _Vectors(builder)
        self.grid, self.table = (context.make_array(signature.args[i])(context, builder, args[i]).data for i in (0, 1))
        plane, stride_y, stride_z = args[2:5]
        self.z = self.v.lanes(self.v.pack([*args[5:8], args[7]]), [lane // 4 for lane in range(16)])
        self.offsets = []
        for _ in range(WIDTH):
            row = plane
            for _ in range(WIDTH):
                self.offsets.append(row)
                row = builder.add(row, stride_y)
            plane = builder.add(plane, stride_z)

    def weights(self) -> Any:
        return self.v.polynomial(self.table, 0, DEGREE, self.z)

    def slopes(self) -> Any:
        return self.v.polynomial(self.table, DEGREE + 1, 2 * DEGREE, self.z)

    def row(self, a: int, b: int) -> Any:
        """Four complex taps along x, at depth a and height b."""
        return self.v.load(self.grid, self.offsets[WIDTH * a + b], 2 * WIDTH)


_ARGUMENTS = (types.intp, types.intp, types.intp, types.float32, types.float32, types.float32)


@intrinsic  # type: ignore[misc]
def sum_taps(typingctx, grid, table, offset, stride_y, stride_z, zx, zy, zz):  # type: ignore[no-untyped-def]
    """(real, imaginary) of the sum whose first tap is float `offset` of the flat `grid`, with weights at zx, zy, zz."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        taps = _Taps(context, builder, signature, args)
        v, weights = taps.v, taps.weights()
        total = None
        for a in range(WIDTH):
            plane = None
            for b in range(WIDTH):
                plane = v.multiply_add(v.lanes(weights, [4 + b] * 8), taps.row(a, b), plane)
            total = v.multiply_add(v.lanes(weights, [8 + a] * 8), plane, total)
        return cgutils.pack_array(builder, v.sum_complex(builder.fmul(total, v.lanes(weights, _ALONG_X))))

    return types.UniTuple(types.float32, 2)(grid, table, *_ARGUMENTS), codegen


@intrinsic  # type: ignore[misc]
def prefetch_taps(typingctx, grid, offset, stride_y, stride_z):  # type: ignore[no-untyped-def]
    """Ask for the 16 rows of taps at an offset, which a large grid would otherwise deliver too late."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        pointer = ir.IntType(8).as_pointer()
        form = ir.FunctionType(ir.VoidType(), [pointer] + [_LANE] * 3)
        prefetch = cgutils.get_or_insert_function(builder.module, form, "llvm.prefetch.p0")
        plane = args[1]
        for _ in range(WIDTH):
            row = plane
            for _ in range(WIDTH):
                address = builder.bitcast(builder.gep(data, [row]), pointer)
                # a read, to be kept near, of data
                builder.call(prefetch, [address, *(ir.Constant(_LANE, i) for i in (0, 3, 1))])
                row = builder.add(row, args[2])
            plane = builder.add(plane, args[3])
        return context.get_dummy_value()

    return types.void(grid, types.intp, types.intp, types.intp), codegen


@intrinsic  # type: ignore[misc]
def sum_taps_and_slopes(typingctx, grid, table, offset, stride_y, stride_z, zx, zy, zz, first, second):  # type: ignore[no-untyped-def]
    """As `sum_taps`, followed by the derivatives along two directions, each a tuple (x, y, z) in grid cells."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        taps = _Taps(context, builder, signature, args)
        v, weights, slopes = taps.v, taps.weights(), taps.slopes()
        total, along_y, along_z = None, None, None
        for a in range(WIDTH):
            plane, plane_y = None, None
            for b in range(WIDTH):
                row = taps.row(a, b)
                plane = v.multiply_add(v.lanes(weights, [4 + b] * 8), row, plane)
                plane_y = v.multiply_add(v.lanes(slopes, [4 + b] * 8), row, plane_y)
            weight = v.lanes(weights, [8 + a] * 8)
            total = v.multiply_add(weight, plane, total)
            along_y = v.multiply_add(weight, plane_y, along_y)
            along_z = v.multiply_add(v.lanes(slopes, [8 + a] * 8), plane, along_z)
        over_x, along_x = v.lanes(weights, _ALONG_X), builder.fmul(total, v.lanes(slopes, _ALONG_X))
        values = v.sum_complex(builder.fmul(total, over_x))
        for direction in (args[8], args[9]):
            x, y, z = (v.spread(scalar) for scalar in cgutils.unpack_tuple(builder, direction))
            across = builder.fmul(v.multiply_add(z, along_z, builder.fmul(y, along_y)), over_x)
            values += v.sum_complex(v.multiply_add(x, along_x, across))
        return cgutils.pack_array(builder, values)

    direction = types.UniTuple(types.float32, 3)
    return types.UniTuple(types.float32, 6)(grid, table, *_ARGUMENTS, direction, direction), codegen
