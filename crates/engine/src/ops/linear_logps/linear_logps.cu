// What follows the head's product, a block a row of a tile of logits. Items of a row are order[starts[r]..starts[r + 1]].
#include "common.cuh"

// A scaled product under a soft cap, which is 0 for none.
__device__ __forceinline__ float capped(float value, float cap) { return cap > 0.0f ? cap * tanhf(value / cap) : value; }

// Caps a tile in its place, takes it into the running largest logit and sum of exponentials, and picks the logits of
// targets.
extern "C" __global__ void linear_logps_tile(float *logits, u32 width, u32 first_token, const u32 *starts,
                                             const u32 *order, const u32 *targets, float *tops, float *sums,
                                             float *logps, float cap) {
    __shared__ float shared[256 / WARP];
    u32 row = blockIdx.x;
    float *line = logits + u64(row) * width;
    float top = __uint_as_float(0xff800000u);
    for (u32 i = threadIdx.x; i < width; i += 256) {
        // Written and read again by the same thread; the picks below come after the barriers of the sums.
        if (cap > 0.0f) line[i] = capped(line[i], cap);
        top = fmaxf(top, line[i]);
    }
    float before = first_token == 0 ? __uint_as_float(0xff800000u) : tops[row];
    top = fmaxf(block_max<256>(top, shared), before);
    float sum = 0.0f;
    for (u32 i = threadIdx.x; i < width; i += 256) sum += expf(line[i] - top);
    sum = block_sum<256>(sum, shared);
    if (threadIdx.x == 0) {
        sums[row] = sum + (first_token == 0 ? 0.0f : sums[row] * expf(before - top));
        tops[row] = top;
    }
    for (u32 k = starts[row] + threadIdx.x; k < starts[row + 1]; k += 256) {
        u32 item = order[k], token = targets[item];
        if (token >= first_token && token - first_token < width) logps[item] = line[token - first_token];
    }
}

// lse = top + log(sum), and every item's logit becomes its log-probability.
extern "C" __global__ void linear_logps_finish(const u32 *starts, const u32 *order, const float *tops, const float *sums,
                                               float *lse, float *logps, u32 rows) {
    u32 row = blockIdx.x * 256 + threadIdx.x;
    if (row >= rows) return;
    float value = tops[row] + logf(sums[row]);
    lse[row] = value;
    for (u32 k = starts[row]; k < starts[row + 1]; k++) logps[order[k]] -= value;
}

// dlogits = (sum_i dlogp_i [v = t_i] - (sum_i dlogp_i) softmax) (1 - (logit / cap)^2), in bf16.
extern "C" __global__ void linear_logps_backward(const float *logits, u32 width, u32 first_token, const u32 *starts,
                                                 const u32 *order, const u32 *targets, const float *dlogps,
                                                 const float *lse, bf16 *dlogits, float cap) {
    u32 row = blockIdx.x, begin = starts[row], end = starts[row + 1];
    const float *line = logits + u64(row) * width;
    bf16 *to = dlogits + u64(row) * width;
    float total = 0.0f, shift = lse[row];
    for (u32 k = begin; k < end; k++) total += dlogps[order[k]];
    for (u32 i = threadIdx.x; i < width; i += 256) {
        float logit = capped(line[i], cap), value = -total * __expf(logit - shift);
        for (u32 k = begin; k < end; k++) {
            if (targets[order[k]] == first_token + i) value += dlogps[order[k]];
        }
        if (cap > 0.0f) value *= 1.0f - logit / cap * (logit / cap);
        to[i] = from_f32<bf16>(value);
    }
}
