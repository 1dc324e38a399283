// 4 bits: dequantization to bf16, and quantization as bitsandbytes does it.
#include "common.cuh"
#include "dynamic_maps.cuh"

// The code books, NF4 and FP4: the values in their order as bit patterns of f32, and the code of each.
__device__ const u32 VALUES[2][16] = {
    {0xbf800000, 0xbf3239b1, 0xbf066b30, 0xbeca32a0, 0xbe91a24d, 0xbe3d353f, 0xbdba7871, 0x00000000,
     0x3da2faff, 0x3e24cae3, 0x3e7c04dd, 0x3ead033a, 0x3ee1a4b8, 0x3f1007ab, 0x3f3913b3, 0x3f800000},
    {0xbf800000, 0xbf2aaaab, 0xbf000000, 0xbeaaaaab, 0xbe800000, 0xbe2aaaab, 0xbbaaaaab, 0x00000000,
     0x00000000, 0x3baaaaab, 0x3e2aaaab, 0x3e800000, 0x3eaaaaab, 0x3f000000, 0x3f2aaaab, 0x3f800000},
};
__device__ const u8 CODES[2][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3},
};

// The scale of a block: as it is, or map[code] * nested + offset.
struct Scales {
    const float *absmax;
    const u8 *codes;
    const float *nested, *offset;

    __device__ __forceinline__ float of(u64 block, const float *map) const {
        if (absmax) return absmax[block];
        // Rounded one by one, as the CPU does.
        return __fadd_rn(__fmul_rn(map[codes[block]], nested[block / 256]), *offset);
    }
};

// A thread writes 8 neighbouring elements in each of REPEAT rounds; blocks hold at least 8 elements, so 8 share one scale.
#define REPEAT 4
extern "C" __global__ void nf4_dequantize(u32 book, const u8 *codes, const float *absmax, const u8 *absmax_codes,
                                          const float *nested, const float *offset, u32 block_shift, u64 n, bf16 *y) {
    __shared__ float values[16], map[256];
    if (threadIdx.x < 16) values[CODES[book][threadIdx.x]] = __uint_as_float(VALUES[book][threadIdx.x]);
    map[threadIdx.x] = __uint_as_float(DYNAMIC_SIGNED[threadIdx.x]);
    __syncthreads();
    Scales scales = {absmax, absmax_codes, nested, offset};
    u64 start = u64(blockIdx.x) * (256 * 8 * REPEAT) + threadIdx.x * 8;
    u32 words[REPEAT];
    float scale[REPEAT];
#pragma unroll
    for (int r = 0; r < REPEAT; r++) {
        u64 at = start + r * (256 * 8);
        if (at + 8 <= n) {
            words[r] = *reinterpret_cast<const u32 *>(codes + at / 2);
            scale[r] = scales.of(at >> block_shift, map);
        }
    }
#pragma unroll
    for (int r = 0; r < REPEAT; r++) {
        u64 at = start + r * (256 * 8);
        if (at + 8 <= n) {
            float v[8];
#pragma unroll
            for (int j = 0; j < 4; j++) {
                u32 byte = words[r] >> (8 * j);
                v[2 * j] = values[byte >> 4 & 15] * scale[r];
                v[2 * j + 1] = values[byte & 15] * scale[r];
            }
            store8(y + at, v);
        } else {
            for (u64 i = at; i < n; i++) {
                u32 byte = codes[i / 2];
                y[i] = from_f32<bf16>(values[i % 2 ? byte & 15 : byte >> 4] * scales.of(i >> block_shift, map));
            }
        }
    }
}

// Codes and scales of blocks of 64 elements, a warp a block, two neighbouring elements a lane.
extern "C" __global__ void nf4_quantize(u32 book, const bf16 *x, u64 n, u8 *codes, float *absmax) {
    __shared__ float bounds[15];
    if (threadIdx.x < 15) {
        const u32 *values = VALUES[book] + threadIdx.x;
        bounds[threadIdx.x] = THRESHOLD(__uint_as_float(values[0]), __uint_as_float(values[1]));
    }
    __syncthreads();
    u64 block = u64(blockIdx.x) * 8 + threadIdx.x / WARP;
    u32 lane = threadIdx.x % WARP;
    u64 at = block * 64 + lane * 2;
    if (block * 64 >= n) return;
    float low = at < n ? to_f32(x[at]) : 0.0f, high = at + 1 < n ? to_f32(x[at + 1]) : 0.0f;
    float max = warp_max(fmaxf(fabsf(low), fabsf(high)));
    // A full block is multiplied with the reciprocal of its absmax, a short last one is divided by it.
    bool whole = (block + 1) * 64 <= n;
    float divisor = fmaxf(max, 1e-38f), factor = __fdiv_rn(1.0f, divisor);
    if (lane == 0) absmax[block] = whole ? max : divisor;
    low = whole ? __fmul_rn(low, factor) : __fdiv_rn(low, divisor);
    high = whole ? __fmul_rn(high, factor) : __fdiv_rn(high, divisor);
    u32 first = 0, second = 0;
#pragma unroll
    for (int i = 0; i < 15; i++) {
        first += fminf(fmaxf(low, -1.0f), 1.0f) > bounds[i];
        second += fminf(fmaxf(high, -1.0f), 1.0f) > bounds[i];
    }
    if (at < n) codes[at / 2] = u8(CODES[book][first] << 4 | CODES[book][second]);
}

// The mean of all absmax, summed in f64 by one block in a fixed order.
extern "C" __global__ void nf4_mean(const float *absmax, u64 n, float *offset) {
    __shared__ double sums[1024];
    double sum = 0.0;
    for (u64 i = threadIdx.x; i < n; i += 1024) sum += double(absmax[i]);
    sums[threadIdx.x] = sum;
    __syncthreads();
    for (u32 half = 512; half > 0; half /= 2) {
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) *offset = float(sums[0] / double(n));
}

// 8-bit codes of the absmax in blocks of 256, a block of threads each.
extern "C" __global__ void nf4_quantize_absmax(const float *absmax, u64 n, const float *offset, u8 *codes, float *nested) {
    __shared__ float bounds[255], shared[256 / WARP];
    u32 t = threadIdx.x;
    if (t < 255) {
        bounds[t] = THRESHOLD(__uint_as_float(DYNAMIC_SIGNED[t]), __uint_as_float(DYNAMIC_SIGNED[t + 1]));
    }
    u64 i = u64(blockIdx.x) * 256 + t;
    float x = i < n ? __fsub_rn(absmax[i], *offset) : 0.0f;
    float max = block_max<256>(fabsf(x), shared);
    if (t == 0) nested[blockIdx.x] = max;
    if (i >= n) return;
    float scaled = __fmul_rn(x, __fdiv_rn(1.0f, fmaxf(max, 1e-38f)));
    u32 low = 0, high = 255;
    while (low < high) {
        u32 middle = (low + high) / 2;
        if (scaled > bounds[middle]) low = middle + 1; else high = middle;
    }
    codes[i] = u8(low);
}
