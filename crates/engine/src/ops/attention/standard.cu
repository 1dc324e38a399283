// Standard attention, as it is without flash: every score of a segment goes through memory, in bf16. For a reader who
// wants to see what flash buys, and to check it against; `train.attention = "standard"` chooses it.
//
// Scores are (H, len, L): a row for each query of the segment, a column for each key it could see, the parent's and
// then its own, and on to a multiple of 8.

#include "common.cuh"

#define THREADS 128
#define TILE 64
#define DEEP 32

// A matrix in memory; rows from `split` on lie elsewhere.
struct Stored {
    const bf16 *from;
    u32 stride;
    int rows, cols, split, low_row, high_row;
    __device__ __forceinline__ uint4 chunk(int row, int col) const {
        if (row >= rows || col >= cols) return make_uint4(0, 0, 0, 0);
        i64 at = row + (row < split ? low_row : high_row);
        return *reinterpret_cast<const uint4 *>(from + at * stride + col);
    }
};

// A segment: its first query's row, length, and where its keys lie (key j in row j + parent_row, or j + own_row from
// parent_len on; `columns` is L).
#define SEGMENT int query_row, int len, int parent_row, int parent_len, int own_row, int columns
#define QUERIES_OF(x, head) (Stored{x + (head) * D, num_heads * D, len, D, 0, 0, query_row})
#define KEYS_OF(x, head) \
    (Stored{x + (head) * D, num_heads / group * D, parent_len + len, D, parent_len, parent_row, own_row})
#define SCORES_OF(x, head) \
    (Stored{x + static_cast<i64>(head) * len * columns, static_cast<u32>(columns), len, columns, 0, 0, 0})

typedef bf16 Buffer[TILE * (DEEP + 8)];

// Columns `along..along + DEEP` of rows `first..first + TILE`, or where DOWN, rows `along..` of columns `first..`.
template <bool DOWN> __device__ __forceinline__ void fill(Buffer &to, const Stored &from, int first, int along) {
    constexpr int CHUNKS = (DOWN ? TILE : DEEP) / 8, PITCH = DOWN ? TILE + 8 : DEEP + 8;
    for (int index = threadIdx.x; index < TILE * DEEP / 8; index += THREADS) {
        int row = index / CHUNKS, col = index % CHUNKS * 8;
        *reinterpret_cast<uint4 *>(to + row * PITCH + col) =
            DOWN ? from.chunk(along + row, first + col) : from.chunk(first + row, along + col);
    }
}

// sums += a b for a tile of 64 x 64, 16 rows a warp: a is (rows, depth), or (depth, rows) where A_DOWN; b is
// (cols, depth), or (depth, cols) where B_DOWN.
template <bool A_DOWN, bool B_DOWN>
__device__ __forceinline__ void product(float (&sums)[TILE / 8][4], const Stored &a, const Stored &b, int row0, int col0,
                                        int depth) {
    __shared__ __align__(16) Buffer a_tile, b_tile;
    const int lane = threadIdx.x % WARP, warp_row = threadIdx.x / WARP * 16;
    for (int along = 0; along < depth; along += DEEP) {
        __syncthreads();
        fill<A_DOWN>(a_tile, a, row0, along);
        fill<B_DOWN>(b_tile, b, col0, along);
        __syncthreads();
#pragma unroll
        for (int k = 0; k < DEEP; k += 16) {
            u32 left[4], right[4];
            if (A_DOWN)
                load_matrices_transposed(left, shared_address(a_tile + (k + lane / 16 * 8 + lane % 8) * (TILE + 8) +
                                                              warp_row + lane / 8 % 2 * 8));
            else
                load_matrices(left, shared_address(a_tile + (warp_row + lane % 16) * (DEEP + 8) + k + lane / 16 * 8));
#pragma unroll
            for (int n = 0; n < TILE; n += 16) {
                if (B_DOWN)
                    load_matrices_transposed(
                        right, shared_address(b_tile + (k + lane % 16) * (TILE + 8) + n + lane / 16 * 8));
                else
                    load_matrices(right, shared_address(b_tile + (n + lane / 16 * 8 + lane % 8) * (DEEP + 8) + k +
                                                        lane / 8 % 2 * 8));
                multiply_add(sums[n / 8], left, right[0], right[1]);
                multiply_add(sums[n / 8 + 1], left, right[2], right[3]);
            }
        }
    }
}

// Calls `at(row, col, value)` for the thread's pairs of neighbours: value is that of `col`, next that of `col + 1`.
template <typename At>
__device__ __forceinline__ void each_pair(const float (&sums)[TILE / 8][4], int row0, int col0, int rows, int cols, At at) {
    const int lane = threadIdx.x % WARP;
#pragma unroll
    for (int n = 0; n < TILE / 8; n++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int row = row0 + threadIdx.x / WARP * 16 + half * 8 + lane / 4, col = col0 + n * 8 + lane % 4 * 2;
            if (row < rows && col < cols) at(row, col, sums[n][2 * half], sums[n][2 * half + 1]);
        }
}

// scores = scale a b^T, capped where `cap` is above 0, minus infinity where a query does not see a key (where
// `window` is above 0: the gradients of the weights are not masked).
extern "C" __global__ void __launch_bounds__(THREADS)
    standard_scores(const bf16 *a, const bf16 *b, bf16 *scores, SEGMENT, u32 num_heads, u32 group, int D, float scale,
                    int window, float cap) {
    const int head = blockIdx.z, row0 = blockIdx.y * TILE, col0 = blockIdx.x * TILE;
    float sums[TILE / 8][4] = {};
    product<false, false>(sums, QUERIES_OF(a, head), KEYS_OF(b, head / group), row0, col0, D);
    scores += static_cast<i64>(head) * len * columns;
    auto score = [&](int row, int col, float value) {
        value *= scale;
        if (cap > 0.0f) value = cap * tanhf(value / cap);
        int behind = parent_len + row - col;
        return window > 0 && (behind < 0 || behind >= window) ? __uint_as_float(0xff800000u) : value;
    };
    each_pair(sums, row0, col0, len, columns, [&](int row, int col, float value, float next) {
        *reinterpret_cast<u32 *>(scores + static_cast<i64>(row) * columns + col) =
            pack_bf16(score(row, col, value), score(row, col + 1, next));
    });
}

// Scores become weights, in place; a block per query and head.
extern "C" __global__ void __launch_bounds__(THREADS)
    standard_softmax(bf16 *scores, float *lse, int query_row, int len, int columns, u32 num_heads) {
    __shared__ float shared[THREADS / WARP];
    const int row = blockIdx.x, head = blockIdx.y;
    scores += (static_cast<i64>(head) * len + row) * columns;
    float top = __uint_as_float(0xff800000u), sum = 0.0f;
    for (int j = threadIdx.x; j < columns; j += THREADS) top = fmaxf(top, to_f32(scores[j]));
    top = block_max<THREADS>(top, shared);
    for (int j = threadIdx.x; j < columns; j += THREADS) sum += expf(to_f32(scores[j]) - top);
    sum = block_sum<THREADS>(sum, shared);
    for (int j = threadIdx.x; j < columns; j += THREADS)
        scores[j] = from_f32<bf16>(expf(to_f32(scores[j]) - top) / sum);
    if (threadIdx.x == 0) lse[static_cast<i64>(query_row + row) * num_heads + head] = top + logf(sum);
}

// Scores become weights again and the weights' gradients those of the scores (before the scale), in place.
extern "C" __global__ void __launch_bounds__(THREADS)
    standard_softmax_backward(bf16 *scores, bf16 *dscores, const float *lse, const bf16 *dout, const bf16 *out,
                              int query_row, int len, int columns, u32 num_heads, int D, float cap) {
    __shared__ float shared[THREADS / WARP];
    const int row = blockIdx.x, head = blockIdx.y;
    const i64 at = static_cast<i64>(query_row + row) * num_heads + head;
    float delta = 0.0f;
    for (int j = threadIdx.x; j < D; j += THREADS) delta += to_f32(dout[at * D + j]) * to_f32(out[at * D + j]);
    delta = block_sum<THREADS>(delta, shared);
    scores += (static_cast<i64>(head) * len + row) * columns;
    dscores += (static_cast<i64>(head) * len + row) * columns;
    for (int j = threadIdx.x; j < columns; j += THREADS) {
        float s = to_f32(scores[j]), p = expf(s - lse[at]), ds = p * (to_f32(dscores[j]) - delta);
        // A hidden score is infinite: p is zero there, and so is ds.
        if (cap > 0.0f && p > 0.0f) ds *= 1.0f - s / cap * (s / cap);
        scores[j] = from_f32<bf16>(p);
        dscores[j] = from_f32<bf16>(ds);
    }
}

// out = scale weights b: the values that queries take, or dq.
extern "C" __global__ void __launch_bounds__(THREADS)
    standard_gather(const bf16 *weights, const bf16 *b, bf16 *out, SEGMENT, u32 num_heads, u32 group, int D, float scale) {
    const int head = blockIdx.z, row0 = blockIdx.y * TILE, col0 = blockIdx.x * TILE;
    float sums[TILE / 8][4] = {};
    product<false, true>(sums, SCORES_OF(weights, head), KEYS_OF(b, head / group), row0, col0, columns);
    each_pair(sums, row0, col0, len, D, [&](int row, int col, float value, float next) {
        i64 at = (static_cast<i64>(query_row + row) * num_heads + head) * D + col;
        *reinterpret_cast<u32 *>(out + at) = pack_bf16(scale * value, scale * next);
    });
}

// sums (M, HKV D) f32 += scale weights^T a, over the query heads of each KV head: dk or dv of the keys of a segment.
extern "C" __global__ void __launch_bounds__(THREADS)
    standard_scatter(const bf16 *weights, const bf16 *a, float *sums, SEGMENT, u32 num_heads, u32 group, int D,
                     float scale) {
    const int kv_head = blockIdx.z, row0 = blockIdx.y * TILE, col0 = blockIdx.x * TILE;
    float tile[TILE / 8][4] = {};
    for (int head = kv_head * group; head < (kv_head + 1) * group; head++)
        product<true, true>(tile, SCORES_OF(weights, head), QUERIES_OF(a, head), row0, col0, len);
    each_pair(tile, row0, col0, parent_len + len, D, [&](int row, int col, float value, float next) {
        i64 key = row + (row < parent_len ? parent_row : own_row);
        float2 *to = reinterpret_cast<float2 *>(sums + (key * (num_heads / group) + kv_head) * D + col);
        *to = make_float2(to->x + scale * value, to->y + scale * next);
    });
}

// `count` sums, a multiple of 8, as bf16.
extern "C" __global__ void __launch_bounds__(THREADS) standard_store(const float *sums, bf16 *to, u64 first, u64 count) {
    u64 at = (static_cast<u64>(blockIdx.x) * THREADS + threadIdx.x) * 8;
    if (at >= count) return;
    float values[8];
    load8(sums + first + at, values);
    store8(to + first + at, values);
}
