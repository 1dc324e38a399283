// variants: HEAD=64,80,96,128,256
// Attention forward, one block per query head and tile of queries (see tiles.cuh; online softmax: arXiv 1805.02867,
// tiling: arXiv 2205.14135, 2307.08691).
//
// The running maximum of a row is only moved when a score passes it by more than a factor of 2^8: weights stay
// within range of f32, their rounding to bf16 is relative, and sums are hardly ever rescaled.

#include "tiles.cuh"

template <int FRAGMENTS, int KEYS>
__device__ __forceinline__ void forward(const bf16 *q, const bf16 *k, const bf16 *v, const u32 *table, bf16 *out,
                                        float *lse, u32 num_heads, u32 group, float scale, int window, float cap) {
    constexpr int QUERIES = WARPS * 16 * FRAGMENTS;
    constexpr float SLACK = 8.0f;
    const Queries tile(table, QUERIES, window);
    if (tile.rows <= 0) return;
    const u32 q_tile = shared_address(shared), key_tiles = q_tile + QUERIES * PITCH;
    const u32 head = blockIdx.x, stride = num_heads * HEAD, key_stride = num_heads / group * HEAD;
    q += head * HEAD, k += head / group * HEAD, v += head / group * HEAD;

    auto copy = [&](int key0, int stage) {
        u32 to = key_tiles + stage * 2 * KEYS * PITCH;
        tile.copy_keys<KEYS>(to, k, key_stride, key0);
        tile.copy_keys<KEYS>(to + KEYS * PITCH, v, key_stride, key0);
        copies_commit();
    };
    copy_some<QUERIES>(q_tile, q, stride, tile.query_row, tile.rows);
    copy(tile.first, 0);

    const Lane lane;
    const int row0 = threadIdx.x / WARP * 16 * FRAGMENTS;
    // The thread's rows are row0 + 16 f + 8 half + `down`, its columns 8 n + `right` and the next one.
    const int down = threadIdx.x % WARP / 4, right = threadIdx.x % 4 * 2;
    // Keys up to `near` are seen by all of the warp's rows, up to `far` by some.
    const int near = tile.diagonal + row0, far = near + 16 * FRAGMENTS - 1;
    const float factor = cap > 0.0f ? LOG2E : scale * LOG2E, scale_over_cap = __fdividef(scale, cap);

    Scores<FRAGMENTS, HEAD> sums;
    sums.clear();
    float top[FRAGMENTS][2], weight[FRAGMENTS][2];
#pragma unroll
    for (int f = 0; f < FRAGMENTS; f++)
#pragma unroll
        for (int half = 0; half < 2; half++) top[f][half] = -INFINITE, weight[f][half] = 0.0f;

    int stage = 0;
    for (int key0 = tile.first; key0 < tile.total; key0 += KEYS, stage ^= 1) {
        copies_wait<0>();
        __syncthreads();
        if (key0 + KEYS < tile.total) copy(key0 + KEYS, stage ^ 1);
        if (row0 >= tile.rows || key0 > far || key0 + KEYS - 1 <= near - window) continue;
        const u32 k_tile = key_tiles + stage * 2 * KEYS * PITCH, v_tile = k_tile + KEYS * PITCH;

        Scores<FRAGMENTS, KEYS> s;
        multiply_rows(s, q_tile + row0 * PITCH, k_tile, lane);
        if (cap > 0.0f) {
#pragma unroll
            for (int f = 0; f < FRAGMENTS; f++)
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                    for (int e = 0; e < 4; e++) s.at[f][n][e] = cap * tanh_of(s.at[f][n][e] * scale_over_cap);
        }
        if (key0 + KEYS - 1 > near || key0 <= far - window) {
#pragma unroll
            for (int f = 0; f < FRAGMENTS; f++)
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                    for (int e = 0; e < 4; e++) {
                        int behind = near + f * 16 + e / 2 * 8 + down - (key0 + n * 8 + right + e % 2);
                        if (behind < 0 || behind >= window) s.at[f][n][e] = -INFINITE;
                    }
        }

        float most[FRAGMENTS][2];
        bool higher = false;
#pragma unroll
        for (int f = 0; f < FRAGMENTS; f++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float m = -INFINITE;
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++) m = fmaxf(m, fmaxf(s.at[f][n][2 * half], s.at[f][n][2 * half + 1]));
                most[f][half] = m;
                // False where both are minus infinity: their difference is not a number.
                higher |= (m - top[f][half]) * factor > SLACK;
            }
        if (__any_sync(FULL, higher)) {
#pragma unroll
            for (int f = 0; f < FRAGMENTS; f++)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    float m = fmaxf(most[f][half], top[f][half]);
                    m = fmaxf(m, __shfl_xor_sync(FULL, m, 1));
                    m = fmaxf(m, __shfl_xor_sync(FULL, m, 2));
                    float shrink = m == -INFINITE ? 1.0f : exp2_of((top[f][half] - m) * factor);
                    top[f][half] = m;
                    weight[f][half] *= shrink;
#pragma unroll
                    for (int n = 0; n < HEAD / 8; n++)
                        sums.at[f][n][2 * half] *= shrink, sums.at[f][n][2 * half + 1] *= shrink;
                }
        }
#pragma unroll
        for (int f = 0; f < FRAGMENTS; f++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                // A row that has seen no key yet.
                float base = top[f][half] == -INFINITE ? 0.0f : top[f][half] * factor;
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                    for (int e = 2 * half; e < 2 * half + 2; e++) {
                        s.at[f][n][e] = exp2_of(fmaf(s.at[f][n][e], factor, -base));
                        weight[f][half] += s.at[f][n][e];
                    }
            }
        multiply_weights(sums, s, v_tile, lane);
    }

#pragma unroll
    for (int f = 0; f < FRAGMENTS; f++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float sum = weight[f][half];
            sum += __shfl_xor_sync(FULL, sum, 1);
            sum += __shfl_xor_sync(FULL, sum, 2);
            float inverse = __fdividef(1.0f, sum);
#pragma unroll
            for (int n = 0; n < HEAD / 8; n++)
                sums.at[f][n][2 * half] *= inverse, sums.at[f][n][2 * half + 1] *= inverse;
            int row = row0 + f * 16 + half * 8 + down;
            if (right == 0 && row < tile.rows)
                lse[static_cast<i64>(tile.query_row + row) * num_heads + head] =
                    (top[f][half] * factor + __log2f(sum)) * LN2;
        }
    store_rows(sums, shared, row0, tile.rows, out + static_cast<i64>(tile.query_row) * stride + head * HEAD, stride);
}

#define ARGUMENTS                                                                                                      \
    const bf16 *q, const bf16 *k, const bf16 *v, const u32 *table, bf16 *out, float *lse, u32 num_heads, u32 group,    \
        float scale, int window, float cap
#define VALUES q, k, v, table, out, lse, num_heads, group, scale, window, cap

#if HEAD <= 128
// 32 queries a warp: half the reads of shared memory per product. Wants the shared memory of two blocks on one
// multiprocessor, which the data centre chips from Hopper on have.
extern "C" __global__ void __launch_bounds__(THREADS, 2) flash_forward_tall(ARGUMENTS) { forward<2, 64>(VALUES); }
#endif

extern "C" __global__ void __launch_bounds__(THREADS, 2) flash_forward(ARGUMENTS) { forward<1, 32>(VALUES); }
