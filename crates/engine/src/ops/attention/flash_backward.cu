// variants: HEAD=64,80,96,128,256
// Attention backward: what each row needs of its own, then dq with one block per query head and tile of queries, then
// dk and dv with one block per KV head and tile of keys. Scores are computed in both, so that every sum is taken by
// one warp in one order: no atomics, and the same bytes every time.
//
//   p = exp(s - lse)    delta = sum_j dout_j out_j    ds = p (dout v^T - delta), times 1 - tanh^2 under a soft cap
//   dq = scale ds k     dk = scale ds^T q             dv = p^T dout

#include "walk.cuh"

// (lse log2 e, delta) of every row, by head: (H, N) pairs.
extern "C" __global__ void __launch_bounds__(THREADS) flash_backward_rows(const bf16 *dout, const bf16 *out, const float *lse,
                                                                    float2 *rows, u32 n, u32 num_heads) {
    // Lanes that share a row of a head: the power of two that holds its chunks.
    constexpr int LANES = CHUNKS > 16 ? 32 : CHUNKS > 8 ? 16 : 8;
    const i64 item = (static_cast<i64>(blockIdx.x) * THREADS + threadIdx.x) / LANES;
    const int chunk = threadIdx.x % LANES;
    if (item - threadIdx.x % WARP / LANES >= static_cast<i64>(n) * num_heads) return;
    const bool there = item < static_cast<i64>(n) * num_heads;
    float sum = 0.0f;
    if (there && chunk < CHUNKS) {
        float a[8], b[8];
        load8(dout + item * HEAD + chunk * 8, a);
        load8(out + item * HEAD + chunk * 8, b);
#pragma unroll
        for (int i = 0; i < 8; i++) sum = fmaf(a[i], b[i], sum);
    }
#pragma unroll
    for (int offset = LANES / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(FULL, sum, offset);
    if (there && chunk == 0) rows[item % num_heads * n + item / num_heads] = make_float2(lse[item] * LOG2E, sum);
}

#if HEAD > 128
#include "wide.cuh"
#else

// p and ds in the place of s and dp. `row_of(f, n, e)` is the (lse log2 e, delta) of an element's query.
template <bool CAPPED, int FRAGMENTS, int COLS, typename RowOf>
__device__ __forceinline__ void weigh(Scores<FRAGMENTS, COLS> &s, Scores<FRAGMENTS, COLS> &dp, float factor,
                                      float scale_over_cap, RowOf row_of) {
#pragma unroll
    for (int n = 0; n < COLS / 8; n++)
#pragma unroll
        for (int f = 0; f < FRAGMENTS; f++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                float x = s.at[f][n][e];
                const float2 row = row_of(f, n, e);
                if (CAPPED) x = tanh_of(x * scale_over_cap);
                float p = exp2_of(fmaf(x, factor, -row.x)), ds = p * (dp.at[f][n][e] - row.y);
                s.at[f][n][e] = p;
                dp.at[f][n][e] = CAPPED ? ds * (1.0f - x * x) : ds;
            }
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    flash_backward_queries(const bf16 *dout, const bf16 *q, const bf16 *k, const bf16 *v, const float2 *rows,
                           const u32 *table, bf16 *dq, u32 n, u32 num_heads, u32 group, float scale, int window, float cap) {
    constexpr int FRAGMENTS = 2, QUERIES = WARPS * 16 * FRAGMENTS, KEYS = HEAD == 64 ? 64 : 32;
    const Queries tile(table, QUERIES, window);
    if (tile.rows <= 0) return;
    const u32 q_tile = shared_address(shared), dout_tile = q_tile + QUERIES * PITCH, key_tiles = dout_tile + QUERIES * PITCH;
    const u32 head = blockIdx.x, stride = num_heads * HEAD, key_stride = num_heads / group * HEAD;
    k += head / group * HEAD, v += head / group * HEAD;

    auto copy = [&](int key0, int stage) {
        u32 to = key_tiles + stage * 2 * KEYS * PITCH;
        tile.copy_keys<KEYS>(to, k, key_stride, key0);
        tile.copy_keys<KEYS>(to + KEYS * PITCH, v, key_stride, key0);
        copies_commit();
    };
    copy_some<QUERIES>(q_tile, q + head * HEAD, stride, tile.query_row, tile.rows);
    copy_some<QUERIES>(dout_tile, dout + head * HEAD, stride, tile.query_row, tile.rows);
    copy(tile.first, 0);

    const Lane lane;
    const int row0 = threadIdx.x / WARP * 16 * FRAGMENTS;
    const int down = threadIdx.x % WARP / 4, right = threadIdx.x % 4 * 2;
    const int near = tile.diagonal + row0, far = near + 16 * FRAGMENTS - 1;
    const float factor = (cap > 0.0f ? cap : scale) * LOG2E, scale_over_cap = __fdividef(scale, cap);

    // A row that is not there has an infinite sum: its weights are zero.
    float2 own[FRAGMENTS][2];
#pragma unroll
    for (int f = 0; f < FRAGMENTS; f++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int row = row0 + f * 16 + half * 8 + down;
            own[f][half] = row < tile.rows ? rows[static_cast<i64>(head) * n + tile.query_row + row] : make_float2(INFINITE, 0.0f);
        }
    auto row_of = [&](int f, int, int e) { return own[f][e / 2]; };

    Scores<FRAGMENTS, HEAD> sums;
    sums.clear();
    int stage = 0;
    for (int key0 = tile.first; key0 < tile.total; key0 += KEYS, stage ^= 1) {
        copies_wait<0>();
        __syncthreads();
        if (key0 + KEYS < tile.total) copy(key0 + KEYS, stage ^ 1);
        if (row0 >= tile.rows || key0 > far || key0 + KEYS - 1 <= near - window) continue;
        const u32 k_tile = key_tiles + stage * 2 * KEYS * PITCH, v_tile = k_tile + KEYS * PITCH;

        Scores<FRAGMENTS, KEYS> s, ds;
        multiply_rows(s, q_tile + row0 * PITCH, k_tile, lane);
        multiply_rows(ds, dout_tile + row0 * PITCH, v_tile, lane);
        if (cap > 0.0f) weigh<true>(s, ds, factor, scale_over_cap, row_of);
        else weigh<false>(s, ds, factor, scale_over_cap, row_of);
        if (key0 + KEYS - 1 > near || key0 <= far - window) {
#pragma unroll
            for (int f = 0; f < FRAGMENTS; f++)
#pragma unroll
                for (int i = 0; i < KEYS / 8; i++)
#pragma unroll
                    for (int e = 0; e < 4; e++) {
                        int behind = near + f * 16 + e / 2 * 8 + down - (key0 + i * 8 + right + e % 2);
                        if (behind < 0 || behind >= window) ds.at[f][i][e] = 0.0f;
                    }
        }
        multiply_weights(sums, ds, k_tile, lane);
    }
#pragma unroll
    for (int f = 0; f < FRAGMENTS; f++)
#pragma unroll
        for (int i = 0; i < HEAD / 8; i++)
#pragma unroll
            for (int e = 0; e < 4; e++) sums.at[f][i][e] *= scale;
    store_rows(sums, shared, row0, tile.rows, dq + static_cast<i64>(tile.query_row) * stride + head * HEAD, stride);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    flash_backward_keys(const bf16 *dout, const bf16 *q, const bf16 *k, const bf16 *v, const float2 *rows, const u32 *table,
                        const u32 *runs, bf16 *dk, bf16 *dv, u32 n, u32 num_heads, u32 group, float scale, int window,
                        float cap) {
    constexpr int FRAGMENTS = HEAD == 64 ? 2 : 1, KEYS = WARPS * 16 * FRAGMENTS, QUERIES = HEAD == 64 ? 32 : 64;
    const Keys tile(table, KEYS);
    if (tile.count <= 0) return;
    const u32 k_tile = shared_address(shared), v_tile = k_tile + KEYS * PITCH, query_tiles = v_tile + KEYS * PITCH;
    u8 *const pairs = shared + (2 * KEYS + 4 * QUERIES) * PITCH;
    const u32 kv_head = blockIdx.x, stride = num_heads * HEAD, key_stride = num_heads / group * HEAD;

    auto copy = [&](const Walk &at, int stage) {
        u8 *own = pairs + stage * QUERIES * sizeof(float2);
        copy_queries<QUERIES>(at, query_tiles + stage * 2 * QUERIES * PITCH, own, q, dout, rows, n, stride);
    };
    Walk walk(tile, runs, kv_head, group, window);
    bool more = walk.settle();
    copy_some<KEYS>(k_tile, k + kv_head * HEAD, key_stride, tile.row, tile.count);
    copy_some<KEYS>(v_tile, v + kv_head * HEAD, key_stride, tile.row, tile.count);
    if (more) copy(walk, 0);

    const Lane lane;
    const int row0 = threadIdx.x / WARP * 16 * FRAGMENTS;
    const int down = threadIdx.x % WARP / 4, right = threadIdx.x % 4 * 2;
    // Positions of the warp's first and last key.
    const int low = tile.position + row0, high = low + 16 * FRAGMENTS - 1;
    const float factor = (cap > 0.0f ? cap : scale) * LOG2E, scale_over_cap = __fdividef(scale, cap);

    Scores<FRAGMENTS, HEAD> dk_sums, dv_sums;
    dk_sums.clear(), dv_sums.clear();
    for (int stage = 0; more; stage ^= 1) {
        const int first = walk.position0 + walk.query, last = first + QUERIES - 1;
        more = walk.next(QUERIES);
        copies_wait<0>();
        __syncthreads();
        if (more) copy(walk, stage ^ 1);
        if (row0 >= tile.count || last < low || first - high >= window) continue;
        const u32 q_tile = query_tiles + stage * 2 * QUERIES * PITCH, dout_tile = q_tile + QUERIES * PITCH;

        Scores<FRAGMENTS, QUERIES> p, ds;
        multiply_rows(p, k_tile + row0 * PITCH, q_tile, lane);
        multiply_rows(ds, v_tile + row0 * PITCH, dout_tile, lane);
        const float4 *two_rows = reinterpret_cast<const float4 *>(pairs) + stage * (QUERIES / 2) + threadIdx.x % 4;
        auto row_of = [&](int, int i, int e) {
            const float4 two = two_rows[i * 4];
            return e % 2 == 0 ? make_float2(two.x, two.y) : make_float2(two.z, two.w);
        };
        if (cap > 0.0f) weigh<true>(p, ds, factor, scale_over_cap, row_of);
        else weigh<false>(p, ds, factor, scale_over_cap, row_of);
        if (first < high || last - low >= window) {
#pragma unroll
            for (int f = 0; f < FRAGMENTS; f++)
#pragma unroll
                for (int i = 0; i < QUERIES / 8; i++)
#pragma unroll
                    for (int e = 0; e < 4; e++) {
                        int behind = first + i * 8 + right + e % 2 - (low + f * 16 + e / 2 * 8 + down);
                        if (behind < 0 || behind >= window) p.at[f][i][e] = 0.0f, ds.at[f][i][e] = 0.0f;
                    }
        }
        multiply_weights(dv_sums, p, dout_tile, lane);
        multiply_weights(dk_sums, ds, q_tile, lane);
    }
    copies_wait<0>();
    __syncthreads();
#pragma unroll
    for (int f = 0; f < FRAGMENTS; f++)
#pragma unroll
        for (int i = 0; i < HEAD / 8; i++)
#pragma unroll
            for (int e = 0; e < 4; e++) dk_sums.at[f][i][e] *= scale;
    const i64 to = static_cast<i64>(tile.row) * key_stride + kv_head * HEAD;
    store_rows(dk_sums, shared, row0, tile.count, dk + to, key_stride);
    store_rows(dv_sums, shared + KEYS * PITCH, row0, tile.count, dv + to, key_stride);
}

#endif
