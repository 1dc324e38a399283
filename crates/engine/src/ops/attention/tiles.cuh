// What the flash kernels share: tiles of rows in shared memory, their copies, and the products of a warp.
//
// A block has four warps. Its own rows (queries or keys) lie in shared memory for its whole life, FRAGMENTS times
// 16 of them belong to each warp; rows of the other side stream past in two buffers. A product over HEAD reads both
// sides from shared memory; its result is, packed to bf16, the left operand of the next product in the same
// registers (m16n8k16: the layout of C is that of half an A), so no score ever leaves a warp.
#pragma once

#include "common.cuh"

#define WARPS 4
#define THREADS (WARPS * WARP)
// Rows of an entry of the tile tables.
#define ENTRY 128

#define LOG2E 1.4426950408889634f
#define LN2 0.6931471805599453f
#define INFINITE __uint_as_float(0x7f800000u)

// All of a block's shared memory.
extern __shared__ __align__(128) u8 shared[];

// A row has HEAD / 8 chunks of 16 bytes. They trade places within groups of GROUP, by row, so that eight rows of one
// column of chunks touch all banks: rows are GROUP chunks apart modulo 8, and the exchange fills in between.
constexpr int CHUNKS = HEAD / 8;
constexpr int PITCH = HEAD * 2;
constexpr int GROUP = HEAD % 64 == 0 ? 8 : HEAD % 32 == 0 ? 4 : 2;
static_assert(HEAD % 16 == 0, "a product takes 16 elements of a head at a time");

__device__ __forceinline__ int exchange(int row) { return row / (8 / GROUP) % GROUP; }

// Byte offset of a chunk in a tile.
__device__ __forceinline__ u32 place(int row, int chunk) { return row * PITCH + ((chunk ^ exchange(row)) << 4); }

// Where a lane reads the four 8 x 8 matrices of a 16 x 16 block. Matrices in the order of A's registers (down, then
// right) serve as A, and transposed as B; in the order right, then down, they serve as B of rows of queries or keys.
struct Lane {
    u32 down, down_twist, right, right_twist;
    __device__ __forceinline__ Lane() {
        int lane = threadIdx.x % WARP, x = exchange(lane % 8);
        down = lane % 16 * PITCH, down_twist = ((lane / 16) ^ x) << 4;
        right = (lane / 16 * 8 + lane % 8) * PITCH, right_twist = ((lane / 8 % 2) ^ x) << 4;
    }
};

// Byte offset, within a row, of the chunks 2 i and 2 i + 1 that a lane's twist chooses from.
__device__ __forceinline__ u32 column(int i, u32 twist) {
    return ((i % (GROUP / 2) * 32) ^ twist) + i / (GROUP / 2) * (GROUP * 16);
}

template <int FRAGMENTS, int COLS> struct Scores {
    float at[FRAGMENTS][COLS / 8][4];
    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int f = 0; f < FRAGMENTS; f++)
#pragma unroll
            for (int n = 0; n < COLS / 8; n++)
#pragma unroll
                for (int e = 0; e < 4; e++) at[f][n][e] = 0.0f;
    }
};

// Steps of a product by which its right operand is read ahead, so that the products before it cover the latency of
// shared memory: a step is two products a fragment. The compiler keeps the order given here.
template <int FRAGMENTS> constexpr int AHEAD = FRAGMENTS == 1 ? 2 : 1;

// sums (16 FRAGMENTS x COLS) = rows of `a` times rows of `b`, over HEAD.
template <int FRAGMENTS, int COLS>
__device__ __forceinline__ void multiply_rows(Scores<FRAGMENTS, COLS> &sums, u32 a, u32 b, const Lane &lane) {
    constexpr int ACROSS = COLS / 16, STEPS = HEAD / 16 * ACROSS, RING = AHEAD<FRAGMENTS> + 1;
    u32 left[2][FRAGMENTS][4], right[RING][4];
    auto read_left = [&](int k) {
#pragma unroll
        for (int f = 0; f < FRAGMENTS; f++)
            load_matrices(left[k % 2][f], a + lane.down + f * 16 * PITCH + column(k, lane.down_twist));
    };
    auto read_right = [&](int step) {
        u32 at = b + lane.right + step % ACROSS * 16 * PITCH + column(step / ACROSS, lane.right_twist);
        load_matrices(right[step % RING], at);
    };
    sums.clear();
    read_left(0);
#pragma unroll
    for (int step = 0; step < RING - 1; step++) read_right(step);
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        const int k = step / ACROSS, n = step % ACROSS;
        if (step + RING - 1 < STEPS) read_right(step + RING - 1);
        if (n == (ACROSS > 1 ? ACROSS - 2 : 0) && k + 1 < HEAD / 16) read_left(k + 1);
        const u32(&y)[4] = right[step % RING];
#pragma unroll
        for (int f = 0; f < FRAGMENTS; f++) {
            multiply_add(sums.at[f][2 * n], left[k % 2][f], y[0], y[1]);
            multiply_add(sums.at[f][2 * n + 1], left[k % 2][f], y[2], y[3]);
        }
    }
}

// sums (16 FRAGMENTS x WIDTH) += weights (16 FRAGMENTS x COLS), rounded to bf16, times the COLS rows of `b`, of which
// WIDTH columns are taken.
template <int FRAGMENTS, int COLS, int WIDTH>
__device__ __forceinline__ void multiply_weights(Scores<FRAGMENTS, WIDTH> &sums, const Scores<FRAGMENTS, COLS> &weights,
                                                 u32 b, const Lane &lane) {
    constexpr int ACROSS = WIDTH / 16, STEPS = COLS / 16 * ACROSS, RING = AHEAD<FRAGMENTS> + 1;
    u32 left[FRAGMENTS][4], right[RING][4];
    auto read_right = [&](int step) {
        u32 at = b + lane.down + step / ACROSS * 16 * PITCH + column(step % ACROSS, lane.down_twist);
        load_matrices_transposed(right[step % RING], at);
    };
#pragma unroll
    for (int step = 0; step < RING - 1; step++) read_right(step);
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        const int k = step / ACROSS, n = step % ACROSS;
        if (step + RING - 1 < STEPS) read_right(step + RING - 1);
        if (n == 0) {
#pragma unroll
            for (int f = 0; f < FRAGMENTS; f++) {
                const float(&low)[4] = weights.at[f][2 * k], (&high)[4] = weights.at[f][2 * k + 1];
                left[f][0] = pack_bf16(low[0], low[1]), left[f][1] = pack_bf16(low[2], low[3]);
                left[f][2] = pack_bf16(high[0], high[1]), left[f][3] = pack_bf16(high[2], high[3]);
            }
        }
        const u32(&y)[4] = right[step % RING];
#pragma unroll
        for (int f = 0; f < FRAGMENTS; f++) {
            multiply_add(sums.at[f][2 * n], left[f], y[0], y[1]);
            multiply_add(sums.at[f][2 * n + 1], left[f], y[2], y[3]);
        }
    }
}

// Starts the copy of a tile of ROWS rows by a block of BLOCK threads; `row_of(r)` is the global row of the r-th.
template <int ROWS, int BLOCK = THREADS, typename RowOf>
__device__ __forceinline__ void copy_rows(u32 to, const bf16 *from, u32 stride, RowOf row_of) {
    if constexpr (BLOCK % CHUNKS == 0) {
        constexpr int STEP = BLOCK / CHUNKS;
        int row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
#pragma unroll
        for (int pass = 0; pass < ROWS / STEP; pass++)
            copy_async(to + place(row + pass * STEP, chunk),
                       from + static_cast<i64>(row_of(row + pass * STEP)) * stride + chunk * 8);
    } else {
#pragma unroll
        for (int pass = 0; pass < (ROWS * CHUNKS + BLOCK - 1) / BLOCK; pass++) {
            int index = pass * BLOCK + threadIdx.x, row = index / CHUNKS, chunk = index % CHUNKS;
            if (ROWS * CHUNKS % BLOCK == 0 || index < ROWS * CHUNKS)
                copy_async(to + place(row, chunk), from + static_cast<i64>(row_of(row)) * stride + chunk * 8);
        }
    }
}

// The same for rows that follow each other in memory, all of them there.
template <int ROWS, int BLOCK = THREADS>
__device__ __forceinline__ void copy_run(u32 to, const bf16 *from, u32 stride, int row0) {
    if constexpr (BLOCK % CHUNKS == 0) {
        constexpr int STEP = BLOCK / CHUNKS;
        int row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
        from += static_cast<i64>(row0 + row) * stride + chunk * 8;
#pragma unroll
        for (int pass = 0; pass < ROWS / STEP; pass++) {
            copy_async(to + place(row + pass * STEP, chunk), from);
            from += STEP * stride;
        }
    } else {
        copy_rows<ROWS, BLOCK>(to, from, stride, [=](int row) { return row0 + row; });
    }
}

// Rows `row0..row0 + count` of which a tile may want more than there are: the last one stands in for what is missing.
// What comes of it is masked or not stored.
template <int ROWS, int BLOCK = THREADS>
__device__ __forceinline__ void copy_some(u32 to, const bf16 *from, u32 stride, int row0, int count) {
    if (count >= ROWS) copy_run<ROWS, BLOCK>(to, from, stride, row0);
    else copy_rows<ROWS, BLOCK>(to, from, stride, [=](int row) { return row0 + min(row, count - 1); });
}

// A tile of queries of a segment, and the keys it sees: the parent's, then its own, numbered from 0 in one row.
// Their positions follow each other, so query i sees the keys up to `diagonal + i`, and of those the last `window`.
struct Queries {
    int query_row, rows;
    int parent_row, parent_len, own_row;
    int diagonal, first, total;

    // Entry of the table: query_start, key_start, len, parent_start, parent_len, first query, 0, 0.
    __device__ __forceinline__ Queries(const u32 *table, int rows_of_block, int window) {
        // The later part of an entry has more work and comes first.
        int parts = ENTRY / rows_of_block, part = parts - 1 - blockIdx.y % parts;
        const uint4 *entry = reinterpret_cast<const uint4 *>(table) + blockIdx.y / parts * 2;
        uint4 a = entry[0], b = entry[1];
        int start = b.y + part * rows_of_block;
        query_row = a.x + start, rows = min(rows_of_block, static_cast<int>(a.z) - start);
        parent_row = a.w, parent_len = b.x, own_row = static_cast<int>(a.y) - parent_len;
        diagonal = parent_len + start;
        first = max(0, diagonal + 1 - window), total = diagonal + rows;
    }

    template <int KEYS, int BLOCK = THREADS>
    __device__ __forceinline__ void copy_keys(u32 to, const bf16 *from, u32 stride, int key0) const {
        if (key0 + KEYS <= parent_len || (key0 >= parent_len && key0 + KEYS <= total)) {
            copy_run<KEYS, BLOCK>(to, from, stride, key0 + (key0 < parent_len ? parent_row : own_row));
        } else {
            copy_rows<KEYS, BLOCK>(to, from, stride, [=](int row) {
                int key = min(key0 + row, total - 1);
                return key + (key < parent_len ? parent_row : own_row);
            });
        }
    }
};

// Stores a warp's sums as bf16 rows, by way of its own rows of a tile that it alone reads, so that the writes to
// memory are whole. `row0` is the warp's first row in the tile; rows from `rows` on are not stored. The sums may be of
// some of the columns, those from chunk `chunk0` on.
template <int FRAGMENTS, int COLS>
__device__ __forceinline__ void store_rows(const Scores<FRAGMENTS, COLS> &sums, u8 *tile, int row0, int rows, bf16 *to,
                                           u32 stride, int chunk0 = 0) {
    constexpr int ACROSS = COLS / 8;
    int lane = threadIdx.x % WARP;
    __syncwarp();
#pragma unroll
    for (int f = 0; f < FRAGMENTS; f++)
#pragma unroll
        for (int n = 0; n < ACROSS; n++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                u32 at = place(row0 + f * 16 + half * 8 + lane / 4, chunk0 + n) + lane % 4 * 4;
                *reinterpret_cast<u32 *>(tile + at) = pack_bf16(sums.at[f][n][2 * half], sums.at[f][n][2 * half + 1]);
            }
    __syncwarp();
#pragma unroll
    for (int index = lane; index < FRAGMENTS * 16 * ACROSS; index += WARP) {
        int row = row0 + index / ACROSS, chunk = chunk0 + index % ACROSS;
        if (row < rows)
            *reinterpret_cast<uint4 *>(to + static_cast<i64>(row) * stride + chunk * 8) =
                *reinterpret_cast<const uint4 *>(tile + place(row, chunk));
    }
}

__device__ __forceinline__ float exp2_of(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// tanh to within 1e-7 absolute; the instruction's 5e-4 would show behind a cap of 50.
__device__ __forceinline__ float tanh_of(float x) {
    return 1.0f - __fdividef(2.0f, exp2_of(2.0f * LOG2E * x) + 1.0f);
}
