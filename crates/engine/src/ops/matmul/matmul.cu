// variants: LAYOUT=forward,backward_input,backward_weight
//
// Matrix products by Ampere's matrix instructions: out (rows, columns) = alpha left right [+ out], bf16 operands,
// f32 sums, bf16 or f32 results. They need nothing but the driver; cuBLASLt is faster where it is installed.
//
// A block computes a tile of BI x BJ results; its warps hold WI x WJ each in registers. The inner size passes through
// shared memory in steps of BL, STAGES steps in flight. An operand lies in memory along the inner size ("inner": x
// and W of forward) or across it; either way its rows are copied as they are, and `ldmatrix` transposes where needed.
// 16-byte chunks of a row are permuted by the row's number so that the eight rows an `ldmatrix` reads lie in
// different banks.
//
// Where a product has too few tiles for the GPU the inner size is split among blocks: each writes its sums to
// `partial`, and `matmul_reduce` adds them in the order of the splits. No atomics: the same bytes every time.

#include "common.cuh"

#define forward 0
#define backward_input 1
#define backward_weight 2

// x, W: along the inner size K | dy along M, W across | dy and x across the rows N.
constexpr bool LEFT_INNER = LAYOUT != backward_weight;
constexpr bool RIGHT_INNER = LAYOUT == forward;

#define ADD 1u
#define OUT_F32 2u

// Byte offset of a 16-byte chunk in a tile whose rows are WIDTH elements long.
template <int WIDTH> __device__ __forceinline__ u32 chunk_offset(int row, int chunk) {
    static_assert(WIDTH == 32 || WIDTH % 64 == 0, "rows of 64 bytes or of multiples of 128");
    int turn = WIDTH == 32 ? (row >> 1) & 3 : row & 7;
    return static_cast<u32>(row * (WIDTH * 2) + (chunk ^ turn) * 16);
}

// One operand's way from global to shared memory. OUTER is BI or BJ. ALIGNED: rows start at multiples of 16 bytes.
template <bool INNER, int OUTER, int BL, int THREADS, bool ALIGNED> struct Source {
    static constexpr int WIDTH = INNER ? BL : OUTER, ROWS = INNER ? OUTER : BL;
    static constexpr int CHUNKS = WIDTH / 8, STEP = THREADS / CHUNKS, COUNT = ROWS / STEP;
    static constexpr int BYTES = OUTER * BL * 2;
    static_assert(THREADS % CHUNKS == 0 && ROWS % STEP == 0, "every thread copies the same number of chunks");

    const bf16 *from; // this thread's first chunk of the next tile
    i64 stride;
    int row, rows_end, col, cols_end;

    __device__ __forceinline__ Source(const bf16 *matrix, u32 stride_, u32 outer, u32 outer_end, u32 inner, u32 inner_end) {
        int r = threadIdx.x / CHUNKS, c = threadIdx.x % CHUNKS * 8;
        stride = stride_;
        row = static_cast<int>(INNER ? outer : inner) + r;
        col = static_cast<int>(INNER ? inner : outer) + c;
        rows_end = static_cast<int>(INNER ? outer_end : inner_end);
        cols_end = static_cast<int>(INNER ? inner_end : outer_end);
        from = matrix + row * stride + col;
    }

    // Queues the copy of the next tile to `shared`; zeros beyond the matrix.
    __device__ __forceinline__ void copy(u32 shared) {
        int valid = min(max(cols_end - col, 0), 8), r = threadIdx.x / CHUNKS;
        const bf16 *chunk = from;
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            int elements = row + i * STEP < rows_end ? valid : 0;
            u32 to = shared + chunk_offset<WIDTH>(r + i * STEP, threadIdx.x % CHUNKS);
            if (ALIGNED) {
                copy_async(to, chunk, elements * 2);
            } else {
                u32 words[4] = {0, 0, 0, 0};
                const u16 *raw = reinterpret_cast<const u16 *>(chunk);
#pragma unroll
                for (int e = 0; e < 8; e++) {
                    if (e < elements) words[e / 2] |= static_cast<u32>(raw[e]) << (e % 2 * 16);
                }
                asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(words[0]), "r"(words[1]),
                             "r"(words[2]), "r"(words[3])
                             : "memory");
            }
            chunk += STEP * stride;
        }
        if (INNER) {
            from += BL, col += BL;
        } else {
            from += BL * stride, row += BL;
        }
    }
};

// The 16 x 16 piece of a left tile at (outer, inner), as the first operand of m16n8k16.
template <int BI, int BL> __device__ __forceinline__ void left_fragment(u32 (&to)[4], u32 tile, int outer, int inner) {
    int lane = threadIdx.x % WARP;
    if (LEFT_INNER) {
        load_matrices(to, tile + chunk_offset<BL>(outer + lane % 16, inner / 8 + lane / 16));
    } else {
        load_matrices_transposed(to, tile + chunk_offset<BI>(inner + lane % 8 + lane / 16 * 8, outer / 8 + lane / 8 % 2));
    }
}

// The 16 x 16 piece of a right tile at (outer, inner): two second operands, words 0 and 1, words 2 and 3.
template <int BJ, int BL> __device__ __forceinline__ void right_fragment(u32 (&to)[4], u32 tile, int outer, int inner) {
    int lane = threadIdx.x % WARP;
    if (RIGHT_INNER) {
        load_matrices(to, tile + chunk_offset<BL>(outer + lane % 8 + lane / 16 * 8, inner / 8 + lane / 8 % 2));
    } else {
        load_matrices_transposed(to, tile + chunk_offset<BJ>(inner + lane % 16, outer / 8 + lane / 16));
    }
}

__device__ __forceinline__ float4 load4(const float *from) { return *reinterpret_cast<const float4 *>(from); }
__device__ __forceinline__ float4 load4(const bf16 *from) {
    uint2 words = *reinterpret_cast<const uint2 *>(from);
    return make_float4(low_bf16(words.x), high_bf16(words.x), low_bf16(words.y), high_bf16(words.y));
}
__device__ __forceinline__ void store4(float *to, float4 x) { *reinterpret_cast<float4 *>(to) = x; }
__device__ __forceinline__ void store4(bf16 *to, float4 x) {
    *reinterpret_cast<uint2 *>(to) = make_uint2(pack_bf16(x.x, x.y), pack_bf16(x.z, x.w));
}

// Four results of a row. VECTOR: columns is a multiple of 4 and rows start at multiples of 4 elements.
template <bool VECTOR, typename T>
__device__ __forceinline__ float4 old4(const T *out, u32 col, u32 columns) {
    if (VECTOR) return load4(out);
    float4 old = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (col < columns) old.x = to_f32(out[0]);
    if (col + 1 < columns) old.y = to_f32(out[1]);
    if (col + 2 < columns) old.z = to_f32(out[2]);
    if (col + 3 < columns) old.w = to_f32(out[3]);
    return old;
}
template <bool VECTOR, typename T>
__device__ __forceinline__ void write4(T *out, float4 x, u32 col, u32 columns) {
    if (VECTOR) return store4(out, x);
    if (col < columns) out[0] = from_f32<T>(x.x);
    if (col + 1 < columns) out[1] = from_f32<T>(x.y);
    if (col + 2 < columns) out[2] = from_f32<T>(x.z);
    if (col + 3 < columns) out[3] = from_f32<T>(x.w);
}
__device__ __forceinline__ float4 scale_add(float alpha, float4 x, float4 old) {
    return make_float4(fmaf(alpha, x.x, old.x), fmaf(alpha, x.y, old.y), fmaf(alpha, x.z, old.z), fmaf(alpha, x.w, old.w));
}

// A warp's results to memory, sixteen rows at a time through `stage` (16 rows of WJ + 8 floats), so that a row's
// bytes leave together.
template <int MI, int WJ, bool VECTOR, typename T>
__device__ __forceinline__ void finish(const float (&sums)[MI][WJ / 8][4], float *stage, T *out, u32 stride, u32 row0,
                                       u32 col0, u32 rows, u32 columns, float alpha, bool add) {
    constexpr int ACROSS = WJ / 4, DOWN = WARP / ACROSS, PASSES = 16 / DOWN, PITCH = WJ + 8;
    int lane = threadIdx.x % WARP;
    u32 col = col0 + lane % ACROSS * 4;
#pragma unroll
    for (int mi = 0; mi < MI; mi++) {
        u32 row = row0 + mi * 16 + lane / ACROSS;
        T *at = out + static_cast<u64>(row) * stride + col;
        float4 old[PASSES];
#pragma unroll
        for (int pass = 0; pass < PASSES; pass++) {
            old[pass] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            if (add && row + pass * DOWN < rows && col < columns)
                old[pass] = old4<VECTOR>(at + static_cast<u64>(pass * DOWN) * stride, col, columns);
        }
        __syncwarp();
#pragma unroll
        for (int nj = 0; nj < WJ / 8; nj++) {
            float *to = stage + lane / 4 * PITCH + nj * 8 + lane % 4 * 2;
            *reinterpret_cast<float2 *>(to) = make_float2(sums[mi][nj][0], sums[mi][nj][1]);
            *reinterpret_cast<float2 *>(to + 8 * PITCH) = make_float2(sums[mi][nj][2], sums[mi][nj][3]);
        }
        __syncwarp();
#pragma unroll
        for (int pass = 0; pass < PASSES; pass++) {
            float4 x = load4(stage + (pass * DOWN + lane / ACROSS) * PITCH + lane % ACROSS * 4);
            if (row + pass * DOWN < rows && col < columns)
                write4<VECTOR>(at + static_cast<u64>(pass * DOWN) * stride, scale_add(alpha, x, old[pass]), col, columns);
        }
    }
}

template <int BI, int BJ, int BL, int WI, int WJ, int STAGES, bool ALIGNED>
__device__ __forceinline__ void multiply(const bf16 *left, const bf16 *right, void *out, float *partial, u32 rows,
                                         u32 columns, u32 inner, u32 left_stride, u32 right_stride, u32 out_stride,
                                         float alpha, u32 flags, u32 inner_of_split) {
    constexpr int WARPS_J = BJ / WJ, THREADS = BI / WI * WARPS_J * WARP, MI = WI / 16, NJ = WJ / 16, STEPS = BL / 16;
    typedef Source<LEFT_INNER, BI, BL, THREADS, ALIGNED> Left;
    typedef Source<RIGHT_INNER, BJ, BL, THREADS, ALIGNED> Right;
    static_assert(STEPS % 2 == 0, "the two sets of fragments alternate");
    static_assert(THREADS / WARP * 16 * (WJ + 8) * 4 <= STAGES * (Left::BYTES + Right::BYTES), "results fit the stages");
    extern __shared__ __align__(128) u8 shared[];

    // Blocks that run together share rows and columns of tiles: eight rows of tiles at a time, column by column.
    u32 tiles_i = (rows + BI - 1) / BI, tiles_j = (columns + BJ - 1) / BJ, width = 8 * tiles_j;
    u32 first = blockIdx.x / width * 8, height = min(tiles_i - first, 8u), place = blockIdx.x % width;
    u32 row0 = (first + place % height) * BI, col0 = place / height * BJ;
    u32 begin = blockIdx.y * inner_of_split, end = min(inner, begin + inner_of_split);
    int tiles = static_cast<int>((end - begin + BL - 1) / BL);

    int warp = threadIdx.x / WARP, warp_i = warp / WARPS_J * WI, warp_j = warp % WARPS_J * WJ;
    u32 base = shared_address(shared);
    Left from_left(left, left_stride, row0, rows, begin, end);
    Right from_right(right, right_stride, col0, columns, begin, end);
    float sums[MI][2 * NJ][4] = {};
    u32 a[2][MI][4], b[2][NJ][4];

    auto copy = [&](int stage) {
        u32 at = base + stage * (Left::BYTES + Right::BYTES);
        from_left.copy(at);
        from_right.copy(at + Left::BYTES);
    };
    auto fragments = [&](int set, int stage, int step) {
        u32 at = base + stage * (Left::BYTES + Right::BYTES);
#pragma unroll
        for (int mi = 0; mi < MI; mi++) left_fragment<BI, BL>(a[set][mi], at, warp_i + mi * 16, step * 16);
#pragma unroll
        for (int nj = 0; nj < NJ; nj++)
            right_fragment<BJ, BL>(b[set][nj], at + Left::BYTES, warp_j + nj * 16, step * 16);
    };

#pragma unroll
    for (int stage = 0; stage < STAGES - 1; stage++) {
        if (stage < tiles) copy(stage);
        copies_commit();
    }
    if (tiles > 0) {
        copies_wait<STAGES - 2>();
        __syncthreads();
        fragments(0, 0, 0);
    }
    int read = 0, write = STAGES - 1; // stages
#pragma unroll 1
    for (int tile = 0; tile < tiles; tile++) {
#pragma unroll
        for (int step = 0; step < STEPS; step++) {
            if (step == STEPS - 1) {
                // The next tile has arrived, for all threads, and nobody reads this one's shared memory any more.
                copies_wait<STAGES - 2>();
                __syncthreads();
                read = read + 1 == STAGES ? 0 : read + 1;
            }
            fragments((step + 1) % 2, read, (step + 1) % STEPS);
            if (step == 0) {
                // Into the stage of the tile before this one.
                if (tile + STAGES - 1 < tiles) copy(write);
                copies_commit();
                write = write + 1 == STAGES ? 0 : write + 1;
            }
#pragma unroll
            for (int mi = 0; mi < MI; mi++)
#pragma unroll
                for (int nj = 0; nj < NJ; nj++) {
                    multiply_add(sums[mi][2 * nj], a[step % 2][mi], b[step % 2][nj][0], b[step % 2][nj][1]);
                    multiply_add(sums[mi][2 * nj + 1], a[step % 2][mi], b[step % 2][nj][2], b[step % 2][nj][3]);
                }
        }
    }
    copies_wait<0>();
    __syncthreads();

    float *stage = reinterpret_cast<float *>(shared) + warp * (16 * (WJ + 8));
    u32 row = row0 + warp_i, col = col0 + warp_j;
    if (gridDim.y > 1) {
        u32 pitch = (columns + 3) & ~3u;
        float *mine = partial + static_cast<u64>(blockIdx.y) * rows * pitch;
        finish<MI, WJ, true>(sums, stage, mine, pitch, row, col, rows, pitch, 1.0f, false);
    } else if (flags & OUT_F32) {
        finish<MI, WJ, ALIGNED>(sums, stage, static_cast<float *>(out), out_stride, row, col, rows, columns, alpha, flags & ADD);
    } else {
        finish<MI, WJ, ALIGNED>(sums, stage, static_cast<bf16 *>(out), out_stride, row, col, rows, columns, alpha, flags & ADD);
    }
}

#define KERNEL(NAME, THREADS, BLOCKS, ...)                                                                             \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)                                                      \
        NAME(const bf16 *left, const bf16 *right, void *out, float *partial, u32 rows, u32 columns, u32 inner,         \
             u32 left_stride, u32 right_stride, u32 out_stride, float alpha, u32 flags, u32 inner_of_split) {          \
        multiply<__VA_ARGS__>(left, right, out, partial, rows, columns, inner, left_stride, right_stride, out_stride,  \
                              alpha, flags, inner_of_split);                                                           \
    }

//                                    BI   BJ   BL  WI  WJ  STAGES
KERNEL(matmul_128x256, 256, 1, /*  */ 128, 256, 32, 64, 64, 4, true)
KERNEL(matmul_128x128, 128, 2, /*  */ 128, 128, 32, 64, 64, 3, true)
// Few columns or few rows, as of LoRA's products: bound by the memory of the other operand.
KERNEL(matmul_64x32, 128, 4, /*    */ 64, 32, 64, 16, 32, 4, true)
KERNEL(matmul_32x64, 128, 4, /*    */ 32, 64, 64, 32, 16, 4, true)
// Rows that do not start at multiples of 16 bytes: element by element.
KERNEL(matmul_any, 128, 2, /*      */ 64, 64, 32, 32, 32, 2, false)

// out = alpha (sum of the splits, in order) [+ out]; a thread computes four columns.
extern "C" __global__ void __launch_bounds__(256)
    matmul_reduce(const float *partial, void *out, u32 rows, u32 columns, u32 out_stride, float alpha, u32 flags, u32 splits) {
    u32 quads = (columns + 3) / 4;
    u64 index = static_cast<u64>(blockIdx.x) * 256 + threadIdx.x, size = static_cast<u64>(rows) * quads;
    if (index >= size) return;
    u32 row = static_cast<u32>(index / quads), col = static_cast<u32>(index % quads) * 4;
    float4 sum = load4(partial + index * 4);
    for (u32 split = 1; split < splits; split++) {
        sum = scale_add(1.0f, load4(partial + (split * size + index) * 4), sum);
    }
    u64 at = static_cast<u64>(row) * out_stride + col;
    float4 old = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (flags & OUT_F32) {
        float *to = static_cast<float *>(out) + at;
        if (flags & ADD) old = old4<false>(to, col, columns);
        write4<false>(to, scale_add(alpha, sum, old), col, columns);
    } else {
        bf16 *to = static_cast<bf16 *>(out) + at;
        if (flags & ADD) old = old4<false>(to, col, columns);
        write4<false>(to, scale_add(alpha, sum, old), col, columns);
    }
}
