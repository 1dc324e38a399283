// Backward for heads whose sums a warp has no registers for. Eight warps a block, two for every 16 rows; what one of
// them owns of the products over HEAD it keeps in registers for its whole life, so that shared memory is read for the
// other side alone. Of a pair the first computes the weights, the second what they are weighed with, and they hand over
// what the other needs through shared memory.
#pragma once

#include "walk.cuh"

#define PAIR_THREADS (2 * THREADS)
#define PAIR_ROWS (WARPS * 16)
// Rows of the other side at a time.
#define PAIR_OTHERS 32

// 16 rows of a warp, as left operands of products over HEAD.
struct Held {
    u32 at[HEAD / 16][4];
};

// multiply_rows of held rows: each product's right operand is read two steps ahead.
template <int COLS>
__device__ __forceinline__ void multiply_held(Scores<1, COLS> &sums, const Held &left, u32 b, const Lane &lane) {
    constexpr int ACROSS = COLS / 16, STEPS = HEAD / 16 * ACROSS, RING = 3;
    u32 right[RING][4];
    auto read_right = [&](int step) {
        u32 at = b + lane.right + step % ACROSS * 16 * PITCH + column(step / ACROSS, lane.right_twist);
        load_matrices(right[step % RING], at);
    };
    sums.clear();
#pragma unroll
    for (int step = 0; step < RING - 1; step++) read_right(step);
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        const int k = step / ACROSS, n = step % ACROSS;
        if (step + RING - 1 < STEPS) read_right(step + RING - 1);
        const u32(&y)[4] = right[step % RING];
        multiply_add(sums.at[0][2 * n], left.at[k], y[0], y[1]);
        multiply_add(sums.at[0][2 * n + 1], left.at[k], y[2], y[3]);
    }
}

// A pair's place, and what its warps hand over: the scores of 16 rows in the registers' order. A barrier of the block
// stands between two uses of it.
struct Pair {
    int number, second;
    u8 *room;
    __device__ __forceinline__ Pair(u8 *rooms, int rooms_of_pair) {
        number = threadIdx.x / WARP % WARPS, second = threadIdx.x / THREADS;
        room = rooms + number * rooms_of_pair * 16 * PAIR_OTHERS * sizeof(float);
    }
    __device__ __forceinline__ float4 *of(int warp) const {
        return reinterpret_cast<float4 *>(room) + warp * 4 * PAIR_OTHERS + threadIdx.x % WARP;
    }
    __device__ __forceinline__ void put(int warp, const Scores<1, PAIR_OTHERS> &values) const {
#pragma unroll
        for (int i = 0; i < PAIR_OTHERS / 8; i++) {
            const float(&v)[4] = values.at[0][i];
            of(warp)[i * WARP] = make_float4(v[0], v[1], v[2], v[3]);
        }
    }
    __device__ __forceinline__ float4 get(int warp, int i) const { return of(warp)[i * WARP]; }
};

// Takes a warp's rows, those of `first` or of `second`, by way of the tiles, which are free again on return.
__device__ __forceinline__ void hold(Held &own, const Pair &pair, const bf16 *first, const bf16 *second, u32 stride, int row0,
                                     int count, const Lane &lane) {
    const u32 tiles = shared_address(shared);
    copy_some<PAIR_ROWS, PAIR_THREADS>(tiles, first, stride, row0, count);
    copy_some<PAIR_ROWS, PAIR_THREADS>(tiles + PAIR_ROWS * PITCH, second, stride, row0, count);
    copies_commit();
    copies_wait<0>();
    __syncthreads();
    const u32 rows = tiles + (pair.second * PAIR_ROWS + pair.number * 16) * PITCH;
#pragma unroll
    for (int k = 0; k < HEAD / 16; k++) load_matrices(own.at[k], rows + lane.down + column(k, lane.down_twist));
    __syncthreads();
}

// The weight of a score in p, and in ds.
__device__ __forceinline__ float2 weight(float x, float lse, float cap, float factor, float scale_over_cap) {
    if (cap > 0.0f) x = tanh_of(x * scale_over_cap);
    float p = exp2_of(fmaf(x, factor, -lse));
    return make_float2(p, cap > 0.0f ? p * (1.0f - x * x) : p);
}

extern "C" __global__ void __launch_bounds__(PAIR_THREADS, 1)
    flash_backward_queries(const bf16 *dout, const bf16 *q, const bf16 *k, const bf16 *v, const float2 *rows,
                           const u32 *table, bf16 *dq, u32 n, u32 num_heads, u32 group, float scale, int window, float cap) {
    constexpr int QUERIES = PAIR_ROWS, KEYS = PAIR_OTHERS;
    const Queries tile(table, QUERIES, window);
    if (tile.rows <= 0) return;
    const u32 tiles = shared_address(shared);
    const Pair pair(shared + 4 * KEYS * PITCH, 2);
    const u32 head = blockIdx.x, stride = num_heads * HEAD, key_stride = num_heads / group * HEAD;
    k += head / group * HEAD, v += head / group * HEAD;

    const Lane lane;
    const int row0 = pair.number * 16, down = threadIdx.x % WARP / 4, right = threadIdx.x % 4 * 2;
    Held own;
    hold(own, pair, q + head * HEAD, dout + head * HEAD, stride, tile.query_row, tile.rows, lane);

    auto copy = [&](int key0, int stage) {
        u32 to = tiles + stage * 2 * KEYS * PITCH;
        tile.copy_keys<KEYS, PAIR_THREADS>(to, k, key_stride, key0);
        tile.copy_keys<KEYS, PAIR_THREADS>(to + KEYS * PITCH, v, key_stride, key0);
        copies_commit();
    };
    copy(tile.first, 0);

    const int near = tile.diagonal + row0, far = near + 15;
    const float factor = (cap > 0.0f ? cap : scale) * LOG2E, scale_over_cap = __fdividef(scale, cap);
    // A row that is not there has an infinite sum: its weights are zero.
    float2 row_of[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int row = row0 + half * 8 + down;
        row_of[half] = row < tile.rows ? rows[static_cast<i64>(head) * n + tile.query_row + row] : make_float2(INFINITE, 0.0f);
    }

    // Each warp has half of the columns of dq.
    Scores<1, HEAD / 2> sums;
    sums.clear();
    int stage = 0;
    for (int key0 = tile.first; key0 < tile.total; key0 += KEYS, stage ^= 1) {
        copies_wait<0>();
        __syncthreads();
        if (key0 + KEYS < tile.total) copy(key0 + KEYS, stage ^ 1);
        const bool sees = row0 < tile.rows && key0 <= far && key0 + KEYS - 1 > near - window;
        const u32 k_tile = tiles + stage * 2 * KEYS * PITCH, v_tile = k_tile + KEYS * PITCH;

        Scores<1, KEYS> s;
        if (sees) {
            multiply_held(s, own, pair.second ? v_tile : k_tile, lane);
            const bool at_edge = key0 + KEYS - 1 > near || key0 <= far - window;
#pragma unroll
            for (int i = 0; i < KEYS / 8; i++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    float &x = s.at[0][i][e];
                    if (pair.second) {
                        x -= row_of[e / 2].y;
                    } else {
                        x = weight(x, row_of[e / 2].x, cap, factor, scale_over_cap).y;
                        int behind = near + e / 2 * 8 + down - (key0 + i * 8 + right + e % 2);
                        if (at_edge && (behind < 0 || behind >= window)) x = 0.0f;
                    }
                }
            pair.put(pair.second, s);
        }
        __syncthreads();
        if (!sees) continue;
#pragma unroll
        for (int i = 0; i < KEYS / 8; i++) {
            const float4 others = pair.get(1 - pair.second, i);
            s.at[0][i][0] *= others.x, s.at[0][i][1] *= others.y, s.at[0][i][2] *= others.z, s.at[0][i][3] *= others.w;
        }
        multiply_weights(sums, s, k_tile + pair.second * HEAD, lane);
    }
    copies_wait<0>();
    __syncthreads();
#pragma unroll
    for (int i = 0; i < HEAD / 16; i++)
#pragma unroll
        for (int e = 0; e < 4; e++) sums.at[0][i][e] *= scale;
    bf16 *to = dq + static_cast<i64>(tile.query_row) * stride + head * HEAD;
    store_rows(sums, shared, row0, tile.rows, to, stride, pair.second * CHUNKS / 2);
}

// The first of a pair computes dv, the second dk.
extern "C" __global__ void __launch_bounds__(PAIR_THREADS, 1)
    flash_backward_keys(const bf16 *dout, const bf16 *q, const bf16 *k, const bf16 *v, const float2 *rows, const u32 *table,
                        const u32 *runs, bf16 *dk, bf16 *dv, u32 n, u32 num_heads, u32 group, float scale, int window,
                        float cap) {
    constexpr int KEYS = PAIR_ROWS, QUERIES = PAIR_OTHERS;
    const Keys tile(table, KEYS);
    if (tile.count <= 0) return;
    const u32 tiles = shared_address(shared);
    u8 *const pairs = shared + 4 * QUERIES * PITCH;
    const Pair pair(pairs + 2 * QUERIES * sizeof(float2), 1);
    const u32 kv_head = blockIdx.x, stride = num_heads * HEAD, key_stride = num_heads / group * HEAD;

    const Lane lane;
    const int row0 = pair.number * 16, down = threadIdx.x % WARP / 4, right = threadIdx.x % 4 * 2;
    Held own;
    hold(own, pair, k + kv_head * HEAD, v + kv_head * HEAD, key_stride, tile.row, tile.count, lane);

    auto copy = [&](const Walk &at, int stage) {
        u8 *of_rows = pairs + stage * QUERIES * sizeof(float2);
        copy_queries<QUERIES, PAIR_THREADS>(at, tiles + stage * 2 * QUERIES * PITCH, of_rows, q, dout, rows, n, stride);
    };
    Walk walk(tile, runs, kv_head, group, window);
    bool more = walk.settle();
    if (more) copy(walk, 0);

    // Positions of the warp's first and last key.
    const int low = tile.position + row0, high = low + 15;
    const float factor = (cap > 0.0f ? cap : scale) * LOG2E, scale_over_cap = __fdividef(scale, cap);
    Scores<1, HEAD> sums;
    sums.clear();
    for (int stage = 0; more; stage ^= 1) {
        const int first = walk.position0 + walk.query, last = first + QUERIES - 1;
        more = walk.next(QUERIES);
        copies_wait<0>();
        __syncthreads();
        if (more) copy(walk, stage ^ 1);
        const bool sees = row0 < tile.count && last >= low && first - high < window;
        const u32 q_tile = tiles + stage * 2 * QUERIES * PITCH, dout_tile = q_tile + QUERIES * PITCH;

        Scores<1, QUERIES> s;
        const float4 *two_rows = reinterpret_cast<const float4 *>(pairs) + stage * (QUERIES / 2) + threadIdx.x % 4;
        if (sees) multiply_held(s, own, pair.second ? dout_tile : q_tile, lane);
        if (sees && !pair.second) {
            const bool at_edge = first < high || last - low >= window;
#pragma unroll
            for (int i = 0; i < QUERIES / 8; i++) {
                const float4 two = two_rows[i * 4];
                float of_ds[4];
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    const float2 w = weight(s.at[0][i][e], e % 2 == 0 ? two.x : two.z, cap, factor, scale_over_cap);
                    int behind = first + i * 8 + right + e % 2 - (low + e / 2 * 8 + down);
                    const bool seen = !at_edge || (behind >= 0 && behind < window);
                    s.at[0][i][e] = seen ? w.x : 0.0f, of_ds[e] = seen ? w.y : 0.0f;
                }
                pair.of(0)[i * WARP] = make_float4(of_ds[0], of_ds[1], of_ds[2], of_ds[3]);
            }
        }
        __syncthreads();
        if (!sees) continue;
        if (pair.second) {
#pragma unroll
            for (int i = 0; i < QUERIES / 8; i++) {
                const float4 weights = pair.get(0, i), two = two_rows[i * 4];
                float(&x)[4] = s.at[0][i];
                x[0] = weights.x * (x[0] - two.y), x[1] = weights.y * (x[1] - two.w);
                x[2] = weights.z * (x[2] - two.y), x[3] = weights.w * (x[3] - two.w);
            }
        }
        multiply_weights(sums, s, pair.second ? q_tile : dout_tile, lane);
    }
    copies_wait<0>();
    __syncthreads();
    if (pair.second) {
#pragma unroll
        for (int i = 0; i < HEAD / 8; i++)
#pragma unroll
            for (int e = 0; e < 4; e++) sums.at[0][i][e] *= scale;
    }
    bf16 *to = (pair.second ? dk : dv) + static_cast<i64>(tile.row) * key_stride + kv_head * HEAD;
    store_rows(sums, shared + pair.second * KEYS * PITCH, row0, tile.count, to, key_stride);
}
