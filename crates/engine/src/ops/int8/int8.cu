// 8 bits with a scale a row: dequantization to bf16, and quantization as bitsandbytes does it. A block does a row.
#include <cuda_fp16.h>
#include "common.cuh"

typedef signed char i8;

// The low byte of a word as code * scb / 127, rounded one by one, as the CPU does.
__device__ __forceinline__ float value(u32 word, float scb) {
    return __fmul_rn(__fmul_rn(float(i8(word & 255)), scb), __uint_as_float(0x3c010204));
}

extern "C" __global__ void int8_dequantize(const i8 *codes, const float *scb, u32 cols, bf16 *y) {
    u64 row = u64(blockIdx.x) * cols;
    float scale = scb[blockIdx.x];
    if (cols % 8 == 0) {
        // Eight codes are aligned to 8 bytes, their values to 16.
        for (u32 at = threadIdx.x * 8; at < cols; at += 256 * 8) {
            uint2 words = *reinterpret_cast<const uint2 *>(codes + row + at);
            float v[8];
#pragma unroll
            for (int j = 0; j < 4; j++) {
                v[j] = value(words.x >> (8 * j), scale);
                v[4 + j] = value(words.y >> (8 * j), scale);
            }
            store8(y + row + at, v);
        }
    } else {
        for (u32 at = threadIdx.x; at < cols; at += 256) {
            y[row + at] = from_f32<bf16>(value(u32(u8(codes[row + at])), scale));
        }
    }
}

// The nearest f16.
__device__ __forceinline__ float rounded(bf16 x) { return __half2float(__float2half_rn(to_f32(x))); }

extern "C" __global__ void int8_quantize(const bf16 *x, u32 cols, i8 *codes, float *scb) {
    __shared__ float shared[256 / WARP];
    u64 row = u64(blockIdx.x) * cols;
    float max = 0.0f;
    for (u32 at = threadIdx.x; at < cols; at += 256) max = fmaxf(max, fabsf(rounded(x[row + at])));
    max = block_max<256>(max, shared);
    if (threadIdx.x == 0) scb[blockIdx.x] = max;
    float factor = __fmul_rn(__fdiv_rn(1.0f, max), 127.0f);
    for (u32 at = threadIdx.x; at < cols; at += 256) {
        // In a row of zeros the product is not a number, which becomes 0.
        codes[row + at] = i8(__float2int_rn(__fmul_rn(rounded(x[row + at]), factor)));
    }
}
