// Sums. A thread does eight neighbouring elements; the last ones, and rows that do not lie on 16 bytes, one by one.
#include "common.cuh"

extern "C" __global__ void add_forward(const bf16 *x, bf16 *y, u64 n) {
    u64 at = (u64(blockIdx.x) * 256 + threadIdx.x) * 8;
    if (at >= n) return;
    if (at + 8 <= n && ((u64(x) | u64(y)) & 15) == 0) {
        float a[8], b[8];
        load8(x + at, a), load8(y + at, b);
#pragma unroll
        for (int j = 0; j < 8; j++) b[j] += a[j];
        store8(y + at, b);
    } else {
        for (u64 i = at; i < n && i < at + 8; i++) y[i] = from_f32<bf16>(to_f32(y[i]) + to_f32(x[i]));
    }
}

extern "C" __global__ void add_bias(const float *bias, bf16 *y, u64 n, u32 c) {
    u64 i = u64(blockIdx.x) * 256 + threadIdx.x;
    if (i < n) y[i] = from_f32<bf16>(to_f32(y[i]) + bias[i % c]);
}

// dbias += sum over rows of dy; a block sums 32 columns, each of its 8 warps every eighth row in order.
extern "C" __global__ void add_bias_backward(const bf16 *dy, float *dbias, u32 n, u32 c) {
    __shared__ float sums[8][WARP];
    u32 column = blockIdx.x * WARP + threadIdx.x % WARP, warp = threadIdx.x / WARP;
    float sum = 0.0f;
    if (column < c) {
        for (u32 row = warp; row < n; row += 8) sum += to_f32(dy[i64(row) * c + column]);
    }
    sums[warp][threadIdx.x % WARP] = sum;
    __syncthreads();
    if (warp == 0 && column < c) {
        float total = 0.0f;
        for (int i = 0; i < 8; i++) total += sums[i][threadIdx.x];
        dbias[column] += total;
    }
}
