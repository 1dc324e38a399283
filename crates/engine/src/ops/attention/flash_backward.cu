// variants: HEAD=64,80,96,128,256
// Attention backward: what each row needs of its own, then dq with one block per query head and tile of queries, then
// dk and dv with one block per KV head and tile of keys. Scores are computed in both, so that every sum is taken by
// one warp in one order: no atomics, and the same bytes every time.
//
//   p = exp(s - lse)    delta = sum_j dout_j out_j    ds = p (dout v^T - delta), times 1 - tanh^2 under a soft cap
//   dq = scale ds k     dk = scale ds^T q             dv = p^T dout

#include "tiles.cuh"

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

#define QUERY_FRAGMENTS (HEAD <= 128 ? 2 : 1)
#define QUERY_KEYS (HEAD == 64 ? 64 : HEAD <= 128 ? 32 : 16)

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    flash_backward_queries(const bf16 *dout, const bf16 *q, const bf16 *k, const bf16 *v, const float2 *rows,
                           const u32 *table, bf16 *dq, u32 n, u32 num_heads, u32 group, float scale, int window, float cap) {
    constexpr int FRAGMENTS = QUERY_FRAGMENTS, QUERIES = WARPS * 16 * FRAGMENTS, KEYS = QUERY_KEYS;
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

// The queries that see a tile of keys, tile by tile: for each query head of the KV head, for each run of queries (the
// keys' own segment, then its children).
struct Walk {
    const uint4 *runs;
    u32 run, runs_begin, runs_end, head, head_end;
    // Positions from which on, and before which, queries see a key of the tile.
    int from, before;
    // The tile: its first query in the run, the end of the run's queries that see the keys.
    int query, end, row, position0;

    // Goes to the next run with a query that sees the keys, from this one on.
    __device__ __forceinline__ bool settle() {
        for (; head < head_end; head++, run = runs_begin)
            for (; run < runs_end; run++) {
                uint4 entry = runs[run];
                row = entry.x, position0 = entry.z;
                query = max(0, from - position0), end = min(static_cast<int>(entry.y), before - position0);
                if (query < end) return true;
            }
        return false;
    }
    __device__ __forceinline__ bool next(int queries) {
        query += queries;
        if (query < end) return true;
        run++;
        return settle();
    }
};

#define KEY_FRAGMENTS (HEAD == 64 ? 2 : 1)
#define KEY_QUERIES (HEAD == 64 ? 32 : HEAD <= 128 ? 64 : 16)

__device__ __forceinline__ void copy_pair_async(u32 to, const void *from) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(to), "l"(from));
}

// dk, dv, or both. The sums of both take 2 HEAD floats of a row's registers.
template <bool DK, bool DV>
__device__ __forceinline__ void keys_backward(const bf16 *dout, const bf16 *q, const bf16 *k, const bf16 *v,
                                              const float2 *rows, const u32 *table, const u32 *runs, bf16 *dk, bf16 *dv, u32 n,
                                              u32 num_heads, u32 group, float scale, int window, float cap) {
    constexpr int FRAGMENTS = KEY_FRAGMENTS, KEYS = WARPS * 16 * FRAGMENTS, QUERIES = KEY_QUERIES, PARTS = ENTRY / KEYS;
    // Entry of the table: first key's row, keys, its position, begin and end of the runs of queries, 0, 0, 0.
    const uint4 *entry = reinterpret_cast<const uint4 *>(table) + blockIdx.y / PARTS * 2;
    const uint4 a = entry[0];
    const int start = blockIdx.y % PARTS * KEYS, keys = min(KEYS, static_cast<int>(a.y) - start);
    if (keys <= 0) return;
    const int key_row = a.x + start, position = a.z + start;
    const u32 k_tile = shared_address(shared), v_tile = k_tile + KEYS * PITCH, query_tiles = v_tile + KEYS * PITCH;
    constexpr u32 PAIRS = (2 * KEYS + 4 * QUERIES) * PITCH;
    const u32 kv_head = blockIdx.x, stride = num_heads * HEAD, key_stride = num_heads / group * HEAD;

    auto copy = [&](const Walk &at, int stage) {
        u32 to = query_tiles + stage * 2 * QUERIES * PITCH;
        int row = at.row + at.query, count = at.end - at.query;
        copy_some<QUERIES>(to, q + at.head * HEAD, stride, row, count);
        copy_some<QUERIES>(to + QUERIES * PITCH, dout + at.head * HEAD, stride, row, count);
        if (threadIdx.x < QUERIES) {
            u32 offset = PAIRS + (stage * QUERIES + threadIdx.x) * sizeof(float2);
            if (static_cast<int>(threadIdx.x) < count)
                copy_pair_async(k_tile + offset, rows + static_cast<i64>(at.head) * n + row + threadIdx.x);
            // A row that is not there has an infinite sum: its weights are zero.
            else *reinterpret_cast<float2 *>(shared + offset) = make_float2(INFINITE, 0.0f);
        }
        copies_commit();
    };
    Walk walk;
    walk.runs = reinterpret_cast<const uint4 *>(runs), walk.run = walk.runs_begin = a.w, walk.runs_end = entry[1].x;
    walk.head = kv_head * group, walk.head_end = walk.head + group;
    walk.from = position, walk.before = position + keys - 1 + window;
    bool more = walk.settle();
    copy_some<KEYS>(k_tile, k + kv_head * HEAD, key_stride, key_row, keys);
    if (DK) copy_some<KEYS>(v_tile, v + kv_head * HEAD, key_stride, key_row, keys);
    if (more) copy(walk, 0);

    const Lane lane;
    const int row0 = threadIdx.x / WARP * 16 * FRAGMENTS;
    const int down = threadIdx.x % WARP / 4, right = threadIdx.x % 4 * 2;
    // Positions of the warp's first and last key.
    const int low = position + row0, high = low + 16 * FRAGMENTS - 1;
    const float factor = (cap > 0.0f ? cap : scale) * LOG2E, scale_over_cap = __fdividef(scale, cap);

    Scores<FRAGMENTS, HEAD> dk_sums, dv_sums;
    dk_sums.clear(), dv_sums.clear();
    for (int stage = 0; more; stage ^= 1) {
        const int first = walk.position0 + walk.query, last = first + QUERIES - 1;
        more = walk.next(QUERIES);
        copies_wait<0>();
        __syncthreads();
        if (more) copy(walk, stage ^ 1);
        if (row0 >= keys || last < low || first - high >= window) continue;
        const u32 q_tile = query_tiles + stage * 2 * QUERIES * PITCH, dout_tile = q_tile + QUERIES * PITCH;

        Scores<FRAGMENTS, QUERIES> p, ds;
        multiply_rows(p, k_tile + row0 * PITCH, q_tile, lane);
        if (DK) multiply_rows(ds, v_tile + row0 * PITCH, dout_tile, lane);
        else ds.clear();
        const float4 *pairs = reinterpret_cast<const float4 *>(shared + PAIRS) + stage * (QUERIES / 2) + threadIdx.x % 4;
        auto row_of = [&](int, int i, int e) {
            const float4 two = pairs[i * 4];
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
        if (DV) multiply_weights(dv_sums, p, dout_tile, lane);
        if (DK) multiply_weights(dk_sums, ds, q_tile, lane);
    }
    copies_wait<0>();
    __syncthreads();
#pragma unroll
    for (int f = 0; f < FRAGMENTS; f++)
#pragma unroll
        for (int i = 0; i < HEAD / 8; i++)
#pragma unroll
            for (int e = 0; e < 4; e++) dk_sums.at[f][i][e] *= scale;
    const i64 to = static_cast<i64>(key_row) * key_stride + kv_head * HEAD;
    if (DK) store_rows(dk_sums, shared, row0, keys, dk + to, key_stride);
    if (DV) store_rows(dv_sums, shared + KEYS * PITCH, row0, keys, dv + to, key_stride);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    flash_backward_keys(const bf16 *dout, const bf16 *q, const bf16 *k, const bf16 *v, const float2 *rows, const u32 *table,
                        const u32 *runs, bf16 *dk, bf16 *dv, u32 n, u32 num_heads, u32 group, float scale, int window,
                        float cap) {
#if HEAD <= 128
    keys_backward<true, true>(dout, q, k, v, rows, table, runs, dk, dv, n, num_heads, group, scale, window, cap);
#else
    // Registers do not hold both sums: dk in one half of the grid, dv in the other.
    if (blockIdx.z == 0)
        keys_backward<true, false>(dout, q, k, v, rows, table, runs, dk, dv, n, num_heads, group, scale, window, cap);
    else
        keys_backward<false, true>(dout, q, k, v, rows, table, runs, dk, dv, n, num_heads, group, scale, window, cap);
#endif
}
