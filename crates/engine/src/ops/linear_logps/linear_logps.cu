// What follows the head's product, a block a row of a tile of logits. Items of a row are order[starts[r]..starts[r + 1]].
#include "common.cuh"

// A scaled product under a soft cap, which is 0 for none.
__device__ __forceinline__ float capped(float value, float cap) { return cap > 0.0f ? cap * tanhf(value / cap) : value; }

// Less than every logit.
#define NONE __uint_as_float(0xff800000u)
// Loads of a thread that are under way at a time.
#define AHEAD 4

// Makes room for a logit: the sum of exponentials is below the largest logit so far.
__device__ __forceinline__ void take(float logit, float &most, float &sum) {
    if (logit > most) {
        sum *= expf(most - logit);
        most = logit;
    }
}

// Caps a tile in its place, takes it into the running largest logit and sum of exponentials, and picks the logits of
// targets.
extern "C" __global__ void linear_logps_tile(float *logits, u32 width, u32 first_token, const u32 *starts,
                                             const u32 *order, const u32 *targets, float *tops, float *sums,
                                             float *logps, float cap) {
    __shared__ float shared[256 / WARP];
    u32 row = blockIdx.x;
    float *line = logits + u64(row) * width;
    // The largest logit of this thread so far, and the sum of exponentials below it. The picks below come after the
    // barriers of the sums, so they see capped logits.
    float most = NONE, part = 0.0f;
    if (width % 4 == 0) {
        float4 *quads = reinterpret_cast<float4 *>(line);
        u32 n = width / 4;
        for (u32 i = threadIdx.x; i < n; i += 256 * AHEAD) {
            float4 v[AHEAD];
#pragma unroll
            for (int j = 0; j < AHEAD; j++) v[j] = i + 256 * j < n ? quads[i + 256 * j] : make_float4(NONE, NONE, NONE, NONE);
#pragma unroll
            for (int j = 0; j < AHEAD; j++) {
                if (i + 256 * j >= n) break;
                if (cap > 0.0f) {
                    v[j] = make_float4(capped(v[j].x, cap), capped(v[j].y, cap), capped(v[j].z, cap), capped(v[j].w, cap));
                    quads[i + 256 * j] = v[j];
                }
                take(fmaxf(fmaxf(v[j].x, v[j].y), fmaxf(v[j].z, v[j].w)), most, part);
                part += expf(v[j].x - most) + expf(v[j].y - most) + expf(v[j].z - most) + expf(v[j].w - most);
            }
        }
    } else {
        for (u32 i = threadIdx.x; i < width; i += 256) {
            float logit = capped(line[i], cap);
            if (cap > 0.0f) line[i] = logit;
            take(logit, most, part);
            part += expf(logit - most);
        }
    }
    float before = first_token == 0 ? NONE : tops[row];
    float top = fmaxf(block_max<256>(most, shared), before);
    // A thread without a logit has no sum either.
    float sum = block_sum<256>(part > 0.0f || part != part ? part * expf(most - top) : 0.0f, shared);
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
    // Of neighbouring logits, as many as are loaded at once; rows of other widths are not aligned for that.
    u32 each = width % 4 == 0 ? 4 : 1;
    for (u32 i = threadIdx.x * each; i < width; i += 256 * each) {
        float logit[4], value[4];
        if (each == 4) {
            float4 v = *reinterpret_cast<const float4 *>(line + i);
            logit[0] = v.x, logit[1] = v.y, logit[2] = v.z, logit[3] = v.w;
        } else {
            logit[0] = line[i], logit[1] = logit[2] = logit[3] = 0.0f;
        }
#pragma unroll
        for (int j = 0; j < 4; j++) {
            logit[j] = capped(logit[j], cap);
            value[j] = -total * __expf(logit[j] - shift);
        }
        for (u32 k = begin; k < end; k++) {
            u32 item = order[k], at = targets[item] - first_token - i;
#pragma unroll
            for (int j = 0; j < 4; j++) value[j] += at == j ? dlogps[item] : 0.0f;
        }
        if (cap > 0.0f) {
#pragma unroll
            for (int j = 0; j < 4; j++) value[j] *= 1.0f - logit[j] / cap * (logit[j] / cap);
        }
        if (each == 4) {
            *reinterpret_cast<uint2 *>(to + i) = make_uint2(pack_bf16(value[0], value[1]), pack_bf16(value[2], value[3]));
        } else {
            to[i] = from_f32<bf16>(value[0]);
        }
    }
}
