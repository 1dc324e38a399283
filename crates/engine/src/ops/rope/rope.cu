// Rotary position embedding in place: a thread turns V neighbouring pairs (i, i + half) of one head of `head_dim`.
#include "common.cuh"

template <int V>
__device__ __forceinline__ void turn(bf16 *x, const u32 *positions, const float *cosines, const float *sines,
                                     u64 total, u32 heads, u32 head_dim, u32 half, u32 table_rows, float direction) {
    u64 index = u64(blockIdx.x) * 256 + threadIdx.x;
    if (index >= total) return;
    u32 per_head = half / V;
    u32 i = u32(index % per_head) * V;
    u64 head = index / per_head;
    u32 position = positions[head / heads];
    bf16 *first = x + head * head_dim + i, *second = first + half;
    bool known = position < table_rows;
    const float *cosine = cosines + u64(known ? position : 0) * half + i;
    const float *sine = sines + u64(known ? position : 0) * half + i;
    if (V == 8) {
        float a[8], b[8], c[8], s[8];
        load8(first, a), load8(second, b), load8(cosine, c), load8(sine, s);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            // A position past the table shows as NaN instead of reading what is not there.
            float turn = known ? direction * s[j] : __uint_as_float(0x7fc00000u);
            float low = a[j] * c[j] - b[j] * turn, high = b[j] * c[j] + a[j] * turn;
            a[j] = low, b[j] = high;
        }
        store8(first, a), store8(second, b);
    } else {
        float a = to_f32(*first), b = to_f32(*second), c = *cosine;
        float turn = known ? direction * *sine : __uint_as_float(0x7fc00000u);
        *first = from_f32<bf16>(a * c - b * turn);
        *second = from_f32<bf16>(b * c + a * turn);
    }
}

extern "C" __global__ void rope_turn_8(bf16 *x, const u32 *positions, const float *cosines, const float *sines, u64 total,
                                       u32 heads, u32 head_dim, u32 half, u32 table_rows, float direction) {
    turn<8>(x, positions, cosines, sines, total, heads, head_dim, half, table_rows, direction);
}
extern "C" __global__ void rope_turn_1(bf16 *x, const u32 *positions, const float *cosines, const float *sines, u64 total,
                                       u32 heads, u32 head_dim, u32 half, u32 table_rows, float direction) {
    turn<1>(x, positions, cosines, sines, total, heads, head_dim, half, table_rows, direction);
}
