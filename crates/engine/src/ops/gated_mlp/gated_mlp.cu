// The gate of a gated MLP and its gradient, eight neighbouring elements a thread.
#include "common.cuh"

struct Gate {
    float value, slope;
};

// act(g) and act'(g).
template <bool GELU> __device__ __forceinline__ Gate gate_of(float g) {
    if (GELU) {
        const float k = 0.7978845608028654f, a = 0.044715f;
        float t = tanhf(k * (g + a * g * g * g));
        float inner = k * (1.0f + 3.0f * a * g * g);
        return {0.5f * g * (1.0f + t), 0.5f * (1.0f + t) + 0.5f * g * (1.0f - t * t) * inner};
    }
    float sigmoid = 1.0f / (1.0f + __expf(-g));
    return {g * sigmoid, sigmoid * (1.0f + g * (1.0f - sigmoid))};
}

template <bool GELU> __device__ __forceinline__ void forward(const bf16 *gate, const bf16 *up, bf16 *y, u64 n) {
    u64 at = (u64(blockIdx.x) * 256 + threadIdx.x) * 8;
    if (at >= n) return;
    if (at + 8 <= n && ((u64(gate) | u64(up) | u64(y)) & 15) == 0) {
        float g[8], u[8];
        load8(gate + at, g), load8(up + at, u);
#pragma unroll
        for (int j = 0; j < 8; j++) u[j] *= gate_of<GELU>(g[j]).value;
        store8(y + at, u);
    } else {
        for (u64 i = at; i < n && i < at + 8; i++) {
            y[i] = from_f32<bf16>(gate_of<GELU>(to_f32(gate[i])).value * to_f32(up[i]));
        }
    }
}

template <bool GELU>
__device__ __forceinline__ void backward(const bf16 *dy, const bf16 *gate, const bf16 *up, bf16 *dgate, bf16 *dup,
                                         u64 n) {
    u64 at = (u64(blockIdx.x) * 256 + threadIdx.x) * 8;
    if (at >= n) return;
    if (at + 8 <= n && ((u64(dy) | u64(gate) | u64(up) | u64(dgate) | u64(dup)) & 15) == 0) {
        float d[8], g[8], u[8];
        load8(dy + at, d), load8(gate + at, g), load8(up + at, u);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            Gate a = gate_of<GELU>(g[j]);
            g[j] = d[j] * u[j] * a.slope;
            u[j] = d[j] * a.value;
        }
        store8(dgate + at, g), store8(dup + at, u);
    } else {
        for (u64 i = at; i < n && i < at + 8; i++) {
            Gate a = gate_of<GELU>(to_f32(gate[i]));
            float d = to_f32(dy[i]), u = to_f32(up[i]);
            dgate[i] = from_f32<bf16>(d * u * a.slope);
            dup[i] = from_f32<bf16>(d * a.value);
        }
    }
}

extern "C" __global__ void gated_mlp_forward_silu(const bf16 *gate, const bf16 *up, bf16 *y, u64 n) {
    forward<false>(gate, up, y, n);
}
extern "C" __global__ void gated_mlp_forward_gelu(const bf16 *gate, const bf16 *up, bf16 *y, u64 n) {
    forward<true>(gate, up, y, n);
}
extern "C" __global__ void gated_mlp_backward_silu(const bf16 *dy, const bf16 *gate, const bf16 *up, bf16 *dgate,
                                                   bf16 *dup, u64 n) {
    backward<false>(dy, gate, up, dgate, dup, n);
}
extern "C" __global__ void gated_mlp_backward_gelu(const bf16 *dy, const bf16 *gate, const bf16 *up, bf16 *dgate,
                                                   bf16 *dup, u64 n) {
    backward<true>(dy, gate, up, dgate, dup, n);
}
