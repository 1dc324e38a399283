// Sums of squares in f64, a fixed number of blocks a tensor.
#include "common.cuh"

extern "C" __global__ void grad_norm_squares(const float *x, u64 n, double *partial) {
    __shared__ double sums[256];
    double sum = 0.0;
    for (u64 i = u64(blockIdx.x) * 256 + threadIdx.x; i < n; i += u64(gridDim.x) * 256) sum += double(x[i]) * double(x[i]);
    sums[threadIdx.x] = sum;
    __syncthreads();
    for (int half = 128; half > 0; half /= 2) {
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) partial[blockIdx.x] = sums[0];
}
