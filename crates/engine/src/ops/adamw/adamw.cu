// AdamW with f32 states, and with 8-bit states of which a block of threads does one block of 256 elements.
#include "common.cuh"
#include "dynamic_maps.cuh"

struct Factors {
    float beta1, beta2, one_less_beta1, one_less_beta2, step_size, decay, root, eps, scale;
    u32 decay_first;
};

// One element: its moments are updated in place and the new parameter is returned.
__device__ __forceinline__ float element(const Factors &f, float p, float g, float &m, float &v) {
    // Products and sums are rounded one by one, as on the CPU.
    m = __fadd_rn(__fmul_rn(m, f.beta1), __fmul_rn(f.one_less_beta1, g));
    v = __fadd_rn(__fmul_rn(v, f.beta2), __fmul_rn(__fmul_rn(f.one_less_beta2, g), g));
    float bottom = __fadd_rn(__fmul_rn(sqrtf(v), f.root), f.eps);
    float step = __fdiv_rn(__fmul_rn(f.step_size, m), bottom);
    return f.decay_first ? __fsub_rn(__fmul_rn(p, f.decay), step) : __fmul_rn(__fsub_rn(p, step), f.decay);
}

extern "C" __global__ void adamw_full(float *param, const float *gradient, float *m, float *v, u64 n, float beta1,
                                      float beta2, float one_less_beta1, float one_less_beta2, float step_size,
                                      float decay, float root, float eps, float scale, u32 decay_first) {
    u64 i = u64(blockIdx.x) * 256 + threadIdx.x;
    if (i >= n) return;
    Factors f = {beta1, beta2, one_less_beta1, one_less_beta2, step_size, decay, root, eps, scale, decay_first};
    float g = __fmul_rn(gradient[i], f.scale), first = m[i], second = v[i];
    if (!f.decay_first && !isfinite(g)) {
        m[i] = 0.0f, v[i] = 0.0f;
        return;
    }
    param[i] = element(f, param[i], g, first, second);
    m[i] = first, v[i] = second;
}

// The number of bounds that are not above the value.
__device__ __forceinline__ u32 nearest(const float *bounds, float value, float absmax) {
    float scaled = absmax > 0.0f ? __fdiv_rn(value, absmax) : 0.0f;
    u32 low = 0, high = 255;
    while (low < high) {
        u32 middle = (low + high) / 2;
        if (scaled >= bounds[middle]) low = middle + 1; else high = middle;
    }
    return low;
}

extern "C" __global__ void adamw_blockwise(float *param, const float *gradient, u8 *m_codes, u8 *v_codes, float *m_absmax,
                                           float *v_absmax, u64 n, float beta1, float beta2, float one_less_beta1,
                                           float one_less_beta2, float step_size, float decay, float root, float eps,
                                           float scale, u32 decay_first) {
    __shared__ float maps[2][256], bounds[2][256], shared[256 / WARP];
    u32 t = threadIdx.x;
    maps[0][t] = __uint_as_float(DYNAMIC_SIGNED[t]);
    maps[1][t] = __uint_as_float(DYNAMIC_UNSIGNED[t]);
    __syncthreads();
    if (t < 255) {
        // Bounds lie in the middle between neighbours, computed as tables::thresholds does.
        bounds[0][t] = THRESHOLD(maps[0][t], maps[0][t + 1]);
        bounds[1][t] = THRESHOLD(maps[1][t], maps[1][t + 1]);
    }
    __syncthreads();
    Factors f = {beta1, beta2, one_less_beta1, one_less_beta2, step_size, decay, root, eps, scale, decay_first};
    u64 i = u64(blockIdx.x) * 256 + t;
    float first = 0.0f, second = 0.0f;
    if (i < n) {
        float g = __fmul_rn(gradient[i], f.scale);
        if (isfinite(g)) {
            first = __fmul_rn(maps[0][m_codes[i]], m_absmax[blockIdx.x]);
            second = __fmul_rn(maps[1][v_codes[i]], v_absmax[blockIdx.x]);
            param[i] = element(f, param[i], g, first, second);
        }
    }
    float first_max = block_max<256>(fabsf(first), shared), second_max = block_max<256>(second, shared);
    if (t == 0) m_absmax[blockIdx.x] = first_max, v_absmax[blockIdx.x] = second_max;
    if (i >= n) return;
    u32 code = nearest(bounds[0], first, first_max);
    // The code must have the moment's sign, or the parameter would move the wrong way.
    if (signbit(maps[0][code]) != signbit(first)) {
        code = first > 0.0f ? min(code + 1, 255u) : (code > 0 ? code - 1 : 0);
    }
    m_codes[i] = u8(code);
    v_codes[i] = u8(nearest(bounds[1], second, second_max));
}
