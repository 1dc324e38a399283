// DoRA: the lengths of a weight's rows with the low-rank update, the scale of each output, and its gradients.
#include "common.cuh"

// norm_j = |w_j + d_j|; a block a row.
extern "C" __global__ void dora_row_norms(const bf16 *weight, const float *update, float *norm, u32 k) {
    __shared__ float shared[8];
    u64 start = u64(blockIdx.x) * k;
    float sum = 0.0f;
    for (u32 i = threadIdx.x; i < k; i += 256) {
        float value = to_f32(weight[start + i]) + update[start + i];
        sum += value * value;
    }
    sum = block_sum<256>(sum, shared);
    if (threadIdx.x == 0) norm[blockIdx.x] = sqrtf(sum);
}

// to = from * m / norm, column by column; `from` may be `to`.
extern "C" __global__ void dora_scale(const bf16 *from, const float *magnitude, const float *norm, bf16 *to, u64 n, u32 c) {
    u64 i = u64(blockIdx.x) * 256 + threadIdx.x;
    if (i >= n) return;
    u32 column = i % c;
    to[i] = from_f32<bf16>(to_f32(from[i]) * (magnitude[column] / norm[column]));
}

// dmagnitude += sum over rows of dy u / norm; a block sums 32 columns, each of its 8 warps every eighth row in order.
extern "C" __global__ void dora_backward_magnitude(const bf16 *dy, const bf16 *u, const float *norm, float *dmagnitude,
                                                   u32 n, u32 c) {
    __shared__ float sums[8][WARP];
    u32 column = blockIdx.x * WARP + threadIdx.x % WARP, warp = threadIdx.x / WARP;
    float sum = 0.0f;
    if (column < c) {
        for (u32 row = warp; row < n; row += 8) {
            i64 at = i64(row) * c + column;
            sum += to_f32(dy[at]) * to_f32(u[at]);
        }
    }
    sums[warp][threadIdx.x % WARP] = sum;
    __syncthreads();
    if (warp == 0 && column < c) {
        float total = 0.0f;
        for (int i = 0; i < 8; i++) total += sums[i][threadIdx.x];
        dmagnitude[column] += total / norm[column];
    }
}
