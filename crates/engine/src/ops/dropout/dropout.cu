// Dropout: a thread draws once for four neighbouring elements, as the CPU does.
#include "philox.cuh"

template <bool ADD>
__device__ __forceinline__ void apply(const bf16 *x, bf16 *y, u64 n, u64 seed, u64 stream, u32 threshold, float keep) {
    u64 block = u64(blockIdx.x) * 256 + threadIdx.x;
    if (block * 4 >= n) return;
    uint4 draws = philox(u32(seed), u32(seed >> 32), make_uint4(u32(block), u32(block >> 32), u32(stream), u32(stream >> 32)));
    u32 values[4] = {draws.x, draws.y, draws.z, draws.w};
#pragma unroll
    for (int j = 0; j < 4; j++) {
        u64 i = block * 4 + j;
        if (i >= n) return;
        float value = values[j] < threshold ? 0.0f : to_f32(x[i]) * keep;
        y[i] = from_f32<bf16>(ADD ? to_f32(y[i]) + value : value);
    }
}

extern "C" __global__ void dropout_forward(const bf16 *x, bf16 *y, u64 n, u64 seed, u64 stream, u32 threshold, float keep) {
    apply<false>(x, y, n, seed, stream, threshold, keep);
}
extern "C" __global__ void dropout_backward(const bf16 *dy, bf16 *dx, u64 n, u64 seed, u64 stream, u32 threshold, float keep) {
    apply<true>(dy, dx, n, seed, stream, threshold, keep);
}
