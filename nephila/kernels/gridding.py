"""Gridding of Fourier slices into a padded half transform with a Kaiser-Bessel window two cells wide.

Everything is added in whole numbers (32 bit within a tile that fits the cache, 64 bit in the volume), so the sums do
not
depend on the order of additions: not on threads, tiles, blocks or the order of particles.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

SEGMENT_LIMIT = 64
LANES = 16
DEGREE = 6  # of the polynomials that give the window's weights
HALO = 1  # rows of slack around a tile for the rounding of positions; the window needs one more at the upper end


@njit(cache=True, nogil=True)
def weigh_images(images, ctf, weights, radial, column_limit, phases_x, phases_y, scale, values):
    """Weighted samples in units of the integer grid: (Re, Im of w r CTF X phase, w r CTF^2, 0).

    `radial` [n, nh] carries the noise weights r; `ctf` has one plane or one per image; `phases_x/_y` [m, nh] and
    [m, n] move each image (length 0: no shift); `scale` = (1 / step of values, 1 / step of weights).
    Returns the largest absolute value per image, NaN where the image holds NaN.
    """
    m, n = images.shape[0], images.shape[1]
    largest = np.zeros(m, dtype=np.float32)
    shifted = phases_x.shape[0] > 0
    for i in range(m):
        plane = ctf[min(i, ctf.shape[0] - 1)]
        value_scale = np.float32(weights[i] * scale[0])
        weight_scale = np.float32(weights[i] * scale[1])
        top = np.float32(0.0)
        check = np.float32(0.0)
        for row in range(n):
            phase_row = np.complex64(phases_y[i, row]) if shifted else np.complex64(1.0)
            for col in range(column_limit[row]):
                x = images[i, row, col]
                if shifted:
                    x = x * (phase_row * phases_x[i, col])
                c = plane[row, col]
                r = radial[row, col]
                factor = c * r * value_scale
                re, im, w = x.real * factor, x.imag * factor, c * c * r * weight_scale
                values[i, row, col, 0] = re
                values[i, row, col, 1] = im
                values[i, row, col, 2] = w
                top = max(top, max(abs(re), max(abs(im), abs(w))))
                check += (re - re) + (im - im) + (w - w)  # NaN as soon as one value is not finite
        largest[i] = top + check
    return largest


@njit(cache=True, nogil=True)
def walk_tiles(axes, first, last, column_limit, radius_cells, tile, tiles, counts, segments, fill):
    """Cut the slices of images first..last-1 into segments of row that stay within one (z, y) tile.

    `axes` [m, 6]: grid steps (x, y, z) per column and per row. Where `fill` is false, only counts segments per tile in
    `counts`; otherwise writes them at counts[tile] (then the next free place) as (image, row, column << 16 | length <<
    1 | mirrored).
    """
    n = column_limit.shape[0]
    inverse_tile = 1.0 / tile
    for i in range(first, last):
        ax, ay, az = axes[i, 0], axes[i, 1], axes[i, 2]
        for row in range(n):
            stop = column_limit[row]
            if stop == 0:
                continue
            ky = row if row <= n // 2 else row - n
            start = 1 if ky < 0 else 0
            cx, cy, cz = ky * axes[i, 3], ky * axes[i, 4], ky * axes[i, 5]
            # columns below `cross` have the sign of x at the start of the row, those from it on the other one
            cross = stop
            negative = (cx + start * ax < 0.0) or (cx + start * ax == 0.0 and ax < 0.0)
            if (negative and ax > 0.0) or (not negative and ax < 0.0):
                cross = min(stop, max(start, int(np.ceil(-cx / ax))))
            for part in range(2):
                k = start if part == 0 else cross
                end = cross if part == 0 else stop
                mirrored = negative if part == 0 else not negative
                sign = -1.0 if mirrored else 1.0
                dy, dz = sign * ay, sign * az
                y0, z0 = sign * cy + radius_cells, sign * cz + radius_cells
                step_y = 1.0 / dy if abs(dy) > 1e-9 else 1e9
                step_z = 1.0 / dz if abs(dz) > 1e-9 else 1e9
                while k < end:
                    y, z = y0 + k * dy, z0 + k * dz
                    ty = min(max(int(y * inverse_tile), 0), tiles - 1)
                    tz = min(max(int(z * inverse_tile), 0), tiles - 1)
                    steps_y = ((ty + (1 if dy > 0 else 0)) * tile - y) * step_y
                    steps_z = ((tz + (1 if dz > 0 else 0)) * tile - z) * step_z
                    steps = int(min(min(steps_y, steps_z), SEGMENT_LIMIT - 1.0)) + 1
                    length = max(1, min(steps, min(end - k, SEGMENT_LIMIT)))
                    place = tz * tiles + ty
                    if fill:
                        at = counts[place]
                        segments[at, 0] = i
                        segments[at, 1] = row
                        segments[at, 2] = (k << 16) | (length << 1) | (1 if mirrored else 0)
                    counts[place] += 1
                    k += length


@njit(cache=True, nogil=True)
def grid_slab(values, axes, segments, bounds, slab, tile, taps, buffer, scratch, offsets, row_start, sums):
    """Grid the segments of all tiles of one z-slab and add them to `sums` int64 [cells, 3], stored as `sphere_rows`
    says.

    `taps` [degree + 1, 2]: the window's weights as polynomials in 2 t - 1; `buffer` int32, one tile with its halo;
    `scratch` float32 [6, SEGMENT_LIMIT] and `offsets` int32 [SEGMENT_LIMIT] hold a segment's weights and places.
    """
    radius_cells = (row_start.shape[0] - 1) // 2
    nx = radius_cells + 2
    tiles = (row_start.shape[0] + tile - 1) // tile
    rows = tile + 2 * HALO + 1
    line, plane = np.int32(nx * 4), np.int32(rows * nx * 4)
    n, width = values.shape[1], values.shape[2]
    samples = values.reshape(-1)
    for ty in range(tiles):
        begin, end = bounds[slab * tiles + ty], bounds[slab * tiles + ty + 1]
        if begin == end:
            continue
        buffer[:] = 0
        y_low, z_low = ty * tile - HALO, slab * tile - HALO
        for s in range(begin, end):
            image, row, packed = segments[s, 0], segments[s, 1], segments[s, 2]
            column, length, mirrored = packed >> 16, (packed >> 1) & 0x7FFF, packed & 1
            _window_weights(
                axes[image], row, values.shape[1], column, length, mirrored, radius_cells, y_low, z_low, taps, scratch,
                offsets, line, plane,
            )  # fmt: skip
            _scatter(
                samples, (image * n + row) * width + column, length, mirrored, scratch, offsets, line, plane, buffer
            )
        _add_tile(buffer, rows, nx, y_low, z_low, row_start, sums)


@njit(cache=True, nogil=True)
def _window_weights(
    axis, row, n, column, length, mirrored, radius_cells, y_low, z_low, taps, scratch, offsets, line, plane
):
    """Weights of the two taps along x, y, z and the first tap's place, for each sample of a segment."""
    ky = row if row <= n // 2 else row - n
    sign = np.float32(-1.0 if mirrored else 1.0)
    ax, ay, az = np.float32(axis[0]) * sign, np.float32(axis[1]) * sign, np.float32(axis[2]) * sign
    x0 = np.float32(ky * axis[3]) * sign
    # counted from the grid's corner, not the tile's, so that rounding is the same in every tiling
    y0 = np.float32(ky * axis[4]) * sign + np.float32(radius_cells)
    z0 = np.float32(ky * axis[5]) * sign + np.float32(radius_cells)
    corner = np.int32(z_low) * plane + np.int32(y_low) * line
    zero, one, two = np.float32(0.0), np.float32(1.0), np.float32(2.0)
    p0, p1, p2, p3, p4, p5, p6 = taps[0, 0], taps[1, 0], taps[2, 0], taps[3, 0], taps[4, 0], taps[5, 0], taps[6, 0]
    for j in range((length + LANES - 1) // LANES * LANES):  # whole vectors; the surplus is not used
        k = np.float32(column + j)
        x, y, z = max(x0 + k * ax, zero), y0 + k * ay, z0 + k * az
        ix, iy, iz = np.int32(x), np.int32(y), np.int32(z)
        offsets[j] = iz * plane + iy * line + ix * 4 - corner
        u, v, w = x - np.float32(ix), y - np.float32(iy), z - np.float32(iz)
        u, v, w = two * u - one, two * v - one, two * w - one
        # even and odd powers apart: the second tap's weight is the first one's at -u
        uu, vv, ww = u * u, v * v, w * w
        eu, ou = ((p0 * uu + p2) * uu + p4) * uu + p6, ((p1 * uu + p3) * uu + p5) * u
        ev, ov = ((p0 * vv + p2) * vv + p4) * vv + p6, ((p1 * vv + p3) * vv + p5) * v
        ew, ow = ((p0 * ww + p2) * ww + p4) * ww + p6, ((p1 * ww + p3) * ww + p5) * w
        scratch[0, j] = eu + ou
        scratch[1, j] = eu - ou
        scratch[2, j] = (ev + ov) * (ew + ow)
        scratch[3, j] = (ev - ov) * (ew + ow)
        scratch[4, j] = (ev + ov) * (ew - ow)
        scratch[5, j] = (ev - ov) * (ew - ow)


@intrinsic
def _add_rounded(typing_context, samples, at_sample, flip, buffer, at, line, plane, x, p00, p10, p01, p11):
    """Eight-lane form of: buffer[...] += int(rint(sample * weight)) for the 2 x 2 x 2 taps of one sample.

    `samples` float32, four per sample (Re, Im, weight, 0); `buffer` int32, four per grid point; `x` packs nothing but
    the two weights along x as a pair; p00, p10, p01, p11: weights of the rows (y, z), (y + 1, z), (y, z + 1), (y + 1, z
    + 1).
    """
    signature = types.void(samples, at_sample, flip, buffer, at, line, plane, x, p00, p10, p01, p11)

    def codegen(context, builder, signature, args):
        f32, i32 = ir.FloatType(), ir.IntType(32)
        v4f, v8f, v8i = ir.VectorType(f32, 4), ir.VectorType(f32, 8), ir.VectorType(i32, 8)
        sample_array = context.make_array(signature.args[0])(context, builder, args[0])
        buffer_array = context.make_array(signature.args[3])(context, builder, args[3])
        source = builder.gep(sample_array.data, [args[1]])
        sample = builder.load(builder.bitcast(source, v4f.as_pointer()), align=4)
        lanes = ir.Constant(ir.VectorType(i32, 8), [0, 1, 2, 3, 0, 1, 2, 3])
        doubled = builder.shuffle_vector(sample, ir.Constant(v4f, ir.Undefined), lanes)
        factors = ir.Constant(v8f, ir.Undefined)
        weights = [builder.extract_value(args[7], c) for c in range(2)]
        for lane in range(8):
            factors = builder.insert_element(factors, weights[lane // 4], ir.Constant(i32, lane))
        signs = ir.Constant(v8f, [1.0] * 8)
        for lane in (1, 5):
            signs = builder.insert_element(signs, args[2], ir.Constant(i32, lane))
        value = builder.fmul(doubled, builder.fmul(factors, signs))
        rint = cgutils.get_or_insert_function(builder.module, ir.FunctionType(v8f, [v8f]), "llvm.rint.v8f32")
        row = args[4]
        for index, weight in enumerate(args[8:12]):
            place = row
            if index & 1:
                place = builder.add(place, args[5])
            if index & 2:
                place = builder.add(place, args[6])
            spread = ir.Constant(v8f, ir.Undefined)
            for lane in range(8):
                spread = builder.insert_element(spread, weight, ir.Constant(i32, lane))
            whole = builder.fptosi(builder.call(rint, [builder.fmul(value, spread)]), v8i)
            target = builder.bitcast(builder.gep(buffer_array.data, [place]), v8i.as_pointer())
            builder.store(builder.add(builder.load(target, align=4), whole), target, align=4)
        return context.get_dummy_value()

    return signature, codegen


@njit(cache=True, nogil=True)
def _scatter(samples, first, length, mirrored, scratch, offsets, line, plane, buffer):
    """Round each sample times its eight weights to whole numbers and add them to the tile."""
    flip = np.float32(-1.0 if mirrored else 1.0)
    for j in range(length):
        x = (scratch[0, j], scratch[1, j])
        _add_rounded(
            samples, 4 * (first + j), flip, buffer, offsets[j], line, plane, x,
            scratch[2, j], scratch[3, j], scratch[4, j], scratch[5, j],
        )  # fmt: skip


@njit(cache=True, nogil=True)
def _add_tile(buffer, rows, nx, y_low, z_low, row_start, sums):
    """Add a tile to the 64-bit sums, within the sphere that samples can reach."""
    side = row_start.shape[0]
    for z in range(max(z_low, 0), min(z_low + rows, side)):
        for y in range(max(y_low, 0), min(y_low + rows, side)):
            base = ((z - z_low) * rows + (y - y_low)) * nx * 4
            start = row_start[z, y]
            for x in range(row_start[z, y + 1] - start):
                sums[start + x, 0] += buffer[base + 4 * x]
                sums[start + x, 1] += buffer[base + 4 * x + 1]
                sums[start + x, 2] += buffer[base + 4 * x + 2]


@njit(cache=True, nogil=True)
def sphere_rows(radius_cells):
    """Where each row (z, y) of the half sphere starts in the flat sums: int64 [side, side + 1], side = 2 radius_cells +
    1.

    Row (z, y), counted from -radius_cells, holds x = 0 ... row_start[z, y + 1] - row_start[z, y] - 1.
    """
    side = 2 * radius_cells + 1
    row_start = np.zeros((side, side + 1), dtype=np.int64)
    total = 0
    for z in range(side):
        for y in range(side):
            row_start[z, y] = total
            left = (radius_cells + 1) ** 2 - (z - radius_cells) ** 2 - (y - radius_cells) ** 2
            if left >= 0:
                total += min(int(np.sqrt(left)) + 1, radius_cells + 2)
        row_start[z, side] = total
    return row_start


@njit(cache=True, nogil=True)
def expand_sums(sums, row_start, value_step, weight_step, numerator, denominator):
    """Write the sums into half transforms [n_pad, n_pad, n_pad // 2 + 1] (origin at [0, 0, 0]), in physical units.

    The plane x = 0 is completed by what the samples' Hermitian mates would have added to it. Cells at or beyond the
    grid's Nyquist row are left out.
    """
    radius = (row_start.shape[0] - 1) // 2
    n_pad = numerator.shape[0]
    reach = min(radius, (n_pad - 1) // 2)
    for z in range(-reach, reach + 1):
        for y in range(-reach, reach + 1):
            start = row_start[z + radius, y + radius]
            mate = row_start[radius - z, radius - y]
            length = min(row_start[z + radius, y + radius + 1] - start, reach + 1)
            for x in range(length):
                re, im, w = sums[start + x, 0], sums[start + x, 1], sums[start + x, 2]
                if x == 0:
                    re, im, w = re + sums[mate, 0], im - sums[mate, 1], w + sums[mate, 2]
                numerator[z, y, x] = np.complex64(complex(re * value_step, im * value_step))
                denominator[z, y, x] = np.float32(w * weight_step)


@njit(cache=True, nogil=True)
def shell_totals(values, padding, shells):
    """Sum of a padded half transform's values over the shells round(|k| / padding), and their cells, float64
    [shells]."""
    n_pad = values.shape[0]
    total, count = np.zeros(shells), np.zeros(shells)
    reach = min(int(np.ceil((shells - 0.5) * padding)), (n_pad - 1) // 2)
    for z in range(-reach, reach + 1):
        for y in range(-reach, reach + 1):
            for x in range(reach + 1):
                shell = int(np.sqrt(float(x * x + y * y + z * z)) / padding + 0.5)
                if shell >= shells:
                    break
                mates = 1.0 if x == 0 else 2.0
                total[shell] += mates * values[z, y, x]
                count[shell] += mates
    return total, count


@njit(cache=True, nogil=True)
def smooth_plane(plane, mirror, out, work):
    """(1, 2, 1) / 4 along x and y of a plane [n_pad, columns] with its origin at [0, 0]; `mirror` [n_pad] is column
    -1."""
    rows, columns = plane.shape
    for y in range(rows):
        work[y, 0] = 0.25 * (mirror[y] + plane[y, 1]) + 0.5 * plane[y, 0]
        for x in range(1, columns - 1):
            work[y, x] = 0.25 * (plane[y, x - 1] + plane[y, x + 1]) + 0.5 * plane[y, x]
        work[y, columns - 1] = 0.25 * plane[y, columns - 2] + 0.5 * plane[y, columns - 1]
    for y in range(rows):
        before, after = work[y - 1], work[(y + 1) % rows]
        for x in range(columns):
            out[y, x] = 0.25 * (before[x] + after[x]) + 0.5 * work[y, x]


@njit(cache=True, nogil=True)
def add_to_shells(values, scale, added, padding):
    """values <- scale * values + added in a padded half transform; `added` is given per Fourier px of |k|
    (interpolated; the last holds beyond)."""
    n_pad = values.shape[0]
    last = added.shape[0] - 2
    for row_z in range(n_pad):
        z = row_z if row_z < n_pad // 2 else row_z - n_pad
        for row_y in range(n_pad):
            y = row_y if row_y < n_pad // 2 else row_y - n_pad
            for x in range(values.shape[2]):
                k = min(np.sqrt(float(x * x + y * y + z * z)) / padding, float(last))
                shell = int(k)
                more = added[shell] + (k - shell) * (added[shell + 1] - added[shell])
                values[row_z, row_y, x] = np.float32(scale) * values[row_z, row_y, x] + np.float32(more)


@njit(cache=True, nogil=True)
def balance_weights(denominator, weights, first):
    """One round of density compensation: weights <- weights / (h * (weights denominator)), h = (1, 2, 1) / 4 on each
    axis, starting (`first`) from 1; 0 where nothing was measured.

    Source: Pipe & Menon (1999), Magn. Reson. Med. 41, 179.
    """
    n_pad, columns = denominator.shape[0], denominator.shape[2]
    reach = (n_pad - 1) // 2
    product = np.zeros((n_pad, columns), dtype=np.float32)
    work = np.zeros((n_pad, columns), dtype=np.float32)
    smooth = np.zeros((3, n_pad, columns), dtype=np.float32)
    # column x = -1 of plane z is column 1 of plane -z, row by row mirrored; kept apart as the weights change on the way
    edge = np.zeros((n_pad, n_pad), dtype=np.float32)
    for z in range(-reach, reach + 1):
        for y in range(-reach, reach + 1):
            edge[-z, -y] = denominator[z, y, 1] * (np.float32(1.0) if first else weights[z, y, 1])
    for z in range(-reach, reach + 2):
        if z <= reach:
            for y in range(n_pad):
                for x in range(columns):
                    product[y, x] = denominator[z, y, x] * (np.float32(1.0) if first else weights[z, y, x])
            smooth_plane(product, edge[z], smooth[z % 3], work)
        else:
            smooth[z % 3] = 0
        if z > -reach:
            _update_plane(weights[z - 1], smooth[(z - 2) % 3], smooth[(z - 1) % 3], smooth[z % 3], first)


@njit(cache=True, nogil=True)
def _update_plane(weights, below, here, above, first):
    for y in range(weights.shape[0]):
        for x in range(weights.shape[1]):
            total = np.float32(0.25) * (below[y, x] + above[y, x]) + np.float32(0.5) * here[y, x]
            start = np.float32(1.0) if first else weights[y, x]
            weights[y, x] = start / total if total > np.float32(0.0) else np.float32(0.0)


@njit(cache=True, nogil=True)
def apply_weights(numerator, weights, added, padding, radius):
    """numerator * weights / (1 + added weights) in place within `radius` (Fourier px), 0 beyond.

    `added` is given per Fourier px of |k| (interpolated), length radius + 2 or more.
    """
    n_pad = numerator.shape[0]
    reach = (n_pad - 1) // 2
    numerator[n_pad // 2] = 0
    numerator[:, n_pad // 2] = 0
    numerator[:, :, reach + 1 :] = 0
    for z in range(-reach, reach + 1):
        for y in range(-reach, reach + 1):
            for x in range(reach + 1):
                k = np.sqrt(float(x * x + y * y + z * z)) / padding
                if k > radius:
                    numerator[z, y, x:] = 0
                    break
                shell = int(k)
                more = added[shell] + (k - shell) * (added[shell + 1] - added[shell])
                w = weights[z, y, x]
                numerator[z, y, x] *= w / (np.float32(1.0) + np.float32(more) * w)
