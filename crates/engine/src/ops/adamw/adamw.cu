// AdamW with f32 states, and with 8-bit states of which a block of threads does blocks of 256 elements. The table says of
// each tensor what Tensor holds.
#include "common.cuh"
#include "dynamic_maps.cuh"

struct Factors {
    float beta1, beta2, one_less_beta1, one_less_beta2, step_size, decay, root, eps, scale;
    u32 decay_first;
};

// Parameter, gradient, moments (codes, where they have 8 bits) and their absmax, elements, and the bits of the decay's
// factor.
struct Tensor {
    float *param;
    const float *gradient;
    void *m, *v;
    float *m_absmax, *v_absmax;
    u64 n, decay;
};
static_assert(sizeof(Tensor) == 64, "eight words of the table");

__device__ __forceinline__ Tensor tensor_of(const Table &tensors) {
    return reinterpret_cast<const Tensor *>(tensors.words)[blockIdx.y];
}

// One element: its moments are updated in place and the new parameter is returned.
__device__ __forceinline__ float element(const Factors &f, float p, float g, float &m, float &v) {
    // Products and sums are rounded one by one, as on the CPU.
    m = __fadd_rn(__fmul_rn(m, f.beta1), __fmul_rn(f.one_less_beta1, g));
    v = __fadd_rn(__fmul_rn(v, f.beta2), __fmul_rn(__fmul_rn(f.one_less_beta2, g), g));
    float bottom = __fadd_rn(__fmul_rn(sqrtf(v), f.root), f.eps);
    float step = __fdiv_rn(__fmul_rn(f.step_size, m), bottom);
    return f.decay_first ? __fsub_rn(__fmul_rn(p, f.decay), step) : __fmul_rn(__fsub_rn(p, step), f.decay);
}

extern "C" __global__ void adamw_full(const __grid_constant__ Table tensors, float beta1, float beta2, float one_less_beta1,
                                      float one_less_beta2, float step_size, float root, float eps, float scale,
                                      u32 decay_first) {
    Tensor of = tensor_of(tensors);
    float *param = of.param, *m = static_cast<float *>(of.m), *v = static_cast<float *>(of.v);
    const float *gradient = of.gradient;
    float decay = __uint_as_float(u32(of.decay));
    Factors f = {beta1, beta2, one_less_beta1, one_less_beta2, step_size, decay, root, eps, scale, decay_first};
    u64 n = of.n;
    for (u64 i = u64(blockIdx.x) * 256 + threadIdx.x; i < n; i += u64(gridDim.x) * 256) {
        float g = __fmul_rn(gradient[i], f.scale), first = m[i], second = v[i];
        if (!f.decay_first && !isfinite(g)) {
            m[i] = 0.0f, v[i] = 0.0f;
            continue;
        }
        param[i] = element(f, param[i], g, first, second);
        m[i] = first, v[i] = second;
    }
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

extern "C" __global__ void adamw_blockwise(const __grid_constant__ Table tensors, float beta1, float beta2,
                                           float one_less_beta1, float one_less_beta2, float step_size, float root,
                                           float eps, float scale, u32 decay_first) {
    __shared__ float maps[2][256], bounds[2][256], shared[256 / WARP];
    Tensor of = tensor_of(tensors);
    u64 n = of.n;
    if (u64(blockIdx.x) * 256 >= n) return;
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
    u8 *m_codes = static_cast<u8 *>(of.m), *v_codes = static_cast<u8 *>(of.v);
    float decay = __uint_as_float(u32(of.decay));
    Factors f = {beta1, beta2, one_less_beta1, one_less_beta2, step_size, decay, root, eps, scale, decay_first};
    for (u64 block = blockIdx.x; block * 256 < n; block += gridDim.x) {
        u64 i = block * 256 + t;
        float first = 0.0f, second = 0.0f;
        if (i < n) {
            float g = __fmul_rn(of.gradient[i], f.scale);
            if (isfinite(g)) {
                first = __fmul_rn(maps[0][m_codes[i]], of.m_absmax[block]);
                second = __fmul_rn(maps[1][v_codes[i]], of.v_absmax[block]);
                of.param[i] = element(f, of.param[i], g, first, second);
            }
        }
        // The barriers within stand between all reads of the absmax above and the writes below.
        float first_max = block_max<256>(fabsf(first), shared), second_max = block_max<256>(second, shared);
        if (t == 0) of.m_absmax[block] = first_max, of.v_absmax[block] = second_max;
        if (i >= n) continue;
        u32 code = nearest(bounds[0], first, first_max);
        // The code must have the moment's sign, or the parameter would move the wrong way.
        if (signbit(maps[0][code]) != signbit(first)) {
            code = first > 0.0f ? min(code + 1, 255u) : (code > 0 ? code - 1 : 0);
        }
        m_codes[i] = u8(code);
        v_codes[i] = u8(nearest(bounds[1], second, second_max));
    }
}
