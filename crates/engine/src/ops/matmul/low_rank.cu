// The product of an adapter's second matrix, added to a layer's outputs: y (n, m) += alpha x (n, k) b (m, k)^T with k of
// at most 32, bf16, f32 sums, rounded once. It does next to nothing for each element of y, so it reads and writes y at
// the speed of memory: every access is 16 bytes, and a thread has eight of them under way.
//
// A warp holds its part of b in registers and goes down the rows, 64 columns wide. Of each row a thread has eight
// neighbouring columns twice: which column a matrix instruction's column stands for is chosen so.
#include "common.cuh"

// Columns of a warp: two groups of 32. Rows it has under way: two of 16.
#define COLUMNS 64
#define GROUPS 2
#define ROWS 32

// A pair of elements of row `row`, or zeros beyond the ends.
__device__ __forceinline__ u32 pair_at(const bf16 *from, u64 row, u64 rows, u32 stride, u32 column, u32 columns) {
    return row < rows && column < columns ? *reinterpret_cast<const u32 *>(from + row * stride + column) : 0;
}

template <int STEPS>
__device__ __forceinline__ void add(const bf16 *__restrict__ x, const bf16 *__restrict__ b, bf16 *y, u32 n, u32 m, u32 k,
                                    u32 x_stride, u32 b_stride, u32 y_stride, float alpha, u32 rows) {
    u32 lane = threadIdx.x % WARP, eighth = lane / 4, quarter = lane % 4;
    u32 first_column = (blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP) * COLUMNS;
    if (first_column >= m) return;
    u32 held[GROUPS][4][STEPS][2];
#pragma unroll
    for (int group = 0; group < GROUPS; group++) {
#pragma unroll
        for (int tile = 0; tile < 4; tile++) {
            // Columns 2 q and 2 q + 1 of the four tiles are those of thread q: eight neighbours.
            u32 column = first_column + group * 32 + eighth / 2 * 8 + tile * 2 + eighth % 2;
#pragma unroll
            for (int step = 0; step < STEPS; step++) {
                held[group][tile][step][0] = pair_at(b, column, m, b_stride, step * 16 + quarter * 2, k);
                held[group][tile][step][1] = pair_at(b, column, m, b_stride, step * 16 + quarter * 2 + 8, k);
            }
        }
    }
    u64 begin = u64(blockIdx.y) * rows, end = begin + rows < n ? begin + rows : n;
    for (u64 row = begin; row < end; row += ROWS) {
        uint4 old[ROWS / 8][GROUPS];
#pragma unroll
        for (int part = 0; part < ROWS / 8; part++) {
#pragma unroll
            for (int group = 0; group < GROUPS; group++) {
                u64 at = row + part * 8 + eighth;
                u32 column = first_column + group * 32 + quarter * 8;
                if (at < end && column < m) {
                    old[part][group] = *reinterpret_cast<const uint4 *>(y + at * y_stride + column);
                }
            }
        }
#pragma unroll
        for (int half = 0; half < ROWS / 16; half++) {
            u32 a[STEPS][4];
            u64 upper = row + half * 16 + eighth, lower = upper + 8;
#pragma unroll
            for (int step = 0; step < STEPS; step++) {
                u32 at = step * 16 + quarter * 2;
                a[step][0] = pair_at(x, upper, end, x_stride, at, k);
                a[step][1] = pair_at(x, lower, end, x_stride, at, k);
                a[step][2] = pair_at(x, upper, end, x_stride, at + 8, k);
                a[step][3] = pair_at(x, lower, end, x_stride, at + 8, k);
            }
#pragma unroll
            for (int group = 0; group < GROUPS; group++) {
                float sums[4][4];
#pragma unroll
                for (int tile = 0; tile < 4; tile++) {
                    sums[tile][0] = sums[tile][1] = sums[tile][2] = sums[tile][3] = 0.0f;
#pragma unroll
                    for (int step = 0; step < STEPS; step++) {
                        multiply_add(sums[tile], a[step], held[group][tile][step][0], held[group][tile][step][1]);
                    }
                }
                u32 column = first_column + group * 32 + quarter * 8;
#pragma unroll
                for (int part = 0; part < 2; part++) {
                    u64 at = row + half * 16 + part * 8 + eighth;
                    if (at >= end || column >= m) continue;
                    uint4 was = old[half * 2 + part][group];
                    u32 words[4] = {was.x, was.y, was.z, was.w};
#pragma unroll
                    for (int tile = 0; tile < 4; tile++) {
                        float low = fmaf(alpha, sums[tile][part * 2], low_bf16(words[tile]));
                        float high = fmaf(alpha, sums[tile][part * 2 + 1], high_bf16(words[tile]));
                        words[tile] = pack_bf16(low, high);
                    }
                    *reinterpret_cast<uint4 *>(y + at * y_stride + column) =
                        make_uint4(words[0], words[1], words[2], words[3]);
                }
            }
        }
    }
}

#define KERNEL(STEPS, INNER)                                                                                             \
    extern "C" __global__ void __launch_bounds__(128)                                                                    \
        low_rank_add_##INNER(const bf16 *x, const bf16 *b, bf16 *y, u32 n, u32 m, u32 k, u32 x_stride, u32 b_stride,     \
                             u32 y_stride, float alpha, u32 rows) {                                                      \
        add<STEPS>(x, b, y, n, m, k, x_stride, b_stride, y_stride, alpha, rows);                                         \
    }

KERNEL(1, 16)
KERNEL(2, 32)
