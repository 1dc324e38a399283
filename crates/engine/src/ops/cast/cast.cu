// bf16 to f32 and back, eight neighbouring elements a thread.
#include "common.cuh"

template <typename From, typename To> __device__ __forceinline__ void cast(const From *x, To *y, u64 n) {
    u64 at = (u64(blockIdx.x) * 256 + threadIdx.x) * 8;
    if (at >= n) return;
    if (at + 8 <= n && ((u64(x) | u64(y)) & 15) == 0) {
        float v[8];
        load8(x + at, v);
        store8(y + at, v);
    } else {
        for (u64 i = at; i < n && i < at + 8; i++) y[i] = from_f32<To>(to_f32(x[i]));
    }
}

extern "C" __global__ void cast_widen(const bf16 *x, float *y, u64 n) { cast(x, y, n); }
extern "C" __global__ void cast_narrow(const float *x, bf16 *y, u64 n) { cast(x, y, n); }
