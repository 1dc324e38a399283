// RMSNorm. A group of THREADS threads does a row of C elements; rows of a few hundred elements (the norms of query
// and key heads) take a warp, longer ones a block of 256.
#include "common.cuh"

#define BLOCK 256

template <int THREADS> __device__ __forceinline__ float group_sum(float x, float *shared) {
    if (THREADS == WARP) return warp_sum(x);
    return block_sum<BLOCK>(x, shared);
}

// y = x rstd (weight + offset); where `adds`, x += y first. A thread reads an element of y before it writes it.
template <int THREADS>
__device__ __forceinline__ void forward(bf16 *x, u32 adds, const float *weight, float offset, float eps,
                                        bf16 *y, float *rstds, u32 n, u32 c) {
    __shared__ float shared[BLOCK / WARP];
    u32 row = blockIdx.x * (BLOCK / THREADS) + threadIdx.x / THREADS, lane = threadIdx.x % THREADS;
    if (row >= n) return;
    i64 at = i64(row) * c;
    float squares = 0.0f;
    if (c % 8 == 0) {
        for (u32 i = lane * 8; i < c; i += THREADS * 8) {
            float v[8];
            load8(x + at + i, v);
            if (adds) {
                float u[8];
                load8(y + at + i, u);
#pragma unroll
                for (int j = 0; j < 8; j++) v[j] = to_f32(from_f32<bf16>(v[j] + u[j]));
                store8(x + at + i, v);
            }
#pragma unroll
            for (int j = 0; j < 8; j++) squares += v[j] * v[j];
        }
    } else {
        for (u32 i = lane; i < c; i += THREADS) {
            float v = to_f32(x[at + i]);
            if (adds) {
                bf16 sum = from_f32<bf16>(v + to_f32(y[at + i]));
                x[at + i] = sum;
                v = to_f32(sum);
            }
            squares += v * v;
        }
    }
    float rstd = rsqrtf(group_sum<THREADS>(squares, shared) / c + eps);
    if (lane == 0) rstds[row] = rstd;
    if (c % 8 == 0) {
        for (u32 i = lane * 8; i < c; i += THREADS * 8) {
            float v[8], w[8];
            load8(x + at + i, v);
            load8(weight + i, w);
#pragma unroll
            for (int j = 0; j < 8; j++) v[j] *= rstd * (w[j] + offset);
            store8(y + at + i, v);
        }
    } else {
        for (u32 i = lane; i < c; i += THREADS) {
            y[at + i] = from_f32<bf16>(to_f32(x[at + i]) * rstd * (weight[i] + offset));
        }
    }
}

extern "C" __global__ void rms_norm_forward_warp(bf16 *x, u32 adds, const float *weight, float offset,
                                                 float eps, bf16 *y, float *rstd, u32 n, u32 c) {
    forward<WARP>(x, adds, weight, offset, eps, y, rstd, n, c);
}
extern "C" __global__ void rms_norm_forward_block(bf16 *x, u32 adds, const float *weight, float offset,
                                                  float eps, bf16 *y, float *rstd, u32 n, u32 c) {
    forward<BLOCK>(x, adds, weight, offset, eps, y, rstd, n, c);
}

// dx += rstd (dy w - x rstd^2 mean(dy w x))
template <int THREADS>
__device__ __forceinline__ void backward(const bf16 *dy, const bf16 *x, const float *weight, float offset,
                                         const float *rstds, bf16 *dx, u32 n, u32 c) {
    __shared__ float shared[BLOCK / WARP];
    u32 row = blockIdx.x * (BLOCK / THREADS) + threadIdx.x / THREADS, lane = threadIdx.x % THREADS;
    if (row >= n) return;
    i64 at = i64(row) * c;
    float rstd = rstds[row], product = 0.0f;
    if (c % 8 == 0) {
        for (u32 i = lane * 8; i < c; i += THREADS * 8) {
            float d[8], v[8], w[8];
            load8(dy + at + i, d);
            load8(x + at + i, v);
            load8(weight + i, w);
#pragma unroll
            for (int j = 0; j < 8; j++) product += d[j] * (w[j] + offset) * v[j];
        }
    } else {
        for (u32 i = lane; i < c; i += THREADS) {
            product += to_f32(dy[at + i]) * (weight[i] + offset) * to_f32(x[at + i]);
        }
    }
    float pull = group_sum<THREADS>(product, shared) / c * rstd * rstd;
    if (c % 8 == 0) {
        for (u32 i = lane * 8; i < c; i += THREADS * 8) {
            float d[8], v[8], w[8], g[8];
            load8(dy + at + i, d);
            load8(x + at + i, v);
            load8(weight + i, w);
            load8(dx + at + i, g);
#pragma unroll
            for (int j = 0; j < 8; j++) g[j] += rstd * (d[j] * (w[j] + offset) - v[j] * pull);
            store8(dx + at + i, g);
        }
    } else {
        for (u32 i = lane; i < c; i += THREADS) {
            float d = to_f32(dy[at + i]) * (weight[i] + offset);
            dx[at + i] = from_f32<bf16>(to_f32(dx[at + i]) + rstd * (d - to_f32(x[at + i]) * pull));
        }
    }
}

extern "C" __global__ void rms_norm_backward_warp(const bf16 *dy, const bf16 *x, const float *weight, float offset,
                                                  const float *rstd, bf16 *dx, u32 n, u32 c) {
    backward<WARP>(dy, x, weight, offset, rstd, dx, n, c);
}
extern "C" __global__ void rms_norm_backward_block(const bf16 *dy, const bf16 *x, const float *weight, float offset,
                                                   const float *rstd, bf16 *dx, u32 n, u32 c) {
    backward<BLOCK>(dy, x, weight, offset, rstd, dx, n, c);
}

// dweight += sum over rows of dy x rstd; a block sums 32 columns, each of its 8 warps every eighth row in order.
extern "C" __global__ void rms_norm_backward_weight(const bf16 *dy, const bf16 *x, const float *rstd, float *dweight,
                                                    u32 n, u32 c) {
    __shared__ float sums[BLOCK / WARP][WARP];
    u32 column = blockIdx.x * WARP + threadIdx.x % WARP, warp = threadIdx.x / WARP;
    float sum = 0.0f;
    if (column < c) {
        for (u32 row = warp; row < n; row += BLOCK / WARP) {
            i64 at = i64(row) * c + column;
            sum += to_f32(dy[at]) * to_f32(x[at]) * rstd[row];
        }
    }
    sums[warp][threadIdx.x % WARP] = sum;
    __syncthreads();
    if (warp == 0 && column < c) {
        float total = 0.0f;
        for (int i = 0; i < BLOCK / WARP; i++) total += sums[i][threadIdx.x];
        dweight[column] += total;
    }
}
