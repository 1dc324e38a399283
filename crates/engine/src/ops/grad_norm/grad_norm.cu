// Sums of squares in f64, a fixed number of blocks a tensor. The table says of each
// tensor where it is, how many elements it has, and where its sums go.
#include "common.cuh"

extern "C" __global__ void grad_norm_squares(const __grid_constant__ Table tensors) {
    const float *x = reinterpret_cast<const float *>(tensors.words[3 * blockIdx.y]);
    u64 n = tensors.words[3 * blockIdx.y + 1];
    double *partial = reinterpret_cast<double *>(tensors.words[3 * blockIdx.y + 2]);
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
